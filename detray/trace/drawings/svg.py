"""Drawing a computation graph as SVG, without any other program.

Boxes are tasks, ovals are objects; a dotted line says that a task launched another, a solid one
that data goes from a task to an object or from an object to a task, a dashed one that a reference
travels inside something else. Large graphs are collapsed first (`collapse.py`).
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from detray.trace.drawings.collapse import collapse_with_members
from detray.trace.drawings.layout import Layout, Point, lay_out
from detray.trace.drawings.legend import legend
from detray.trace.drawings.marking import NO_MARKS, Marks, mark
from detray.trace.drawings.xml_text import clean
from detray.trace.graphs.graph import state_of
from detray.trace.graphs.tables import AnyGraph, as_tables
from detray.trace.quantities import size_text, time_text

if TYPE_CHECKING:
    import networkx

    from detray.trace.graphs.critical import CriticalPath

FONT_PX = 13
LINE_PX = FONT_PX + 4
CHAR_PX = 7.3
LABEL_MAX = 40
LAUNCHES_MAX = 12
"""Who launches more boxes than this is tied to those only that no data leads to: the other lines
would cover the drawing, and say no more than that it is the program that submits.
"""
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
text.detail {{ font-size: 11px; fill: #5a6673; }}
text.edge {{ font-size: 11px; fill: #5a6673; paint-order: stroke; stroke: white; stroke-width: 3; }}
g.legend text {{ font-size: 11px; fill: #5a6673; text-anchor: start; }}
rect, ellipse {{ stroke: #33475b; stroke-width: 1.2; }}
path {{ fill: none; stroke: #51626f; stroke-width: 1.2; marker-end: url(#arrow); }}
path.launched {{ stroke: #8693a0; }}
.failed rect, .failed ellipse {{ stroke: #c0392b; }}
.critical rect, .critical ellipse {{ stroke: #e8590c; stroke-width: 2.8; }}
path.critical {{ stroke: #e8590c; stroke-width: 2.4; }}
"""
ARROW = (
    '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
    ' markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#51626f;'
    'stroke:none;marker-end:none"/></marker>'
)


def to_svg(graph: AnyGraph, path: CriticalPath | None = None) -> str:
    """The graph as the text of an SVG file; `path` is marked in it."""
    tables = as_tables(graph)
    shown, members = collapse_with_members(tables)
    marks = mark(tables, members, path) if path is not None else NO_MARKS
    return _Drawing(shown, marks).text()


