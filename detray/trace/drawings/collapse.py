"""Large graphs made small enough to look at: equals drawn as one.

First, tasks of one function, one parent and one depth that launched nothing themselves become one
box, and the objects they make one oval. If that is not enough, all tasks of one function at one
depth do; then all of one function (a chain of its tasks becomes one box that feeds itself); then
the rarest functions are put together as "others". Edges between groups say how many they stand for:
the node attribute `count` and the edge attributes `count` and `size_bytes` are sums. A group of
tasks has `total_ns`, what they computed together, and `failed`, how many of them did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from detray.trace.drawings.layout import levels
from detray.trace.graphs.tables import (
    LAUNCHED,
    NOWHERE,
    PRODUCES,
    TASK,
    AnyGraph,
    GraphTables,
    as_tables,
)
from detray.trace.quantities import size_text, time_text

if TYPE_CHECKING:
    import networkx

NODES_MAX = 80
"""More than this are not read any more, only looked at."""
DEPTH_MAX = 64
"""Deeper drawings are not read either: chains are drawn as one box that feeds itself."""
WIDTH_MAX = 26
"""As many beside each other still have names that can be read on a screen."""

Group = tuple[Any, ...]  # Any: strings and numbers; a key, nothing else
Members = dict[str, list[str]]


def collapse(graph: AnyGraph, nodes_max: int = NODES_MAX) -> networkx.MultiDiGraph:
    """The graph itself if it is small, else one of groups with at most about `nodes_max` nodes."""
    return collapse_with_members(graph, nodes_max)[0]


def collapse_with_members(
    graph: AnyGraph, nodes_max: int = NODES_MAX
) -> tuple[networkx.MultiDiGraph, Members]:
    """As `collapse`, and which nodes of the graph each node of the smaller one stands for."""
    tables = as_tables(graph)
    places = range(len(tables.nodes))
    depth = levels(places, ((a, b) for a, b, _ in tables.edges if a != b))
    if len(places) <= nodes_max and _widest(depth.values()) <= WIDTH_MAX:
        return tables.graph(), {name: [name] for name in tables.names}
    families = _families(tables)
    deepest = max(depth.values())
    kinds = [node.kind for node in tables.nodes]
    groups: list[Group] = []
    for is_family, is_depth in ((True, True), (False, True), (False, False)):
        if is_depth and deepest > DEPTH_MAX:
            continue
        groups = [
            (kinds[place], name, parent if is_family else "", depth[place] if is_depth else 0)
            for place, (name, parent) in enumerate(families)
        ]
        if is_depth and _is_small(set(groups), nodes_max):
            return _merge(tables, groups)
    if len(set(groups)) > nodes_max:
        groups = _keep_largest(groups, nodes_max)
    return _merge(tables, groups)


def _widest(depths: Iterable[int]) -> int:
    return max(Counter(depths).values(), default=0)


def _is_small(groups: set[Group], nodes_max: int) -> bool:
    return len(groups) <= nodes_max and _widest(group[3] for group in groups) <= WIDTH_MAX


def _families(tables: GraphTables) -> list[tuple[str, int]]:
    """The function and the parent of each task (itself, if it is one), of an object its maker's."""
    parents: dict[int, int] = {}
    makers: dict[int, int] = {}
    for (source, target, kind), _ in tables.links:
        if kind == LAUNCHED:
            parents[target] = source
        elif kind == PRODUCES:
            makers.setdefault(target, source)
    launchers = set(parents.values())
    found: dict[int, tuple[str, int]] = {}
    for place, node in enumerate(tables.nodes):
        if node.kind == TASK and node.is_root:
            found[place] = tables.names[place], place
        elif node.kind == TASK:
            parent = place if place in launchers else parents.get(place, NOWHERE)
            found[place] = node.label, parent
    nobodys = "?", NOWHERE
    # In the order of the graph, that the same trace gives the same drawing.
    return [
        found[place] if place in found else found.get(makers.get(place, NOWHERE), nobodys)
        for place in range(len(tables.nodes))
    ]


def _keep_largest(groups: Sequence[Group], nodes_max: int) -> list[Group]:
    kept = {group for group, _ in Counter(groups).most_common(nodes_max)}
    return [group if group in kept else (group[0], "others", "", 0) for group in groups]


def _merge(tables: GraphTables, groups: Sequence[Group]) -> tuple[networkx.MultiDiGraph, Members]:
    import networkx

    members: dict[Group, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    names = {group: f"group {index}" for index, group in enumerate(members)}
    homes = [names[group] for group in groups]
    merged = networkx.MultiDiGraph(**tables.about)
    for group, places in members.items():
        merged.add_node(names[group], **_together(group, tables, places))
    sums: dict[tuple[str, str, str], list[int]] = {}
    for (source, target, kind), size in tables.links:
        key = homes[source], homes[target], kind
        edge = sums.get(key)
        if edge is None:
            edge = sums[key] = [0, 0]
        edge[0] += 1
        if size > 0:
            edge[1] += size
    for (start, end, kind), (count, size) in sums.items():
        merged.add_edge(start, end, key=kind, kind=kind, count=count, size_bytes=size)
    inside = {
        names[group]: [tables.names[place] for place in places] for group, places in members.items()
    }
    return merged, inside


def _together(group: Group, tables: GraphTables, places: Sequence[int]) -> dict[str, Any]:
    if len(places) == 1:
        return {**tables.attributes(places[0]), "count": 1}
    members = [tables.nodes[place] for place in places]
    states = Counter(node.state for node in members)
    size = sum(max(0, node.size_bytes) for node in members)
    state = "failed" if states["failed"] else states.most_common(1)[0][0]
    is_task = group[0] == TASK
    label = str(group[1]) if is_task else size_text(size) if size else state
    found: dict[str, Any] = {
        "kind": group[0],
        "label": f"{label} x {len(members):,}",
        "state": state,
        "states": ", ".join(f"{count:,} {state}" for state, count in sorted(states.items())),
        "count": len(members),
        "size_bytes": size,
    }
    if is_task:
        total_ns = sum(node.computed_ns for node in members)
        found |= {"total_ns": total_ns, "failed": states["failed"]}
        parts = [time_text(total_ns)] if total_ns else []
        parts += [f"{states['failed']:,} failed"] if states["failed"] else []
        found["detail"] = ", ".join(parts)
    return found
