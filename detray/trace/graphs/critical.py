"""The critical path of a run: why it took as long as it did, back from the task that ended last.

What is walked are recorded times, not a model of them. Whatever a task did last before a moment is
a part of the path; before that came what let it begin, and the walk goes on there:

- a wait in `get` ended when the task that made the awaited value did;
- a task began when its worker was free: if that was after all it needed was there, the path goes
  on in the task that the worker, or a CPU of the node, was busy with;
- else when the last of its arguments was made, the attempt before was over, or its submitter
  submitted it.

Each step costs the logarithm of the number of runs: a path through 100,000 tasks takes a second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from detray.trace.graphs.computation import (
    NOBODY,
    Computation,
    Halt,
    RunRow,
    Source,
    TaskRow,
    computation,
)

RUN, PROGRAM, LOST_RUN, UNKNOWN = "run", "program", "lost", "unknown"
GET, ARGUMENTS, PLACE, QUEUE, START = "get", "arguments", "place", "queue", "start"
SUBMIT, RETRY, WORKER, NOTHING = "submit", "retry", "worker", ""
NO_RUN = RunRow(-1, -1, -1, "", 0)

Ended = tuple[int, int, int]
"""When a run ended, its task and its number."""


class PathPart(NamedTuple):
    """A stretch of the critical path; dates in nanoseconds."""

    task: str
    """The task's name in the graph: its id in hexadecimal."""
    name: str
    """Its function, or the program's file."""
    kind: str
    """"run": it computed; "program": so did the program itself, which submits; "lost": it computed
    for nothing, or was sent to a worker that died; or what it waited for:

    "place": it was ready, and no worker or CPU was free; "queue": it was sent to a worker that was
    not through with another; "start": it was sent to a free worker, and needed what is not there;
    "get", "arguments": the value was made, and had to come to who waited; "unknown".
    """
    started_ns: int
    ended_ns: int
    node: str
    worker: int
    after: str
    """What ties it to the part before: "get" and "arguments": that task made the value; "submit":
    submitted it; "worker": occupied the worker or CPU; "retry": the attempt before; "": the same
    task, or the beginning.
    """

    @property
    def length_ns(self) -> int:
        """How long it took."""
        return self.ended_ns - self.started_ns


