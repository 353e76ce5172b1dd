"""A network whose flows share the bandwidth of the nodes' cards fairly (max-min, fluid).

Flows that are limited by the same port or lane have the same rate, so they are a *group*, and what
is counted is the work that the group has done for each of its flows since the beginning (as in fair
queueing: virtual time). A flow is done when that reaches its *mark*. When rates change, the groups
whose level changed are brought up to date, some 20 of them, and not hundreds of flows; a flow is
touched when it comes, when it goes, and when something else begins to limit it.

All of it is exact integer arithmetic (`links`); a flow's last byte leaves in the first nanosecond
at which the work done is enough.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from detray_sim.network.levels import UNFILLED, WaterLevels
from detray_sim.network.links import RATE_BITS, Links, NetworkShape, bytes_of, work_of

NEVER = 1 << 80
"""A time later than all times."""
NO_GROUP = -1


@dataclass(slots=True)
class _Stream:
    """A flow on its way."""

    up: int
    down: int
    mark: int
    """The work of its group at which it is done; its own work while it has no group."""
    size_bytes: int
    latency_ns: int
    group: int = NO_GROUP


class MaxMinNetwork:
    """Flows over full-duplex cards: none can have more without one that has less getting even less.

    Links with a bandwidth of their own, and links that a fault slowed, limit their flows as well.
    """

    def __init__(self, shape: NetworkShape) -> None:
        self._links = Links(shape)
        nodes = range(self._links.nodes)
        self._levels = WaterLevels(
            [*(self._links.up(node) for node in nodes), *(self._links.down(node) for node in nodes)]
        )
        self._streams: dict[int, _Stream] = {}
        self._now_ns = 0
        places = len(self._levels.level)
        self._done = [0] * places
        """Per group: the work done for each of its flows up to `_since_ns`."""
        self._since_ns = [0] * places
        self._marks: list[list[tuple[int, int]]] = [[] for _ in range(places)]
        """Per group: heap of (mark, flow); entries of flows that left the group stay in it."""
        self._next = [NEVER] * places
        """Per group: a time before which none of its flows is done."""
        self._ends: list[tuple[int, int]] = []
        """Heap of (time, group); what counts is in `_next`."""
        self._sent_ns = NEVER
        """When the next last byte leaves, if all is settled."""
        self._arriving: dict[int, int] = {}
        """Flows whose last byte has left, and when it arrives."""
        self._arrivals: list[tuple[int, int]] = []
        for source, target in self._links.limited():
            self._limit(source, target)

    def start(self, flow_id: int, source: int, target: int, size_bytes: int, now_ns: int) -> None:
        """A flow begins to take its share."""
        self._links.check_pair(source, target)
        if size_bytes < 0 or flow_id in self._streams or flow_id in self._arriving:
            raise ValueError(f"flow {flow_id} of {size_bytes} bytes: in use, or a negative size")
        self._advance(now_ns)
        if source == target:
            self._arrive(flow_id, now_ns)
            return
        up, down = source, self._links.nodes + target
        latency_ns = self._links.latency_ns(source, target)
        self._streams[flow_id] = _Stream(up, down, work_of(size_bytes), size_bytes, latency_ns)
        self._levels.add(flow_id, up, down)

    def cancel(self, flow_id: int, now_ns: int) -> int:
        """A flow ends early; the bytes of it that were not sent yet."""
        if flow_id not in self._streams and flow_id not in self._arriving:
            raise ValueError(f"there is no flow {flow_id} to cancel")
        self._advance(now_ns)
        stream = self._streams.pop(flow_id, None)
        if stream is None:
            del self._arriving[flow_id]
            return 0
        left = self._left(stream)
        self._levels.remove(flow_id, stream.up, stream.down)
        return min(stream.size_bytes, bytes_of(left))

    def finished(self, now_ns: int) -> list[int]:
        """The flows that ended up to now and were not reported yet, by (end, id)."""
        self._advance(now_ns)
        ended = []
        while self._arrivals and self._arrivals[0][0] <= now_ns:
            end_ns, flow_id = heapq.heappop(self._arrivals)
            if self._arriving.get(flow_id) == end_ns:
                del self._arriving[flow_id]
                ended.append(flow_id)
        return ended

    def next_finish_ns(self) -> int | None:
        """No flow ends before this time; exactly the next end if all links have one latency."""
        if not self._levels.is_settled:
            self._settle()
        next_ns = self._sent_ns + self._links.least_latency_ns
        while self._arrivals:
            end_ns, flow_id = self._arrivals[0]
            if self._arriving.get(flow_id) == end_ns:
                return min(next_ns, end_ns)
            heapq.heappop(self._arrivals)
        return None if self._sent_ns == NEVER else next_ns

    def latency_ns(self, source: int, target: int, size_bytes: int, now_ns: int) -> int | None:
        """Latency and size / bandwidth of the link; None if it is cut."""
        return self._links.message_ns(source, target, size_bytes)

    def scale_node(self, node: int, permille: int, now_ns: int) -> None:
        """A node's card has so many thousandths of its bandwidth from now on."""
        self._links.scale_node(node, permille)
        self._advance(now_ns)
        self._levels.set_capacity(node, self._links.up(node))
        self._levels.set_capacity(self._links.nodes + node, self._links.down(node))

    def scale_link(self, source: int, target: int, permille: int, now_ns: int) -> None:
        """One direction between two nodes has so many thousandths of its bandwidth from now on."""
        self._links.scale_link(source, target, permille)
        self._advance(now_ns)
        self._limit(source, target)

    def rate(self, flow_id: int) -> float:
        """A flow's share at the moment, in bytes per second; 0 while its last byte travels."""
        if flow_id in self._arriving:
            return 0.0
        if not self._levels.is_settled:
            self._settle()
        return self._levels.level[self._streams[flow_id].group] / (1 << RATE_BITS)

    def _limit(self, source: int, target: int) -> None:
        self._levels.set_lane(
            source, self._links.nodes + target, self._links.own_limit(source, target)
        )
        more = len(self._levels.level) - len(self._done)
        self._done += [0] * more
        self._since_ns += [self._now_ns] * more
        self._marks += [[] for _ in range(more)]
        self._next += [NEVER] * more

    def _advance(self, now_ns: int) -> None:
        """Let everything happen up to a time, that included; its own changes wait for `_settle`."""
        if now_ns < self._now_ns:
            raise ValueError(f"it is {self._now_ns} ns in this network already, not {now_ns}")
        if now_ns == self._now_ns:
            return
        if not self._levels.is_settled:
            self._settle()
        while self._sent_ns <= now_ns:
            self._now_ns = self._sent_ns
            self._send_off()
            if self._now_ns == now_ns:
                return
            self._settle()
        self._now_ns = now_ns

    def _send_off(self) -> None:
        """Whose last byte leaves now goes."""
        now_ns = self._now_ns
        while self._sent_ns == now_ns:
            group = self._ends[0][1]
            _, flow_id = heapq.heappop(self._marks[group])
            stream = self._streams.pop(flow_id)
            self._levels.remove(flow_id, stream.up, stream.down)
            self._arrive(flow_id, now_ns + stream.latency_ns)
            self._sent_ns = self._next_sent_ns()

    def _arrive(self, flow_id: int, end_ns: int) -> None:
        self._arriving[flow_id] = end_ns
        heapq.heappush(self._arrivals, (end_ns, flow_id))

    def _settle(self) -> None:
        """New levels: bring the groups they concern up to date, and move flows between groups."""
        levels, now_ns = self._levels, self._now_ns
        levels.settle()
        level, done, since_ns, faster = levels.level, self._done, self._since_ns, list[int]()
        for group, old in levels.changed.items():
            if old != UNFILLED:
                done[group] += old * (now_ns - since_ns[group])
            since_ns[group] = now_ns
            if old < level[group] != UNFILLED:
                faster.append(group)
        for flow_id in levels.crossed:
            stream = self._streams.get(flow_id)
            if stream is not None:
                self._regroup(flow_id, stream)
        for group in faster:
            self._queue(group)
        levels.changed.clear()
        levels.crossed.clear()
        self._sent_ns = self._next_sent_ns()

    def _regroup(self, flow_id: int, stream: _Stream) -> None:
        """A flow belongs to what limits it; if in doubt, to what did so before."""
        level = self._levels.level
        group = self._levels.lowest(stream.up, stream.down)
        if stream.group == NO_GROUP or level[group] < level[stream.group]:
            stream.mark = self._left(stream) + self._done_by_now(group)
            stream.group = group
            heapq.heappush(self._marks[group], (stream.mark, flow_id))
            self._queue(group)

    def _left(self, stream: _Stream) -> int:
        """A flow's work that is not done by now."""
        if stream.group == NO_GROUP:
            return stream.mark
        return stream.mark - self._done_by_now(stream.group)

    def _done_by_now(self, group: int) -> int:
        passed_ns = self._now_ns - self._since_ns[group]
        return self._done[group] + self._levels.level[group] * passed_ns

    def _queue(self, group: int) -> None:
        """A group may be done with a flow earlier than `_next` says."""
        end_ns = self._group_end_ns(group)
        if end_ns < self._next[group]:
            self._next[group] = end_ns
            heapq.heappush(self._ends, (end_ns, group))

    def _next_sent_ns(self) -> int:
        """When the next last byte leaves; groups that slowed down are found out here."""
        ends = self._ends
        while ends:
            end_ns, group = ends[0]
            if end_ns != self._next[group]:
                heapq.heappop(ends)
                continue
            true_ns = self._group_end_ns(group)
            if true_ns == end_ns:
                return end_ns
            self._next[group] = true_ns
            if true_ns == NEVER:
                heapq.heappop(ends)
            else:
                heapq.heapreplace(ends, (true_ns, group))
        return NEVER

    def _group_end_ns(self, group: int) -> int:
        """When the first of a group's flows is done, at its present rate."""
        marks = self._marks[group]
        while marks:
            mark, flow_id = marks[0]
            stream = self._streams.get(flow_id)
            if stream is not None and stream.group == group and stream.mark == mark:
                rate = self._levels.level[group]
                return self._since_ns[group] - (self._done[group] - mark) // rate if rate else NEVER
            heapq.heappop(marks)
        return NEVER
