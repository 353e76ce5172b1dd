"""Max-min fair rates, kept up to date while flows come and go.

A *port* is one direction of one node's card: out of node i is port i, into it port `nodes` + i. A
flow crosses two ports, and a *lane* if its link has a bandwidth of its own. Progressive filling
raises the rates of all flows together; a port that cannot give each of its growing flows one unit
more is full at that *level*, and its flows keep it as their rate. So a flow's rate is the lowest
level on its way, and a port's level follows from its capacity and from those levels at the other
ends of its flows that are lower than its own.

That is how changes travel here: a port is looked at again only if a level lower than its own
changed at the other end of one of its flows, and ports are looked at from the lowest level up, so
that most are looked at once. With 512 flows at random between 32 nodes a flow's start or end looks
at 30 of 64 ports and changes the levels of 19; with 64 flows it is 6 and 3.

Levels are integers, and ports that fill up at one level do so together. So the levels are unique:
they depend on the flows, not on the order in which these came or in which ports were looked at.
**Source**: Bertsekas and Gallager, Data Networks, 6.5.2.
"""

from __future__ import annotations

import heapq

UNFILLED = 1 << 80
"""The level of a port that is not full: above every rate."""
FILL_SHARE = 8
"""Of the ports: if more than one in so many were touched, all levels are computed from nothing."""
LOOKS_MAX = 4
"""A bound for bad luck: after so many looks per port all levels are computed from nothing."""


