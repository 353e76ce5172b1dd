"""A computation graph in plain tables, which measures and drawings read.

A node is its place in `nodes`, an edge a pair of places. Of a recorded run the nodes are the lives
that its history tells of; attributes as `graph.py` lists them are made of those that somebody looks
at, and a networkx graph only for who asks for one (`GraphTables.graph`), which takes several times
as long as everything else here.

`as_tables` reads a networkx graph into the same tables: whoever has one can measure and draw it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import msgspec

from detray.ids import ObjectID, TaskID, is_put, job_of
from detray.trace.gathering.lives import Attempt, TaskLife
from detray.trace.graphs.stops import Standstill, stretches
from detray.trace.quantities import size_text

if TYPE_CHECKING:
    import networkx

LAUNCHED, PRODUCES, CONSUMES = "launched", "produces", "consumes"
NESTED, CONTAINS = "nested", "contains"
TASK, OBJECT = "task", "object"
NOWHERE = -1
"""The place of what is no node."""

Attributes = dict[str, Any]  # Any: strings, integers and booleans
Edge = tuple[int, int, str]
"""The places where it begins and ends, and its kind."""


class TaskNode(msgspec.Struct, gc=False):
    """A task that the history tells of."""

    kind: ClassVar[str] = TASK
    is_root: ClassVar[bool] = False
    size_bytes: ClassVar[int] = -1
    life: TaskLife
    waits: Sequence[Standstill] = ()

    @property
    def label(self) -> str:
        """What a drawing calls it: its function."""
        return self.life.name

    @property
    def state(self) -> str:
        """As its life says."""
        return self.life.state

    @property
    def computed_ns(self) -> int:
        """How long the last attempt ran without standing still; 0 if that is not known."""
        last = self.life.last
        if last is None or not 0 <= last.started_ns <= last.ended_ns:
            return 0
        return last.ended_ns - last.started_ns - self._blocked_ns(last.started_ns, last.ended_ns)

    def attributes(self, where: Where) -> Attributes:
        """As `graph.py` lists them."""
        life, last = self.life, self.life.last
        owner = where.name(life.core)
        started_ns, ended_ns = (last.started_ns, last.ended_ns) if last else (-1, -1)
        return {
            "kind": TASK,
            "label": life.name,
            "name": life.name,
            "state": life.state,
            "is_root": False,
            "job": job_of(life.id),
            "node": where.of(last) if last else owner,
            "nodes": ", ".join(dict.fromkeys(map(where.of, life.attempts))),
            "owner": owner,
            "attempts": len(life.attempts),
            "worker": last.worker if last else 0,
            "demand": amounts(life.demand),
            "submitted_ns": life.submitted_ns,
            "ready_ns": life.ready_ns,
            "sent_ns": last.sent_ns if last else -1,
            "started_ns": started_ns,
            "ended_ns": ended_ns,
            "blocked_ns": self._blocked_ns(started_ns, ended_ns),
            "waits": waits_text(self.waits),
            "earlier": "; ".join(_attempt_text(run, where) for run in life.attempts[:-1]),
            "error": life.error,
        }

    def _blocked_ns(self, started_ns: int, ended_ns: int) -> int:
        if not self.waits:
            return 0
        return sum(end - begin for begin, end in stretches(self.waits, started_ns, ended_ns))


class ObjectNode(msgspec.Struct, gc=False):
    """A value, or the place of one that was not made."""

    kind: ClassVar[str] = OBJECT
    is_root: ClassVar[bool] = False
    computed_ns: ClassVar[int] = 0
    id: ObjectID
    state: str
    size_bytes: int
    created_ns: int

    @property
    def label(self) -> str:
        """What a drawing calls it: its size."""
        return size_text(self.size_bytes) if self.size_bytes >= 0 else self.state

    @property
    def is_put(self) -> bool:
        """True if no task returned it."""
        return is_put(self.id)

    def attributes(self, where: Where) -> Attributes:
        """As `graph.py` lists them, but for who waited for it."""
        return {
            "kind": OBJECT,
            "label": self.label,
            "state": self.state,
            "is_put": self.is_put,
            "size_bytes": self.size_bytes,
            "created_ns": self.created_ns,
            "awaited_by": "",
        }


class GivenNode(msgspec.Struct, gc=False):
    """A node of which the attributes are all that is known; they may be any."""

    data: Mapping[str, Any]

    @property
    def kind(self) -> str | None:
        """None if it has none."""
        return self.data.get("kind")

    @property
    def is_root(self) -> bool:
        """True if it is a program."""
        return bool(self.data.get("is_root"))

    @property
    def label(self) -> str:
        """What a drawing calls it."""
        return str(self.data.get("label"))

    @property
    def state(self) -> str:
        """ "None" if it has none."""
        return str(self.data.get("state"))

    @property
    def size_bytes(self) -> int:
        """-1 if it has none."""
        return int(self.data.get("size_bytes", -1))

    @property
    def is_put(self) -> bool:
        """True if no task returned it."""
        return bool(self.data.get("is_put"))

    @property
    def computed_ns(self) -> int:
        """How long the last attempt ran without standing still; 0 if that is not known."""
        started_ns, ended_ns = self.data.get("started_ns", -1), self.data.get("ended_ns", -1)
        if not 0 <= started_ns <= ended_ns:
            return 0
        return int(ended_ns - started_ns - self.data.get("blocked_ns", 0))

    def attributes(self, where: Where) -> Attributes:
        """All of them."""
        return dict(self.data)


Node = TaskNode | ObjectNode | GivenNode


class PlacedStop(NamedTuple):
    """A wait of a task; `object` ended it (`NOWHERE`: it is no node), it needed `needs`."""

    started_ns: int
    ended_ns: int
    object: int
    is_ended: bool
    """False if no object ended it: it timed out."""
    needs: Sequence[int]
    """Places, ascending."""


class Where:
    """The names of nodes, by the number of their core."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._found: dict[tuple[int, int], str] = {}

    def name(self, core: int, node: int = -1) -> str:
        """Of a core, or else of a node that the trace does not hold; "" if nothing is known."""
        found = self._found.get((core, node))
        if found is None:
            found = self._found[core, node] = self._find(core, node)
        return found

    def of(self, run: Attempt) -> str:
        """Where an attempt was sent."""
        return self.name(run.core, run.node)

    def _find(self, core: int, node: int) -> str:
        if core in self._names:
            return self._names[core]
        if len(self._names) == 1 and node < 0:
            return next(iter(self._names.values()))
        return f"node {node}" if node >= 0 else ""


