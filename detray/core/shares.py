"""Equal shares for jobs that compete: whose turn it is.

Rules (PROTOCOL T11)
--------------------
- While several jobs have tasks that wait, each is charged what it is given, in 1/10,000 CPU, nested
  tasks included (a task's id names its job). The one that was charged least goes next, of equals
  the first; what fits nowhere now lets the others go first and keeps its turn.
- Being away earns nothing: a job that comes (back) starts where the others are.
- One job alone is charged nothing; when a second comes, both start from what they have in hand.

**Source**: start-time fair queuing (Goyal, Vin, Cheng 1996). It promises what deficit round robin
does (no two jobs are further apart than one task of each), and needs no quantum, which demands of
very different size make hard to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from detray.ids import JobNumber

LEAST = 1_000
"""What a task is charged that asks for less CPU than this, or for none: it still takes a turn."""

Shares = dict[JobNumber, int]


def begin(shares: Shares, held: Mapping[JobNumber, int]) -> None:
    """Jobs begin to compete, and have this in hand."""
    shares.update(held)


def join(shares: Shares, now: int, jobs: Iterable[JobNumber]) -> None:
    """These jobs compete; `now` is where the one that went last stood."""
    for job in jobs:
        if shares.get(job, 0) < now:
            shares[job] = now


def choose(shares: Shares, jobs: Iterable[JobNumber]) -> JobNumber:
    """Whose turn it is among jobs that joined."""
    return min(jobs, key=lambda job: (shares.get(job, 0), job))


def charge(
    shares: Shares, job: JobNumber, demand: tuple[tuple[str, int], ...], count: int = 1
) -> int:
    """The job was given this `count` times; where it stood before."""
    before = shares.get(job, 0)
    cpu = next((amount for name, amount in demand if name == "CPU"), 0)
    shares[job] = before + max(cpu, LEAST) * count
    return before
