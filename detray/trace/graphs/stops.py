"""Where tasks and programs stood still in `get` or `wait`, and which object let them go on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from detray.ids import JobNumber, ObjectID, TaskID, root_task, task_of
from detray.trace.gathering.history import History
from detray.trace.gathering.lives import Wait
from detray.trace.names import is_a_put


class Standstill(NamedTuple):
    """One wait of one task, dates in nanoseconds."""

    started_ns: int
    ended_ns: int
    object: ObjectID
    """The one whose coming ended the wait; b"" if none did (it timed out, was given up)."""
    needs: tuple[ObjectID, ...]
    """Those without which it would not have ended: all of a `get`, one of a `wait` for some."""


class HasTimes(Protocol):
    """A wait, as a history or a graph tells of it."""

    @property
    def started_ns(self) -> int:
        """When it began."""
        ...

    @property
    def ended_ns(self) -> int:
        """When it was over."""
        ...


def waits_of(history: History) -> dict[TaskID, list[Standstill]]:
    """The waits of each task in the order of their ends, those of programs by their root task.

    Where a client waited for several things at once (threads), each is a wait of its own.
    """
    found: dict[TaskID, list[Standstill]] = {}
    for wait in history.waits:
        task = wait.task
        program = history.programs.get((wait.core, wait.client))
        if not task and program is not None:
            task = root_task(JobNumber(program.job))
        if task:
            last, needs = _ended_by(history, wait)
            found.setdefault(task, []).append(
                Standstill(wait.started_ns, wait.ended_ns, last, needs)
            )
    for stops in found.values():
        stops.sort(key=lambda stop: (stop.ended_ns, stop.started_ns))
    return found


def stretches(waits: Iterable[HasTimes], started_ns: int, ended_ns: int) -> list[tuple[int, int]]:
    """When a run stood still, as (begin, end) in order and apart: waits of threads may overlap."""
    found: list[tuple[int, int]] = []
    for wait in sorted(waits, key=_started_ns):
        until_ns = found[-1][1] if found else started_ns
        begin_ns, end_ns = max(wait.started_ns, until_ns), min(wait.ended_ns, ended_ns)
        if end_ns > begin_ns:
            found.append((begin_ns, end_ns))
    return found


def _started_ns(wait: HasTimes) -> int:
    return wait.started_ns


def _ended_by(history: History, wait: Wait) -> tuple[ObjectID, tuple[ObjectID, ...]]:
    if wait.timed_out or wait.is_abandoned:
        return ObjectID(b""), ()
    if wait.failed:
        return wait.failed, (wait.failed,)
    dated = [(_ready_ns(history, item), place) for place, item in enumerate(wait.objects)]
    ready = sorted(pair for pair in dated if pair[0] >= 0)
    if not ready:
        return ObjectID(b""), ()
    # What seems to have come after the wait did not end it, unless clocks differ.
    there = max(1, bisect_right(ready, (wait.ended_ns, len(dated))))
    last = wait.objects[ready[max(1, min(wait.needed, there)) - 1][1]]
    is_all = wait.needed >= len(wait.objects)
    return last, (wait.objects if is_all else (last,))


def _ready_ns(history: History, item: ObjectID) -> int:
    """When an object was there, or its failure; -1 if neither is known."""
    known = history.objects.get(item)
    if known is not None:
        return known.created_ns
    producer = None if is_a_put(item) else history.tasks.get(task_of(item))
    last = producer.last if producer is not None else None
    return last.ended_ns if last is not None else -1
