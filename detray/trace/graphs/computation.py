"""A computation in rows, for whoever counts: who ran when, on what, after what.

`Computation` reads a graph once (`graph.py` says what it holds) and leaves lists of numbers: a task
is its place in `tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from detray.trace.graphs.stops import stretches
from detray.trace.graphs.tables import (
    CONSUMES,
    LAUNCHED,
    PRODUCES,
    TASK,
    AnyGraph,
    GivenNode,
    GraphTables,
    TaskNode,
    Where,
    as_tables,
)
from detray.trace.names import program_name

NOBODY = -1
"""The place of a task that is not known."""


class RunRow(NamedTuple):
    """One attempt of a task; dates in nanoseconds, -1 where not known."""

    sent_ns: int
    started_ns: int
    ended_ns: int
    node: str
    worker: int

    @property
    def began_ns(self) -> int:
        """When it started, or was sent if nobody knows when it started."""
        return self.started_ns if self.started_ns >= 0 else self.sent_ns

    @property
    def is_whole(self) -> bool:
        """True if it is known when it was sent, or began, and when it ended."""
        return 0 <= self.began_ns <= self.ended_ns

    @property
    def is_timed(self) -> bool:
        """True if beginning and end are known."""
        return 0 <= self.started_ns <= self.ended_ns


class Halt(NamedTuple):
    """A `get` or `wait` in which a task stood still: until `producer` had made what it needed."""

    started_ns: int
    ended_ns: int
    producer: int
    """Whose value ended it, NOBODY if nobody's (a put, a timeout)."""
    is_ended: bool
    """False if no object ended it: it timed out."""


class TaskRow:
    """A task, or the program itself (`is_root`), in rows."""

    __slots__ = (
        "args",
        "halts",
        "id",
        "is_root",
        "name",
        "needed",
        "parent",
        "ready_ns",
        "returned_bytes",
        "runs",
        "state",
        "submitted_ns",
    )

    def __init__(self, node: str, name: str, state: str, runs: list[RunRow]) -> None:
        self.id = node
        self.is_root = False
        self.name = name
        self.state = state
        self.submitted_ns = -1
        self.ready_ns = -1
        self.parent = NOBODY
        self.args: list[int] = []
        """Producers of its top-level arguments."""
        self.runs = runs
        self.halts: list[Halt] = []
        """By their ends."""
        self.needed: list[list[int]] = []
        """For each halt, the producers without which it would not have ended."""
        self.returned_bytes = 0

    @property
    def last(self) -> RunRow | None:
        """The last attempt, if it is known when it began and ended.

        Of one whose worker died the trace knows only when it was sent.
        """
        return self.runs[-1] if self.runs and self.runs[-1].is_timed else None

    def computed_ns(self) -> int:
        """How long the last attempt ran without standing still; 0 if that is not known."""
        run = self.last
        return run.ended_ns - run.started_ns - self.blocked_ns(run) if run is not None else 0

    def blocked_ns(self, run: RunRow) -> int:
        """How long a run stood still. Waits of several threads at once count once."""
        if not self.halts:
            return 0
        return sum(end - begin for begin, end in self.stretches(run))

    def stretches(self, run: RunRow) -> list[tuple[int, int]]:
        """When a run stood still."""
        return stretches(self.halts, run.started_ns, run.ended_ns) if self.halts else []


