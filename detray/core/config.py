"""What a core is told before its first stimulus; it goes into the header of every trace."""

from __future__ import annotations

import msgspec

CORE_REVISION = 5
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
    hand_over: str = "surplus"
    """What goes to the head for placement: the "surplus" of a busy node (and what should rather run
    where its arguments are), "always" every task, or "never" any that can run here."""
    surplus_rounds: int = 2
    """A node keeps as many ready tasks as it can run in this many rounds before it offers some."""
    patience_ns: int = 20 * MS
    """Ready tasks of which none began for so long are offered, too: they wait for long ones."""
    asks_max: int = 256
    """Tasks that wait at the head for a place, per node."""
    locality_bytes: int = 100 * KIB
    """A task follows its arguments if so many more bytes lie at another node than here."""
    queue_rounds: int = 1
    """The head fills a node up to as many waiting tasks as it can run in this many rounds."""
    queue_rounds_max: int = 64
    """Where runs are short it is more rounds: as many as end within three report intervals, so that
    the next report, and what the head sends then, come in time; but no more than this."""
    placement_interval_ns: int = 0
    """The head decides at most this often (0: whenever something reaches it)."""
    report_interval_ns: int = 5 * MS
    """A node tells its load at most this often (0: whenever it changes)."""
    heartbeat_ns: int = 500 * MS
    death_ns: int = 5_000 * MS
    """A node that was silent for this long is buried."""
    return_grace_ns: int = 10_000 * MS
    """A member that a restarted head has not heard of for this long is buried (PROTOCOL D 39)."""
    unreachable_grace_ns: int = 2_000 * MS
    """Two nodes that cannot talk for this long cost one of them its life (PROTOCOL N16)."""
    in_flight_ns: int = 1_000 * MS
    """The head forgets placements that no report has confirmed after this long."""
    lease_ns: int = 100 * MS
    """A place that the head named serves its owner again for this long (PROTOCOL T23; 0: never)."""
    pull_share_permille: int = 250
    """Share of the arena that arriving arguments may take at once; one always may (N12)."""
    pull_retry_ns: int = 10 * MS
    """A pull that came to nothing twice, as transfers broke, pauses so long; then twice as long."""
    pull_retry_max_ns: int = 500 * MS
    """And never longer."""
    lineage_bytes_max: int = 256 << 20
    rebalance: bool = False
    """The head calls back waiting runs from loaded nodes when others idle (work stealing)."""
    retraction_off: bool = False
    """Safeguard switches for test builds: each turns one rule of docs/protocol.md off."""
    attempt_check_off: bool = False
    fencing_off: bool = False
    pin_off: bool = False
    in_flight_hold_off: bool = False
    grant_count_off: bool = False
    acceptance_check_off: bool = False
    promotion_off: bool = False
    lineage_off: bool = False
    transfer_check_off: bool = False
    wanted_check_off: bool = False
    burial_cleanup_off: bool = False


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
    address: str = ""
    """Where other nodes reach this one."""
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted by key."""
    life: str = ""
    """Names the process that this core lives in, and no other ever; "" if heads do not restart."""
    policy: Policy = Policy()


class GlobalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The head's global scheduler."""

    first_job: int = 1
    placement: str = "hybrid"
    """Name of the placement policy (`placement.py`)."""
    seed: int = 0
    """Of what a policy draws."""
    policy: Policy = Policy()
