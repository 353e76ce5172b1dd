"""What the simulator asks of a network: transfers that take time, messages that have a delay.

A network is driven and owns no clock: every call says what time it is, and that never runs
backwards. Times are integer nanoseconds of virtual time, sizes bytes, nodes indexes from 0.
"""

from __future__ import annotations

from typing import Protocol


class Network(Protocol):
    """Flows (bulk transfers of one object) and the delays of small messages.

    A flow's end is the arrival of its last byte: what its link or its share of the network makes of
    its size, plus the link's latency. A flow within one node ends when it starts. Ids of flows are
    the caller's; one may be used again when its flow has been reported or cancelled.

    The loop of a driver: at `next_finish_ns()`, ask for `finished`; after all starts, cancels and
    scalings of one instant ask once for the next `next_finish_ns()`. What changes at one instant is
    computed once, at the first question after it.
    """

    def start(self, flow_id: int, source: int, target: int, size_bytes: int, now_ns: int) -> None:
        """A flow begins. Raises ValueError if the id is in use, or the size is negative."""

    def cancel(self, flow_id: int, now_ns: int) -> int:
        """A flow ends early and is never reported; the bytes of it that were not sent yet.

        Raises ValueError if there is no such flow (it was reported, or never started).
        """

    def finished(self, now_ns: int) -> list[int]:
        """The flows that ended up to now and were not reported yet, by (end, id)."""

    def next_finish_ns(self) -> int | None:
        """No flow ends before this time if nothing else happens; None: none will end at all.

        It is exactly the next end if all links have one latency. If they differ, `finished` may
        have nothing to say at this time; then ask again.
        """

    def latency_ns(self, source: int, target: int, size_bytes: int, now_ns: int) -> int | None:
        """How long a message sent now takes; None if the link is cut and it never arrives.

        Messages are small: they have the link's whole bandwidth, and take none of it from flows.
        """

    def scale_node(self, node: int, permille: int, now_ns: int) -> None:
        """From now on a node's network card has so many thousandths of its bandwidth (0: cut)."""

    def scale_link(self, source: int, target: int, permille: int, now_ns: int) -> None:
        """From now on one direction between two nodes has so many thousandths of its bandwidth.

        0 cuts it: its flows stand still, until it is scaled up again or they are cancelled.
        """
