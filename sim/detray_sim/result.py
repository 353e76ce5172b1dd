"""What an experiment measured, as plain data: reports, tables and charts are made from it.

All times are integer nanoseconds of virtual time from the start of the run; -1: never happened.
"""

from __future__ import annotations

import msgspec


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The life of one task's last attempt."""

    number: int
    """In the workload."""
    id: str
    name: str
    node: int
    """Index of the node that ran it, from 0."""
    worker: int
    """Number of the worker process on that node, from 1."""
    attempt: int = 0
    submitted_ns: int = -1
    ready_ns: int = -1
    """When the last of its inputs was available somewhere."""
    started_ns: int = -1
    """When its worker began it (inputs local, CPU free)."""
    finished_ns: int = -1
    failed: str = ""


class TransferRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One object on its way between two nodes."""

    source: int
    target: int
    size_bytes: int
    started_ns: int
    finished_ns: int
    task: int = -1
    """Number of the task that made the object, -1 if none."""


class NodeShape(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the simulated cluster: slots, store, speed (1000: a core of speed 1)."""

    cpus: int
    store_bytes: int = 8 << 30
    speed_permille: int = 1000
    resources: tuple[tuple[str, int], ...] = ()
    """Others than CPU, in 1/10,000 units."""
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted by key."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one workload on one cluster under one policy with one seed."""

    workload: str
    policy: str
    seed: int
    nodes: tuple[NodeShape, ...]
    network: str
    makespan_ns: int
    tasks: tuple[TaskRecord, ...]
    transfers: tuple[TransferRecord, ...]
    digest: str
    """Of all stimuli and effects of all cores, in order: equal runs have equal digests."""
    core_steps: int = 0
    messages: int = 0
    """Between cores."""
    faults: dict[str, int] = {}
    wall_s: float = 0.0
    cpu_s: float = 0.0
