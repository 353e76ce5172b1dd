"""Policies with knowledge that take tasks in a fixed order: `rank` is the order, `choose` the node.

Base class of all that know the workload; what is common to them is in `Knowing`.
"""

from __future__ import annotations

from collections.abc import Iterable

from detray.core.head_messages import PlacementRequested
from detray.core.placement import Node, draw
from detray_sim.policies.tracker import Tracker


class Knowing:
    """A policy that knows the workload. `ahead`: rounds of tasks that a node may queue."""

    ahead = 0

    def __init__(self, tracker: Tracker, seed: int, ahead: int = -1) -> None:
        self.tracker = tracker
        self.knowledge = tracker.knowledge
        self.seed = seed
        if ahead >= 0:
            self.ahead = ahead
        self.priorities = self.prepare()

    def prepare(self) -> list[int]:
        """By task number; the smallest is placed first."""
        return [0] * len(self.knowledge.tasks)

    def rank(self, request: PlacementRequested) -> int:
        """The priority; of equals the task with the smaller number goes first."""
        number = self.knowledge.number_of(request.task)
        self.tracker.forget(number)
        return self.priorities[number] * len(self.knowledge.tasks) + number

    def choose(self, request: PlacementRequested, nodes: Iterable[Node]) -> Node | None:
        """The best node that may be given more; None: the task waits."""
        tracker = self.tracker
        tracker.catch_up()
        number = self.knowledge.number_of(request.task)
        may = tracker.roomy(number, request.demand, self.ahead)
        if not may:
            return None
        node = may[0] if len(may) == 1 else self.pick(number, may)
        tracker.place(number, node)
        return node

    def pick(self, number: int, nodes: list[Node]) -> Node:
        """One of at least one node."""
        raise NotImplementedError


class FewestBytes(Knowing):
    """A node with a free core that has to fetch least; of equals the emptiest."""

    def pick(self, number: int, nodes: list[Node]) -> Node:
        """See the class."""
        tracker = self.tracker
        if self.knowledge.tasks[number].inputs:
            missing = [tracker.missing_bytes(number, node) for node in nodes]
            least = min(missing)
            nodes = [node for node, size in zip(nodes, missing, strict=True) if size == least]
        return min(nodes, key=tracker.fullness)


class BLevel(FewestBytes):
    """HLFET: the longest way to the end goes first."""

    def prepare(self) -> list[int]:
        """Negative b-levels."""
        return [-level for level in self.knowledge.b_levels()]


class TLevel(FewestBytes):
    """The task that could begin first on infinitely many cores goes first."""

    def prepare(self) -> list[int]:
        """t-levels."""
        return self.knowledge.t_levels()


class Heft(Knowing):
    """HEFT's ranks and choice: where the task ends first, even if it has to wait there."""

    ahead = 1

    def prepare(self) -> list[int]:
        """Upward ranks, the largest first."""
        return [-rank for rank in self.knowledge.upward_ranks()]

    def pick(self, number: int, nodes: list[Node]) -> Node:
        """See the class."""
        tracker = self.tracker
        return min(
            nodes,
            key=lambda n: (tracker.end_ns(number, n, tracker.start_ns(number, n)), n.id),
        )


class Mcp(Knowing):
    """MCP's order (the latest possible start first) and choice: where the task begins first."""

    ahead = 1

    def prepare(self) -> list[int]:
        """Latest starts: the length of the critical path less upward ranks."""
        ranks = self.knowledge.upward_ranks()
        longest = max(ranks, default=0)
        return [longest - rank for rank in ranks]

    def pick(self, number: int, nodes: list[Node]) -> Node:
        """See the class."""
        return min(nodes, key=lambda n: (self.tracker.start_ns(number, n), n.id))


class RandomStatic(Knowing):
    """Any node, drawn before the run begins, whatever waits there."""

    ahead = 1 << 30

    def pick(self, number: int, nodes: list[Node]) -> Node:
        """See the class."""
        return nodes[draw(self.seed, 2, number) % len(nodes)]
