"""Policies that choose a task and a node together: ETF and DLS, and the head that asks them.

The core's head takes waiting tasks in order of rank and asks for the node of each. These policies
compare all waiting tasks on all nodes, so their head asks for the next pair instead; everything
else about it is the core's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_messages import PlacementRequested
from detray.core.placement import Node
from detray_sim.policies.priorities import Knowing

_Best = tuple[int, int, int, Node]
"""(cost, priority, number of the task, node)."""


class PairHead(GlobalScheduler):
    """A global scheduler whose policy is asked for pairs."""

    def _place_all(self) -> None:
        t = self.tables
        policy = self.placement
        assert isinstance(policy, Pairs)
        waiting: dict[bytes, tuple[int, int, PlacementRequested]] = {}
        while t.queue:
            rank, number, task, attempt = heappop(t.queue)
            request = t.requests.get(task)
            if request is not None and request.attempt == attempt:
                waiting[task] = (rank, number, request)
        for request, node in policy.pairs([entry[2] for entry in waiting.values()]):
            del waiting[request.task]
            self._place(request, node)
        for rank, number, request in waiting.values():
            heappush(t.queue, (rank, number, request.task, request.attempt))


LOOKS_MAX = 256
"""Of so many kinds of waiting tasks, the first by priority, all pairs are compared."""


class Pairs(Knowing):
    """The pair with the smallest `cost` goes first; then all are looked at again.

    Waiting tasks that take the same and ask for the same are one kind, whose first by priority
    stands for all: so a thousand equal tasks cost as much as one.
    """

    ahead = 1

    def cost(self, number: int, node: Node) -> int:
        """What a pair costs."""
        raise NotImplementedError

    def pairs(
        self, requests: Sequence[PlacementRequested]
    ) -> Iterator[tuple[PlacementRequested, Node]]:
        """Pairs until nothing waits or no node has room."""
        self.tracker.catch_up()
        kinds: dict[object, list[PlacementRequested]] = {}
        for request in reversed(requests):
            task = self.knowledge.tasks[self.knowledge.number_of(request.task)]
            kinds.setdefault((task.inputs, task.demand), []).append(request)
        later = [kinds[key] for key in list(kinds)[: -LOOKS_MAX or None]]
        table = _Table(self, list(kinds.values())[-LOOKS_MAX:])
        while (pair := table.take()) is not None:
            yield pair
            if later and not table.best:
                table = _Table(self, later[-LOOKS_MAX:])
                del later[-LOOKS_MAX:]


class _Table:
    """The best node of each kind. `kinds`: requests, the first by priority last."""

    def __init__(self, policy: Pairs, kinds: list[list[PlacementRequested]]) -> None:
        self.policy = policy
        self.kinds = {at: kind for at, kind in enumerate(kinds) if kind}
        self.best: dict[int, _Best] = {}
        for at in list(self.kinds):
            self._look(at)

    def take(self) -> tuple[PlacementRequested, Node] | None:
        """The best of all pairs, which is placed."""
        if not self.best:
            return None
        at = min(self.best, key=lambda at: self.best[at][:3])
        node = self.best[at][3]
        request = self.kinds[at].pop()
        tracker = self.policy.tracker
        number = self._number(request)
        tracker.place(number, node, tracker.end_ns(number, node, tracker.start_ns(number, node)))
        if not self.kinds[at]:
            del self.kinds[at], self.best[at]
        else:
            self._look(at)
        self._look_again(node)
        return request, node

    def _number(self, request: PlacementRequested) -> int:
        return self.policy.knowledge.number_of(request.task)

    def _look(self, at: int) -> None:
        """Find the best node of a kind; without one it is not among the best."""
        request = self.kinds[at][-1]
        number = self._number(request)
        found = [
            mine
            for node in self.policy.tracker.nodes()
            if (mine := self._pair(number, request, node)) is not None
        ]
        if found:
            self.best[at] = min(found, key=lambda pair: (*pair[:3], pair[3].id))
        else:
            self.best.pop(at, None)

    def _look_again(self, node: Node) -> None:
        """A node was given something: only what is there, or would be, costs something else."""
        for at in list(self.best):
            if self.best[at][3] is node:
                self._look(at)
                continue
            request = self.kinds[at][-1]
            mine = self._pair(self._number(request), request, node)
            if mine is not None and mine[:3] < self.best[at][:3]:
                self.best[at] = mine

    def _pair(self, number: int, request: PlacementRequested, node: Node) -> _Best | None:
        policy = self.policy
        if not node.can_ever(request.demand):
            return None
        if not policy.tracker.has_room(number, node, policy.ahead):
            return None
        return (policy.cost(number, node), policy.priorities[number], number, node)


class Etf(Pairs):
    """ETF: the pair that can begin first; of equals the longest way to the end."""

    def prepare(self) -> list[int]:
        """Negative b-levels, for ties."""
        return [-level for level in self.knowledge.b_levels()]

    def cost(self, number: int, node: Node) -> int:
        """Its start."""
        return self.tracker.start_ns(number, node)


class Dls(Etf):
    """DLS: the pair with the largest dynamic level, which is the b-level less the start."""

    def cost(self, number: int, node: Node) -> int:
        """The negative dynamic level."""
        return self.tracker.start_ns(number, node) + self.priorities[number]
