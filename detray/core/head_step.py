"""What one `handle` call of the head works with: the tables, what goes out, and its links."""

from __future__ import annotations

from collections.abc import Callable

from detray.core.durable import DurableEvent, apply
from detray.core.effects import Effect, SendToNode
from detray.core.head_messages import HeadMessage
from detray.core.head_tables import GlobalTables
from detray.core.placement import Node
from detray.ids import NodeID


class HeadStep:
    """`out` collects effects; `changed`: something may be placed now that could not be before."""

    __slots__ = ("changed", "out", "t")

    def __init__(self, tables: GlobalTables) -> None:
        self.t = tables
        self.out: list[Effect] = []
        self.changed = False

    def sender(self, node: NodeID, link_seq: int) -> Node | None:
        """The node a message came from; None if it is buried, or has said this already."""
        row = self.t.nodes.get(node)
        counts = self.t.counts
        if row is None or row.is_expected:
            what = "from the dead" if row is None else "before the return"
            counts[what] = counts.get(what, 0) + 1
            return None
        if link_seq <= row.received:
            counts["duplicates"] = counts.get("duplicates", 0) + 1
            return None
        if link_seq > row.received + 1:
            counts["gaps"] = counts.get("gaps", 0) + 1
        row.received = link_seq
        if row.heard_ns >= 0:
            row.heard_ns = self.t.now_ns
        return row

    def record(self, event: DurableEvent) -> None:
        """Change the durable tables; the step orders it to be persisted, if there is a store."""
        apply(self.t.durable, event)
        if self.t.durable.epoch:
            self.t.unsaved.append(event)

    def send(self, node: Node, kind: Callable[..., HeadMessage], *fields: object) -> None:
        """Tell a node, unless it has not returned: when it does, it hears all that matters."""
        if node.is_expected:
            return
        node.sent += 1
        self.out.append(SendToNode(node.id, kind(node.sent, *fields)))