class _Drawing:
    """A graph that is small enough, laid out."""

    def __init__(self, graph: networkx.MultiDiGraph, marks: Marks) -> None:
        self._graph = graph
        self._marks = marks
        self._lines = {node: self._text_of(node) for node in graph}
        self._sizes = {node: self._size(node) for node in graph}
        self._edges = _shown_edges(graph)
        self._layout: Layout = lay_out(self._sizes, [edge[:2] for edge in self._edges])

    def text(self) -> str:
        """The file."""
        body = [self._edge(*edge) for edge in self._edges]
        body += [self._tie(*pair, why) for pair, why in self._marks.ties.items()]
        body += [self._node(node) for node in self._graph]
        aside = max((x for edge in self._back_edges() for x, _ in edge), default=0.0)
        width = round(max(self._layout.width, aside + 24))
        height = round(self._layout.height)
        is_whole = len(self._edges) == self._graph.number_of_edges()
        path = ("ties" if self._marks.ties else "edges") if self._marks.tasks else ""
        key, key_width, key_height = legend(self._graph, path, is_whole, width, height)
        width, height = max(width, key_width), height + key_height
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}">\n<style>{STYLE}</style>\n<defs>{ARROW}</defs>\n'
            f'<rect width="{width}" height="{height}" style="fill:white;stroke:none"/>\n'
            + "\n".join(body)
            + f"\n{key}</svg>\n"
        )

    # -------------------------------------------------------------- nodes

    def _text_of(self, node: str) -> list[str]:
        lines = clean(str(self._graph.nodes[node].get("label", node))).split("\n")
        return [line if len(line) <= LABEL_MAX else f"{line[: LABEL_MAX - 1]}…" for line in lines]

    def _details(self, node: str) -> list[str]:
        """Smaller lines below the name, of boxes that stand for several."""
        details = [str(self._graph.nodes[node].get("detail", ""))]
        marked = self._marks.tasks.get(node, 0)
        if marked and self._graph.nodes[node].get("count", 1) > 1:
            ran = time_text(self._marks.running_ns.get(node, 0))
            details.append(f"critical: {marked:,}, {ran}")
        return [line for line in details if line]

    def _is_task(self, node: str) -> bool:
        return bool(self._graph.nodes[node].get("kind") != "object")

    def _size(self, node: str) -> Point:
        lines = self._lines[node]
        details = self._details(node)
        longest = max([*map(len, lines), *(len(line) * 0.86 for line in details)])
        width = longest * CHAR_PX + 22
        height = len(lines) * LINE_PX + len(details) * (LINE_PX - 2) + 14.0
        return (width, height) if self._is_task(node) else (width * 1.15 + 6, height)

    def _node(self, node: str) -> str:
        (x, y), (width, height) = self._layout.places[node], self._sizes[node]
        is_task = self._is_task(node)
        state = state_of(self._graph, node)
        fill = FILLS.get(state, ("white", "white"))[0 if is_task else 1]
        if is_task:
            box = f'width="{width:.1f}" height="{height:.1f}" rx="2" fill="{fill}"'
            left, top = x - width / 2, y - height / 2
            shape = f'<rect x="{left:.1f}" y="{top:.1f}" {box}/>'
            if self._graph.nodes[node].get("count", 1) > 1:
                shape = f'<rect x="{left + 4:.1f}" y="{top + 4:.1f}" {box}/>{shape}'
        else:
            radii = f'rx="{width / 2:.1f}" ry="{height / 2:.1f}"'
            shape = f'<ellipse cx="{x:.1f}" cy="{y:.1f}" {radii} fill="{fill}"/>'
        is_marked = node in self._marks.tasks or node in self._marks.objects
        classes = [*(["failed"] if state == "failed" else []), *(["critical"] if is_marked else [])]
        group = f'<g class="{" ".join(classes)}">' if classes else "<g>"
        title = f"<title>{escape(clean(self._tooltip(node)))}</title>"
        return f"{group}{title}{shape}{self._label(node, x, y, height)}</g>"

    def _label(self, node: str, x: float, y: float, height: float) -> str:
        at = y - height / 2 + 7 + FONT_PX * 0.95
        parts = []
        for line in self._lines[node]:
            parts.append(f'<text x="{x:.1f}" y="{at:.1f}">{escape(line)}</text>')
            at += LINE_PX
        for line in self._details(node):
            parts.append(f'<text class="detail" x="{x:.1f}" y="{at - 2:.1f}">{escape(line)}</text>')
            at += LINE_PX - 2
        return "".join(parts)

    def _tooltip(self, node: str) -> str:
        data = self._graph.nodes[node]
        hidden = ("label", "kind", "detail", "waits", "earlier", "awaited_by")
        told = (name for name in data if name not in hidden and data[name] not in ("", -1))
        lines = [node, *(f"{name}: {data[name]}" for name in told)]
        started_ns, ended_ns = data.get("started_ns", -1), data.get("ended_ns", -1)
        if started_ns >= 0 and ended_ns >= 0:
            lines.append(f"ran for {time_text(ended_ns - started_ns)}")
        if data.get("total_ns"):
            lines.append(f"computed {time_text(data['total_ns'])} together")
        if node in self._marks.tasks:
            ran = time_text(self._marks.running_ns.get(node, 0))
            lines.append(f"on the critical path, which runs here for {ran}")
        return "\n".join(lines)

    # -------------------------------------------------------------- edges

    def _edge(self, source: str, target: str, kind: str) -> str:
        data = self._graph.edges[source, target, kind]
        points = self._points(source, target)
        dash = DASHES.get(kind)
        style = f' stroke-dasharray="{dash}"' if dash else ""
        classes = ["launched"] if kind == "launched" else []
        classes += ["critical"] if (source, target) in self._marks.edges else []
        style += f' class="{" ".join(classes)}"' if classes else ""
        label = _edge_label(data)
        title = f"<title>{escape(kind + (': ' + label if label else ''))}</title>"
        drawn = f"<path d={quoteattr(self._path(source, target))}{style}>{title}</path>"
        count = data.get("count", 1)
        if count > 1 and kind != "produces":
            x, y = _middle(points)
            drawn += f'<text class="edge" x="{x:.1f}" y="{y + 4:.1f}">{count:,}</text>'
        return drawn

    def _tie(self, source: str, target: str, why: str) -> str:
        """A way of the critical path that is no edge."""
        path = quoteattr(self._path(source, target))
        title = f"<title>critical path: {escape(why)}</title>"
        return f'<path d={path} class="critical" stroke-dasharray="1 5">{title}</path>'

    def _back_edges(self) -> list[list[Point]]:
        """The points of edges that do not point down."""
        pairs = [*((source, target) for source, target, _ in self._edges), *self._marks.ties]
        return [self._points(*pair) for pair in pairs if self._is_back(*pair)]

    def _is_back(self, source: str, target: str) -> bool:
        rise = self._layout.places[source][1] - self._layout.places[target][1]
        return source == target or rise > LINE_PX

    def _path(self, source: str, target: str) -> str:
        points = self._points(source, target)
        return _detour(points) if self._is_back(source, target) else _curve(points)

    def _points(self, source: str, target: str) -> list[Point]:
        (x1, y1), (x2, y2) = self._layout.places[source], self._layout.places[target]
        (width1, height1), (width2, height2) = self._sizes[source], self._sizes[target]
        right1, right2 = x1 + width1 / 2, x2 + width2 / 2
        if source == target:
            aside = right1 + 26
            return [(right1, y1 + 6), (aside, y1 + 2), (aside, y1 - 2), (right1, y1 - 6)]
        if self._is_back(source, target):
            # Back up it goes beside what is between, or it would lie on the edge down.
            aside = max(right1, right2) + 14 + min(60.0, (y1 - y2) / 8)
            return [(right1, y1), (aside, y1 - 12), (aside, y2 + 12), (right2, y2)]
        if abs(y1 - y2) <= LINE_PX:
            top = min(y1 - height1 / 2, y2 - height2 / 2) - LINE_PX
            return [(x1, y1 - height1 / 2), ((x1 + x2) / 2, top), (x2, y2 - height2 / 2)]
        bends = self._layout.bends.get((source, target), [])
        return [(x1, y1 + height1 / 2), *bends, (x2, y2 - height2 / 2)]


