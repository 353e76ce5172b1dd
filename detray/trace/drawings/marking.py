"""Where the critical path is in a drawing."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from detray.trace.graphs.critical import LOST_RUN, RUN, SUBMIT, WORKER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import networkx

    from detray.trace.graphs.critical import CriticalPath


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


def mark(
    graph: networkx.MultiDiGraph, members: Mapping[str, Sequence[str]], path: CriticalPath
) -> Marks:
    """The marks of a path in a graph of which each node stands for `members` of `graph`."""
    box_of = {node: box for box, nodes in members.items() for node in nodes}
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
            way = [before, part.task]
            if part.after not in (SUBMIT, WORKER):
                way[1:1] = _between(graph, before, part.task)
            boxes = [box_of[node] for node in way]
            objects |= dict.fromkeys(boxes[1:-1])
            for source, target in pairwise(way):
                pair = box_of[source], box_of[target]
                if graph.has_edge(source, target):
                    edges[pair] = None
                elif pair[0] != pair[1]:
                    ties[pair] = part.after
        before = part.task
    return Marks(tasks, running, frozenset(objects), frozenset(edges), ties)


def _between(graph: networkx.MultiDiGraph, maker: str, user: str) -> list[str]:
    """The value that one task made and the other took, or else the first one that it made."""
    made = [
        node
        for node, links in graph.succ[maker].items()
        if "produces" in links and graph.nodes[node].get("kind") == "object"
    ]
    taken = [node for node in made if node in graph.pred[user]]
    return (taken or made)[:1]
