"""Where the critical path is in a drawing."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from detray.trace.graphs.critical import LOST_RUN, RUN, SUBMIT, WORKER
from detray.trace.graphs.tables import OBJECT, PRODUCES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detray.trace.graphs.critical import CriticalPath
    from detray.trace.graphs.tables import GraphTables


class Marks(NamedTuple):
    """What the path touches, by the names of a drawing's nodes."""

    tasks: dict[str, int]
    """How many tasks of each box are on the path."""
    running_ns: dict[str, int]
    """How long the path runs in tasks of each box."""
    objects: frozenset[str]
    """Ovals through which it goes."""
    edges: frozenset[tuple[str, str]]
    """Edges of the graph along which it goes."""
    ties: dict[tuple[str, str], str]
    """Ways that are no edge of the graph, and why: "get", "worker"."""


NO_MARKS = Marks({}, {}, frozenset(), frozenset(), {})


def mark(tables: GraphTables, members: Mapping[str, Sequence[str]], path: CriticalPath) -> Marks:
    """The marks of a path in a drawing of which each node stands for `members` of the graph."""
    box_of = {name: box for box, names in members.items() for name in names}
    products = Products(tables, path)
    tasks: dict[str, int] = {}
    running: dict[str, int] = {}
    objects: dict[str, None] = {}
    edges: dict[tuple[str, str], None] = {}
    ties: dict[tuple[str, str], str] = {}
    for task in path.tasks:
        tasks[box_of[task]] = tasks.get(box_of[task], 0) + 1
    before = ""
    for part in path.parts:
        box = box_of[part.task]
        if part.kind in (RUN, LOST_RUN):
            running[box] = running.get(box, 0) + part.length_ns
        if before and before != part.task:
            way = [tables.named[before], tables.named[part.task]]
            if part.after not in (SUBMIT, WORKER):
                way[1:1] = products.between(*way)
            boxes = [box_of[tables.names[place]] for place in way]
            objects |= dict.fromkeys(boxes[1:-1])
            for pair, ends in zip(pairwise(boxes), pairwise(way), strict=True):
                if ends in tables.pairs:
                    edges[pair] = None
                elif pair[0] != pair[1]:
                    ties[pair] = part.after
        before = part.task
    return Marks(tasks, running, frozenset(objects), frozenset(edges), ties)


class Products:
    """What the tasks of a path made, and took: objects by their places."""

    def __init__(self, tables: GraphTables, path: CriticalPath) -> None:
        self._made: dict[int, dict[int, int]] = {tables.named[task]: {} for task in path.tasks}
        """By task and object: its place among those that the task made."""
        self._took: dict[int, list[int]] = {place: [] for place in self._made}
        for source, target, kind in tables.edges:
            if kind == PRODUCES and source in self._made and tables.nodes[target].kind == OBJECT:
                made = self._made[source]
                made[target] = len(made)
            if target in self._took:
                self._took[target].append(source)

    def taken(self, maker: int, user: int) -> list[int]:
        """What one task made and the other took."""
        made = self._made[maker]
        # Not from the maker on: a program that put much is there again and again.
        return [item for item in self._took[user] if item in made]

    def between(self, maker: int, user: int) -> list[int]:
        """The value that one task made and the other took, or else the first one that it made."""
        made = self._made[maker]
        taken = self.taken(maker, user)
        return [min(taken, key=made.__getitem__)] if taken else list(made)[:1]