class WaterLevels:
    """Ports, lanes, and the flows across them. Flows are numbered by the caller.

    `level` is right after `settle`. A lane takes three places after the ports in it: its own level,
    and what the flows across it meet beyond it, seen from the sender's port and from the
    receiver's.
    """

    def __init__(self, capacities: list[int]) -> None:
        self.level = [UNFILLED] * len(capacities)
        self.changed: dict[int, int] = {}
        """Ports and lanes whose level changed, with the level before; for the caller to clear."""
        self.crossed: list[int] = []
        """Flows whose lowest level may be another port's or lane's now; for the caller to clear."""
        self._ports = len(capacities)
        self._capacity = capacities[:]
        self._flows: dict[tuple[int, int], dict[int, None]] = {}
        """By sender's and receiver's port."""
        self._beyond: list[list[int]] = [[] for _ in capacities]
        """Per port, for each of its flows: the place whose level limits it beyond the port.

        In the order of these levels when the port was last looked at, and so soon sorted again.
        """
        self._lanes: dict[tuple[int, int], int] = {}
        self._rooms: dict[int, int | None] = {}
        """Capacity per lane; None: without limit again."""
        self._views: list[list[tuple[int, int]]] = [[] for _ in capacities]
        """Per port: places in `level` that show it behind a lane, and the lanes."""
        self._behind: list[int] = []
        """Per place after the ports: which port (or lane) it shows."""
        self._dirty: dict[int, None] = {}
        self._dirty_lanes: dict[tuple[int, int], int] = {}

    @property
    def is_settled(self) -> bool:
        """No change waits for `settle`."""
        return not self._dirty and not self._dirty_lanes

    def lowest(self, up: int, down: int) -> int:
        """The port or lane with the lowest level from port to port."""
        level = self.level
        place = up if level[up] <= level[down] else down
        if self._lanes:
            lane = self._lanes.get((up, down), place)
            if level[lane] < level[place]:
                return lane
        return place

    def add(self, flow: int, up: int, down: int) -> None:
        """A flow from port to port."""
        seen_from_up, seen_from_down = self._touch(up, down)
        self._beyond[up].append(seen_from_up)
        self._beyond[down].append(seen_from_down)
        self._dirty[up] = self._dirty[down] = None
        flows = self._flows.get((up, down))
        if flows is None:
            self._flows[up, down] = {flow: None}
        else:
            flows[flow] = None
        self.crossed.append(flow)

    def remove(self, flow: int, up: int, down: int) -> None:
        """The flow is gone."""
        seen_from_up, seen_from_down = self._touch(up, down)
        self._beyond[up].remove(seen_from_up)
        self._beyond[down].remove(seen_from_down)
        if self.level[up] != UNFILLED:
            self._dirty[up] = None
        if self.level[down] != UNFILLED:
            self._dirty[down] = None
        flows = self._flows[up, down]
        del flows[flow]
        if not flows:
            del self._flows[up, down]

    def set_capacity(self, port: int, capacity: int) -> None:
        """A port has another bandwidth."""
        self._capacity[port] = capacity
        self._dirty[port] = None

    def set_lane(self, up: int, down: int, capacity: int | None) -> None:
        """All flows from port to port together have a bandwidth of their own (None: no longer)."""
        lane = self._lanes.get((up, down))
        if lane is None:
            if capacity is None:
                return
            lane = self._make_lane(up, down)
        self._rooms[lane] = capacity
        self._touch(up, down)

    def settle(self) -> None:
        """Bring all levels up to date, from the ports that were touched outwards."""
        for (up, down), lane in self._dirty_lanes.items():
            self._bound(up, down, lane)
        self._dirty_lanes.clear()
        if len(self._dirty) * FILL_SHARE > self._ports or not self._spread():
            self._fill()

    def _spread(self) -> bool:
        """Look at what is dirty and at what that makes dirty; False if it takes too long.

        The inner loops of the simulator's most expensive function: all in one piece for speed.
        """
        level, pending, changed = self.level, self._dirty, self.changed
        level_of, ports = level.__getitem__, self._ports
        crossed: dict[tuple[int, int], None] = {}
        ahead = [(level[port], port) for port in pending]
        heapq.heapify(ahead)
        looks = LOOKS_MAX * ports
        while ahead and looks:
            looks -= 1
            port = heapq.heappop(ahead)[1]
            del pending[port]
            beyond = self._beyond[port]
            beyond.sort(key=level_of)
            room, growing, new = self._capacity[port], len(beyond), UNFILLED
            share = room // growing if growing else 0
            for place in beyond:
                limit = level[place]
                if limit >= share:  # which only grows
                    share = room // growing
                    if limit >= share:
                        new = share
                        break
                room -= limit
                growing -= 1
            old = level[port]
            if new == old:
                continue
            if port not in changed:
                changed[port] = old
            level[port] = new
            if self._views[port]:
                self._show(port)
            # Who is full at a lower level than both has not noticed this port yet, and who is not
            # full will not be because somebody takes less.
            if old < new:
                low, high, end = old, new, UNFILLED + 1
            else:
                low, high, end = new, old, UNFILLED
            for place in reversed(beyond):
                limit = level[place]
                if limit < low:
                    break
                if place >= ports:
                    place = self._behind[place - ports]
                if limit <= high:
                    crossed[(port, place) if port < place else (place, port)] = None
                if low < limit < end and place not in pending:
                    pending[place] = None
                    heapq.heappush(ahead, (level[place], place))
        for pair in crossed:
            self.crossed += self._flows[pair]
        return not ahead

    def _fill(self) -> None:
        """Compute all levels from nothing."""
        ports, level = self._ports, self.level
        before = level[:ports]
        level[:ports] = [UNFILLED] * ports
        filling = _Filling(
            self._capacity[:],
            [len(beyond) for beyond in self._beyond],
            [level[lane] for lane in self._rooms],
        )
        while full := filling.rise():
            for place in full:
                if place < ports:
                    level[place] = filling.share
                    self._fix_port(place, filling)
                else:
                    self._fix_lane(place, filling)
        for port, old in enumerate(before):
            if level[port] != old:
                self.changed.setdefault(port, old)
                self._show(port)
        for (up, down), flows in self._flows.items():
            same_port = before[up] < before[down] and level[up] < level[down]
            if not same_port and not (before[up] > before[down] and level[up] > level[down]):
                self.crossed += flows
        for pair in self._lanes:
            self.crossed += self._flows.get(pair, ())
        self._dirty.clear()

    def _fix_port(self, port: int, filling: _Filling) -> None:
        """A full port's flows have their rate, as far as they had none; the others lose it."""
        level, ports = self.level, self._ports
        for place in self._beyond[port]:
            if place >= ports:
                lane = place - (place - ports) % 3
                place = self._behind[place - ports]
                if lane not in filling.fixed:
                    filling.fixed.add(lane)
                    if level[place] == UNFILLED:
                        filling.take(place, self._lane_size(lane))
            elif level[place] == UNFILLED:
                filling.take(place, 1)

    def _fix_lane(self, lane: int, filling: _Filling) -> None:
        if lane not in filling.fixed:
            filling.fixed.add(lane)
            for view in (lane + 1, lane + 2):
                filling.take(self._behind[view - self._ports], self._lane_size(lane))

    def _lane_size(self, lane: int) -> int:
        """Flows across a lane."""
        down, up = self._behind[lane + 1 - self._ports], self._behind[lane + 2 - self._ports]
        return len(self._flows.get((up, down), ()))

    def _make_lane(self, up: int, down: int) -> int:
        lane = len(self.level)
        self._lanes[up, down] = lane
        self.level += [UNFILLED, self.level[down], self.level[up]]
        self._behind += [lane, down, up]
        self._views[down].append((lane + 1, lane))
        self._views[up].append((lane + 2, lane))
        for port, plain, view in ((up, down, lane + 1), (down, up, lane + 2)):
            self._beyond[port] = [view if at == plain else at for at in self._beyond[port]]
        return lane

    def _touch(self, up: int, down: int) -> tuple[int, int]:
        """What a flow from port to port meets beyond either; its lane has to be set anew."""
        if self._lanes:
            lane = self._lanes.get((up, down))
            if lane is not None:
                self._dirty_lanes[up, down] = lane
                return lane + 1, lane + 2
        return down, up

    def _bound(self, up: int, down: int, lane: int) -> None:
        """A lane's level needs no others: all its flows are alike."""
        flows = self._flows.get((up, down), {})
        room = self._rooms[lane]
        new = UNFILLED if room is None or not flows else room // len(flows)
        old = self.level[lane]
        if new != old:
            self.changed.setdefault(lane, old)
            self.crossed += flows
            self.level[lane] = new
            self.level[lane + 1] = min(new, self.level[down])
            self.level[lane + 2] = min(new, self.level[up])
            self._dirty[up] = self._dirty[down] = None

    def _show(self, port: int) -> None:
        """What is seen of a port through lanes follows its level."""
        for view, lane in self._views[port]:
            self.level[view] = min(self.level[port], self.level[lane])


