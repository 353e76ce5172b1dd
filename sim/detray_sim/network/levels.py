"""Max-min fair rates, kept up to date while flows come and go.

A *port* is one direction of one node's card: out of node i is port i, into it port `nodes` + i. A
flow crosses two ports, and a *lane* if its link has a bandwidth of its own. Progressive filling
raises the rates of all flows together; a port that cannot give each of its growing flows one unit
more is full at that *level*, and its flows keep it as their rate. So a flow's rate is the lowest
level on its way, and a port's level follows from its capacity and from those levels at the other
ends of its flows that are lower than its own (`water_level`).

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
NO_LANE = -1
FILL_SHARE = 2
"""Of the ports: if more than one in so many were touched, all levels are computed from nothing."""
LOOKS_MAX = 4
"""A bound for bad luck: after so many looks per port all levels are computed from nothing."""


def water_level(capacity: int, others: list[int]) -> int:
    """The level at which a port is full; `others`: what limits its flows elsewhere, sorted."""
    growing = len(others)
    for level in others:
        if (level + 1) * growing > capacity:
            return capacity // growing
        capacity -= level
        growing -= 1
    return UNFILLED


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
        self._capacity: list[int | None] = [*capacities]
        self._across: list[dict[int, int]] = [{} for _ in capacities]
        """Per port (or lane) its flows, and whose level limits each of them beyond it."""
        self._paths: dict[int, tuple[int, int, int]] = {}
        self._lanes: dict[tuple[int, int], int] = {}
        self._views: list[list[tuple[int, int]]] = [[] for _ in capacities]
        """Per port: places in `level` that show it behind a lane, and the lanes."""
        self._behind: list[int] = []
        """Per place after the ports: which port it shows."""
        self._dirty: dict[int, None] = {}
        self._dirty_lanes: dict[int, None] = {}

    @property
    def is_settled(self) -> bool:
        """No change waits for `settle`."""
        return not self._dirty and not self._dirty_lanes

    def path(self, flow: int) -> tuple[int, int, int]:
        """Sender's port, receiver's port, lane or NO_LANE."""
        return self._paths[flow]

    def add(self, flow: int, up: int, down: int) -> None:
        """A flow from port to port."""
        lane = self._lanes.get((up, down), NO_LANE)
        self._paths[flow] = (up, down, lane)
        self._dirty[up] = self._dirty[down] = None
        if lane == NO_LANE:
            self._across[up][flow] = down
            self._across[down][flow] = up
        else:
            self._join(flow, up, down, lane)
            self._dirty_lanes[lane] = None
        self.crossed.append(flow)

    def remove(self, flow: int) -> None:
        """The flow is gone."""
        up, down, lane = self._paths.pop(flow)
        for port in (up, down):
            del self._across[port][flow]
            if self.level[port] != UNFILLED:
                self._dirty[port] = None
        if lane != NO_LANE:
            del self._across[lane][flow]
            self._dirty_lanes[lane] = None

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
        self._capacity[lane] = capacity
        self._dirty_lanes[lane] = None

    def settle(self) -> None:
        """Bring all levels up to date, from the ports that were touched outwards."""
        for lane in self._dirty_lanes:
            self._bound(lane)
        self._dirty_lanes.clear()
        if len(self._dirty) * FILL_SHARE > self._ports:
            self._fill()
            return
        level, across, capacity = self.level, self._across, self._capacity
        ahead = [(level[port], port) for port in self._dirty]
        heapq.heapify(ahead)
        pending = self._dirty
        looks = 0
        while ahead:
            port = heapq.heappop(ahead)[1]
            del pending[port]
            looks += 1
            if looks > LOOKS_MAX * self._ports:
                self._fill()
                return
            room = capacity[port]
            assert room is not None, "only a lane may have no capacity"
            new = water_level(room, sorted([level[other] for other in across[port].values()]))
            old = level[port]
            if new != old:
                self._set(port, old, new)
                self._tell(port, old, new, ahead)

    def _set(self, port: int, old: int, new: int) -> None:
        self.changed.setdefault(port, old)
        self.level[port] = new
        for view, lane in self._views[port]:
            self.level[view] = min(new, self.level[lane])

    def _tell(self, port: int, old: int, new: int, ahead: list[tuple[int, int]]) -> None:
        """Find who has to be looked at again, and which flows may now be limited elsewhere.

        Whoever is full at a lower level than both the old and the new one has not noticed the port
        yet; and who is not full already will not be because somebody takes less.
        """
        level, pending, crossed, ports = self.level, self._dirty, self.crossed, self._ports
        low, high = (old, new) if old < new else (new, old)
        unmoved = UNFILLED if new < old else UNFILLED + 1
        for flow, other in self._across[port].items():
            beyond = level[other]
            if beyond >= low:
                if beyond <= high:
                    crossed.append(flow)
                if low < beyond < unmoved:
                    if other >= ports:
                        other = self._behind[other - ports]
                    if other not in pending:
                        pending[other] = None
                        heapq.heappush(ahead, (level[other], other))

    def _fill(self) -> None:
        """Compute all levels from nothing: progressive filling, with a heap that is corrected late.

        The share of a port only grows while others fill up, so an entry of the heap is too low at
        worst.
        """
        before = self.level[: self._ports]
        level, left = self.level, self._capacity[:]
        growing = [len(flows) for flows in self._across]
        shares = [
            (room // growing[place], place)
            for place, room in enumerate(left)
            if growing[place] and room is not None
        ]
        heapq.heapify(shares)
        level[: self._ports] = [UNFILLED] * self._ports
        fixed: set[int] = set()  # asked, never walked
        while shares:
            share = shares[0][0]
            for place in self._fill_to(share, shares, left, growing):
                level[place] = share
                for flow in self._across[place]:
                    if flow not in fixed:
                        fixed.add(flow)
                        for crossing in self._paths[flow]:
                            if crossing != NO_LANE:
                                growing[crossing] -= 1
                                room = left[crossing]
                                left[crossing] = None if room is None else room - share
        for port, old in enumerate(before):
            if level[port] != old:
                self._set(port, old, level[port])
                self.crossed.extend(self._across[port])
        self._dirty.clear()

    @staticmethod
    def _fill_to(
        share: int, shares: list[tuple[int, int]], left: list[int | None], growing: list[int]
    ) -> list[int]:
        """All that are full at this share, before any of their flows is fixed."""
        full = []
        while shares and shares[0][0] == share:
            place = shares[0][1]
            room = left[place]
            if not growing[place] or room is None:
                heapq.heappop(shares)
            elif room // growing[place] == share:
                full.append(place)
                heapq.heappop(shares)
            else:
                heapq.heapreplace(shares, (room // growing[place], place))
        return full

    def _make_lane(self, up: int, down: int) -> int:
        lane = len(self.level)
        self._lanes[up, down] = lane
        self.level += [UNFILLED, self.level[down], self.level[up]]
        self._capacity += [None] * 3
        self._across += [{}, {}, {}]
        self._behind += [lane, down, up]
        self._views[down].append((lane + 1, lane))
        self._views[up].append((lane + 2, lane))
        for flow in [flow for flow, other in self._across[up].items() if other == down]:
            self._paths[flow] = (up, down, lane)
            self._join(flow, up, down, lane)
        return lane

    def _join(self, flow: int, up: int, down: int, lane: int) -> None:
        self._across[up][flow] = lane + 1
        self._across[down][flow] = lane + 2
        self._across[lane][flow] = lane

    def _bound(self, lane: int) -> None:
        """A lane's level needs no others: all its flows are alike."""
        flows = self._across[lane]
        room = self._capacity[lane]
        new = UNFILLED if room is None or not flows else room // len(flows)
        old = self.level[lane]
        if new == old:
            return
        self.changed.setdefault(lane, old)
        self.crossed.extend(flows)
        self.level[lane] = new
        down, up = self._behind[lane + 1 - self._ports], self._behind[lane + 2 - self._ports]
        self.level[lane + 1] = min(new, self.level[down])
        self.level[lane + 2] = min(new, self.level[up])
        self._dirty[up] = self._dirty[down] = None
