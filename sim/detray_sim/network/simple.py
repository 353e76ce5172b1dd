"""A network without contention: each flow has its whole link, however many there are.

The model of first estimates: it needs no sharing, so a
start is O(log flows) and a result can be checked by hand.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from detray_sim.network.links import Links, NetworkShape, bytes_of, work_of


@dataclass(slots=True)
class _Transfer:
    """A flow: `left` of its work at `since_ns`, at `speed` since then."""

    source: int
    target: int
    size_bytes: int
    left: int
    since_ns: int
    speed: int
    sent_ns: int | None = None
    """When its last byte leaves; None while its link is cut."""


class SimpleNetwork:
    """Every flow takes size / bandwidth + latency of its link."""

    def __init__(self, shape: NetworkShape) -> None:
        self._links = Links(shape)
        self._transfers: dict[int, _Transfer] = {}
        self._ends: list[tuple[int, int]] = []
        """Heap of (end, flow); an entry counts if it still is the flow's end."""

    def start(self, flow_id: int, source: int, target: int, size_bytes: int, now_ns: int) -> None:
        """A flow begins at the full speed of its link."""
        self._links.check_pair(source, target)
        if size_bytes < 0 or flow_id in self._transfers:
            raise ValueError(f"flow {flow_id} of {size_bytes} bytes: in use, or a negative size")
        work = 0 if source == target else work_of(size_bytes)
        transfer = _Transfer(source, target, size_bytes, work, now_ns, 0)
        self._transfers[flow_id] = transfer
        self._run(flow_id, transfer, now_ns)

    def cancel(self, flow_id: int, now_ns: int) -> int:
        """A flow ends early; the bytes of it that were not sent yet."""
        if flow_id not in self._transfers:
            raise ValueError(f"there is no flow {flow_id} to cancel")
        transfer = self._transfers.pop(flow_id)
        left = transfer.left - transfer.speed * (now_ns - transfer.since_ns)
        return min(transfer.size_bytes, bytes_of(max(0, left)))

    def finished(self, now_ns: int) -> list[int]:
        """The flows that ended up to now and were not reported yet, by (end, id)."""
        ended = []
        while (end_ns := self.next_finish_ns()) is not None and end_ns <= now_ns:
            _, flow_id = heapq.heappop(self._ends)
            del self._transfers[flow_id]
            ended.append(flow_id)
        return ended

    def next_finish_ns(self) -> int | None:
        """The next end, exactly; None if every flow is cut, or there is none."""
        while self._ends:
            end_ns, flow_id = self._ends[0]
            transfer = self._transfers.get(flow_id)
            if transfer is not None and self._end_ns(transfer) == end_ns:
                return end_ns
            heapq.heappop(self._ends)
        return None

    def latency_ns(self, source: int, target: int, size_bytes: int, now_ns: int) -> int | None:
        """Latency and size / bandwidth of the link; None if it is cut."""
        return self._links.message_ns(source, target, size_bytes)

    def scale_node(self, node: int, permille: int, now_ns: int) -> None:
        """A node's card has so many thousandths of its bandwidth from now on."""
        self._links.scale_node(node, permille)
        self._rerun(now_ns)

    def scale_link(self, source: int, target: int, permille: int, now_ns: int) -> None:
        """One direction between two nodes has so many thousandths of its bandwidth from now on."""
        self._links.scale_link(source, target, permille)
        self._rerun(now_ns)

    def _rerun(self, now_ns: int) -> None:
        for flow_id, transfer in self._transfers.items():
            if self._links.speed(transfer.source, transfer.target) == transfer.speed:
                continue
            if transfer.sent_ns is None or transfer.sent_ns > now_ns:
                transfer.left -= transfer.speed * (now_ns - transfer.since_ns)
                self._run(flow_id, transfer, now_ns)

    def _run(self, flow_id: int, transfer: _Transfer, now_ns: int) -> None:
        transfer.since_ns = now_ns
        transfer.speed = self._links.speed(transfer.source, transfer.target)
        if not transfer.left:
            transfer.sent_ns = now_ns
        elif transfer.speed:
            transfer.sent_ns = now_ns - (-transfer.left // transfer.speed)
        else:
            transfer.sent_ns = None
        end_ns = self._end_ns(transfer)
        if end_ns is not None:
            heapq.heappush(self._ends, (end_ns, flow_id))

    def _end_ns(self, transfer: _Transfer) -> int | None:
        if transfer.sent_ns is None:
            return None
        return transfer.sent_ns + self._links.latency_ns(transfer.source, transfer.target)