class GraphTables:
    """A computation graph; `about` are its own attributes.

    `names` are the nodes' names, in their order; `edges` lead to the sizes of what they carry, -1
    where there is none.
    """

    def __init__(self, about: Attributes, where: Where) -> None:
        self.about = about
        self.where = where
        self.nodes: list[Node] = []
        self.edges: dict[Edge, int] = {}
        self.places: dict[bytes, int] = {}
        """By id."""
        self.waits: Mapping[TaskID, Sequence[Standstill]] = {}
        self._replaced: dict[int, Node] = {}

    @cached_property
    def names(self) -> list[str]:
        """The names of all nodes."""
        return [item.hex() for item in self.places]

    @cached_property
    def named(self) -> dict[str, int]:
        """The places of all names."""
        return {name: place for place, name in enumerate(self.names)}

    def put(self, item: bytes, node: Node) -> int:
        """Add a node, or tell more of one that is there; its place."""
        place = self.places.setdefault(item, len(self.nodes))
        if place == len(self.nodes):
            self.nodes.append(node)
        else:
            self._replaced[place], self.nodes[place] = self.nodes[place], node
        return place

    def place(self, item: bytes) -> int:
        """Of a node; one that is not there is added without attributes."""
        place = self.places.get(item)
        return self.put(item, GivenNode({})) if place is None else place

    @cached_property
    def links(self) -> list[tuple[Edge, int]]:
        """All edges with their sizes by the place where they begin, then as they were added."""
        return sorted(self.edges.items(), key=_beginning)

    @cached_property
    def pairs(self) -> set[tuple[int, int]]:
        """The ends of all edges, whatever their kind."""
        return {(source, target) for source, target, _ in self.edges}

    @cached_property
    def stops(self) -> list[tuple[int, list[PlacedStop]]]:
        """The waits of tasks, by the tasks' places."""
        places = self.places
        found = []
        for task, waits in self.waits.items():
            if task in places:
                stops = [self._placed(stop) for stop in waits]
                found.append((places[task], stops))
        return found

    def _placed(self, stop: Standstill) -> PlacedStop:
        places = self.places
        needs = sorted([places[item] for item in stop.needs if item in places])
        item = places.get(stop.object, NOWHERE)
        return PlacedStop(stop.started_ns, stop.ended_ns, item, bool(stop.object), needs)

    @cached_property
    def _awaited(self) -> dict[int, str]:
        """By object, who waited for it."""
        found: dict[int, list[str]] = {}
        for task, stops in self.waits.items():
            for number, stop in enumerate(stops):
                for item in stop.needs:
                    if item in self.places:
                        found.setdefault(self.places[item], []).append(f"{task.hex()}/{number}")
        return {place: ", ".join(waiting) for place, waiting in found.items()}

    def attributes(self, place: int) -> Attributes:
        """All attributes of a node."""
        replaced = self._replaced.get(place)
        found = replaced.attributes(self.where) if replaced is not None else {}
        found |= self.nodes[place].attributes(self.where)
        if place in self._awaited:
            found["awaited_by"] = self._awaited[place]
        return found

    def graph(self) -> networkx.MultiDiGraph:
        """As a networkx graph. Raises ImportError without networkx."""
        import networkx

        names = self.names
        graph = networkx.MultiDiGraph(**self.about)
        graph.add_nodes_from((name, self.attributes(place)) for place, name in enumerate(names))
        graph.add_edges_from(
            (names[source], names[target], kind, _edge_attributes(kind, size_bytes))
            for (source, target, kind), size_bytes in self.edges.items()
        )
        return graph


