"""Who belongs to the cluster, and for how long; jobs and their numbers.

Rules (PROTOCOL N16, T4, D 35 to 38)
------------------------------------
- A node that was silent for `death_ns` is buried; so is one of two that cannot talk to each other
  for a grace period: the one that fewer reach, then the younger. Everybody hears the verdict, in
  one order. A step that comes late for its deadline gives everybody that much more time.
"""

from __future__ import annotations

from detray.core.head_messages import (
    JobAdmitted,
    JobClosed,
    JobEnded,
    JobOpened,
    JobRequested,
    NodeAdmitted,
    NodeAnnounced,
    NodeBuried,
    NodeJoined,
    NodeLeft,
    PeerReachable,
    PeerUnreachable,
)
from detray.core.head_step import HeadStep
from detray.core.head_tables import Job
from detray.core.placement import Node
from detray.core.placer import Placer
from detray.ids import JobNumber, NodeID


class Members:
    """Admits, numbers and buries nodes; admits and closes jobs."""

    def __init__(self, s: HeadStep, placer: Placer) -> None:
        self.s = s
        self.placer = placer

    def on_node_joined(self, m: NodeJoined) -> None:
        t = self.s.t
        life = t.lives[m.name] = t.lives.get(m.name, 0) + 1
        totals = dict(m.totals)
        node = Node(
            NodeID(t.next_node), life, m.name, totals, received=m.link_seq,
            names=tuple(totals), free=dict(totals), heard_ns=t.now_ns if m.is_reporting else -1,
            address=m.address, labels=m.labels,
        )  # fmt: skip
        if m.is_reporting and not t.check_ns:
            t.check_ns = t.now_ns + t.config.policy.death_ns
        t.next_node += 1
        for other in t.nodes.values():
            self._announce(node, other)
        t.nodes[node.id] = node
        t.roomy[node.id] = None
        self.s.send(node, NodeAdmitted, node.id, node.incarnation)
        for job in t.jobs.values():
            self.s.send(node, JobOpened, job.number, job.node, job.namespace)
        for other in t.nodes.values():
            if other is not node:
                self._announce(other, node)
        for request in list(t.unplaced.values()):
            if node.can_ever(request.demand):
                del t.unplaced[request.task]
                self.placer.enter(request)
        self.s.changed = True

    def _announce(self, to: Node, other: Node) -> None:
        self.s.send(
            to, NodeAnnounced, other.id, other.incarnation, other.name,
            tuple(other.totals.items()), other.address, other.labels,
        )  # fmt: skip

    def check(self) -> None:
        """Bury the silent, and one of each pair that cannot talk."""
        t = self.s.t
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
        t = self.s.t
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
        patience_ns = 2 * self.s.t.config.policy.heartbeat_ns
        return 0 <= node.heard_ns < self.s.t.now_ns - patience_ns

    def _troubles(self, node: NodeID) -> int:
        return sum(str(node) in pair.split() for pair in self.s.t.unreachable)

    def _bury(self, node: Node, reason: str) -> None:
        """The verdict: everybody is told, what it asked for and ran ends."""
        t = self.s.t
        del t.nodes[node.id]
        t.roomy.pop(node.id, None)
        t.spare.pop(node.id, None)
        t.unreachable = {
            pair: since for pair, since in t.unreachable.items() if str(node.id) not in pair.split()
        }
        t.requests = {k: r for k, r in t.requests.items() if r.node != node.id}
        t.unplaced = {k: r for k, r in t.unplaced.items() if r.node != node.id}
        for other in t.nodes.values():
            self.s.send(other, NodeBuried, node.id, reason)
        for job in [job for job in t.jobs.values() if job.node == node.id]:
            self._close(job)
        t.counts["nodes buried"] = t.counts.get("nodes buried", 0) + 1
        for request in list(t.requests.values()):
            if not any(other.can_ever(request.demand) for other in t.nodes.values()):
                del t.requests[request.task]
                self.placer.keep_unplaced(request)

    def on_node_left(self, m: NodeLeft) -> None:
        """A node says good-bye: the verdict need not wait for its silence."""
        node = self.s.sender(m.node, m.link_seq)
        if node is not None:
            self._bury(node, m.reason)

    def on_peer_unreachable(self, m: PeerUnreachable) -> None:
        t = self.s.t
        if self.s.sender(m.node, m.link_seq) is None or m.peer not in t.nodes:
            return
        t.unreachable.setdefault(f"{m.node} {m.peer}", t.now_ns)
        due_ns = t.now_ns + t.config.policy.unreachable_grace_ns
        t.check_ns = min(t.check_ns or due_ns, due_ns)

    def on_peer_reachable(self, m: PeerReachable) -> None:
        if self.s.sender(m.node, m.link_seq) is not None:
            self.s.t.unreachable.pop(f"{m.node} {m.peer}", None)

    # -------------------------------------------------------------- jobs

    def on_job_requested(self, m: JobRequested) -> None:
        node = self.s.sender(m.node, m.link_seq)
        if node is None:
            return
        job = JobNumber(self.s.t.next_job)
        self.s.t.next_job += 1
        self.s.t.jobs[job] = Job(job, m.node, m.entrypoint, m.namespace)
        self.s.send(node, JobAdmitted, m.client, job)
        for other in self.s.t.nodes.values():
            if other is not node:
                self.s.send(other, JobOpened, job, m.node, m.namespace)

    def on_job_ended(self, m: JobEnded) -> None:
        self.s.sender(m.node, m.link_seq)
        job = self.s.t.jobs.get(m.job)
        if job is not None:
            self._close(job)

    def _close(self, job: Job) -> None:
        """Tell everybody else that a job is over."""
        t = self.s.t
        del t.jobs[job.number]
        for node in t.nodes.values():
            if node.id != job.node:
                self.s.send(node, JobClosed, job.number)
