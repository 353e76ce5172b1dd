"""What the shapes and lines of a drawing mean, below it: only those that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx

CHAR_PX = 6.0
ROW_PX = 22
MARGIN_PX = 18
WIDTH_MIN = 360


def legend(
    graph: networkx.MultiDiGraph, path: str, is_whole: bool, width: int, top: int
) -> tuple[str, int, int]:
    """The legend as SVG, below `top`; its width and height. Nothing for an empty graph.

    `path` is "" if no critical path is marked, "edges" if all of it goes along edges, else "ties";
    `is_whole` is False if some launches are not drawn.
    """
    items = _items(graph, path, is_whole)
    if not items:
        return "", 0, 0
    room = max(width, WIDTH_MIN)
    x, y, widest = MARGIN_PX, top + ROW_PX // 2, 0
    parts = []
    for shape, text in items:
        size = round(34 + len(text) * CHAR_PX + 16)
        if x > MARGIN_PX and x + size > room:
            x, y = MARGIN_PX, y + ROW_PX
        parts.append(
            f'<g transform="translate({x} {y})">{shape}<text x="34" y="4">{text}</text></g>'
        )
        x += size
        widest = max(widest, x)
    return f'<g class="legend">{"".join(parts)}</g>\n', widest, y + ROW_PX - top


def _items(graph: networkx.MultiDiGraph, path: str, is_whole: bool) -> list[tuple[str, str]]:
    tasks = [data for _, data in graph.nodes(data=True) if data.get("kind") != "object"]
    objects = [data for _, data in graph.nodes(data=True) if data.get("kind") == "object"]
    kinds = {kind for *_, kind in graph.edges(keys=True)}
    is_collapsed = any(data.get("count", 1) > 1 for data in (*tasks, *objects))
    has_failed = any(data.get("state") == "failed" for data in (*tasks, *objects))
    launches = "launches" if is_whole else "launches what takes no data"
    box = '<rect x="2" y="-7" width="24" height="14" rx="2" fill="{}"{}/>'
    line = '<path d="M0 0L26 0"{}/>'
    orange = ' style="stroke:#e8590c;stroke-width:2.8"'
    return [
        *([(box.format("#eef4fb", ""), "task")] if tasks else []),
        *([(_OVAL, "object")] if objects else []),
        *([(_STACK, "x n: so many as one")] if is_collapsed else []),
        *([(box.format("#fbdcdc", ' style="stroke:#c0392b"'), "failed")] if has_failed else []),
        *([(line.format(_DOTTED), launches)] if "launched" in kinds else []),
        *([(line.format(""), "data")] if kinds & {"produces", "consumes"} else []),
        *([(line.format(_DASHED), "reference inside")] if kinds & {"nested", "contains"} else []),
        *([(box.format("white", orange), "on the critical path")] if path else []),
        *([(line.format(_TIE), "was waited for")] if path == "ties" else []),
    ]


_OVAL = '<ellipse cx="14" cy="0" rx="13" ry="7" fill="#fdf6e3"/>'
_STACK = (
    '<rect x="4" y="-5" width="22" height="13" rx="2" fill="#eef4fb"/>'
    '<rect x="1" y="-8" width="22" height="13" rx="2" fill="#eef4fb"/>'
)
_DOTTED = ' stroke-dasharray="2 4" class="launched"'
_TIE = ' stroke-dasharray="1 5" class="critical"'
_DASHED = ' stroke-dasharray="6 4"'