class GivenTables(GraphTables):
    """The tables of a networkx graph that somebody has, and may have changed."""

    def __init__(self, graph: networkx.MultiDiGraph) -> None:
        super().__init__(graph.graph, Where({}))
        self._graph = graph
        self._given = dict(graph.nodes(data=True))
        self.names = list(self._given)
        self.nodes = [GivenNode(data) for data in self._given.values()]
        places = self.named
        self.edges = {
            (places[source], places[target], kind): data.get("size_bytes", -1)
            for source, target, kind, data in graph.edges(keys=True, data=True)
        }

    @cached_property
    def stops(self) -> list[tuple[int, list[PlacedStop]]]:
        """As the attributes `waits` and `awaited_by` tell."""
        needs: dict[str, list[int]] = {}
        for place, data in enumerate(self._given.values()):
            for waiting in _parts(data, "awaited_by", ", "):
                needs.setdefault(waiting, []).append(place)
        found = []
        for place, (name, data) in enumerate(self._given.items()):
            stops = []
            for number, text in enumerate(_parts(data, "waits", "; ")):
                started, ended, item = text.split(" ")
                where = self.named.get(item, NOWHERE)
                needed = needs.get(f"{name}/{number}", ())
                stops.append(PlacedStop(int(started), int(ended), where, item != "-", needed))
            if stops:
                found.append((place, stops))
        return found

    def attributes(self, place: int) -> Attributes:
        """All attributes of a node."""
        return self.nodes[place].attributes(self.where)

    def graph(self) -> networkx.MultiDiGraph:
        """The graph itself."""
        return self._graph


AnyGraph: TypeAlias = "networkx.MultiDiGraph | GraphTables"
"""A graph: as networkx has it, or in tables, which are made and read faster."""


def as_tables(graph: AnyGraph) -> GraphTables:
    """The tables of a graph; tables stay what they are."""
    return graph if isinstance(graph, GraphTables) else GivenTables(graph)


def _beginning(link: tuple[Edge, int]) -> int:
    return link[0][0]


def _edge_attributes(kind: str, size_bytes: int) -> Attributes:
    return {"kind": kind} if kind == LAUNCHED else {"kind": kind, "size_bytes": size_bytes}


def _parts(data: Mapping[str, Any], name: str, between: str) -> list[str]:
    return str(data[name]).split(between) if data.get(name) else []


@lru_cache(maxsize=1000)
def amounts(demand: tuple[tuple[str, int], ...]) -> str:
    """What a task asks for, or a node has, as attributes say it."""
    return ",".join(f"{name}={amount}" for name, amount in demand)


def waits_text(waits: Sequence[Standstill]) -> str:
    """Waits as attributes say them."""
    return "; ".join(
        f"{stop.started_ns} {stop.ended_ns} {stop.object.hex() or '-'}" for stop in waits
    )


def _attempt_text(run: Attempt, where: Where) -> str:
    return f"{run.state} {run.sent_ns} {run.started_ns} {run.ended_ns} {run.worker} {where.of(run)}"
