"""Where the nodes of a drawing go: layers by longest path, order by barycentres, then x by pulling.

This is Sugiyama's method in its plain form. Sources: Sugiyama, Tagawa, Toda 1981 (layers, dummy
nodes on long edges, barycentre sweeps); Brandes, Köpf 2001 for the idea that x follows the median
of the neighbours. Cycles (a collapsed graph may have some) are cut where a depth-first walk meets
them. All numbers are pixels; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

SWEEPS = 13
"""Odd: the last goes down, so that children stand in the order of their parents."""
PULLS = 24
NODE_GAP = 18.0
LAYER_GAPS = 26.0, 64.0
"""Between two rows, at least and at most: edges that go far to the side need more room."""
GAP_SLOPE = 0.2
"""How much of the way to the side is room between the rows."""
DUMMY_WIDTH = 8.0

Name = TypeVar("Name", bound=Hashable)
Point = tuple[float, float]
Edge = tuple[str, str]


class Layout(NamedTuple):
    """Centres of nodes, the points an edge passes between its ends, and the size of it all."""

    places: dict[str, Point]
    bends: dict[Edge, list[Point]]
    width: float
    height: float


def lay_out(sizes: Mapping[str, Point], edges: Iterable[Edge]) -> Layout:
    """Place nodes of the given (width, height) so that edges point down."""
    forward = _without_cycles(list(sizes), dict.fromkeys(e for e in edges if e[0] != e[1]))
    layer = levels(list(sizes), forward)
    chains = {edge: _chain(edge, layer[edge[0]], layer[edge[1]]) for edge in forward}
    widths = {node: size[0] for node, size in sizes.items()}
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in sizes:
        rows[layer[node]].append(node)
    links: list[Edge] = []
    for (source, _), chain in chains.items():
        for offset, dummy in enumerate(chain[1:-1], layer[source] + 1):
            rows[offset].append(dummy)
            widths[dummy] = DUMMY_WIDTH
        links += pairwise(chain)
    above, below = _neighbours(widths, links)
    _order(rows, above, below)
    x = _spread(rows, widths, above, below)
    return _result(sizes, rows, chains, x, above)


def levels(nodes: Sequence[Name], edges: Iterable[tuple[Name, Name]]) -> dict[Name, int]:
    """The length of the longest path to each node; `edges` have no cycle."""
    out: dict[Name, list[Name]] = {}
    missing = dict.fromkeys(nodes, 0)
    for source, target in edges:
        out.setdefault(source, []).append(target)
        missing[target] += 1
    level = dict.fromkeys(nodes, 0)
    ready = [node for node in nodes if not missing[node]]
    for node in ready:
        below = level[node] + 1
        for target in out.get(node, ()):
            if level[target] < below:
                level[target] = below
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    return level


def _without_cycles(nodes: list[str], edges: Iterable[Edge]) -> list[Edge]:
    """The edges that a depth-first walk does not find leading back."""
    out: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        out[source].append(target)
    kept: list[Edge] = []
    done: dict[str, bool] = {}
    for root in nodes:
        if root in done:
            continue
        done[root] = False
        stack = [(root, iter(out[root]))]
        while stack:
            node, targets = stack[-1]
            for target in targets:
                if target not in done:
                    kept.append((node, target))
                    done[target] = False
                    stack.append((target, iter(out[target])))
                    break
                if done[target]:
                    kept.append((node, target))
            else:
                done[node] = True
                stack.pop()
    return kept


def _chain(edge: Edge, first: int, last: int) -> list[str]:
    dummies = [f"\0{edge[0]}\0{edge[1]}\0{row}" for row in range(first + 1, last)]
    return [edge[0], *dummies, edge[1]]


def _neighbours(
    nodes: Iterable[str], links: Iterable[Edge]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {node: [] for node in nodes}
    below: dict[str, list[str]] = {node: [] for node in above}
    for source, target in links:
        above[target].append(source)
        below[source].append(target)
    return above, below


def _order(rows: list[list[str]], above: dict[str, list[str]], below: dict[str, list[str]]) -> None:
    """Sort each row by the mean position of its neighbours, down and up, until it has settled."""
    for sweep in range(SWEEPS):
        is_down = sweep % 2 == 0
        neighbours = above if is_down else below
        ordered = rows if is_down else rows[::-1]
        for fixed, row in pairwise(ordered):
            place = _fractions(fixed)
            own = _fractions(row)
            keys = {node: _mean(place, neighbours[node], own[node]) for node in row}
            row.sort(key=keys.__getitem__)


def _fractions(row: list[str]) -> dict[str, float]:
    """Positions in a row between 0 and 1, to compare with those of other rows."""
    return {node: (index + 0.5) / len(row) for index, node in enumerate(row)}


def _spread(
    rows: list[list[str]],
    widths: Mapping[str, float],
    above: dict[str, list[str]],
    below: dict[str, list[str]],
) -> dict[str, float]:
    """The x of all nodes: each row is pulled towards its neighbours without changing its order."""
    x: dict[str, float] = {}
    for row in rows:
        at = 0.0
        for node in row:
            x[node] = at + widths[node] / 2
            at += widths[node] + NODE_GAP
        for node in row:
            x[node] -= at / 2
    for pull in range(PULLS):
        is_down = pull % 2 == 0
        neighbours = above if is_down else below
        for row in rows if is_down else rows[::-1]:
            wanted = [_mean(x, neighbours[node], x[node]) for node in row]
            for node, place in zip(row, _fit(wanted, [widths[n] for n in row]), strict=True):
                x[node] = place
    return x


def _mean(x: Mapping[str, float], nodes: list[str], otherwise: float) -> float:
    return sum(x[node] for node in nodes) / len(nodes) if nodes else otherwise


def _fit(wanted: list[float], widths: list[float]) -> list[float]:
    """Places close to the wanted ones, in order and apart: blocks that touch move as one."""
    blocks: list[tuple[float, int, float]] = []
    offsets: list[float] = []
    at = 0.0
    for index, (want, width) in enumerate(zip(wanted, widths, strict=True)):
        at = 0.0 if not index else at + (widths[index - 1] + width) / 2 + NODE_GAP
        offsets.append(at)
        block = (want - at, 1, want - at)
        while blocks and blocks[-1][2] > block[2]:
            total, count, _ = blocks.pop()
            total, count = total + block[0], count + block[1]
            block = (total, count, total / count)
        blocks.append(block)
    starts = [mean for _, count, mean in blocks for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def _result(
    sizes: Mapping[str, Point],
    rows: list[list[str]],
    chains: dict[Edge, list[str]],
    x: dict[str, float],
    above: Mapping[str, list[str]],
) -> Layout:
    y: dict[str, float] = {}
    least, most = LAYER_GAPS
    top = 0.0
    for row in rows:
        aside = max((abs(x[node] - x[other]) for node in row for other in above[node]), default=0.0)
        top += min(most, max(least, aside * GAP_SLOPE))
        height = max((sizes[node][1] for node in row if node in sizes), default=0.0)
        for node in row:
            y[node] = top + height / 2
        top += height
    half = {node: sizes[node][0] / 2 if node in sizes else 0.0 for node in x}
    left = min((x[node] - half[node] for node in x), default=0.0) - NODE_GAP
    right = max((x[node] + half[node] for node in x), default=0.0) + NODE_GAP
    places = {node: (x[node] - left, y[node]) for node in x}
    return Layout(
        places={node: places[node] for node in sizes},
        bends={edge: [places[dummy] for dummy in chain[1:-1]] for edge, chain in chains.items()},
        width=right - left,
        height=top + least,
    )
