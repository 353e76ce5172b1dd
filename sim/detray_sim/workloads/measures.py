"""What can be said of a workload without running it: counts, work, critical path, levels."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import msgspec

from detray_sim.workload import TaskSpec, Workload


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """A workload in numbers."""

    tasks: int
    edges: int
    """Pairs of tasks of which one takes something of the other."""
    objects: int
    objects_bytes: int
    files_bytes: int
    depth: int
    """Tasks on the longest path."""
    work_ns: int
    """Sum of durations."""
    cpu_work_ns: int
    """Sum of durations times CPUs."""
    critical_path_ns: int
    """The longest path by durations, transfers not counted: no schedule is shorter."""


def measure(workload: Workload) -> Measures:
    """All numbers of a workload."""
    tasks = workload.tasks
    return Measures(
        tasks=len(tasks),
        edges=sum(len(parents_of(task)) for task in tasks),
        objects=sum(len(task.outputs) for task in tasks),
        objects_bytes=sum(sum(task.outputs) for task in tasks),
        files_bytes=sum(task.files_bytes for task in tasks),
        depth=max((level + 1 for level in levels(workload)), default=0),
        work_ns=sum(task.duration_ns for task in tasks),
        cpu_work_ns=sum(task.duration_ns * _cpu_units(task) for task in tasks) // 10_000,
        critical_path_ns=max(b_levels(workload), default=0),
    )


def parents_of(task: TaskSpec) -> tuple[int, ...]:
    """The numbers of the tasks that `task` takes from, each once, in order of its inputs."""
    return tuple(dict.fromkeys(producer for producer, _ in task.inputs))


def levels(workload: Workload) -> list[int]:
    """For each task, how many tasks precede it on the longest path that ends there."""
    found: list[int] = []
    for task in workload.tasks:
        found.append(max((found[parent] + 1 for parent in parents_of(task)), default=0))
    return found


def b_levels(workload: Workload, duration_ns: Callable[[TaskSpec], int] | None = None) -> list[int]:
    """For each task, the longest path from its beginning to the end of the workload, in ns.

    Transfers do not count. `duration_ns` tells how long a task is believed to take; default: its
    true duration on a machine of speed 1.
    """
    below = [0] * len(workload.tasks)
    for number in range(len(workload.tasks) - 1, -1, -1):
        task = workload.tasks[number]
        below[number] += duration_ns(task) if duration_ns else task.duration_ns
        for parent in parents_of(task):
            below[parent] = max(below[parent], below[number])
    return below


def digest(workload: Workload) -> str:
    """A hash of name and tasks: equal for equal workloads, wherever they were made or read."""
    content = msgspec.msgpack.encode((workload.name, workload.tasks))
    return blake2b(content, digest_size=16).hexdigest()


def _cpu_units(task: TaskSpec) -> int:
    return dict(task.demand).get("CPU", 0)