class _Filling:
    """Progressive filling: what is left of the ports, and a heap of shares, corrected late.

    A port's share only grows while others fill up, so an entry of the heap is too low at worst.
    Lanes follow the ports, three places each, and never change: all flows of a lane are alike.
    """

    def __init__(self, left: list[int], growing: list[int], lanes: list[int]) -> None:
        self.share = 0
        self.fixed: set[int] = set()
        """Lanes whose flows have their rate; asked, never walked."""
        self._left = left
        """Capacity that no fixed flow has."""
        self._growing = growing
        """Flows that are not fixed."""
        self._shares = [(left[port] // size, port) for port, size in enumerate(growing) if size]
        for number, level in enumerate(lanes):
            if level != UNFILLED:
                self._shares.append((level, len(left) + 3 * number))
        heapq.heapify(self._shares)

    def take(self, port: int, flows: int) -> None:
        """Flows across a port are fixed at the present share."""
        self._left[port] -= flows * self.share
        self._growing[port] -= flows

    def rise(self) -> list[int]:
        """Whoever is full next, together: all that are at one share, which is `share` then."""
        shares, left, growing = self._shares, self._left, self._growing
        full: list[int] = []
        while shares and (not full or shares[0][0] == self.share):
            share, place = shares[0]
            if place < len(left):
                if not growing[place]:
                    heapq.heappop(shares)
                    continue
                now = left[place] // growing[place]
                if now != share:
                    heapq.heapreplace(shares, (now, place))
                    continue
            heapq.heappop(shares)
            full.append(place)
            self.share = share
        return full
