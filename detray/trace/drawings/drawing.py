"""Writing a computation graph to a file, in the format that the file's name asks for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from detray.trace.drawings.dot import to_dot
from detray.trace.drawings.graphml import to_graphml
from detray.trace.drawings.svg import to_svg
from detray.trace.drawings.wfformat import to_wfformat
from detray.trace.graphs.tables import as_tables

if TYPE_CHECKING:
    from detray.trace.graphs.critical import CriticalPath
    from detray.trace.graphs.tables import AnyGraph

FORMATS = {
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".json": "json",
    ".graphml": "graphml",
    ".wf.json": "wfformat",
}
"""What the endings of names mean; the longest that fits counts."""


def draw(
    graph: AnyGraph,
    path: str | os.PathLike[str],
    format: str = "",
    critical: CriticalPath | None = None,
) -> Path:
    """Write `graph` to `path`, in the format that its ending says unless `format` does.

    .svg and .dot (.gv) are drawings, in which `critical` is marked and large graphs are collapsed;
    .json (networkx node-link data), .graphml and .wf.json (WfFormat) hold everything. The same
    graph gives the same bytes. Raises ValueError for another format, or if there is nothing that
    WfFormat could say; OSError if the file cannot be written.
    """
    target = Path(path)
    text = text_of(graph, format or format_of(target), critical)
    target.write_text(text, encoding="utf-8")
    return target


def format_of(path: Path) -> str:
    """The format that a file's name asks for. Raises ValueError."""
    for ending in sorted(FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(ending):
            return FORMATS[ending]
    known = ", ".join(FORMATS)
    raise ValueError(
        f"cannot draw to a file that ends in {path.suffix or 'nothing'!r}: use {known}"
    )


def text_of(graph: AnyGraph, format: str, critical: CriticalPath | None = None) -> str:
    """The text of a file of that format. Raises ValueError, ImportError without networkx."""
    if format == "svg":
        return to_svg(graph, critical)
    if format == "dot":
        return to_dot(graph, critical)
    whole = as_tables(graph).graph()
    if format == "json":
        import networkx

        return json.dumps(networkx.node_link_data(whole, edges="edges"), indent=1)
    if format == "graphml":
        return to_graphml(whole)
    if format == "wfformat":
        return to_wfformat(whole)
    known = ", ".join(dict.fromkeys(FORMATS.values()))
    raise ValueError(f"there is no format {format!r}: use {known}")
