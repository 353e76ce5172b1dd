"""The global scheduler: membership, job numbers, and where a handed-over task should run.

Rules (PROTOCOL N7, N16, T4, D 27, 35 to 40)
--------------------------------------------
- Local work never comes here: a node asks only for what it cannot, or should not, run itself.
- The head proposes, the owner disposes. Requests are idempotent by (task, attempt); the owner takes
  the first answer or declines it.
- A node that was silent for `death_ns` is buried; so is one of two that cannot talk to each other
  for a grace period: the one that fewer reach, then the younger. Everybody hears the verdict, in
  one order. A step that comes late for its deadline gives everybody that much more time.
- A request that no node can ever meet is kept, and said to be infeasible; any node that joins may
  change that. One that fits nowhere now is kept as well, in the order of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

import msgspec

from detray.core import waits
from detray.core.config import GlobalConfig
from detray.core.effects import Effect, SendToNode
from detray.core.head_messages import (
    DemandInfeasible,
    GetDoomed,
    HeadMessage,
    JobAdmitted,
    JobClosed,
    JobEnded,
    JobRequested,
    LoadReported,
    NodeAdmitted,
    NodeAnnounced,
    NodeBuried,
    NodeJoined,
    PeerReachable,
    PeerUnreachable,
    Placed,
    PlacementRequested,
    PlacementWithdrawn,
    RunsRecalled,
    StallNoticed,
    WaitsAsked,
    WaitsReported,
)
from detray.core.placement import POLICIES, Demand, Node, Offer, Placement
from detray.core.stimuli import GlobalStimulus
from detray.ids import ClientID, JobNumber, NodeID, TaskID


class Job(msgspec.Struct):
    """A driver's program, while it lasts."""

    number: JobNumber
    node: NodeID
    entrypoint: str


class GlobalTables(msgspec.Struct):
    """All state of the head between two steps (a policy's own state aside)."""

    config: GlobalConfig
    now_ns: int = 0
    next_node: int = 0
    next_job: int = 1
    next_number: int = 0
    nodes: dict[NodeID, Node] = {}
    roomy: dict[NodeID, None] = {}
    """Nodes with free CPU (or none at all), the one longest not chosen first."""
    spare: dict[NodeID, None] = {}
    """Nodes without, whose queue is not full; in the same order."""
    lives: dict[str, int] = {}
    """By name, how often a node of that name was admitted."""
    jobs: dict[JobNumber, Job] = {}
    requests: dict[TaskID, PlacementRequested] = {}
    """Asked and not answered yet."""
    queue: list[tuple[int, int, TaskID, int]] = []
    """Heap of (rank, number, task, attempt); entries of answered requests are skipped."""
    unplaced: dict[TaskID, PlacementRequested] = {}
    """Requests that no node can meet as the cluster stands; tried again when a node joins."""
    unreachable: dict[str, int] = {}
    """By "a b": since when a says that it cannot reach b (one way may be open, the other not)."""
    waits_round: int = 0
    waits_ns: int = 0
    waits_open: bool = False
    """Not all have answered yet."""
    waits: dict[NodeID, WaitsReported] = {}
    """What nodes said in this round of who waits for whom."""
    doomed: list[tuple[NodeID, ClientID, int]] = []
    """Gets that were stuck in the round before."""
    check_ns: int = 0
    place_ns: int = 0
    counts: dict[str, int] = {}


