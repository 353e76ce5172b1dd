"""The computation graph in Graphviz's language, for those who have Graphviz."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from detray.trace.drawings.collapse import collapse_with_members
from detray.trace.drawings.marking import NO_MARKS, mark
from detray.trace.drawings.xml_text import clean
from detray.trace.graphs.graph import state_of
from detray.trace.graphs.tables import AnyGraph, as_tables

if TYPE_CHECKING:
    from detray.trace.graphs.critical import CriticalPath

STYLES = {"launched": "dotted", "nested": "dashed", "contains": "dashed"}
_RED = ', color="#c0392b", style=filled, fillcolor="#fbdcdc"'
_ORANGE = ', color="#e8590c", penwidth=2.5'


def to_dot(graph: AnyGraph, path: CriticalPath | None = None) -> str:
    """The graph as DOT; large ones are collapsed first, `path` is marked."""
    tables = as_tables(graph)
    shown, members = collapse_with_members(tables)
    marks = mark(tables, members, path) if path is not None else NO_MARKS
    lines = ["digraph detray {", "  node [fontname=Helvetica, fontsize=11];"]
    names = {node: f"n{index}" for index, node in enumerate(shown)}
    for node, name in names.items():
        data = shown.nodes[node]
        shape = "ellipse" if data.get("kind") == "object" else "box"
        label = str(data.get("label", node))
        label = f"{label}\n{data['detail']}" if data.get("detail") else label
        more = _RED if state_of(shown, node) == "failed" else ""
        if node in marks.tasks or node in marks.objects:
            more += _ORANGE
        lines.append(
            f"  {name} [shape={shape}, label={_quoted(label)}, tooltip={_quoted(node)}{more}];"
        )
    for source, target, data in shown.edges(data=True):
        style = STYLES.get(data["kind"], "solid")
        count = data.get("count", 1)
        label = f", label={_quoted(count)}" if count > 1 else ""
        more = _ORANGE if (source, target) in marks.edges else ""
        lines.append(f"  {names[source]} -> {names[target]} [style={style}{label}{more}];")
    for (source, target), why in marks.ties.items():
        tooltip = _quoted(f"critical path: {why}")
        lines.append(
            f"  {names[source]} -> {names[target]} [style=dotted, constraint=false,"
            f" tooltip={tooltip}{_ORANGE}];"
        )
    return "\n".join([*lines, "}", ""])


def _quoted(value: object) -> str:
    """A string of DOT: JSON's escapes are understood, but for what is not ASCII."""
    return json.dumps(clean(str(value)), ensure_ascii=False)
