"""A computation graph in rows, for whoever counts: who ran when, on what, after what.

networkx answers one question at a time; measures ask a million. `computation` reads a graph once
(`graph.py` says what it holds) and leaves lists of numbers: a task is its place in `tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from detray.trace.graphs.graph import program_name
from detray.trace.graphs.stops import stretches

if TYPE_CHECKING:
    import networkx

NOBODY = -1
"""The place of a task that is not known."""


class RunRow(NamedTuple):
    """One attempt of a task; dates in nanoseconds, -1 where not known."""

    sent_ns: int
    started_ns: int
    ended_ns: int
    node: str
    worker: int
    state: str

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
        "error",
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

    def __init__(self, node: str, data: Mapping[str, Any]) -> None:
        """`data` are the attributes of `node` (Any: strings and numbers)."""
        self.id = node
        self.is_root = bool(data.get("is_root"))
        self.name = str(data.get("name") or data.get("label") or node)
        if self.is_root:
            self.name = program_name(self.name)
        self.state = str(data.get("state", "unknown"))
        self.error = str(data.get("error", ""))
        self.submitted_ns = int(data.get("submitted_ns", -1))
        self.ready_ns = int(data.get("ready_ns", -1))
        self.parent = NOBODY
        self.args: list[int] = []
        """Producers of its top-level arguments."""
        self.runs = _runs(data)
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
    """All tasks of a graph, in its order, and the producers of its objects."""

    def __init__(self, graph: networkx.MultiDiGraph) -> None:
        self.tasks: list[TaskRow] = []
        self.places: dict[str, int] = {}
        self.producers: dict[str, int] = {}
        """The place of the task that returned an object, by the object's name.

        Not of puts: they are there before their task ends, and whom it tells of them it submits.
        """
        self.object_count = 0
        self.bytes_made = 0
        """The sizes of all objects together."""
        waiting: list[tuple[int, str]] = []
        awaited: list[tuple[str, str]] = []
        puts: set[str] = set()
        for node, data in graph.nodes(data=True):
            if data.get("kind") == "task":
                self.places[node] = len(self.tasks)
                if data.get("waits"):
                    waiting.append((len(self.tasks), data["waits"]))
                self.tasks.append(TaskRow(node, data))
            else:
                self.object_count += 1
                self.bytes_made += max(0, data.get("size_bytes", -1))
                if data.get("is_put"):
                    puts.add(node)
                if data.get("awaited_by"):
                    awaited.append((node, data["awaited_by"]))
        self.bytes_moved = self._read_edges(graph, puts)
        """Sizes of objects times how often they were arguments."""
        for place, text in waiting:
            self._read_halts(self.tasks[place], text)
        for item, text in awaited:
            self._read_needs(item, text)

    def _read_edges(self, graph: networkx.MultiDiGraph, puts: set[str]) -> int:
        uses: list[tuple[str, int]] = []
        places, producers, tasks = self.places, self.producers, self.tasks
        moved = 0
        for source, targets in graph.adjacency():
            for target, links in targets.items():
                for kind, data in links.items():
                    if kind == "launched":
                        tasks[places[target]].parent = places[source]
                    elif kind == "produces":
                        if target not in puts:
                            producers[target] = places[source]
                        tasks[places[source]].returned_bytes += max(0, data["size_bytes"])
                    elif kind == "consumes":
                        uses.append((source, places[target]))
                        moved += max(0, data["size_bytes"])
        for item, user in uses:
            maker = producers.get(item, NOBODY)
            if maker >= 0:
                tasks[user].args.append(maker)
        return moved

    def _read_halts(self, task: TaskRow, text: str) -> None:
        for part in text.split("; "):
            started, ended, item = part.split(" ")
            producer = self.producers.get(item, NOBODY)
            task.halts.append(Halt(int(started), int(ended), producer, item != "-"))
            task.needed.append([])

    def _read_needs(self, item: str, text: str) -> None:
        producer = self.producers.get(item, NOBODY)
        if producer < 0:
            return
        for part in text.split(", "):
            node, _, number = part.partition("/")
            place = self.places.get(node, NOBODY)
            if place >= 0:
                self.tasks[place].needed[int(number)].append(producer)


def _runs(data: Mapping[str, Any]) -> list[RunRow]:  # Any: as above
    runs: list[RunRow] = []
    if data.get("earlier"):
        for part in data["earlier"].split("; "):
            state, sent, started, ended, worker, node = part.split(" ", 5)
            runs.append(RunRow(int(sent), int(started), int(ended), node, int(worker), state))
    if data.get("attempts"):
        sent_ns, started_ns = int(data.get("sent_ns", -1)), int(data.get("started_ns", -1))
        ended_ns = int(data.get("ended_ns", -1))
        node, worker = str(data.get("node", "")), int(data.get("worker", 0))
        runs.append(RunRow(sent_ns, started_ns, ended_ns, node, worker, str(data.get("state", ""))))
    return runs


Source: TypeAlias = "networkx.MultiDiGraph | Computation"


def computation(source: Source) -> Computation:
    """The rows of a graph; rows stay what they are."""
    return source if isinstance(source, Computation) else Computation(source)
