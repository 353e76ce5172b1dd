"""What a core is told before its first stimulus; it goes into the header of every trace."""

from __future__ import annotations

import msgspec

CORE_REVISION = 2
"""Raised whenever the same stimuli may give other effects: replay is exact within one revision."""

KIB = 1024
MS = 1_000_000


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Every number that steers a decision. Times in nanoseconds, sizes in bytes."""

    inline_bytes_max: int = 100 * KIB
    """Larger values go to a block (Ray: max_direct_call_object_size)."""
    inline_total_bytes_max: int = 1 << 30
    """Above this much inline payload in the service, old values move to disk (PROTOCOL T9)."""
    answer_bytes_max: int = 4 << 20
    """A GetAnswered with more inline payload than this is cut into several."""
    pipeline_depth_max: int = 64
    pipeline_ns: int = 2 * MS
    """Runs are pre-sent to a worker for about this long (reference: budgets, choice 3)."""
    stall_check_ns: int = 10 * MS
    """A worker that finished nothing for this long gives back what it has not begun."""
    idle_worker_ns: int = 1_000 * MS
    """Workers beyond the node's CPUs end after this much idleness."""
    worker_starts_max: int = 8
    """Workers starting at the same time."""
    workers_max: int = 4096
    infeasible_grace_ns: int = 2_000 * MS
    deadlock_check_ns: int = 1_000 * MS
    """Blocked runs are searched for cycles this often while others go on."""
    starvation_passes: int = 1_000
    """A demand passed over this often reserves what it needs (PROTOCOL T11)."""
    retraction_off: bool = False
    """Safeguard switch for test builds."""


class LocalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A node's local scheduler. `totals` in 1/10,000 units, sorted by name."""

    node_name: str
    totals: tuple[tuple[str, int], ...]
    arena_bytes: int
    infeasible: str = "wait"
    """"wait", or "raise": fail at once what no node can ever run (PROTOCOL N20)."""
    stop_with_last_driver: bool = True
    """A private cluster ends when its driver does."""
    prestart_workers: int = 0
    policy: Policy = Policy()


class GlobalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The head's global scheduler."""

    first_job: int = 1
    policy: Policy = Policy()
