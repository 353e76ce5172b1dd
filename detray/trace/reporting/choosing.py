"""Which tasks a report tells one by one where not all fit, and what it says of the rest.

Kept are, in this order and as far as there is room: tasks on the critical path, tasks that failed
or were run again, the longest, those that launched others, and of all others every n-th. The rest
is in all sums; where it ran, runs in close succession are one `RunBlock`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from detray.ids import ClientID, TaskID
from detray.trace.gathering.history import History, Seat
from detray.trace.gathering.lives import FINISHED, Attempt, TaskLife

TASKS_MAX = 120_000
"""More are not told one by one: the page stays below 5 MB."""
BLOCKS_MAX = 40_000
_SHARE = 4
"""Troubled, long and launching tasks may each take a quarter of the room."""


class RunBlock(NamedTuple):
    """Runs on a worker, one after another, told together; `name` is "" if of several functions."""

    seat: Seat
    name: str
    started_ns: int
    ended_ns: int
    busy_ns: int
    runs: int
    failed: int


def choose(
    history: History, on_path: Collection[TaskID], tasks_max: int = TASKS_MAX
) -> list[TaskLife]:
    """The tasks to be told one by one, in the order of the trace."""
    lives = list(history.tasks.values())
    if len(lives) <= tasks_max:
        return lives
    kept: set[TaskID] = set()
    quarter = tasks_max // _SHARE
    parents = {life.parent for life in lives}
    troubled = (life for life in lives if life.state != FINISHED or len(life.attempts) > 1)
    long = sorted(lives, key=lambda life: (-_length_ns(life), life.id))
    _keep(kept, (life.id for life in lives if life.id in on_path), tasks_max)
    for group in (troubled, long, (life for life in lives if life.id in parents)):
        _keep(kept, (life.id for life in group), min(tasks_max, len(kept) + quarter))
    rest = [life.id for life in lives if life.id not in kept]
    room = tasks_max - len(kept)
    _keep(kept, (rest[n * len(rest) // room] for n in range(room)), tasks_max)
    return [life for life in lives if life.id in kept]


def blocks(history: History, kept: Collection[TaskID], span_ns: int) -> list[RunBlock]:
    """The runs of all other tasks, put together where less than a pixel or so lies between."""
    seats: dict[Seat, list[tuple[int, Attempt, str]]] = {}
    for life in history.tasks.values():
        if life.id in kept:
            continue
        for run in life.attempts:
            began_ns = run.started_ns if run.started_ns >= 0 else run.sent_ns
            if run.core >= 0 and run.worker and 0 <= began_ns <= run.ended_ns:
                seats.setdefault((run.core, run.worker), []).append((began_ns, run, life.name))
    gap_ns = span_ns * max(1, len(seats)) // BLOCKS_MAX
    return [
        block
        for seat in sorted(seats)
        for block in _joined(seat, sorted(seats[seat], key=lambda row: row[0]), gap_ns)
    ]


def _joined(
    seat: tuple[int, ClientID], rows: Iterable[tuple[int, Attempt, str]], gap_ns: int
) -> Iterator[RunBlock]:
    """Runs with no more than `gap_ns` between them; in a longer stretch the function must agree."""
    now: RunBlock | None = None
    for began_ns, run, name in rows:
        one = RunBlock(
            seat, name, began_ns, run.ended_ns, run.ended_ns - began_ns, 1, run.state != FINISHED
        )
        if now is None or began_ns - now.ended_ns > gap_ns:
            fits = False
        else:
            fits = now.name == name or run.ended_ns - now.started_ns <= gap_ns
        if now is not None and fits:
            now = now._replace(
                name=now.name if now.name == name else "",
                ended_ns=max(now.ended_ns, one.ended_ns),
                busy_ns=now.busy_ns + one.busy_ns,
                runs=now.runs + 1,
                failed=now.failed + one.failed,
            )
            continue
        if now is not None:
            yield now
        now = one
    if now is not None:
        yield now


def _keep(kept: set[TaskID], ids: Iterable[TaskID], count_max: int) -> None:
    for item in ids:
        if len(kept) >= count_max:
            return
        kept.add(item)


def _length_ns(life: TaskLife) -> int:
    run = life.last
    return run.ended_ns - run.started_ns if run is not None and run.started_ns >= 0 else -1
