"""Placement policies: which node of the cluster should run a task that was handed over.

A policy is a small object with two methods (`Placement`); it sees the head's view of the nodes and
decides nothing else. The head keeps the queue, the bookkeeping and the messages. Policies draw
chance, where they want it, from a counter-based function of the seed (`draw`), so that one more
draw somewhere shifts nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from detray.core.head_messages import Labels, PlacementRequested, WaitingTask
from detray.core.strategy import AFFINITY, is_labelled, node_named
from detray.ids import NodeID, TaskID

MASK = (1 << 64) - 1
UNIT = 10_000

Demand = tuple[tuple[str, int], ...]
Wish = PlacementRequested | WaitingTask
"""What has a demand and a strategy: asked for, or what may come to be."""


class Offer(msgspec.Struct):
    """A placement that no report of the node has confirmed yet."""

    at_ns: int
    task: TaskID
    demand: Demand


class Node(msgspec.Struct):
    """A member of the cluster, as the head knows it.

    `free` is what its last report said, less what was placed there since (`offers`). `slots` is how
    many CPUs it has, at least one. `sent` and `received` number the messages of its link.
    """

    id: NodeID
    incarnation: int
    name: str
    totals: dict[str, int]
    sent: int = 0
    received: int = 0
    names: tuple[str, ...] = ()
    free: dict[str, int] = {}
    backlog: int = 0
    run_ns: int = -1
    """How long a run for another node takes there, as it said last."""
    confirmed: int = 0
    """Placements that had reached it when it reported last."""
    offers: list[Offer] = []
    heard_ns: int = -1
    """When it last said anything; -1: it never reports, so silence means nothing."""
    recalled_ns: int = 0
    is_expected: bool = False
    """A member from before this head began, which has not returned yet: it hears nothing."""
    address: str = ""
    labels: Labels = ()

    @property
    def slots(self) -> int:
        """CPUs, at least one."""
        return max(1, self.totals.get("CPU", 0) // UNIT)

    def can_ever(self, demand: Demand) -> bool:
        """True if its totals meet the demand."""
        totals = self.totals
        for name, amount in demand:  # noqa: SIM110  # a generator here is felt
            if totals.get(name, 0) < amount:
                return False
        return True

    def has_room(self, demand: Demand) -> bool:
        """True if the demand fits into what is free now."""
        free = self.free
        for name, amount in demand:  # noqa: SIM110  # the same
            if free.get(name, 0) < amount:
                return False
        return True


def can_ever(request: Wish, node: Node) -> bool:
    """True if the node's totals and labels meet the request, whichever node it would like best."""
    strategy = request.strategy
    return node.can_ever(request.demand) and (
        strategy is None or is_labelled(strategy.hard, node.id, node.labels)
    )


def find_wanted(request: Wish, nodes: Mapping[NodeID, Node]) -> Node | None:
    """The only node that the request may go to: one that its strategy names, and that can do it.

    It is waited for, however busy, unless the request may spill.
    """
    strategy = request.strategy
    if strategy is None or strategy.kind != AFFINITY or strategy.spills:
        return None
    node = nodes.get(node_named(strategy.node))
    return node if node is not None and can_ever(request, node) else None


def find_able(request: Wish, nodes: Mapping[NodeID, Node]) -> list[NodeID]:
    """The nodes that the request may go to some time, as things stand."""
    wanted = find_wanted(request, nodes)
    if wanted is not None:
        return [wanted.id]
    return [node.id for node in nodes.values() if can_ever(request, node)]


def may_fail(request: Wish, nodes: Mapping[NodeID, Node]) -> bool:
    """True for one that would rather fail than wait for a busy node, or names an impossible one."""
    strategy = request.strategy
    if strategy is None or strategy.kind != AFFINITY:
        return False
    return strategy.fails or (not strategy.is_soft and find_wanted(request, nodes) is None)


class Placement(Protocol):
    """What a policy must do. Both methods are pure in the node view, the request and own state."""

    def rank(self, request: PlacementRequested) -> int:
        """Smaller ranks are placed first; equal ones in order of arrival."""
        ...

    def choose(self, request: PlacementRequested, nodes: Iterable[Node]) -> Node | None:
        """One of `nodes`, which all have room, the one longest not chosen first; None: wait."""
        ...


def draw(seed: int, stream: int, number: int) -> int:
    """64 bits that depend on the arguments only (splitmix64 of a mixed key)."""
    z = (seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + number + 1) & MASK
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def bytes_at(request: PlacementRequested, node: Node) -> int:
    """Bytes of the task's arguments that lie at a node already."""
    for place, size_bytes in request.hints:
        if place == node.id:
            return size_bytes
    return 0


class Hybrid:
    """The default: where most bytes of the arguments are, else the nodes in turn.

    Taking nodes in turn spreads the surplus of a busy node and costs O(1) a task while there is
    room (Ray's hybrid policy picks among the best k at random instead). A node that
    offers its surplus comes last: it has no room, whatever its last report said.
    """

    def __init__(self, seed: int) -> None:
        pass

    def rank(self, request: PlacementRequested) -> int:
        """In order of arrival."""
        return 0

    def choose(self, request: PlacementRequested, nodes: Iterable[Node]) -> Node | None:
        """See the class."""
        home: Node | None = None
        if not request.hints:
            for node in nodes:
                if not (request.is_surplus and node.id == request.node):
                    return node
                home = node
            return home
        first: Node | None = None
        best: Node | None = None
        most = 0
        for node in nodes:
            if request.is_surplus and node.id == request.node:
                home = node
            else:
                first = first or node
            size_bytes = bytes_at(request, node)
            if size_bytes > most:
                best, most = node, size_bytes
        return best or first or home


class Locality:
    """Wait for nothing but bytes: most bytes first, then most free CPU, then the lowest number."""

    def __init__(self, seed: int) -> None:
        pass

    def rank(self, request: PlacementRequested) -> int:
        """In order of arrival."""
        return 0

    def choose(self, request: PlacementRequested, nodes: Iterable[Node]) -> Node | None:
        """See the class."""
        return max(
            nodes, key=lambda n: (bytes_at(request, n), n.free.get("CPU", 0), -n.id), default=None
        )


class Spread:
    """The emptiest node, whatever lies where."""

    def __init__(self, seed: int) -> None:
        pass

    def rank(self, request: PlacementRequested) -> int:
        """In order of arrival."""
        return 0

    def choose(self, request: PlacementRequested, nodes: Iterable[Node]) -> Node | None:
        """See the class."""
        return max(
            nodes,
            key=lambda n: (n.free.get("CPU", 0) * 1000 // (n.slots * UNIT), -n.backlog, -n.id),
            default=None,
        )


class Random:
    """Any node with room, each as likely."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.draws = 0

    def rank(self, request: PlacementRequested) -> int:
        """In order of arrival."""
        return 0

    def choose(self, request: PlacementRequested, nodes: Iterable[Node]) -> Node | None:
        """See the class."""
        having = list(nodes)
        if not having:
            return None
        self.draws += 1
        return having[draw(self.seed, 1, self.draws) % len(having)]


POLICIES: dict[str, type[Hybrid] | type[Locality] | type[Spread] | type[Random]] = {
    "hybrid": Hybrid,
    "locality": Locality,
    "spread": Spread,
    "random": Random,
}
