"""The global scheduler: membership, job numbers, and where a handed-over task should run.

Lives in the head's service. Local work never comes here: a node asks only for what it can never run
itself (later: what it should not). The head proposes, the owner disposes (PROTOCOL N7): answers are
idempotent by (task, attempt), and the owner takes the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from detray.core.config import GlobalConfig
from detray.core.effects import Effect, SendToNode
from detray.core.head_messages import (
    DemandInfeasible,
    HeadMessage,
    JobAdmitted,
    JobEnded,
    JobRequested,
    NodeAdmitted,
    NodeJoined,
    Placed,
    PlacementRequested,
    PlacementWithdrawn,
)
from detray.core.stimuli import (
    GlobalStimulus,
)
from detray.ids import JobNumber, NodeID, TaskID

Demand = tuple[tuple[str, int], ...]


class Node(msgspec.Struct):
    """A member of the cluster. `sent` and `received` number the messages of its link."""

    id: NodeID
    incarnation: int
    name: str
    totals: dict[str, int]
    sent: int = 0
    received: int = 0


class Job(msgspec.Struct):
    """A driver's program, while it lasts."""

    number: JobNumber
    node: NodeID
    entrypoint: str


class GlobalTables(msgspec.Struct):
    """All state of the head between two steps."""

    config: GlobalConfig
    now_ns: int = 0
    next_node: int = 0
    next_job: int = 1
    nodes: dict[NodeID, Node] = {}
    jobs: dict[JobNumber, Job] = {}
    unplaced: dict[TaskID, PlacementRequested] = {}
    """Requests that no node can meet as the cluster stands; tried again when a node joins."""
    counts: dict[str, int] = {}


class GlobalScheduler:
    """The head's core: `handle(*stimuli, now_ns=...)` returns effects, all of them `SendToNode`."""

    def __init__(self, config: GlobalConfig) -> None:
        self.tables = GlobalTables(config, next_job=config.first_job)
        self._out: list[Effect] = []

    def handle(self, *stimuli: GlobalStimulus, now_ns: int) -> list[Effect]:
        """Apply what happened; what to tell the nodes."""
        self.tables.now_ns = max(self.tables.now_ns, now_ns)
        for stimulus in stimuli:
            _HANDLERS[type(stimulus)](self, stimulus)
        out, self._out = self._out, []
        return out

    @property
    def next_deadline_ns(self) -> int | None:
        """The head waits for nothing yet."""
        return None

    @property
    def state_size(self) -> int:
        """Rows in all tables."""
        t = self.tables
        return len(t.nodes) + len(t.jobs) + len(t.unplaced)

    def snapshot(self) -> bytes:
        """All state, to be given to `restore`."""
        return msgspec.msgpack.encode(self.tables)

    @classmethod
    def restore(cls, config: GlobalConfig, data: bytes) -> GlobalScheduler:
        """A head that goes on where `snapshot` was taken."""
        core = cls(config)
        core.tables = msgspec.msgpack.decode(data, type=GlobalTables)
        return core

    # -------------------------------------------------------------- handlers

    def _on_node_joined(self, m: NodeJoined) -> None:
        t = self.tables
        node = Node(NodeID(t.next_node), 1, m.name, dict(m.totals), received=m.link_seq)
        t.next_node += 1
        t.nodes[node.id] = node
        self._send(node, lambda seq: NodeAdmitted(seq, node.id, node.incarnation))
        for request in list(t.unplaced.values()):
            self._place(request, tell_infeasible=False)

    def _on_job_requested(self, m: JobRequested) -> None:
        node = self._sender(m.node, m.link_seq)
        job = JobNumber(self.tables.next_job)
        self.tables.next_job += 1
        self.tables.jobs[job] = Job(job, m.node, m.entrypoint)
        self._send(node, lambda seq: JobAdmitted(seq, m.client, job))

    def _on_job_ended(self, m: JobEnded) -> None:
        self._sender(m.node, m.link_seq)
        self.tables.jobs.pop(m.job, None)

    def _on_placement_requested(self, m: PlacementRequested) -> None:
        self._sender(m.node, m.link_seq)
        self._place(m, tell_infeasible=True)

    def _on_placement_withdrawn(self, m: PlacementWithdrawn) -> None:
        self._sender(m.node, m.link_seq)
        request = self.tables.unplaced.get(m.task)
        if request is not None and request.attempt == m.attempt:
            del self.tables.unplaced[m.task]

    # -------------------------------------------------------------- placing

    def _place(self, request: PlacementRequested, *, tell_infeasible: bool) -> None:
        t = self.tables
        owner = t.nodes[request.node]
        chosen = choose_node(t.nodes, request.demand)
        if chosen is not None:
            t.unplaced.pop(request.task, None)
            self._send(
                owner,
                lambda seq: Placed(
                    seq, request.task, request.attempt, chosen.id, chosen.incarnation
                ),
            )
            return
        t.unplaced[request.task] = request
        if tell_infeasible:
            offers = largest_totals(t.nodes)
            self._send(
                owner, lambda seq: DemandInfeasible(seq, request.task, request.attempt, offers)
            )

    def _sender(self, node: NodeID, link_seq: int) -> Node:
        row = self.tables.nodes[node]
        assert link_seq == row.received + 1, f"node {node}: message {link_seq} after {row.received}"
        row.received = link_seq
        return row

    def _send(self, node: Node, make: Callable[[int], HeadMessage]) -> None:
        node.sent += 1
        self._out.append(SendToNode(node.id, make(node.sent)))


def choose_node(nodes: dict[NodeID, Node], demand: Demand) -> Node | None:
    """The first node whose totals meet the demand, in order of joining."""
    for node in nodes.values():
        if all(node.totals.get(name, 0) >= amount for name, amount in demand):
            return node
    return None


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
}
