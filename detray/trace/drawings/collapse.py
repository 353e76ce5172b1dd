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
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detray.trace.drawings.layout import levels
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


def collapse(graph: networkx.MultiDiGraph, nodes_max: int = NODES_MAX) -> networkx.MultiDiGraph:
    """The graph itself if it is small, else one of groups with at most about `nodes_max` nodes."""
    return collapse_with_members(graph, nodes_max)[0]


def collapse_with_members(
    graph: networkx.MultiDiGraph, nodes_max: int = NODES_MAX
) -> tuple[networkx.MultiDiGraph, Members]:
    """As `collapse`, and which nodes of the graph each node of the smaller one stands for."""
    pairs = [(a, b) for a, targets in graph.adjacency() for b in targets if a != b]
    depth = levels(list(graph), pairs)
    if len(graph) <= nodes_max and _widest(depth.values()) <= WIDTH_MAX:
        return graph, {node: [node] for node in graph}
    families = _families(graph)
    deepest = max(depth.values())
    kinds = dict(graph.nodes(data="kind"))
    groups: dict[str, Group] = {}
    for is_family, is_depth in ((True, True), (False, True), (False, False)):
        if is_depth and deepest > DEPTH_MAX:
            continue
        groups = {
            node: (kinds[node], name, parent if is_family else "", depth[node] if is_depth else 0)
            for node, (name, parent) in families.items()
        }
        if is_depth and _is_small(set(groups.values()), nodes_max):
            return _merge(graph, groups)
    if len(set(groups.values())) > nodes_max:
        groups = _keep_largest(groups, nodes_max)
    return _merge(graph, groups)


def _widest(depths: Iterable[int]) -> int:
    return max(Counter(depths).values(), default=0)


def _is_small(groups: set[Group], nodes_max: int) -> bool:
    return len(groups) <= nodes_max and _widest(group[3] for group in groups) <= WIDTH_MAX


def _families(graph: networkx.MultiDiGraph) -> dict[str, tuple[str, str]]:
    """The function and the parent of each task (itself, if it is one), of an object its maker's."""
    parents: dict[str, str] = {}
    makers: dict[str, str] = {}
    for source, targets in graph.adjacency():
        for target, links in targets.items():
            if "launched" in links:
                parents[target] = source
            if "produces" in links:
                makers.setdefault(target, source)
    launchers = set(parents.values())
    found: dict[str, tuple[str, str]] = {}
    for node, data in graph.nodes(data=True):
        if data.get("kind") != "task":
            continue
        if data.get("is_root"):
            found[node] = node, node
        else:
            parent = node if node in launchers else parents.get(node, "?")
            found[node] = str(data.get("label")), parent
    # In the order of the graph, that the same trace gives the same drawing.
    return {
        node: found[node] if node in found else found.get(makers.get(node, ""), ("?", "?"))
        for node in graph
    }


def _keep_largest(groups: Mapping[str, Group], nodes_max: int) -> dict[str, Group]:
    kept = {group for group, _ in Counter(groups.values()).most_common(nodes_max)}
    return {
        node: group if group in kept else (group[0], "others", "", 0)
        for node, group in groups.items()
    }


def _merge(
    graph: networkx.MultiDiGraph, groups: Mapping[str, Group]
) -> tuple[networkx.MultiDiGraph, Members]:
    import networkx

    members: dict[Group, list[str]] = {}
    for node, group in groups.items():
        members.setdefault(group, []).append(node)
    names = {group: f"group {index}" for index, group in enumerate(members)}
    homes = {node: names[group] for node, group in groups.items()}
    attributes = dict(graph.nodes(data=True))
    merged = networkx.MultiDiGraph(**graph.graph)
    for group, nodes in members.items():
        merged.add_node(names[group], **_together(group, [attributes[node] for node in nodes]))
    sums: dict[tuple[str, str, str], list[int]] = {}
    for source, targets in graph.adjacency():
        home = homes[source]
        for target, links in targets.items():
            for kind, data in links.items():
                key = home, homes[target], kind
                edge = sums.get(key)
                if edge is None:
                    edge = sums[key] = [0, 0]
                edge[0] += 1
                size = data.get("size_bytes", -1)
                if size > 0:
                    edge[1] += size
    for (source, target, kind), (count, size) in sums.items():
        merged.add_edge(source, target, key=kind, kind=kind, count=count, size_bytes=size)
    return merged, {names[group]: nodes for group, nodes in members.items()}


def _together(group: Group, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(members) == 1:
        return {**members[0], "count": 1}
    states = Counter(str(data.get("state")) for data in members)
    size = sum(max(0, data.get("size_bytes", -1)) for data in members)
    state = "failed" if states["failed"] else states.most_common(1)[0][0]
    is_task = group[0] == "task"
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
        total_ns = sum(map(_computed_ns, members))
        found |= {"total_ns": total_ns, "failed": states["failed"]}
        parts = [time_text(total_ns)] if total_ns else []
        parts += [f"{states['failed']:,} failed"] if states["failed"] else []
        found["detail"] = ", ".join(parts)
    return found


def _computed_ns(data: Mapping[str, Any]) -> int:
    """What the last attempt of a task computed, as far as its attributes tell."""
    started_ns, ended_ns = data.get("started_ns", -1), data.get("ended_ns", -1)
    if not 0 <= started_ns <= ended_ns:
        return 0
    return int(ended_ns - started_ns - data.get("blocked_ns", 0))