class CriticalPath(NamedTuple):
    """Parts in the order of time, without gaps, from the first submission to the last end."""

    parts: tuple[PathPart, ...]

    @property
    def length_ns(self) -> int:
        """From beginning to end; 0 if nothing ran."""
        return self.parts[-1].ended_ns - self.parts[0].started_ns if self.parts else 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks on the path, each once, in order."""
        return tuple(dict.fromkeys(part.task for part in self.parts))

    def by_kind(self) -> dict[str, int]:
        """Nanoseconds of each kind, the largest first."""
        return self._sums("kind")

    def by_name(self) -> dict[str, int]:
        """Nanoseconds of each function, the largest first."""
        return self._sums("name")

    def _sums(self, field: str) -> dict[str, int]:
        sums: dict[str, int] = {}
        for part in self.parts:
            key = getattr(part, field)
            sums[key] = sums.get(key, 0) + part.length_ns
        return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def critical_path(source: Source) -> CriticalPath:
    """The chain of causes that ends with the task that ended last. Empty if none is known to have.

    Of attempts that ended at the same time, the one of the task submitted last is taken.
    """
    return _Walk(computation(source)).path()


class _At(NamedTuple):
    """Where the walk is: in a run of a task, at a moment."""

    task: int
    run: int
    now_ns: int


class _Walk:
    """Backwards through a computation; parts are found last first."""

    def __init__(self, rows: Computation) -> None:
        self._tasks = rows.tasks
        self._parts: list[PathPart] = []
        submitted = [task.submitted_ns for task in rows.tasks if task.submitted_ns >= 0]
        self._begin_ns = min(submitted, default=0)
        self._seats: dict[tuple[str, int], list[Ended]] = {}
        self._nodes: dict[str, list[Ended]] = {}
        self._halt_ends: dict[int, list[int]] = {}
        self._index()

    def _index(self) -> None:
        """Runs by where they were, in the order of their ends."""
        for place, task in enumerate(self._tasks):
            for number, run in enumerate(task.runs):
                if run.is_whole and not task.is_root:
                    entry = (run.ended_ns, place, number)
                    self._seats.setdefault((run.node, run.worker), []).append(entry)
                    self._nodes.setdefault(run.node, []).append(entry)
        for runs in (*self._seats.values(), *self._nodes.values()):
            runs.sort()

    def path(self) -> CriticalPath:
        """All parts."""
        ends = [runs[-1] for runs in self._nodes.values()]
        if not ends:
            return CriticalPath(())
        ended_ns, place, number = max(ends)
        at: _At | None = _At(place, number, ended_ns)
        met: set[_At] = set()
        while at is not None and at.now_ns > self._begin_ns and at not in met:
            met.add(at)  # clocks that differ can make a circle of causes
            at = self._step(at)
        self._parts.reverse()
        if self._parts and self._parts[0].started_ns > self._begin_ns:
            first = self._parts[0]
            before = first._replace(kind=UNKNOWN, started_ns=self._begin_ns, after=NOTHING)
            self._parts.insert(0, before._replace(ended_ns=first.started_ns))
        if self._parts:
            self._parts[0] = self._parts[0]._replace(after=NOTHING)
        return CriticalPath(tuple(self._parts))

    def _step(self, at: _At) -> _At | None:
        """Add what the task did last before this moment; where the cause of that was."""
        task = self._tasks[at.task]
        run = None if task.is_root or not task.runs else task.runs[at.run]
        began_ns = min(run.began_ns if run is not None else self._begin_ns, at.now_ns)
        halt = self._halt_before(at, began_ns)
        if halt is None:
            return self._beginning(at, task, run, began_ns)
        self._cover(at, self._kind(at), halt.ended_ns, at.now_ns)
        maker = self._ended_before(halt.producer, halt.ended_ns)
        if maker is not None and maker.now_ns > halt.started_ns:
            self._cover(at, GET, maker.now_ns, halt.ended_ns)
            return self._go(maker, GET)
        self._cover(at, GET, halt.started_ns, halt.ended_ns)
        return at._replace(now_ns=halt.started_ns)

    def _kind(self, at: _At) -> str:
        task = self._tasks[at.task]
        if task.is_root:
            return PROGRAM
        is_last = at.run >= len(task.runs) - 1
        return RUN if is_last and task.runs and task.runs[at.run].is_timed else LOST_RUN

    def _halt_before(self, at: _At, began_ns: int) -> Halt | None:
        """The last wait of this run that was over."""
        halts = self._tasks[at.task].halts
        ends = self._halt_ends.get(at.task)
        if ends is None:
            ends = self._halt_ends[at.task] = [halt.ended_ns for halt in halts]
        place = bisect_right(ends, at.now_ns) - 1
        return halts[place] if place >= 0 and halts[place].started_ns >= began_ns else None

    def _beginning(self, at: _At, task: TaskRow, run: RunRow | None, began_ns: int) -> _At | None:
        """Back over the beginning of a run to what it waited for last."""
        self._cover(at, self._kind(at), began_ns, at.now_ns)
        if run is None:
            return None
        cause, tie = self._made_ready(at, task, began_ns)
        made_ns = cause.now_ns if cause is not None else max(task.submitted_ns, self._begin_ns)
        made_ns = min(made_ns, began_ns)
        # Its owner learns of the last argument a little after it was made.
        ready_ns = max(made_ns, min(task.ready_ns, began_ns)) if tie == ARGUMENTS else made_ns
        sent_ns = min(max(run.sent_ns, ready_ns), began_ns)
        busy = self._occupant(at, run, ready_ns, sent_ns, began_ns)
        freed_ns = busy.now_ns if busy is not None else ready_ns
        if sent_ns >= freed_ns:
            self._cover(at, START, sent_ns, began_ns)
            self._cover(at, PLACE, freed_ns, sent_ns)
        else:
            self._cover(at, QUEUE, freed_ns, began_ns)
        if busy is not None:
            return self._go(busy, WORKER)
        self._cover(at, ARGUMENTS, made_ns, ready_ns)
        return self._go(cause, tie) if cause is not None else None

    def _made_ready(self, at: _At, task: TaskRow, began_ns: int) -> tuple[_At | None, str]:
        """What came last of all that a run needs but for a place, and what that was to it."""
        found: list[tuple[int, _At, str]] = []
        if task.parent >= 0 and 0 <= task.submitted_ns <= began_ns:
            parent = self._during(task.parent, task.submitted_ns)
            found.append((task.submitted_ns, parent, SUBMIT))
        for producer in task.args:
            maker = self._ended_before(producer, began_ns)
            if maker is not None:
                found.append((maker.now_ns, maker, ARGUMENTS))
        if at.run > 0 and task.runs[at.run - 1].is_whole:
            ended_ns = min(task.runs[at.run - 1].ended_ns, began_ns)
            found.append((ended_ns, _At(at.task, at.run - 1, ended_ns), RETRY))
        if not found:
            return None, NOTHING
        _, cause, tie = max(found)
        return cause, tie

    def _occupant(
        self, at: _At, run: RunRow, ready_ns: int, sent_ns: int, began_ns: int
    ) -> _At | None:
        """Who had the worker, or else a CPU of the node, until after this run was ready."""
        seat = self._seats.get((run.node, run.worker), [])
        for ended, until_ns in ((seat, began_ns), (self._nodes.get(run.node, []), sent_ns)):
            place = bisect_left(ended, (until_ns, at.task, at.run)) - 1
            if place >= 0 and ended[place][0] > ready_ns:
                ended_ns, task, number = ended[place]
                return _At(task, number, ended_ns)
        return None

    def _during(self, place: int, now_ns: int) -> _At:
        """The run of a task that was under way at a moment."""
        runs = self._tasks[place].runs
        number = max(0, len(runs) - 1)
        while number > 0 and runs[number].began_ns > now_ns:
            number -= 1
        return _At(place, number, now_ns)

    def _ended_before(self, place: int, until_ns: int) -> _At | None:
        """The last run of a task that had ended; the first one if, by its clock, none had."""
        if place == NOBODY or self._tasks[place].is_root:
            return None
        whole = [
            (number, run) for number, run in enumerate(self._tasks[place].runs) if run.is_whole
        ]
        if not whole:
            return None
        over = [(number, run) for number, run in whole if run.ended_ns <= until_ns]
        number, run = over[-1] if over else whole[0]
        return _At(place, number, min(run.ended_ns, until_ns))

    def _cover(self, at: _At, kind: str, started_ns: int, ended_ns: int) -> None:
        """Add a part, unless it has no length or precedes the beginning."""
        started_ns = max(started_ns, self._begin_ns)
        if self._parts:
            ended_ns = min(ended_ns, self._parts[-1].started_ns)
        if ended_ns <= started_ns:
            return
        task = self._tasks[at.task]
        run = task.runs[at.run] if task.runs else NO_RUN
        self._parts.append(
            PathPart(task.id, task.name, kind, started_ns, ended_ns, run.node, run.worker, NOTHING)
        )

    def _go(self, cause: _At, tie: str) -> _At:
        """Go on in another run; the part found last came after it by this tie."""
        if self._parts:
            self._parts[-1] = self._parts[-1]._replace(after=tie)
        return cause
