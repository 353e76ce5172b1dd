"""How times changed from one run to another, by function and by task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from detray.ids import TaskID
from detray.trace.comparing.causes import Pair
from detray.trace.comparing.runs import RunRecord
from detray.trace.gathering.lives import TaskLife
from detray.trace.names import short

FELT_NS = 1_000_000
"""Ratios of shorter changes say nothing."""


class TaskTimes(msgspec.Struct, frozen=True, kw_only=True):
    """A task in both runs; times in nanoseconds, of its last attempt. -1: not known.

    It ran while it did not stand still in `get` or `wait`.
    """

    name: str
    short: str
    id_a: str
    id_b: str
    ran_a_ns: int
    ran_b_ns: int
    waited_a_ns: int
    """From its submission until it began, and in `get` and `wait`."""
    waited_b_ns: int

    @property
    def change_ns(self) -> int:
        """How much longer it took in the second run, waiting included."""
        return ran_change(self) + waited_change(self)


class FunctionTimes(msgspec.Struct, frozen=True, kw_only=True):
    """All calls of one function that ended in both runs, together."""

    name: str
    calls: int
    ran_a_ns: int
    ran_b_ns: int
    waited_a_ns: int
    waited_b_ns: int

    @property
    def change_ns(self) -> int:
        """How much longer they took in the second run, waiting included."""
        return self.ran_b_ns - self.ran_a_ns + self.waited_b_ns - self.waited_a_ns


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Both makespans, and what changed most, the greatest change first."""

    makespan_a_ns: int
    makespan_b_ns: int
    ran_a_ns: int
    """All tasks that ended in both."""
    ran_b_ns: int
    waited_a_ns: int
    waited_b_ns: int
    functions: list[FunctionTimes]
    tasks: list[TaskTimes]
    ratios: list[TaskTimes]
    """Those whose running time changed by the greatest factor."""


def ran_change(times: TaskTimes) -> int:
    """How much longer it ran; 0 if that is not known."""
    if times.ran_a_ns < 0 or times.ran_b_ns < 0:
        return 0
    return times.ran_b_ns - times.ran_a_ns


def waited_change(times: TaskTimes) -> int:
    """How much longer it waited; 0 if that is not known."""
    if times.waited_a_ns < 0 or times.waited_b_ns < 0:
        return 0
    return times.waited_b_ns - times.waited_a_ns


def compare_times(pairs: Iterable[Pair], a: RunRecord, b: RunRecord, top: int) -> Times:
    """Times of the tasks that are in both runs; at most `top` of each kind."""
    found = [times for pair in pairs if (times := _of(pair, a.stood_ns, b.stood_ns)) is not None]
    functions: dict[str, list[TaskTimes]] = {}
    for times in found:
        functions.setdefault(times.name, []).append(times)
    sums = [_sum(name, calls) for name, calls in functions.items()]
    changed = [item for item in sums if item.change_ns]
    moved = [item for item in found if item.change_ns]
    felt = [item for item in found if abs(ran_change(item)) >= FELT_NS]
    total = _sum("", found)
    return Times(
        makespan_a_ns=makespan_ns(a.tasks),
        makespan_b_ns=makespan_ns(b.tasks),
        ran_a_ns=total.ran_a_ns,
        ran_b_ns=total.ran_b_ns,
        waited_a_ns=total.waited_a_ns,
        waited_b_ns=total.waited_b_ns,
        functions=sorted(changed, key=lambda item: (-abs(item.change_ns), item.name))[:top],
        tasks=sorted(moved, key=lambda item: -abs(item.change_ns))[:top],
        ratios=sorted(felt, key=lambda item: -_factor(item))[:top],
    )


def makespan_ns(tasks: Mapping[TaskID, TaskLife]) -> int:
    """From the first submission, or beginning, to the end of the last task; -1 without any."""
    began = [life.submitted_ns for life in tasks.values() if life.submitted_ns >= 0]
    runs = [run for life in tasks.values() for run in life.attempts]
    began += [run.started_ns for run in runs if run.started_ns >= 0]
    ended = [run.ended_ns for run in runs if run.ended_ns >= 0]
    return max(ended) - min(began) if began and ended else -1


def _factor(times: TaskTimes) -> float:
    low, high = sorted((times.ran_a_ns, times.ran_b_ns))
    return high / max(low, 1)


def _of(
    pair: Pair, stood_a_ns: Mapping[TaskID, int], stood_b_ns: Mapping[TaskID, int]
) -> TaskTimes | None:
    a, b = pair.a, pair.b
    if a is None or b is None:
        return None
    in_get_a_ns, in_get_b_ns = stood_a_ns.get(a.id, 0), stood_b_ns.get(b.id, 0)
    times = TaskTimes(
        name=a.name,
        short=short(a.id),
        id_a=a.id.hex(),
        id_b=b.id.hex(),
        ran_a_ns=_ran(a, in_get_a_ns),
        ran_b_ns=_ran(b, in_get_b_ns),
        waited_a_ns=_waited(a, in_get_a_ns),
        waited_b_ns=_waited(b, in_get_b_ns),
    )
    return times if times.ran_a_ns >= 0 and times.ran_b_ns >= 0 else None


def _ran(life: TaskLife, in_get_ns: int) -> int:
    last = life.last
    if last is None or last.started_ns < 0 or last.ended_ns < 0:
        return -1
    return max(0, last.ended_ns - last.started_ns - in_get_ns)


def _waited(life: TaskLife, in_get_ns: int) -> int:
    last = life.last
    if last is None or last.started_ns < 0 or life.submitted_ns < 0:
        return -1
    return max(0, last.started_ns - life.submitted_ns) + in_get_ns


def _sum(name: str, calls: list[TaskTimes]) -> FunctionTimes:
    waited = [item for item in calls if item.waited_a_ns >= 0 and item.waited_b_ns >= 0]
    return FunctionTimes(
        name=name,
        calls=len(calls),
        ran_a_ns=sum(item.ran_a_ns for item in calls),
        ran_b_ns=sum(item.ran_b_ns for item in calls),
        waited_a_ns=sum(item.waited_a_ns for item in waited),
        waited_b_ns=sum(item.waited_b_ns for item in waited),
    )
