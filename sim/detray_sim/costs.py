"""What things cost on a simulated machine: times in nanoseconds, rates in bytes per second."""

from __future__ import annotations

import msgspec

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
MB = 1_000_000


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Times that pass beside those that programs and networks take. All may be 0.

    **Source**: `docs/performance.md` for one machine; the rest are round numbers.
    """

    ipc_ns: int = 8 * US
    """A frame from a process to its node's service, or back."""
    step_ns: int = 6 * US
    """A core's step: wake-up, reading, writing."""
    stimulus_ns: int = 3 * US
    """And for each stimulus in it."""
    effect_ns: int = 2 * US
    """And for each effect that it orders."""
    submit_ns: int = 5 * US
    """A program's own time for a submission, a put or a drop."""
    run_ns: int = 15 * US
    """A worker's own time for a run: load arguments, call, pickle the result."""
    flush_ns: int = 2 * MS
    """What a program left behind is sent by its flusher after this time."""
    worker_start_ns: int = 4 * MS
    worker_start_spread_ns: int = 0
    """The start of a worker takes up to this much longer, by lot."""
    death_ns: int = 1 * MS
    """From the death of a process to its report."""
    gone_ns: int = 0
    """From that report to the one that all forks and mappings are gone."""
    copy_bytes_per_s: int = 6_000 * MB
    """A process writes a block."""
    disk_bytes_per_s: int = 500 * MB
    disk_open_ns: int = 100 * US
    """To make a file and reserve its room."""
    disk_bytes: int = 1 << 40
    """Room for spilling on each machine."""
    latency_ns: int = 100 * US
    """One way between two machines, for the built-in network."""
    bandwidth_bytes_per_s: int = 1_250 * MB
    """Of each flow, for the built-in network."""
    reset_ns: int = 1 * MS
    """From the death of one end of a transfer to the other end's error."""
    stall_ns: int = 5 * SECOND
    """A transfer that gets no further for so long fails."""
    silence_ns: int = 1 * SECOND
    """A link that is silent for so long, though there is something to say, is reported."""
    rejoin_ns: int = 1 * SECOND
    """From leaving the cluster to coming back, empty."""
    redial_ns: int = 100 * MS
    """From one try of a node to reach the head again to the next; the wait grows to ten times."""
    boot_ns: int = 0
    """From the start of a machine to its service."""


FREE = Costs(
    ipc_ns=0,
    step_ns=0,
    stimulus_ns=0,
    effect_ns=0,
    submit_ns=0,
    run_ns=0,
    flush_ns=0,
    worker_start_ns=0,
    death_ns=0,
    copy_bytes_per_s=0,
    disk_open_ns=0,
    disk_bytes_per_s=0,
    latency_ns=0,
    bandwidth_bytes_per_s=0,
)
"""Nothing takes time but what programs say; a rate of 0 means at once."""


def time_of(size_bytes: int, bytes_per_s: int) -> int:
    """Nanoseconds for so many bytes at that rate (0: at once), rounded up."""
    return -(-size_bytes * SECOND // bytes_per_s) if bytes_per_s else 0
