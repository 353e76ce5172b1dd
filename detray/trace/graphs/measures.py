"""What can be said of a run in numbers: width over time, levels, functions.

A task that stands still in `get` does not compute. Work, span and slack: `span.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from detray.trace.gathering.lives import CANCELLED, FAILED, FINISHED
from detray.trace.graphs.computation import TaskRow, computation

if TYPE_CHECKING:
    from detray.trace.graphs.computation import Source


class Width(NamedTuple):
    """From a moment on, until the next of its kind: how many tasks compute, and how many stand."""

    time_ns: int
    running: int
    blocked: int
    """Begun, and waiting in `get`."""


class FunctionStats(NamedTuple):
    """All calls of one function; times are those of last attempts, without standing in `get`."""

    name: str
    calls: int
    finished: int
    failed: int
    cancelled: int
    retries: int
    """Attempts beyond the first."""
    total_ns: int
    mean_ns: int
    median_ns: int
    p95_ns: int
    max_ns: int
    waiting_ns: int
    """From submission to the beginning of the last attempt, together."""
    blocked_ns: int
    """Within last attempts, together."""
    returned_bytes: int


def width(source: Source) -> list[Width]:
    """How many tasks run at each time, as steps; every attempt counts, programs do not.

    (But for those whose beginning is not known: their worker died.)

    Begins with the first beginning and ends with 0 and 0.
    """
    changes: list[tuple[int, int, int]] = []
    for task in computation(source).tasks:
        for run in task.runs:
            if task.is_root or not run.is_timed:
                continue
            changes += (run.started_ns, 1, 0), (run.ended_ns, -1, 0)
            for begin_ns, end_ns in task.stretches(run):
                changes += (begin_ns, -1, 1), (end_ns, 1, -1)
    changes.sort()
    steps: list[Width] = []
    running = blocked = 0
    was = (-1, -1)
    for place, (time_ns, more, standing) in enumerate(changes, 1):
        running, blocked = running + more, blocked + standing
        if place < len(changes) and changes[place][0] == time_ns:
            continue
        if was != (running, blocked):
            was = running, blocked
            steps.append(Width(time_ns, running, blocked))
    return steps


def parallelism_profile(steps: Sequence[Width]) -> dict[int, int]:
    """For each number of running tasks, for how many nanoseconds it was that; ascending."""
    profile: Counter[int] = Counter()
    for step, following in pairwise(steps):
        profile[step.running] += following.time_ns - step.time_ns
    return dict(sorted(profile.items()))


def mean_width(steps: Sequence[Width]) -> float:
    """Running tasks on average from the first beginning to the last end; 0 if nothing ran."""
    if len(steps) < 2 or steps[-1].time_ns == steps[0].time_ns:
        return 0.0
    profile = parallelism_profile(steps)
    area = sum(running * length for running, length in profile.items())
    return area / (steps[-1].time_ns - steps[0].time_ns)


def levels(source: Source) -> dict[str, int]:
    """How many tasks precede each on the longest way to it, by arguments and by submission.

    Programs are not counted and have level 0, as have the tasks that they submit without arguments.
    """
    rows = computation(source)
    tasks = rows.tasks
    after: list[list[int]] = [[] for _ in tasks]
    missing = [0] * len(tasks)
    for place, task in enumerate(tasks):
        for before in (*task.args, *([task.parent] if task.parent >= 0 else [])):
            after[before].append(place)
            missing[place] += 1
    level = [0] * len(tasks)
    ready = [place for place, count in enumerate(missing) if not count]
    for place in ready:
        reached = level[place] + (0 if tasks[place].is_root else 1)
        for following in after[place]:
            level[following] = max(level[following], reached)
            missing[following] -= 1
            if not missing[following]:
                ready.append(following)
    return {task.id: level[place] for place, task in enumerate(tasks)}


def functions(source: Source) -> list[FunctionStats]:
    """Numbers of each function, the one that computed most first."""
    groups: dict[str, list[TaskRow]] = {}
    for task in computation(source).tasks:
        if not task.is_root:
            groups.setdefault(task.name, []).append(task)
    found = [_stats(name, tasks) for name, tasks in groups.items()]
    return sorted(found, key=lambda stats: (-stats.total_ns, stats.name))


def _stats(name: str, tasks: Sequence[TaskRow]) -> FunctionStats:
    states = Counter(task.state for task in tasks)
    last = [(task, run) for task in tasks if (run := task.last) is not None]
    times = sorted(task.computed_ns() for task, _ in last)
    return FunctionStats(
        name=name,
        calls=len(tasks),
        finished=states[FINISHED],
        failed=states[FAILED],
        cancelled=states[CANCELLED],
        retries=sum(max(0, len(task.runs) - 1) for task in tasks),
        total_ns=sum(times),
        mean_ns=sum(times) // len(times) if times else 0,
        median_ns=quantile(times, 50),
        p95_ns=quantile(times, 95),
        max_ns=times[-1] if times else 0,
        waiting_ns=sum(
            max(0, run.started_ns - task.submitted_ns)
            for task, run in last
            if task.submitted_ns >= 0
        ),
        blocked_ns=sum(task.blocked_ns(run) for task, run in last),
        returned_bytes=sum(task.returned_bytes for task in tasks),
    )


def quantile(ordered: Sequence[int], percent: int) -> int:
    """The least of ascending values that `percent` of them do not exceed; 0 of none."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0
