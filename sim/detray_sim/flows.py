"""Bulk transfers between nodes, over a model of the network.

The network says when bytes arrive; what they are, who reads and who writes them is kept here. A
transfer ends in one of four ways: it arrives, its receiver gives up, one of its ends dies, or its
way is cut for so long that both ends give up (`Costs.stall_ns`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.ids import ObjectID
from detray_sim.clock import NEVER, Timer
from detray_sim.values import Cell

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster
    from detray_sim.network.model import Network
    from detray_sim.node import SimNode


class Sending:
    """One transfer: the source reads `cell` until it ends."""

    __slots__ = ("cell", "order", "source", "started_ns", "target")

    def __init__(
        self, source: SimNode, target: SimNode, order: ef.SendObject, cell: Cell, started_ns: int
    ) -> None:
        self.source = source
        self.target = target
        self.order = order
        self.cell = cell
        self.started_ns = started_ns


class Flows:
    """All transfers of the world."""

    def __init__(self, cluster: SimCluster, network: Network) -> None:
        self.network = network
        self.finished = 0
        self.corrupt_next = 0
        """So many of the next arrivals bring wrong bytes."""
        self._cluster = cluster
        self._clock = cluster.clock
        self._last = 0
        self._sendings: dict[int, Sending] = {}
        self._receiving: dict[tuple[SimNode, ObjectID, int], tuple[ef.ReceiveObject, Cell]] = {}
        self._timer = Timer(self._clock, self._on_finish)
        self._planned = False

    # -------------------------------------------------------------- orders

    def send(self, source: SimNode, order: ef.SendObject) -> None:
        """Begin to send a block."""
        cell = source.memory.read(order.segment, order.offset, order.object)
        target = self._cluster.members[order.node]
        if cell.is_corrupt:
            source.tell(st.ObjectCorrupted(order.object), st.ObjectSent(order.object, order.node))
            self._fail(target, order.object, order.attempt, source, "the source cannot read it")
            return
        if not target.is_alive:
            self._clock.after(self._cluster.costs.reset_ns, self._sent, source, order)
            return
        cell.users += 1
        self._last += 1
        now_ns = self._clock.now_ns
        self._sendings[self._last] = Sending(source, target, order, cell, now_ns)
        self.network.start(self._last, source.machine, target.machine, order.size_bytes, now_ns)
        if self._cluster.is_cut(source.machine, target.machine):
            self._clock.after(self._cluster.costs.stall_ns, self._give_up, [self._last])
        self.changed()

    def receive(self, target: SimNode, order: ef.ReceiveObject) -> None:
        """Somebody will send: write it there."""
        cell = target.memory.open(order.segment, order.offset, order.size_bytes, order.object)
        cell.users += 1
        self._receiving[target, order.object, order.attempt] = (order, cell)
        source = self._cluster.members[order.node]
        if not source.is_alive:
            reset_ns = self._cluster.costs.reset_ns
            args = (target, order.object, order.attempt, source, "connection refused")
            self._clock.after(reset_ns, self._fail, *args)

    def abort(self, target: SimNode, order: ef.AbortReceive) -> None:
        """Stop writing; if it came already its arrival says so."""
        entry = self._receiving.get((target, order.object, order.attempt))
        if entry is None:
            return
        source = self._cluster.members[entry[0].node]
        for flow, sending in list(self._sendings.items()):
            mine = sending.order.object == order.object and sending.order.attempt == order.attempt
            if mine and sending.target is target and sending.source is source:
                self._cancel(flow)
        self._fail(target, order.object, order.attempt, source, "aborted")

    # -------------------------------------------------------------- ends

    def changed(self) -> None:
        """Something began, ended or changed its speed: ask the network anew, once an instant."""
        if not self._planned:
            self._planned = True
            self._clock.late(self._clock.now_ns, self._ask)

    def _ask(self) -> None:
        self._planned = False
        at_ns = self.network.next_finish_ns()
        self._timer.set(NEVER if at_ns is None else max(at_ns, self._clock.now_ns))

    def _on_finish(self) -> None:
        for flow in self.network.finished(self._clock.now_ns):
            sending = self._sendings.pop(flow)
            self.finished += 1
            sending.cell.users -= 1
            self._sent(sending.source, sending.order)
            self._arrived(sending)
        self.changed()

    def _sent(self, source: SimNode, order: ef.SendObject) -> None:
        source.tell(st.ObjectSent(order.object, order.node))

    def _arrived(self, sending: Sending) -> None:
        order, target, source = sending.order, sending.target, sending.source
        key = (target, order.object, order.attempt)
        entry = self._receiving.get(key)
        if entry is None or entry[0].node != source.node_id or not target.is_alive:
            return  # nobody wants it any more: its bytes are read and thrown away
        if self.corrupt_next:
            self.corrupt_next -= 1
            self._fail(*key, source, "its bytes are not what was sent")
            return
        del self._receiving[key]
        cell = entry[1]
        assert sending.cell.value is not None
        target.memory.write(cell, sending.cell.value)
        cell.users -= 1
        self._cluster.transferred(sending.source, target, order, sending.started_ns)
        target.tell(st.ObjectArrived(order.object, order.attempt))

    def _fail(
        self, target: SimNode, item: ObjectID, attempt: int, source: SimNode, reason: str
    ) -> None:
        """The receiver hears that nothing comes, if it still waits for that source."""
        entry = self._receiving.get((target, item, attempt))
        if entry is None or entry[0].node != source.node_id:
            return
        del self._receiving[target, item, attempt]
        entry[1].users -= 1
        target.tell(st.ObjectArrivalFailed(item, attempt, reason))

    def _cancel(self, flow: int) -> None:
        """A transfer ends early; its source hears of it a little later."""
        sending = self._sendings.pop(flow)
        self.network.cancel(flow, self._clock.now_ns)
        sending.cell.users -= 1
        reset_ns = self._cluster.costs.reset_ns
        self._clock.after(reset_ns, self._sent, sending.source, sending.order)
        self.changed()

    def ended(self, node: SimNode) -> None:
        """An end of transfers is dead: the other ends hear it soon, it forgets all of its own."""
        reset_ns = self._cluster.costs.reset_ns
        for flow, sending in list(self._sendings.items()):
            if node is sending.source or node is sending.target:
                self._cancel(flow)
        for key in [key for key in self._receiving if key[0] is node]:
            del self._receiving[key]
        for target, item, attempt in list(self._receiving):
            args = (target, item, attempt, node, "connection reset")
            self._clock.after(reset_ns, self._fail, *args)

    def way_cut(self, source: int, target: int) -> None:
        """Transfers of a direction stand still; both ends give up if it stays so."""
        self.network.scale_link(source, target, 0, self._clock.now_ns)
        self.changed()
        flows = [
            flow
            for flow, sending in self._sendings.items()
            if (sending.source.machine, sending.target.machine) == (source, target)
        ]
        self._clock.after(self._cluster.costs.stall_ns, self._give_up, flows)

    def way_healed(self, source: int, target: int) -> None:
        """Transfers of a direction go on."""
        self.network.scale_link(source, target, 1000, self._clock.now_ns)
        self.changed()

    def _give_up(self, flows: list[int]) -> None:
        for flow in flows:
            sending = self._sendings.get(flow)
            if sending is not None and self._cluster.is_cut(
                sending.source.machine, sending.target.machine
            ):
                order = sending.order
                self._cancel(flow)
                self._fail(sending.target, order.object, order.attempt, sending.source, "timed out")