def _shown_edges(graph: networkx.MultiDiGraph) -> list[tuple[str, str, str]]:
    """The edges that are drawn: not all launches of who launches many boxes."""
    fed = {target for _, target, kind in graph.edges(keys=True) if kind in ("consumes", "nested")}
    launches = Counter(source for source, _, kind in graph.edges(keys=True) if kind == "launched")
    return [
        edge
        for edge in graph.edges(keys=True)
        if edge[2] != "launched" or edge[1] not in fed or launches[edge[0]] <= LAUNCHES_MAX
    ]


def _middle(points: list[Point]) -> Point:
    """Where an edge has its label."""
    (x1, y1), (x2, y2) = points[len(points) // 2 - 1], points[len(points) // 2]
    return (x1 + x2) / 2, (y1 + y2) / 2


def _edge_label(data: dict[str, int]) -> str:
    parts = [f"{data['count']:,} times"] if data.get("count", 1) > 1 else []
    if data.get("size_bytes", -1) >= 0:
        parts.append(size_text(data["size_bytes"]))
    return ", ".join(parts)


def _curve(points: list[Point]) -> str:
    """A path through the points, leaving and arriving vertically."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2
        path.append(f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}")
    return "".join(path)


def _detour(points: list[Point]) -> str:
    """A path through four points that leaves and arrives sideways, to the right."""
    (x1, y1), (aside, y2), (_, y3), (x4, y4) = points
    return (
        f"M{x1:.1f} {y1:.1f}C{aside:.1f} {y1:.1f} {aside:.1f} {y1:.1f} {aside:.1f} {y2:.1f}"
        f"L{aside:.1f} {y3:.1f}C{aside:.1f} {y4:.1f} {aside:.1f} {y4:.1f} {x4:.1f} {y4:.1f}"
    )
