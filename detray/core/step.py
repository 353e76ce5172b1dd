"""What one `handle` call works with: the tables, and lists that are empty between steps."""

from __future__ import annotations

from detray.core.effects import Effect, Notify, SendToHead
from detray.core.head_messages import (
    NodeMessage,
)
from detray.core.tables import DRIVER, Lease, Tables
from detray.ids import JobNumber, NodeID, ObjectID, TaskID


class Step:
    """`out` collects effects; the other lists feed the fixed point (`LocalScheduler._settle`)."""

    __slots__ = (
        "again",
        "answered",
        "available",
        "corrupted",
        "drops",
        "evicted",
        "freed",
        "is_fresh",
        "leased",
        "missing",
        "orphans",
        "out",
        "queued",
        "rebuilds",
        "returned",
        "roomless",
        "rooms",
        "settled",
        "suspects",
        "t",
    )

    def __init__(self, tables: Tables) -> None:
        self.t = tables
        self.out: list[Effect] = []
        self.available: list[ObjectID] = []
        """Objects that got a value or failed, and somebody waits for."""
        self.suspects: list[ObjectID] = []
        """Objects that may have lost their last hold or pin."""
        self.drops: list[bytes] = []
        """Payload keys nobody needs any more; one effect at the end of the step."""
        self.rebuilds: list[ObjectID] = []
        """Lost objects that somebody wants."""
        self.rooms: list[ObjectID] = []
        """Transfers whose block was granted or refused."""
        self.roomless: list[ObjectID] = []
        """Objects that nobody has room to fetch."""
        self.missing: list[tuple[ObjectID, int, tuple[NodeID, ...]]] = []
        """Objects of ours, the attempt, and the nodes that turned out to have no copy."""
        self.again: list[ObjectID] = []
        """Objects whose transfer came to nothing while somebody waits."""
        self.orphans: list[ObjectID] = []
        """Objects whose owner turned out to be dead."""
        self.evicted: list[ObjectID] = []
        """Secondary copies that had to make room."""
        self.corrupted: list[ObjectID] = []
        """Objects whose file did not give back what was written."""
        self.leased: list[tuple[TaskID, int, Lease]] = []
        """Tasks and attempts that go to a place that serves again."""
        self.is_fresh = False
        """A task became ready since tasks were dispatched."""
        self.queued = False
        """A pull was queued since the last look at them."""
        self.answered = False
        """An owner answered a claim, and a result may have waited for that."""
        self.settled: dict[NodeID, dict[ObjectID, int]] = {}
        self.returned: dict[NodeID, dict[ObjectID, int]] = {}
        self.freed: dict[NodeID, list[ObjectID]] = {}
        """By node, what to tell it at the end of the step (`lending.flush`)."""

    def count(self, name: str, by: int = 1) -> None:
        """Add to a total that status and invariants report."""
        counts = self.t.counts
        counts[name] = counts.get(name, 0) + by

    def next_number(self) -> int:
        """The next number in the order of arrival."""
        number = self.t.next_number
        self.t.next_number = number + 1
        return number

    def notify(self, job: JobNumber, level: str, kind: str, text: str) -> None:
        """Tell the drivers of a job."""
        for client in self.t.clients.values():
            if client.kind == DRIVER and client.job == job and client.connected:
                self.out.append(Notify(client.id, level, kind, text))

    def to_head(self, message: NodeMessage) -> None:
        """Send on the ordered link to the head; `message.link_seq` is `next_link_seq()`."""
        self.out.append(SendToHead(message))

    def next_link_seq(self) -> int:
        """The number of the next message to the head."""
        self.t.link_seq += 1
        return self.t.link_seq
