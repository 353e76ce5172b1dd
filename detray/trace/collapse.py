"""Large graphs made small enough to look at: equals drawn as one.

First, tasks of one function, one parent and one depth that launched nothing themselves become one
box, and the objects they make one oval. If that is not enough, all tasks of one function at one
depth do; then all of one function (a chain of its tasks becomes one box that feeds itself); then
the rarest functions are put together as "others". Edges between groups say how many they stand for:
the node attribute `count` and the edge attributes `count` and `size_bytes` are sums.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from detray.trace.graph import size_text
from detray.trace.layout import levels

if TYPE_CHECKING:
    import networkx

NODES_MAX = 80
"""More than this are not read any more, only looked at."""
DEPTH_MAX = 24
"""Deeper drawings are not read either: chains are drawn as one box that feeds itself."""

Group = tuple[Any, ...]  # Any: strings and numbers; a key, nothing else


def collapse(graph: networkx.MultiDiGraph, nodes_max: int = NODES_MAX) -> networkx.MultiDiGraph:
    """The graph itself if it is small, else one of groups with at most about `nodes_max` nodes."""
    return collapse_with_members(graph, nodes_max)[0]


def collapse_with_members(
    graph: networkx.MultiDiGraph, nodes_max: int = NODES_MAX
) -> tuple[networkx.MultiDiGraph, dict[str, list[str]]]:
    """As `collapse`, and which nodes of the graph each node of the smaller one stands for."""
    if len(graph) <= nodes_max:
        return graph, {node: [node] for node in graph}
    families = {node: _family(graph, node) for node in graph}
    depth = levels(list(graph), ((a, b) for a, b in graph.edges() if a != b))
    deepest = max(depth.values())
    groups: dict[str, Group] = {}
    for is_family, is_depth in ((True, True), (False, True), (False, False)):
        groups = {
            node: (
                graph.nodes[node].get("kind"),
                name,
                parent if is_family else "",
                depth[node] if is_depth else 0,
            )
            for node, (name, parent) in families.items()
        }
        if len(set(groups.values())) <= nodes_max and (not is_depth or deepest <= DEPTH_MAX):
            return _merge(graph, groups)
    return _merge(graph, _keep_largest(groups, nodes_max))


def _family(graph: networkx.MultiDiGraph, node: str) -> tuple[str, str]:
    """The function and the parent of a task (itself, if it is one), of an object its producer's."""
    data = graph.nodes[node]
    if data.get("kind") != "task":
        producers = [a for a, _, kind in graph.in_edges(node, keys=True) if kind == "produces"]
        return _family(graph, producers[0]) if producers else ("?", "?")
    if data.get("is_root"):
        return node, node
    name = str(data.get("label"))
    if any(kind == "launched" for _, _, kind in graph.out_edges(node, keys=True)):
        return name, node
    parents = [a for a, _, kind in graph.in_edges(node, keys=True) if kind == "launched"]
    return name, parents[0] if parents else "?"


def _keep_largest(groups: dict[str, Group], nodes_max: int) -> dict[str, Group]:
    kept = {group for group, _ in Counter(groups.values()).most_common(nodes_max)}
    return {
        node: group if group in kept else (group[0], "others", "", 0)
        for node, group in groups.items()
    }


def _merge(
    graph: networkx.MultiDiGraph, groups: dict[str, Group]
) -> tuple[networkx.MultiDiGraph, dict[str, list[str]]]:
    import networkx

    members: dict[Group, list[str]] = {}
    for node, group in groups.items():
        members.setdefault(group, []).append(node)
    names = {group: f"group {index}" for index, group in enumerate(members)}
    merged = networkx.MultiDiGraph(**graph.graph)
    for group, nodes in members.items():
        merged.add_node(names[group], **_together(graph, group, nodes))
    for source, target, data in graph.edges(data=True):
        _add(merged, names[groups[source]], names[groups[target]], data)
    return merged, {names[group]: nodes for group, nodes in members.items()}


def _together(graph: networkx.MultiDiGraph, group: Group, nodes: list[str]) -> dict[str, Any]:
    first = graph.nodes[nodes[0]]
    if len(nodes) == 1:
        return {**first, "count": 1}
    states = Counter(str(graph.nodes[node].get("state")) for node in nodes)
    size = sum(max(0, graph.nodes[node].get("size_bytes", -1)) for node in nodes)
    state = "failed" if states["failed"] else states.most_common(1)[0][0]
    label = str(group[1]) if group[0] == "task" else size_text(size) if size else state
    return {
        "kind": group[0],
        "label": f"{label} x {len(nodes)}",
        "state": state,
        "states": ", ".join(f"{count} {state}" for state, count in sorted(states.items())),
        "count": len(nodes),
        "size_bytes": size,
    }


def _add(merged: networkx.MultiDiGraph, source: str, target: str, data: dict[str, Any]) -> None:
    kind = data["kind"]
    if not merged.has_edge(source, target, key=kind):
        merged.add_edge(source, target, key=kind, kind=kind, count=0, size_bytes=0)
    edge = merged.edges[source, target, kind]
    edge["count"] += 1
    edge["size_bytes"] += max(0, data.get("size_bytes", -1))