class GlobalScheduler:
    """The head's core: `handle(*stimuli, now_ns=...)` returns effects, all of them `SendToNode`."""

    def __init__(self, config: GlobalConfig, placement: Placement | None = None) -> None:
        self.tables = GlobalTables(config, next_job=config.first_job)
        self.placement: Placement = placement or POLICIES[config.placement](config.seed)
        self._out: list[Effect] = []
        self._changed = False

    def handle(self, *stimuli: GlobalStimulus, now_ns: int) -> list[Effect]:
        """Apply what happened; what to tell the nodes."""
        t = self.tables
        if now_ns > t.now_ns:
            t.now_ns = now_ns
        for stimulus in stimuli:
            _HANDLERS[type(stimulus)](self, stimulus)
        if t.check_ns and t.check_ns <= t.now_ns:
            self._check_members()
        interval_ns = t.config.policy.placement_interval_ns
        if not interval_ns:
            if self._changed:
                self._place_all()
        elif t.place_ns and t.place_ns <= t.now_ns:
            t.place_ns = 0
            self._place_all()
        elif self._changed and not t.place_ns:
            t.place_ns = t.now_ns + interval_ns
        self._changed = False
        out, self._out = self._out, []
        return out

    @property
    def next_deadline_ns(self) -> int | None:
        """When `handle` wants to be called even if nothing happens; None: never."""
        t = self.tables
        if t.place_ns and not 0 < t.check_ns <= t.place_ns:
            return t.place_ns
        return t.check_ns or None

    @property
    def state_size(self) -> int:
        """Rows in all tables."""
        t = self.tables
        return len(t.nodes) + len(t.jobs) + len(t.unplaced) + len(t.requests)

    def snapshot(self) -> bytes:
        """All state, to be given to `restore`."""
        return msgspec.msgpack.encode(self.tables)

    @classmethod
    def restore(
        cls, config: GlobalConfig, data: bytes, placement: Placement | None = None
    ) -> GlobalScheduler:
        """A head that goes on where `snapshot` was taken."""
        core = cls(config, placement)
        core.tables = msgspec.msgpack.decode(data, type=GlobalTables)
        return core

    # -------------------------------------------------------------- members

    def _on_node_joined(self, m: NodeJoined) -> None:
        t = self.tables
        life = t.lives[m.name] = t.lives.get(m.name, 0) + 1
        totals = dict(m.totals)
        node = Node(
            NodeID(t.next_node), life, m.name, totals, received=m.link_seq,
            names=tuple(totals), free=dict(totals), heard_ns=t.now_ns if m.is_reporting else -1,
        )  # fmt: skip
        if m.is_reporting and not t.check_ns:
            t.check_ns = t.now_ns + t.config.policy.death_ns
        t.next_node += 1
        for other in t.nodes.values():
            self._announce(node, other)
        t.nodes[node.id] = node
        t.roomy[node.id] = None
        self._send(node, NodeAdmitted, node.id, node.incarnation)
        for other in t.nodes.values():
            if other is not node:
                self._announce(other, node)
        for request in list(t.unplaced.values()):
            if node.can_ever(request.demand):
                del t.unplaced[request.task]
                self._enter(request)
        self._changed = True

    def _announce(self, to: Node, other: Node) -> None:
        self._send(
            to, NodeAnnounced, other.id, other.incarnation, other.name, tuple(other.totals.items())
        )

    def _on_load_reported(self, m: LoadReported) -> None:
        node = self._sender(m.node, m.link_seq)
        if node is None:
            return
        t = self.tables
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
        self._note_room(node)
        self._changed = True

    def _check_members(self) -> None:
        """Bury the silent, and one of each pair that cannot talk."""
        t = self.tables
        policy = t.config.policy
        late_ns = t.now_ns - t.check_ns
        if late_ns > policy.heartbeat_ns:
            # We were away ourselves: what others said meanwhile may still be on its way (T4).
            for node in t.nodes.values():
                if node.heard_ns >= 0:
                    node.heard_ns += late_ns
            for pair in t.unreachable:
                t.unreachable[pair] += late_ns
        due_ns = t.now_ns + policy.death_ns
        for node in list(t.nodes.values()):
            if node.heard_ns < 0:
                continue
            silent_ns = t.now_ns - node.heard_ns
            if silent_ns >= policy.death_ns:
                self._bury(node, f"it was silent for {silent_ns // 1_000_000} ms")
            else:
                due_ns = min(due_ns, node.heard_ns + policy.death_ns)
        for pair, since_ns in list(t.unreachable.items()):
            if pair not in t.unreachable:
                continue
            if t.now_ns - since_ns >= policy.unreachable_grace_ns:
                self._separate(pair)
            else:
                due_ns = min(due_ns, since_ns + policy.unreachable_grace_ns)
        t.check_ns = due_ns if t.nodes else 0

    def _separate(self, pair: str) -> None:
        """Two nodes cannot talk: the one that fewer others reach dies, then the younger.

        One that has missed its sign of life is not alive enough to accuse the other.
        """
        t = self.tables
        first, second = (t.nodes.get(NodeID(n)) for n in sorted(map(int, pair.split())))
        del t.unreachable[pair]
        if first is None or second is None:
            return
        troubles = [
            (self._is_late(node), self._troubles(node.id), node.id) for node in (first, second)
        ]
        victim, other = (first, second) if troubles[0] > troubles[1] else (second, first)
        self._bury(victim, f"it and node {other.id} cannot reach each other")

    def _is_late(self, node: Node) -> bool:
        patience_ns = 2 * self.tables.config.policy.heartbeat_ns
        return 0 <= node.heard_ns < self.tables.now_ns - patience_ns

    def _troubles(self, node: NodeID) -> int:
        return sum(str(node) in pair.split() for pair in self.tables.unreachable)

    def _bury(self, node: Node, reason: str) -> None:
        """The verdict: everybody is told, what it asked for and ran ends."""
        t = self.tables
        del t.nodes[node.id]
        t.roomy.pop(node.id, None)
        t.spare.pop(node.id, None)
        t.unreachable = {
            pair: since for pair, since in t.unreachable.items() if str(node.id) not in pair.split()
        }
        t.requests = {k: r for k, r in t.requests.items() if r.node != node.id}
        t.unplaced = {k: r for k, r in t.unplaced.items() if r.node != node.id}
        for other in t.nodes.values():
            self._send(other, NodeBuried, node.id, reason)
        for job in [job for job in t.jobs.values() if job.node == node.id]:
            self._close(job)
        t.counts["nodes buried"] = t.counts.get("nodes buried", 0) + 1
        for request in list(t.requests.values()):
            if not any(other.can_ever(request.demand) for other in t.nodes.values()):
                del t.requests[request.task]
                self._keep_unplaced(request)

    def _on_peer_unreachable(self, m: PeerUnreachable) -> None:
        t = self.tables
        if self._sender(m.node, m.link_seq) is None or m.peer not in t.nodes:
            return
        t.unreachable.setdefault(f"{m.node} {m.peer}", t.now_ns)
        due_ns = t.now_ns + t.config.policy.unreachable_grace_ns
        t.check_ns = min(t.check_ns or due_ns, due_ns)

    def _on_peer_reachable(self, m: PeerReachable) -> None:
        if self._sender(m.node, m.link_seq) is not None:
            self.tables.unreachable.pop(f"{m.node} {m.peer}", None)

    # -------------------------------------------------------------- jobs

    def _on_job_requested(self, m: JobRequested) -> None:
        node = self._sender(m.node, m.link_seq)
        if node is None:
            return
        job = JobNumber(self.tables.next_job)
        self.tables.next_job += 1
        self.tables.jobs[job] = Job(job, m.node, m.entrypoint)
        self._send(node, JobAdmitted, m.client, job)

    def _on_job_ended(self, m: JobEnded) -> None:
        self._sender(m.node, m.link_seq)
        job = self.tables.jobs.get(m.job)
        if job is not None:
            self._close(job)

    def _close(self, job: Job) -> None:
        """Tell everybody else that a job is over."""
        t = self.tables
        del t.jobs[job.number]
        for node in t.nodes.values():
            if node.id != job.node:
                self._send(node, JobClosed, job.number)

    # -------------------------------------------------------------- placing

    def _on_placement_requested(self, m: PlacementRequested) -> None:
        if self._sender(m.node, m.link_seq) is None:
            return
        t = self.tables
        if any(node.can_ever(m.demand) for node in t.nodes.values()):
            self._enter(m)
        else:
            self._keep_unplaced(m)

    def _keep_unplaced(self, request: PlacementRequested) -> None:
        """No member can ever run it: tell its owner, and wait for one that can."""
        t = self.tables
        t.unplaced[request.task] = request
        owner = t.nodes.get(request.node)
        if owner is not None:
            offers = largest_totals(t.nodes)
            self._send(owner, DemandInfeasible, request.task, request.attempt, offers)

    def _enter(self, request: PlacementRequested) -> None:
        t = self.tables
        t.requests[request.task] = request
        t.next_number += 1
        rank = self.placement.rank(request)
        heappush(t.queue, (rank, t.next_number, request.task, request.attempt))
        self._changed = True

    def _on_placement_withdrawn(self, m: PlacementWithdrawn) -> None:
        if self._sender(m.node, m.link_seq) is None:
            return
        t = self.tables
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
                    self._note_room(declined)
                    self._changed = True
                    break

    def _place_all(self) -> None:
        """Answer requests in order of rank while some node has room for them."""
        t = self.tables
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
                    self._place(request, node)
            if len(full) > 16 or len(waiting) > 256:
                break
        for entry in waiting:
            heappush(t.queue, entry)
        if t.config.policy.rebalance and not t.queue:
            self._recall()

    def _candidates(self, demand: Demand) -> Iterator[Node]:
        """Nodes that have room now; if there are none, those whose queue is not full."""
        nodes = self.tables.nodes
        found = False
        for number in self.tables.roomy:
            node = nodes[number]
            if node.has_room(demand):
                found = True
                yield node
        if found:
            return
        for number in self.tables.spare:
            node = nodes[number]
            if node.can_ever(demand):
                yield node
        rounds = self.tables.config.policy.queue_rounds
        for number in self.tables.roomy if rounds else ():
            node = nodes[number]
            if node.can_ever(demand) and _waiting(node) < rounds * node.slots:
                yield node

    def _place(self, request: PlacementRequested, node: Node) -> None:
        t = self.tables
        del t.requests[request.task]
        node.offers.append(Offer(t.now_ns, request.task, request.demand))
        take_room(node, request.demand)
        t.roomy.pop(node.id, None)
        t.spare.pop(node.id, None)
        self._note_room(node)
        owner = t.nodes[request.node]
        self._send(owner, Placed, request.task, request.attempt, node.id, node.incarnation)

    def _note_room(self, node: Node) -> None:
        """Keep the lists of nodes that might take another task."""
        t = self.tables
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
        t = self.tables
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
            self._send(victim, RunsRecalled, count)

    # -------------------------------------------------------------- deadlocks

    def _on_stall_noticed(self, m: StallNoticed) -> None:
        t = self.tables
        if self._sender(m.node, m.link_seq) is None:
            return
        policy = t.config.policy
        # A round under way is left alone, unless somebody who was asked must be dead by now.
        patience_ns = policy.death_ns if t.waits_open else policy.deadlock_check_ns
        if not t.waits_ns or t.now_ns - t.waits_ns >= patience_ns:
            t.doomed = []
            self._ask_waits()

    def _ask_waits(self) -> None:
        t = self.tables
        t.waits_round += 1
        t.waits_ns = t.now_ns
        t.waits_open = True
        t.waits = {}
        for node in t.nodes.values():
            self._send(node, WaitsAsked, t.waits_round)

    def _on_waits_reported(self, m: WaitsReported) -> None:
        t = self.tables
        if self._sender(m.node, m.link_seq) is None or m.round != t.waits_round:
            return
        t.waits[m.node] = m
        if any(number not in t.waits for number in t.nodes):
            return
        reports = {number: t.waits[number] for number in t.nodes}
        t.waits = {}
        t.waits_open = False
        if not waits.is_consistent(reports):
            t.doomed = []
            return
        totals = {number: node.totals for number, node in t.nodes.items()}
        search = waits.Search(reports, t.requests, totals)
        stuck = search.run()
        doomed = [(node, get.client, get.request) for node, get in stuck]
        if not stuck:
            t.doomed = []
        elif doomed != t.doomed:
            t.doomed = doomed
            self._ask_waits()
        else:
            t.doomed = []
            node, get = max(stuck, key=lambda entry: (entry[1].number, entry[0]))
            text = waits.describe(stuck, search.left)
            self._send(t.nodes[node], GetDoomed, get.client, get.request, text)

    # -------------------------------------------------------------- links

    def _sender(self, node: NodeID, link_seq: int) -> Node | None:
        """The node a message came from; None if it is buried, or has said this already."""
        row = self.tables.nodes.get(node)
        counts = self.tables.counts
        if row is None:
            counts["from the dead"] = counts.get("from the dead", 0) + 1
            return None
        if link_seq <= row.received:
            counts["duplicates"] = counts.get("duplicates", 0) + 1
            return None
        if link_seq > row.received + 1:
            counts["gaps"] = counts.get("gaps", 0) + 1
        row.received = link_seq
        if row.heard_ns >= 0:
            row.heard_ns = self.tables.now_ns
        return row

    def _send(self, node: Node, kind: Callable[..., HeadMessage], *fields: object) -> None:
        node.sent += 1
        self._out.append(SendToNode(node.id, kind(node.sent, *fields)))


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


# Any: each handler takes the stimulus type that is its key.
_HANDLERS: dict[type, Callable[[GlobalScheduler, Any], None]] = {
    NodeJoined: GlobalScheduler._on_node_joined,
    JobRequested: GlobalScheduler._on_job_requested,
    JobEnded: GlobalScheduler._on_job_ended,
    PlacementRequested: GlobalScheduler._on_placement_requested,
    PlacementWithdrawn: GlobalScheduler._on_placement_withdrawn,
    LoadReported: GlobalScheduler._on_load_reported,
    PeerUnreachable: GlobalScheduler._on_peer_unreachable,
    PeerReachable: GlobalScheduler._on_peer_reachable,
    StallNoticed: GlobalScheduler._on_stall_noticed,
    WaitsReported: GlobalScheduler._on_waits_reported,
}
