"""The head of an experiment whose policy knows the workload.

It differs from the core's in one thing: what waits is kept by demand, and a policy is asked until
it has no node for a demand; then the others go on. The core's looks at some hundreds of waiting
tasks in each step instead, which a policy with its own idea of what is full would make it do over
and over. A policy of pairs is asked for pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import heappop, heappush

from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_messages import PlacementRequested
from detray.core.head_step import HeadStep
from detray.core.placement import Demand, Node, Placement, find_able
from detray.core.placer import Placer
from detray.ids import TaskID
from detray_sim.policies.pairs import Pairs

_Entry = tuple[int, int, TaskID, int]


class KnowingPlacer(Placer):
    """A queue for policies that count themselves what their nodes were given."""

    def __init__(self, s: HeadStep, placement: Placement) -> None:
        super().__init__(s, placement)
        self._waiting: dict[Demand, list[_Entry]] = {}

    def enter(self, request: PlacementRequested) -> None:
        t = self.s.t
        t.requests[request.task] = request
        t.next_number += 1
        entry = (self.placement.rank(request), t.next_number, request.task, request.attempt)
        heappush(self._waiting.setdefault(request.demand, []), entry)
        self.s.changed = True

    def place_all(self) -> None:
        if isinstance(self.placement, Pairs):
            self._place_pairs(self.placement)
            return
        every = self.s.t.nodes
        nodes: Collection[Node] = every.values()
        open_demands = [demand for demand, queue in self._waiting.items() if queue]
        while open_demands:
            demand = min(open_demands, key=lambda d: self._waiting[d][0])
            queue = self._waiting[demand]
            request = self._request(queue[0])
            node = None
            if request is not None:
                able = nodes
                if request.strategy is not None:
                    able = [every[number] for number in find_able(request, every)]
                node = self.placement.choose(request, able)
            if request is not None and node is None:
                open_demands.remove(demand)
                continue
            heappop(queue)
            if request is not None and node is not None:
                self.place(request, node)
            if not queue:
                open_demands.remove(demand)

    def _request(self, entry: _Entry) -> PlacementRequested | None:
        request = self.s.t.requests.get(entry[2])
        return request if request is not None and request.attempt == entry[3] else None

    def _place_pairs(self, policy: Pairs) -> None:
        for request, node in policy.pairs(list(self._in_order())):
            self.place(request, node)
        for demand, queue in self._waiting.items():
            self._waiting[demand] = [entry for entry in queue if self._request(entry) is not None]

    def _in_order(self) -> Iterator[PlacementRequested]:
        """What waits, by rank."""
        for entry in sorted(entry for queue in self._waiting.values() for entry in queue):
            request = self._request(entry)
            if request is not None:
                yield request


class KnowingHead(GlobalScheduler):
    """A global scheduler whose policy knows the workload."""

    placer_kind = KnowingPlacer
