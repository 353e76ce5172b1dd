"""What a report holds of every task, object, worker and wait, as columns.

Times are microseconds since the first step of the trace, durations microseconds, sizes bytes.
Numbers that may be unknown go through `numbers.code`. `data.js` names the columns as here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from detray.errors import Failure
from detray.ids import TaskID
from detray.trace.gathering.lives import (
    CANCELLED,
    FAILED,
    FINISHED,
    LOST,
    SENT,
    UNKNOWN_CORE,
    WAITING,
    Attempt,
    TaskLife,
)
from detray.trace.names import core_names
from detray.trace.reporting.columns import Columns
from detray.trace.reporting.gathering import Gathered
from detray.trace.reporting.moments import (
    OBJECT_MOVES_TOLD,
    PART_KINDS,
    TASK_MOVES_TOLD,
    write_moments,
)
from detray.trace.reporting.numbers import Numbers, code, count_of

STATES = (WAITING, SENT, FINISHED, FAILED, CANCELLED, LOST)
WAIT_OBJECTS_TOLD = 4
_STATE = {state: number for number, state in enumerate(STATES)}

Json = dict[str, Any]  # Any: what JSON can say


class ReportContents:
    """Writes the columns of what was gathered; `head` is for all that is not a column."""

    def __init__(self, gathered: Gathered, tasks: Iterable[TaskLife]) -> None:
        self.gathered = gathered
        self.numbers = Numbers(gathered.history, tasks)
        self.columns = Columns()
        self._began_ns = gathered.began_ns

    def since(self, date_ns: int, core: int = 0) -> int | None:
        """Microseconds from the beginning to a date; None if it is not known."""
        if date_ns < 0 or core == UNKNOWN_CORE:
            return None
        return round((date_ns - self._began_ns) / 1000)

    def coded(self, date_ns: int, core: int) -> int:
        """The same as a column holds it."""
        return code(self.since(date_ns, core))

    def write(self) -> Json:
        """All columns; what the head says of them and of the lists they point into."""
        self._tasks()
        self._attempts()
        self._waits()
        self._seats()
        write_moments(self)
        self._objects()
        self._names()
        numbers = self.numbers
        return {
            "states": STATES,
            "partKinds": PART_KINDS,
            "taskMoves": TASK_MOVES_TOLD,
            "objectMoves": OBJECT_MOVES_TOLD,
            "failures": {int(kind): kind.name.lower() for kind in Failure},
            "functions": numbers.functions.items(),
            "texts": numbers.texts.items(),
            "prefixes": [bytes(item).hex() for item in numbers.prefixes.items()],  # type: ignore[arg-type]  # they are bytes
            "nodes": self._nodes(),
        }

    # -------------------------------------------------------------- tasks

    def _tasks(self) -> None:
        numbers, add, lives = self.numbers, self.columns.add, self.numbers.lives
        add("t.prefix", [numbers.prefix(life.id) for life in lives], delta=True)
        add("t.count", [count_of(life.id) for life in lives], delta=True)
        add("t.function", [numbers.function(life.name) for life in lives])
        add("t.parent", [numbers.task_or_none(life.parent) for life in lives], delta=True)
        add("t.core", [life.core + 1 for life in lives])
        submitted = [code(self.since(life.submitted_ns, life.core)) for life in lives]
        add("t.submitted", submitted, delta=True)
        ready = [code(self.since(life.ready_ns, life.core)) for life in lives]
        add("t.ready", [b - a if a and b else 0 for a, b in zip(submitted, ready, strict=True)])
        add("t.state", [_STATE[life.state] for life in lives])
        add("t.error", [numbers.text(life.error) for life in lives])
        add("t.flags", [int(life.cancel_asked) for life in lives])
        # Of who never ran and did not fail with an argument; the other ends are those of runs.
        add("t.over", [0 if life.attempts else self._over(life) for life in lives])
        add("t.returns", [life.num_returns for life in lives])
        add("t.places", numbers.returns)
        self.columns.add_lists("t.args", [numbers.items(life.args) for life in lives], delta=True)
        self.columns.add_lists("t.refs", [numbers.items(life.refs) for life in lives], delta=True)

    def _over(self, life: TaskLife) -> int:
        return self.coded(life.over_ns, life.over_core)

    def _attempts(self) -> None:
        """Each run: `number` as it differs from its place, times relative to the one before."""
        numbers, add = self.numbers, self.columns.add
        lives = numbers.lives
        add("t.attempts", [len(life.attempts) for life in lives])
        rows = [(n, run) for life in lives for n, run in enumerate(life.attempts)]
        runs = [run for _, run in rows]
        owners = [life.core for life in lives for _ in life.attempts]
        add("a.number", [run.number - n for n, run in rows])
        add("a.seat", [self._seat(run) for run in runs])
        add("a.node", [run.node + 1 for run in runs])
        sent = [self.since(run.sent_ns, run.core) for run in runs]
        started = [self.since(run.started_ns, run.core) for run in runs]
        add("a.sent", [code(at) for at in sent], delta=True)
        add("a.started", [code(at) for at in started], delta=True)
        add("a.took", [code(_took(run)) for run in runs])
        both = list(zip(runs, owners, strict=True))
        add("a.ended", [self._end(run, owner) if _took(run) is None else 0 for run, owner in both])
        delivered = [self.coded(run.delivered_ns, owner) for run, owner in both]
        add("a.delivered", delivered, delta=True)
        add("a.state", [_STATE[run.state] for run in runs])
        add("a.error", [numbers.text(run.error) for run in runs])
        add("a.failure", [run.failure for run in runs])
        add("a.traceback", [numbers.text(run.traceback) for run in runs])

    def _end(self, run: Attempt, owner: int) -> int:
        """When a run ended of which no worker told: as its owner heard, if nobody knows more."""
        at = self.coded(run.ended_ns, run.core)
        return at if at or run.state == SENT else self.coded(run.closed_ns, owner)

    def _seat(self, run: Attempt) -> int:
        return self.numbers.seat(run.core, run.worker) + 1 if run.worker and run.core >= 0 else 0

    def _waits(self) -> None:
        numbers, add, history = self.numbers, self.columns.add, self.gathered.history
        waits = [
            wait
            for wait in (*history.waits, *history.open_waits.values())
            if not wait.task or wait.task in numbers.tasks
        ]
        add("w.seat", [numbers.seat(wait.core, wait.client) for wait in waits])
        add("w.task", [numbers.task_or_none(wait.task) for wait in waits], delta=True)
        started = [code(self.since(wait.started_ns, wait.core)) for wait in waits]
        add("w.started", started, delta=True)
        ends = [wait.ended_ns if wait.ended_ns >= 0 else self.gathered.ended_ns for wait in waits]
        took = [max(0, end - wait.started_ns) for end, wait in zip(ends, waits, strict=True)]
        add("w.took", [round(ns / 1000) for ns in took])
        add("w.open", [int(wait.ended_ns < 0) for wait in waits])
        add("w.needed", [wait.needed for wait in waits])
        add("w.timed_out", [int(wait.timed_out) for wait in waits])
        shown = [numbers.items(wait.objects[:WAIT_OBJECTS_TOLD]) for wait in waits]
        add("w.count", [wait.count for wait in waits])
        self.columns.add_lists("w.objects", shown, delta=True)

    # -------------------------------------------------------------- who and what

    def _seats(self) -> None:
        """Workers and drivers: `client` is below 0 for drivers."""
        history, add = self.gathered.history, self.columns.add
        numbers = self.numbers
        seats = list(numbers.seats)
        add("s.core", [core for core, _ in seats])
        add("s.client", [client for _, client in seats])
        workers = [history.workers.get(seat) for seat in seats]
        programs = [history.programs.get(seat) for seat in seats]
        rows = list(zip(workers, programs, strict=True))
        add("s.pid", [w.pid if w else p.pid if p else 0 for w, p in rows])
        began = [
            (w.ready_ns, w.core) if w else (p.started_ns, p.core) if p else (-1, 0) for w, p in rows
        ]
        add("s.began", [code(self.since(*at)) for at in began])
        add("s.lost", [code(self.since(w.lost_ns, w.core)) if w else 0 for w, _ in rows])
        add("s.reason", [numbers.text(w.reason) if w else 0 for w, _ in rows])
        add("s.job", [p.job if p else 0 for _, p in rows])
        add("s.entrypoint", [numbers.text(p.entrypoint) if p else 0 for _, p in rows])

    def _objects(self) -> None:
        """First those that the tasks return, in their order, then all others with their ids."""
        numbers, known = self.numbers, self.gathered.history.objects
        for item in self._puts():
            numbers.object(item)
        placed = 0
        rows = list(numbers.objects)
        while placed < len(rows):  # what a value holds may be new, and hold something itself
            for item in rows[placed:]:
                if item in known:
                    numbers.items(known[item].refs)
            placed, rows = len(rows), list(numbers.objects)
        lives = [known.get(item) for item in rows]
        add = self.columns.add
        add("o.size", [life.size_bytes + 1 if life else 0 for life in lives])
        created = [self.since(life.created_ns, life.core) if life else None for life in lives]
        ends = [
            self._ended(life)
            for life, n in zip(numbers.lives, numbers.returns, strict=True)
            for _ in range(n)
        ]
        ends += [0] * (len(rows) - len(ends))
        late = [
            at - (end or 0) if at is not None else None
            for at, end in zip(created, ends, strict=True)
        ]
        add("o.created", [code(at) for at in late])
        refs = [numbers.items(life.refs) if life else [] for life in lives]
        self.columns.add_lists("o.refs", refs, delta=True)
        add("x.prefix", [numbers.prefix(item) for item in numbers.others], delta=True)
        add("x.count", [count_of(item) for item in numbers.others], delta=True)
        add("x.kind", [int.from_bytes(item[16:], "big") for item in numbers.others])
        producers = [
            known[item].producer if item in known else TaskID(b"") for item in numbers.others
        ]
        add("x.producer", [numbers.task_or_none(item) for item in producers], delta=True)

    def _puts(self) -> list[Any]:
        """Of the tasks that are told of, and of the programs; Any: ids."""
        numbers = self.numbers
        whole = len(numbers.lives) == len(self.gathered.history.tasks)
        return [
            item.id
            for item in self.gathered.history.objects.values()
            if item.id not in numbers.objects
            and (whole or (item.is_put and item.producer in numbers.tasks))
        ]

    def _ended(self, life: TaskLife) -> int | None:
        """As `data.js` knows it: from the last run's start and duration."""
        run = life.last
        if run is None or run.started_ns < 0:
            return None
        started, took = self.since(run.started_ns, run.core), _took(run)
        return None if started is None or took is None else started + took

    def _names(self) -> None:
        """Tasks of which only the name is known, after all that may mention them."""
        numbers, add = self.numbers, self.columns.add
        known = self.gathered.history.tasks
        named = numbers.named
        add("n.prefix", [numbers.prefix(item) for item in named], delta=True)
        add("n.count", [count_of(item) for item in named], delta=True)
        names = [known[item].name if item in known else None for item in named]
        add(
            "n.function", [code(None if name is None else numbers.function(name)) for name in names]
        )

    def _nodes(self) -> list[Json]:
        gathered = self.gathered
        header, history = gathered.trace.header, gathered.history
        names = core_names(header, history.nodes)
        rows = []
        for number, core in header.local_cores():
            first, last = gathered.spans_ns.get(number, (-1, -1))
            cpus = sum(amount for name, amount in core.config.totals if name == "CPU")
            rows.append(
                {
                    "core": number,
                    "node": history.node_of(number),
                    "name": names[number] if history.names else "",
                    "machine": core.name,
                    "cpus": cpus / 10_000,
                    "arena_bytes": core.config.arena_bytes,
                    "first": self.since(first),
                    "last": self.since(last),
                }
            )
        return rows


def _took(run: Attempt) -> int | None:
    """How long a run took, rounded as stories round it."""
    if run.started_ns < 0 or run.ended_ns < 0:
        return None
    return round((run.ended_ns - run.started_ns) / 1000)