class Computation:
    """All tasks of a graph, in its order."""

    def __init__(self, graph: AnyGraph) -> None:
        tables = as_tables(graph)
        self.tasks: list[TaskRow] = []
        self.object_count = 0
        self.bytes_made = 0
        """The sizes of all objects together."""
        numbers = [NOBODY] * len(tables.nodes)
        """The places of tasks among the tasks, by their places in the tables."""
        puts: set[int] = set()
        for place, (name, node) in enumerate(zip(tables.names, tables.nodes, strict=True)):
            if isinstance(node, TaskNode):
                row = _row(name, node, tables.where)
            elif isinstance(node, GivenNode) and node.kind == TASK:
                row = _given_row(name, node.data)
            else:
                self.object_count += 1
                self.bytes_made += max(0, node.size_bytes)
                if node.is_put:
                    puts.add(place)
                continue
            numbers[place] = len(self.tasks)
            self.tasks.append(row)
        makers = [NOBODY] * len(tables.nodes)
        """Who returned an object.

        Not of puts: they are there before their task ends, and whom it tells of them it submits.
        """
        self.bytes_moved = self._read_edges(tables, numbers, makers, puts)
        """Sizes of objects times how often they were arguments."""
        for place, stops in tables.stops:
            task = self.tasks[numbers[place]]
            for stop in stops if numbers[place] >= 0 else ():
                maker = makers[stop.object] if stop.object >= 0 else NOBODY
                task.halts.append(Halt(stop.started_ns, stop.ended_ns, maker, stop.is_ended))
                needed = [makers[item] for item in stop.needs]
                task.needed.append([maker for maker in needed if maker >= 0])

    def _read_edges(
        self, tables: GraphTables, numbers: list[int], makers: list[int], puts: set[int]
    ) -> int:
        """Fill in parents, sizes, arguments and `makers`; returns how much was moved."""
        tasks = self.tasks
        uses: list[tuple[int, TaskRow]] = []
        moved = 0
        for (source, target, kind), size_bytes in tables.links:
            if kind == LAUNCHED and numbers[target] >= 0:
                tasks[numbers[target]].parent = numbers[source]
            elif kind == PRODUCES and numbers[source] >= 0:
                if target not in puts:
                    makers[target] = numbers[source]
                tasks[numbers[source]].returned_bytes += max(0, size_bytes)
            elif kind == CONSUMES and numbers[target] >= 0:
                uses.append((source, tasks[numbers[target]]))
                moved += max(0, size_bytes)
        for item, user in uses:
            if makers[item] >= 0:
                user.args.append(makers[item])
        return moved


def _row(name: str, node: TaskNode, where: Where) -> TaskRow:
    life = node.life
    runs = [
        RunRow(run.sent_ns, run.started_ns, run.ended_ns, where.of(run), run.worker)
        for run in life.attempts
    ]
    row = TaskRow(name, life.name or name, life.state, runs)
    row.submitted_ns, row.ready_ns = life.submitted_ns, life.ready_ns
    return row


def _given_row(name: str, data: Mapping[str, Any]) -> TaskRow:  # Any: strings and numbers
    called = str(data.get("name") or data.get("label") or name)
    row = TaskRow(name, called, str(data.get("state", "unknown")), _given_runs(data))
    row.is_root = bool(data.get("is_root"))
    if row.is_root:
        row.name = program_name(called)
    row.submitted_ns = int(data.get("submitted_ns", -1))
    row.ready_ns = int(data.get("ready_ns", -1))
    return row


def _given_runs(data: Mapping[str, Any]) -> list[RunRow]:
    runs: list[RunRow] = []
    if data.get("earlier"):
        for part in data["earlier"].split("; "):
            _, sent, started, ended, worker, node = part.split(" ", 5)
            runs.append(RunRow(int(sent), int(started), int(ended), node, int(worker)))
    if data.get("attempts"):
        sent_ns, started_ns = int(data.get("sent_ns", -1)), int(data.get("started_ns", -1))
        ended_ns = int(data.get("ended_ns", -1))
        node, worker = str(data.get("node", "")), int(data.get("worker", 0))
        runs.append(RunRow(sent_ns, started_ns, ended_ns, node, worker))
    return runs


Source: TypeAlias = "AnyGraph | Computation"
"""What can be counted: a graph, or the rows of one."""


def computation(source: Source) -> Computation:
    """The rows of a graph; rows stay what they are."""
    return source if isinstance(source, Computation) else Computation(source)
