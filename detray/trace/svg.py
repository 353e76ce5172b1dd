"""Drawing a computation graph as SVG, without any other program.

Boxes are tasks, ovals are objects; a dotted line says that a task launched another, a solid one
that data goes from a task to an object or from an object to a task, a dashed one that a reference
travels inside something else. Large graphs are collapsed first (`collapse.py`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from detray.trace.collapse import collapse
from detray.trace.graph import size_text, state_of
from detray.trace.layout import Layout, Point, lay_out

if TYPE_CHECKING:
    import networkx

FONT_PX = 13
CHAR_PX = 7.3
FILLS = {
    "plain": ("#eef4fb", "#fdf6e3"),
    "failed": ("#fbdcdc", "#fbdcdc"),
    "cancelled": ("#ececec", "#ececec"),
    "sent": ("#e3f5e1", "#e3f5e1"),
}
"""By state: the colours of tasks and of objects; all other states are white."""
DASHES = {"launched": "2 4", "nested": "6 4", "contains": "6 4"}
STYLE = f"""
text {{ font: {FONT_PX}px Helvetica, Arial, sans-serif; text-anchor: middle; fill: #1d2733; }}
text.edge {{ font-size: 11px; fill: #5a6673; }}
rect, ellipse {{ stroke: #33475b; stroke-width: 1.2; }}
path {{ fill: none; stroke: #51626f; stroke-width: 1.2; marker-end: url(#arrow); }}
"""


def to_svg(graph: networkx.MultiDiGraph) -> str:
    """The graph as the text of an SVG file."""
    shown = collapse(graph)
    sizes = {node: _size(shown, node) for node in shown}
    layout = lay_out(sizes, shown.edges())
    body = [_edge(shown, layout, sizes, *edge) for edge in shown.edges(keys=True)]
    body += [_node(shown, node, layout.places[node], sizes[node]) for node in shown]
    width, height = round(layout.width), round(layout.height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">\n<style>{STYLE}</style>\n'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"'
        ' style="fill:#51626f;stroke:none;marker-end:none"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" style="fill:white;stroke:none"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _lines(graph: networkx.MultiDiGraph, node: str) -> list[str]:
    lines = str(graph.nodes[node].get("label", node)).split("\n")
    return [line if len(line) <= 40 else f"{line[:39]}…" for line in lines]


def _is_task(graph: networkx.MultiDiGraph, node: str) -> bool:
    return bool(graph.nodes[node].get("kind") != "object")


def _size(graph: networkx.MultiDiGraph, node: str) -> Point:
    lines = _lines(graph, node)
    width = max(map(len, lines)) * CHAR_PX + 22
    height = len(lines) * (FONT_PX + 4) + 14.0
    return (width, height) if _is_task(graph, node) else (width * 1.15 + 6, height)


def _node(graph: networkx.MultiDiGraph, node: str, place: Point, size: Point) -> str:
    (x, y), (width, height) = place, size
    is_task = _is_task(graph, node)
    fill = FILLS.get(state_of(graph, node), ("white", "white"))[0 if is_task else 1]
    if is_task:
        box = f'width="{width:.1f}" height="{height:.1f}"'
        left, top = x - width / 2, y - height / 2
        shape = f'<rect x="{left:.1f}" y="{top:.1f}" {box} rx="2" fill="{fill}"/>'
        if graph.nodes[node].get("count", 1) > 1:
            behind = f'<rect x="{left + 4:.1f}" y="{top + 4:.1f}" {box} rx="2" fill="{fill}"/>'
            shape = behind + shape
    else:
        radii = f'rx="{width / 2:.1f}" ry="{height / 2:.1f}"'
        shape = f'<ellipse cx="{x:.1f}" cy="{y:.1f}" {radii} fill="{fill}"/>'
    lines = _lines(graph, node)
    first = y - (len(lines) - 1) * (FONT_PX + 4) / 2 + FONT_PX * 0.35
    text = "".join(
        f'<text x="{x:.1f}" y="{first + index * (FONT_PX + 4):.1f}">{escape(line)}</text>'
        for index, line in enumerate(lines)
    )
    return f"<g><title>{escape(_tooltip(graph, node))}</title>{shape}{text}</g>"


def _tooltip(graph: networkx.MultiDiGraph, node: str) -> str:
    data = graph.nodes[node]
    lines = [node, *(f"{name}: {data[name]}" for name in data if name not in ("label", "kind"))]
    started, ended = data.get("started_ns", -1), data.get("ended_ns", -1)
    if started >= 0 and ended >= 0:
        lines.append(f"ran for {(ended - started) / 1e6:.3f} ms")
    return "\n".join(lines)


def _edge(
    graph: networkx.MultiDiGraph,
    layout: Layout,
    sizes: dict[str, Point],
    source: str,
    target: str,
    kind: str,
) -> str:
    data = graph.edges[source, target, kind]
    points = _points(layout, sizes, source, target)
    dash = DASHES.get(kind)
    style = f' stroke-dasharray="{dash}"' if dash else ""
    label = _edge_label(data)
    title = f"<title>{escape(kind + (': ' + label if label else ''))}</title>"
    path = f"<path d={quoteattr(_curve(points))}{style}>{title}</path>"
    count = data.get("count", 1)
    if count > 1 and kind != "produces":
        x, y = points[len(points) // 2 - 1]
        after = points[len(points) // 2]
        path += (
            f'<text class="edge" x="{(x + after[0]) / 2 + 14:.1f}"'
            f' y="{(y + after[1]) / 2:.1f}">{count}</text>'
        )
    return path


def _edge_label(data: dict[str, int]) -> str:
    parts = [f"{data['count']} times"] if data.get("count", 1) > 1 else []
    if data.get("size_bytes", -1) >= 0:
        parts.append(size_text(data["size_bytes"]))
    return ", ".join(parts)


def _points(layout: Layout, sizes: dict[str, Point], source: str, target: str) -> list[Point]:
    (x1, y1), (x2, y2) = layout.places[source], layout.places[target]
    if source == target:
        right = x1 + sizes[source][0] / 2
        return [(right, y1 - 6), (right + 26, y1 - 8), (right + 26, y1 + 8), (right, y1 + 6)]
    bends = layout.bends.get((source, target), [])
    sign = 1 if y2 >= y1 else -1
    half1, half2 = sizes[source][1] / 2 * sign, sizes[target][1] / 2 * sign
    return [(x1, y1 + half1), *bends, (x2, y2 - half2)]


def _curve(points: list[Point]) -> str:
    """A path through the points, leaving and arriving vertically."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2
        path.append(f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}")
    return "".join(path)
