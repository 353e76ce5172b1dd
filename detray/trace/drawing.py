"""Writing a computation graph to a file, in the format that the file's name asks for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from detray.trace.dot import to_dot
from detray.trace.svg import to_svg

if TYPE_CHECKING:
    import networkx

FORMATS = (".svg", ".dot", ".gv", ".json", ".graphml")


def draw(graph: networkx.MultiDiGraph, path: str | os.PathLike[str]) -> Path:
    """Write `graph` to `path`: .svg, .dot (.gv), .json (networkx node-link data) or .graphml.

    Raises ValueError for another ending, OSError if the file cannot be written.
    """
    target = Path(path)
    target.write_text(text_of(graph, target.suffix.lower()), encoding="utf-8")
    return target


def text_of(graph: networkx.MultiDiGraph, suffix: str) -> str:
    """The text of a file with that ending. Raises ValueError."""
    import networkx

    if suffix == ".svg":
        return to_svg(graph)
    if suffix in (".dot", ".gv"):
        return to_dot(graph)
    if suffix == ".json":
        return json.dumps(networkx.node_link_data(graph, edges="edges"), indent=1)
    if suffix == ".graphml":
        return "\n".join(networkx.generate_graphml(graph))
    known = ", ".join(FORMATS)
    raise ValueError(f"cannot draw to a file that ends in {suffix or 'nothing'!r}: use {known}")
