"""Large graphs made small enough to look at: equals drawn as one.

Tasks of one function at one depth become one box, the objects they make one oval; edges between
groups say how many they stand for. If that is still too much, depth no longer tells groups apart,
and a chain of a function's tasks becomes one box that feeds itself. The node attribute `count` and
the edge attributes `count` and `size_bytes` are sums; a label ends in "x 1000".
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from detray.trace.graph import size_text
from detray.trace.layout import levels

if TYPE_CHECKING:
    import networkx

NODES_MAX = 150
"""More than this are not read any more, only looked at."""

Group = tuple[Any, ...]  # Any: kind, name and maybe a level; a key, nothing else


def collapse(graph: networkx.MultiDiGraph, nodes_max: int = NODES_MAX) -> networkx.MultiDiGraph:
    """The graph itself if it is small, else one of groups with at most about `nodes_max` nodes."""
    if len(graph) <= nodes_max:
        return graph
    level = levels(list(graph), ((a, b) for a, b in graph.edges() if a != b))
    for key in (
        lambda node, name: (name, level[node]),
        lambda node, name: (name,),
    ):
        groups = _groups(graph, key)
        if len(set(groups.values())) <= nodes_max:
            break
    else:
        groups = _keep_largest(groups, nodes_max)
    return _merge(graph, groups)


def _groups(graph: networkx.MultiDiGraph, key: Any) -> dict[str, Group]:  # Any: see its two callers
    names = {node: _name(graph, node) for node in graph}
    return {node: (graph.nodes[node].get("kind"), *key(node, names[node])) for node in graph}


def _name(graph: networkx.MultiDiGraph, node: str) -> str:
    """The function of a task, for an object that of its producer."""
    data = graph.nodes[node]
    if data.get("kind") == "task":
        return node if data.get("is_root") else str(data.get("label"))
    producers = [source for source, _ in graph.in_edges(node)]
    return _name(graph, producers[0]) if producers and producers[0] != node else "?"


def _keep_largest(groups: dict[str, Group], nodes_max: int) -> dict[str, Group]:
    kept = {group for group, _ in Counter(groups.values()).most_common(nodes_max)}
    return {
        node: group if group in kept else (group[0], "others") for node, group in groups.items()
    }


def _merge(graph: networkx.MultiDiGraph, groups: dict[str, Group]) -> networkx.MultiDiGraph:
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
    return merged


def _together(graph: networkx.MultiDiGraph, group: Group, nodes: list[str]) -> dict[str, Any]:
    first = graph.nodes[nodes[0]]
    if len(nodes) == 1:
        return {**first, "count": 1}
    states = Counter(str(graph.nodes[node].get("state")) for node in nodes)
    size = sum(max(0, graph.nodes[node].get("size_bytes", -1)) for node in nodes)
    label = size_text(size) if group[0] == "object" else str(group[1])
    return {
        "kind": group[0],
        "label": f"{label} x {len(nodes)}",
        "state": "failed" if states["failed"] else states.most_common(1)[0][0],
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
