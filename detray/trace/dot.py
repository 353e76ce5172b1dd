"""The computation graph in Graphviz's language, for those who have Graphviz."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from detray.trace.collapse import collapse

if TYPE_CHECKING:
    import networkx

STYLES = {"launched": "dotted", "nested": "dashed", "contains": "dashed"}


def to_dot(graph: networkx.MultiDiGraph) -> str:
    """The graph as DOT; large ones are collapsed first."""
    shown = collapse(graph)
    lines = ["digraph detray {", "  node [fontname=Helvetica, fontsize=11];"]
    names = {node: f"n{index}" for index, node in enumerate(shown)}
    for node, name in names.items():
        data = shown.nodes[node]
        shape = "ellipse" if data.get("kind") == "object" else "box"
        lines.append(
            f"  {name} [shape={shape}, label={_quoted(data.get('label', node))},"
            f" tooltip={_quoted(node)}];"
        )
    for source, target, data in shown.edges(data=True):
        style = STYLES.get(data["kind"], "solid")
        count = data.get("count", 1)
        label = f", label={_quoted(count)}" if count > 1 else ""
        lines.append(f"  {names[source]} -> {names[target]} [style={style}{label}];")
    return "\n".join([*lines, "}", ""])


def _quoted(value: object) -> str:
    """A string of DOT: JSON's escapes are understood, but for what is not ASCII."""
    return json.dumps(str(value), ensure_ascii=False)
