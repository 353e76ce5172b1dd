"""The computation graph as GraphML, for Gephi, yEd, igraph and networkx itself.

networkx writes GraphML, too, but takes a minute for what detray makes of 100,000 tasks, and writes
characters that no reader of XML takes. What is written here, `networkx.read_graphml` reads.

Source: the GraphML primer, http://graphml.graphdrawing.org/primer/graphml-primer.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from detray.trace.drawings.xml_text import clean

if TYPE_CHECKING:
    import networkx

_HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns'
    ' http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">'
)
_TYPES = {bool: "boolean", int: "long", str: "string"}
Attributes = Mapping[str, Any]  # Any: strings, integers and booleans


def to_graphml(graph: networkx.MultiDiGraph) -> str:
    """The whole graph; attributes keep their types, empty strings are left out.

    (networkx reads them as nothing.) Raises ValueError for attributes of other types.
    """
    keys = _Keys()
    body = ['<graph edgedefault="directed">', *keys.data("graph", graph.graph)]
    for node, data in graph.nodes(data=True):
        inside = "".join(keys.data("node", data))
        body.append(f"<node id={_quoted(node)}>{inside}</node>")
    for source, target, key, data in graph.edges(keys=True, data=True):
        inside = "".join(keys.data("edge", data))
        ends = f"source={_quoted(source)} target={_quoted(target)}"
        body.append(f"<edge {ends} id={_quoted(key)}>{inside}</edge>")
    return "\n".join([_HEAD, *keys.declared, *body, "</graph>", "</graphml>", ""])


class _Keys:
    """The attributes met so far, each with the number that stands for it."""

    def __init__(self) -> None:
        self.declared: list[str] = []
        self._numbers: dict[tuple[str, str, type], str] = {}

    def data(self, what: str, attributes: Attributes) -> list[str]:
        """The elements of a node, an edge or the graph."""
        return [
            f'<data key="{self._number(what, name, type(value))}">{_text(value)}</data>'
            for name, value in attributes.items()
            if value != ""
        ]

    def _number(self, what: str, name: str, of: type) -> str:
        number = self._numbers.get((what, name, of))
        if number is None:
            if of not in _TYPES:
                raise ValueError(f"GraphML has no place for a {of.__name__}: attribute {name!r}")
            number = self._numbers[what, name, of] = f"d{len(self._numbers)}"
            self.declared.append(
                f'<key id="{number}" for="{what}" attr.name={_quoted(name)}'
                f' attr.type="{_TYPES[of]}"/>'
            )
        return number


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape(clean(str(value)))


def _quoted(value: object) -> str:
    return quoteattr(clean(str(value)))
