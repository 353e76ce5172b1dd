"""Policies that choose a task and a node together: ETF and DLS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detray.core.head_messages import PlacementRequested
from detray.core.placement import Node
from detray_sim.policies.priorities import Knowing

_Best = tuple[int, int, int, Node]
"""(cost, priority, number of the task, node)."""
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
        self.policy.tracker.place(self._number(request), node)
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
        policy = self.policy
        found = [
            self._pair(number, node)
            for node in policy.tracker.roomy(number, request.demand, policy.ahead)
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
            # It may be worth more now, for bytes that are on their way there, if it has room.
            mine = self._pair(self._number(self.kinds[at][-1]), node)
            if mine[:3] < self.best[at][:3]:
                self._look(at)

    def _pair(self, number: int, node: Node) -> _Best:
        policy = self.policy
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
