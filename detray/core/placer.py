"""The head's queue of tasks that want a place, and what it knows of the room at each node.

Rules (PROTOCOL N7, D 27)
-------------------------
- Requests are idempotent by (task, attempt); the owner takes the first answer or declines it.
- One that no node can ever meet is kept, and said to be infeasible; any node that joins may change
  that. One that fits nowhere now is kept as well, in the order of the policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from detray.core.head_messages import (
    DemandInfeasible,
    LoadReported,
    Placed,
    PlacementRequested,
    PlacementWithdrawn,
    RunsRecalled,
)
from detray.core.head_step import HeadStep
from detray.core.placement import Demand, Node, Offer, Placement
from detray.ids import NodeID, TaskID


class Placer:
    """Answers requests in order of rank while some node has room for them."""

    def __init__(self, s: HeadStep, placement: Placement) -> None:
        self.s = s
        self.placement = placement

    def on_placement_requested(self, m: PlacementRequested) -> None:
        if self.s.sender(m.node, m.link_seq) is None:
            return
        t = self.s.t
        if any(node.can_ever(m.demand) for node in t.nodes.values()):
            self.enter(m)
        else:
            self.keep_unplaced(m)

    def keep_unplaced(self, request: PlacementRequested) -> None:
        """No member can ever run it: tell its owner, and wait for one that can."""
        t = self.s.t
        t.unplaced[request.task] = request
        owner = t.nodes.get(request.node)
        if owner is not None:
            offers = largest_totals(t.nodes)
            self.s.send(owner, DemandInfeasible, request.task, request.attempt, offers)

    def enter(self, request: PlacementRequested) -> None:
        t = self.s.t
        t.requests[request.task] = request
        t.next_number += 1
        rank = self.placement.rank(request)
        heappush(t.queue, (rank, t.next_number, request.task, request.attempt))
        self.s.changed = True

    def on_placement_withdrawn(self, m: PlacementWithdrawn) -> None:
        if self.s.sender(m.node, m.link_seq) is None:
            return
        t = self.s.t
        for table in (t.unplaced, t.requests):
            request = table.get(m.task)
            if request is not None and request.attempt == m.attempt:
                del table[m.task]
        declined = t.nodes.get(m.declined)
        if declined is not None:
            for offer in declined.offers:
                if offer.task == m.task:
                    declined.offers.remove(offer)
                    give_room(declined, offer.demand)
                    self.note_room(declined)
                    self.s.changed = True
                    break

    def place_all(self) -> None:
        """Answer requests in order of rank while some node has room for them."""
        t = self.s.t
        waiting: list[tuple[int, int, TaskID, int]] = []
        full: dict[Demand, None] = {}
        while t.queue and (t.roomy or t.spare):
            entry = heappop(t.queue)
            request = t.requests.get(entry[2])
            if request is None or request.attempt != entry[3]:
                continue
            if request.demand in full:
                waiting.append(entry)
            else:
                node = self.placement.choose(request, self._candidates(request.demand))
                if node is None:
                    waiting.append(entry)
                    full[request.demand] = None
                else:
                    self.place(request, node)
            if len(full) > 16 or len(waiting) > 256:
                break
        for entry in waiting:
            heappush(t.queue, entry)
        if t.config.policy.rebalance and not t.queue:
            self._recall()

    def _candidates(self, demand: Demand) -> Iterator[Node]:
        """Nodes that have room now; if there are none, those whose queue is not full."""
        nodes = self.s.t.nodes
        found = False
        for number in self.s.t.roomy:
            node = nodes[number]
            if node.has_room(demand):
                found = True
                yield node
        if found:
            return
        for number in self.s.t.spare:
            node = nodes[number]
            if node.can_ever(demand):
                yield node
        rounds = self.s.t.config.policy.queue_rounds
        for number in self.s.t.roomy if rounds else ():
            node = nodes[number]
            if node.can_ever(demand) and _waiting(node) < rounds * node.slots:
                yield node

    def place(self, request: PlacementRequested, node: Node) -> None:
        t = self.s.t
        del t.requests[request.task]
        node.offers.append(Offer(t.now_ns, request.task, request.demand))
        take_room(node, request.demand)
        t.roomy.pop(node.id, None)
        t.spare.pop(node.id, None)
        self.note_room(node)
        owner = t.nodes[request.node]
        self.s.send(owner, Placed, request.task, request.attempt, node.id, node.incarnation)

    def note_room(self, node: Node) -> None:
        """Keep the lists of nodes that might take another task."""
        t = self.s.t
        number = node.id
        if node.free.get("CPU", 0) > 0 or not node.totals.get("CPU", 0):
            t.roomy.setdefault(number)
            t.spare.pop(number, None)
            return
        t.roomy.pop(number, None)
        if _waiting(node) < t.config.policy.queue_rounds * node.slots:
            t.spare.setdefault(number)
        else:
            t.spare.pop(number, None)

    def _recall(self) -> None:
        """Work stealing: a node that idles while another has a backlog gets some of it."""
        t = self.s.t
        policy = t.config.policy
        idle = sum(max(0, node.free.get("CPU", 0)) // 10_000 for node in t.nodes.values())
        if not idle:
            return
        victim = max(t.nodes.values(), key=lambda n: (n.backlog, -n.id))
        pause_ns = max(policy.report_interval_ns, 1_000_000)
        if victim.backlog > 0 and t.now_ns - victim.recalled_ns >= pause_ns:
            victim.recalled_ns = t.now_ns
            count = min(idle, (victim.backlog + 1) // 2)
            victim.backlog -= count
            self.s.send(victim, RunsRecalled, count)

    def on_load_reported(self, m: LoadReported) -> None:
        node = self.s.sender(m.node, m.link_seq)
        if node is None:
            return
        t = self.s.t
        node.free = dict(zip(node.names, m.free, strict=False))
        node.backlog = m.backlog
        confirmed = m.received - node.confirmed
        node.confirmed = m.received
        if confirmed > 0:
            del node.offers[:confirmed]
        stale_ns = t.now_ns - t.config.policy.in_flight_ns
        while node.offers and node.offers[0].at_ns < stale_ns:
            del node.offers[0]
        for offer in node.offers:
            take_room(node, offer.demand)
        self.note_room(node)
        self.s.changed = True


def _waiting(node: Node) -> int:
    """Tasks that wait at a node, and those on their way to it beyond its free CPUs."""
    excess = -min(0, node.free.get("CPU", 0)) // 10_000
    return node.backlog + excess


def take_room(node: Node, demand: Demand) -> None:
    """Count a placement against what is free; below zero it will wait there."""
    for name, amount in demand:
        node.free[name] = node.free.get(name, 0) - amount


def give_room(node: Node, demand: Demand) -> None:
    """A placement was declined."""
    for name, amount in demand:
        node.free[name] = node.free.get(name, 0) + amount


def largest_totals(nodes: dict[NodeID, Node]) -> Demand:
    """The most that any node has, by resource name."""
    most: dict[str, int] = {}
    for node in nodes.values():
        for name, amount in node.totals.items():
            most[name] = max(amount, most.get(name, 0))
    return tuple(sorted(most.items()))
