"""The head's queue of tasks that want a place, and what it knows of the room at each node.

Rules (PROTOCOL N7, N20, T11, D 27)
-----------------------------------
- Requests are idempotent by (task, attempt); the owner takes the first answer or declines it.
- One that no node can ever meet is kept, and said to be infeasible; any node that joins may change
  that. One that insists on a node which is dead, or cannot meet it, is refused: numbers of nodes
  are never given out twice. One that fits nowhere now is kept as well, in the order of the policy.
- Jobs have equal shares of the CPU that is given out while more than one waits (`shares.py`);
  within a job the rank of the policy decides. What was passed over too often reserves a node.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace

from detray.core import shares
from detray.core.head_messages import (
    DemandInfeasible,
    LoadReported,
    Placed,
    PlacementRefused,
    PlacementRequested,
    PlacementWithdrawn,
    RunsRecalled,
)
from detray.core.head_step import HeadStep
from detray.core.head_tables import Kind
from detray.core.placement import (
    UNIT,
    Demand,
    Hybrid,
    Node,
    Offer,
    Placement,
    can_ever,
    find_wanted,
)
from detray.core.resources import format_demand
from detray.core.strategy import AFFINITY, SPREAD, is_labelled, node_named
from detray.ids import JobNumber, NodeID, job_of

Turn = tuple[int, int, str]
"""(rank, number, key) of the first request of a kind."""


class Placer:
    """Answers requests, job by job and in order of rank, while some node has room for them."""

    def __init__(self, s: HeadStep, placement: Placement) -> None:
        self.s = s
        self.placement = placement

    # -------------------------------------------------------------- what is asked

    def on_placement_requested(self, m: PlacementRequested) -> None:
        if self.s.sender(m.node, m.link_seq) is not None:
            self._consider(m)

    def _consider(self, request: PlacementRequested) -> None:
        """Queue a request, keep it for a node that may come, or refuse it."""
        reason = self._why_never(request)
        strategy = request.strategy
        if not reason and strategy is not None and strategy.fails:
            wanted = find_wanted(request, self.s.t.nodes)
            if wanted is not None and not wanted.has_room(request.demand):
                reason = "that node is busy, and the task is not to wait for it"
        if reason:
            self._refuse(request, reason)
        elif any(can_ever(request, node) for node in self.s.t.nodes.values()):
            self.enter(request)
        else:
            self._keep_unplaced(request)

    def _why_never(self, request: PlacementRequested) -> str:
        """Why the node that a request insists on will never run it; "" if it can, or none is."""
        strategy = request.strategy
        if strategy is None or strategy.kind != AFFINITY or strategy.is_soft:
            return ""
        node = self.s.t.nodes.get(node_named(strategy.node))
        if node is None:
            known = 0 <= node_named(strategy.node) < self.s.t.durable.next_node
            return "that node is dead" if known else "there never was such a node"
        if not node.can_ever(request.demand):
            totals = tuple(sorted(node.totals.items()))
            return f"that node has {format_demand(totals)} in all"
        if not is_labelled(strategy.hard, node.id, node.labels):
            return "that node has not the labels that it asks for as well"
        return ""

    def _refuse(self, request: PlacementRequested, reason: str) -> None:
        owner = self.s.t.nodes.get(request.node)
        if owner is not None:
            self.s.send(owner, PlacementRefused, request.task, request.attempt, reason)

    def _keep_unplaced(self, request: PlacementRequested) -> None:
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
        job = job_of(request.task)
        key = f"{job} {request.demand} {request.strategy or ''}{' again' * request.is_returned}"
        kind = t.kinds.get(key)
        if kind is None:
            kind = t.kinds[key] = Kind(job)
        rank = self.placement.rank(request)
        heappush(kind.queue, (rank, t.next_number, request.task, request.attempt))
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

    def look_again(self, joined: Node | None = None) -> None:
        """A node came, or one went: what was kept may have a place now, or the other way round."""
        t = self.s.t
        if joined is not None:
            for request in list(t.unplaced.values()):
                if can_ever(request, joined):
                    del t.unplaced[request.task]
                    self.enter(request)
            self.s.changed = True
            return
        for request in list(t.requests.values()):
            reason = self._why_never(request)
            if reason:
                del t.requests[request.task]
                self._refuse(request, reason)
            elif not any(can_ever(request, node) for node in t.nodes.values()):
                del t.requests[request.task]
                self._keep_unplaced(request)

    # -------------------------------------------------------------- what is answered

    def place_all(self) -> None:
        """Answer requests while some node has room for them."""
        t = self.s.t
        if t.kinds and (t.roomy or t.spare):
            self._place_in_turn(self._turns())
        if t.config.policy.rebalance and not t.kinds:
            self._recall()

    def _turns(self) -> dict[JobNumber, list[Turn]]:
        """By job, a heap of its kinds of requests, each with its first one."""
        kinds = self.s.t.kinds
        turns: dict[JobNumber, list[Turn]] = {}
        for key, kind in list(kinds.items()):
            if self._first(kind) is None:
                del kinds[key]
            else:
                heappush(turns.setdefault(kind.job, []), (*kind.queue[0][:2], key))
        return turns

    def _first(self, kind: Kind) -> PlacementRequested | None:
        """The first request of a kind, past those that were answered or withdrawn."""
        while kind.queue:
            _, _, task, attempt = kind.queue[0]
            request = self.s.t.requests.get(task)
            if request is not None and request.attempt == attempt:
                return request
            heappop(kind.queue)
        return None

    def _place_in_turn(self, turns: dict[JobNumber, list[Turn]]) -> None:
        t = self.s.t
        is_shared = len(turns) > 1
        if is_shared:
            if not t.shares and t.last >= 0:
                shares.charge(t.shares, t.last, (("CPU", UNIT),))
            shares.join(t.shares, t.share, turns)
        elif t.shares:
            t.shares, t.share = {}, 0
        full: list[Kind] = []
        kept = {kind.reserved: kind for kind in t.kinds.values() if kind.reserved >= 0}
        while turns and (t.roomy or t.spare):
            job = shares.choose(t.shares, turns) if is_shared else next(iter(turns))
            heap = turns[job]
            key = heap[0][2]
            kind = t.kinds[key]
            request = self._first(kind)
            node = self._choose(request, kind, kept) if request is not None else None
            if request is None or node is None:
                full.append(kind)
                heappop(heap)
            else:
                if is_shared:
                    t.share = shares.charge(t.shares, job, request.demand)
                t.last = job
                self.place(request, node, 0 if is_shared else self._lease_ns(request))
                kept.pop(kind.reserved, None)
                kind.passed_over, kind.reserved = 0, NodeID(-1)
                for other in full:
                    other.passed_over += 1
                if self._first(kind) is not None:
                    heapreplace(heap, (*kind.queue[0][:2], key))
                else:
                    heappop(heap)
                    del t.kinds[key]
            if not heap:
                del turns[job]
        self._reserve(full)

    def _reserve(self, full: list[Kind]) -> None:
        """Keep a node for each kind that was passed over too often: nothing else goes there."""
        t = self.s.t
        for kind in full:
            if kind.passed_over <= t.config.policy.starvation_passes or kind.reserved in t.nodes:
                continue
            request = self._first(kind)
            if request is not None:
                wanted = find_wanted(request, t.nodes)
                able = [node for node in t.nodes.values() if can_ever(request, node)]
                best = max(able, key=lambda node: (node.free.get("CPU", 0), -node.id), default=None)
                kind.reserved = best.id if best is not None and wanted is None else NodeID(-1)

    def _lease_ns(self, request: PlacementRequested) -> int:
        """For how long a place serves again; not if policy or strategy choose for each task."""
        strategy = request.strategy
        if type(self.placement) is not Hybrid:
            return 0
        if strategy is not None and (strategy.kind == SPREAD or strategy.spills or strategy.fails):
            return 0
        return self.s.t.config.policy.lease_ns

    def _choose(
        self, request: PlacementRequested, kind: Kind, kept: dict[NodeID, Kind]
    ) -> Node | None:
        """The place for a request, as its strategy and the policy want it; None: wait."""
        nodes = self._candidates(request, kind, kept)
        strategy = request.strategy
        if strategy is None:
            return self.placement.choose(request, nodes)
        if strategy.spills:
            named = self.s.t.nodes.get(node_named(strategy.node))
            if named is not None and can_ever(request, named) and named.has_room(request.demand):
                return named
        if strategy.soft:
            found = list(nodes)
            liked = [node for node in found if is_labelled(strategy.soft, node.id, node.labels)]
            nodes = iter(liked or found)
        if strategy.kind == SPREAD:
            return next(nodes, None)
        return self.placement.choose(request, nodes)

    def _candidates(
        self, request: PlacementRequested, kind: Kind, kept: dict[NodeID, Kind]
    ) -> Iterator[Node]:
        """Nodes that have room now; if there are none, those whose queue is not full."""
        t = self.s.t
        nodes, demand = t.nodes, request.demand
        roomy, spare = t.roomy, t.spare
        wanted = find_wanted(request, nodes)
        if wanted is not None:
            roomy, spare = _only(wanted.id, roomy), _only(wanted.id, spare)
        found = False
        for number in roomy:
            node = nodes[number]
            if node.has_room(demand) and self._may(request, kind, node, kept):
                found = True
                yield node
        if found:
            return
        rounds = t.config.policy.queue_rounds
        for listed in (spare, roomy if rounds else {}):
            for number in listed:
                node = nodes[number]
                if request.is_returned and _waiting(node) >= rounds * node.slots:
                    continue
                if self._has_queue(node) and self._may(request, kind, node, kept):
                    yield node

    def _may(
        self, request: PlacementRequested, kind: Kind, node: Node, kept: dict[NodeID, Kind]
    ) -> bool:
        return kept.get(node.id, kind) is kind and can_ever(request, node)

    def place(self, request: PlacementRequested, node: Node, lease_ns: int = 0) -> None:
        """Name a node; for `lease_ns` its owner may use the place again without asking."""
        t = self.s.t
        del t.requests[request.task]
        if node.heard_ns >= 0:
            # One that never reports would be full for ever.
            node.offers.append(Offer(t.now_ns, request.task, request.demand))
            take_room(node, request.demand)
        t.roomy.pop(node.id, None)
        t.spare.pop(node.id, None)
        self.note_room(node)
        owner = t.nodes[request.node]
        self.s.send(
            owner, Placed, request.task, request.attempt, node.id, node.incarnation, lease_ns
        )

    # -------------------------------------------------------------- room

    def note_room(self, node: Node) -> None:
        """Keep the lists of nodes that might take another task."""
        t = self.s.t
        number = node.id
        if node.free.get("CPU", 0) > 0 or not node.totals.get("CPU", 0):
            t.roomy.setdefault(number)
            t.spare.pop(number, None)
            return
        t.roomy.pop(number, None)
        if self._has_queue(node):
            t.spare.setdefault(number)
        else:
            t.spare.pop(number, None)

    def _has_queue(self, node: Node) -> bool:
        """True if one more may wait there: fewer do than end before the head hears of it again."""
        policy = self.s.t.config.policy
        rounds = policy.queue_rounds
        if rounds and node.run_ns >= 0:
            soon = 3 * policy.report_interval_ns // max(node.run_ns, 1)
            rounds = max(rounds, min(soon, policy.queue_rounds_max))
        return _waiting(node) < rounds * node.slots

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
        node.backlog, node.run_ns = m.backlog, m.run_ns
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


def _only(number: NodeID, listed: dict[NodeID, None]) -> dict[NodeID, None]:
    return {number: None} if number in listed else {}


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
