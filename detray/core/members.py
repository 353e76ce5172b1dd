"""Who belongs to the cluster, and for how long; jobs and their numbers.

Rules (PROTOCOL N16, T4, D 35 to 38)
------------------------------------
- A node that was silent for `death_ns` is buried; so is one of two that cannot talk to each other
  for a grace period: the one that fewer reach, then the younger. Everybody hears the verdict, in
  one order. A step that comes late for its deadline gives everybody that much more time.
- A head that came back expects its members. One that returns says what it knows; it is told what it
  missed, and what it has lost of its own (a driver, the number of a job) is closed. One that does
  not return within the grace period is buried.
"""

from __future__ import annotations

from detray.core.durable import Admitted, Buried, Job, JobBegan, JobOver
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
    NodeReadmitted,
    NodeReturned,
    PeerReachable,
    PeerUnreachable,
)
from detray.core.head_step import HeadStep
from detray.core.placement import Node
from detray.core.placer import Placer
from detray.ids import NodeID


class Members:
    """Admits, numbers and buries nodes; admits and closes jobs."""

    def __init__(self, s: HeadStep, placer: Placer) -> None:
        self.s = s
        self.placer = placer

    def on_node_joined(self, m: NodeJoined) -> None:
        t = self.s.t
        if m.life and self._readmit(m):
            return
        self._bury_predecessor(m)
        number = t.durable.next_node
        life = t.durable.lives.get(m.name, 0) + 1
        self.s.record(Admitted(number, life, m.name, m.totals, m.address, m.labels, m.life))
        totals = dict(m.totals)
        node = Node(
            number, life, m.name, totals, received=m.link_seq,
            names=tuple(totals), free=dict(totals), heard_ns=t.now_ns if m.is_reporting else -1,
            address=m.address, labels=m.labels,
        )  # fmt: skip
        if m.is_reporting and not t.check_ns:
            t.check_ns = t.now_ns + t.config.policy.death_ns
        t.nodes[node.id] = node
        t.roomy[node.id] = None
        self._tell_all(node)
        for other in t.nodes.values():
            if other is not node:
                self._announce(other, node)
        self.placer.look_again(node)

    def _tell_all(self, node: Node) -> None:
        """What a node that knows nothing must know, itself included."""
        t = self.s.t
        for other in t.nodes.values():
            if other is not node:
                self._announce(node, other)
        self.s.send(node, NodeAdmitted, node.id, node.incarnation, t.durable.epoch)
        for job in t.jobs.values():
            self.s.send(node, JobOpened, job.number, job.node, job.namespace)

    def _readmit(self, m: NodeJoined) -> bool:
        """True if this process was admitted by an earlier head and never heard it: tell it again.

        Others may have heard it and have sent it something, which counts if its number stays.
        """
        t = self.s.t
        for number, member in t.durable.members.items():
            if member.life == m.life:
                node = t.nodes[number]
                if node.is_expected:
                    self._take_back(node, m.link_seq, dict(member.totals))
                    self._tell_all(node)
                    self._tell_it_is_back(node)
                return True
        return False

    def _bury_predecessor(self, m: NodeJoined) -> None:
        """Who joins where an expected node listened is what became of it: that one cannot return.

        Often it never was one: the number was persisted, and the head died before it said so.
        """
        for node in list(self.s.t.nodes.values()):
            if m.address and node.is_expected and node.address == m.address:
                self._bury(node, f"another node joined from {m.address}")

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
            # We were away ourselves: what others said meanwhile may still be on its way (T4). Who
            # was heard since has no more time than that gives: it may have died meanwhile.
            for node in t.nodes.values():
                if node.heard_ns >= 0:
                    node.heard_ns = min(node.heard_ns + late_ns, t.now_ns)
            for pair, since_ns in t.unreachable.items():
                t.unreachable[pair] = min(since_ns + late_ns, t.now_ns)
        due_ns = t.now_ns + policy.death_ns
        for node in list(t.nodes.values()):
            if node.heard_ns < 0:
                continue
            silent_ns = t.now_ns - node.heard_ns
            patience_ns = policy.return_grace_ns if node.is_expected else policy.death_ns
            if silent_ns < patience_ns:
                due_ns = min(due_ns, node.heard_ns + patience_ns)
            elif node.is_expected:
                self._bury(node, "it did not return after the head had restarted")
            else:
                self._bury(node, f"it was silent for {silent_ns // 1_000_000} ms")
        for pair, since_ns in list(t.unreachable.items()):
            if pair not in t.unreachable or self._is_awaited(pair):
                continue
            if t.now_ns - since_ns >= policy.unreachable_grace_ns:
                self._separate(pair)
            else:
                due_ns = min(due_ns, since_ns + policy.unreachable_grace_ns)
        t.check_ns = due_ns if t.nodes else 0

    def _is_awaited(self, pair: str) -> bool:
        """True if one of the pair has not returned: it has another grace period for that."""
        nodes = self.s.t.nodes
        return any(nodes[NodeID(number)].is_expected for number in map(int, pair.split()))

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
        """How many others it cannot talk to. One that is late itself is nobody's trouble: it may be
        dead, and whoever talks most to the dead would go with them.
        """
        others: dict[str, None] = {}
        for pair in self.s.t.unreachable:
            ends = pair.split()
            if str(node) in ends:
                others.update(dict.fromkeys(end for end in ends if end != str(node)))
        nodes = self.s.t.nodes
        rows = [nodes[NodeID(int(end))] for end in others if NodeID(int(end)) in nodes]
        return sum(not self._is_late(row) for row in rows)

    def _bury(self, node: Node, reason: str) -> None:
        """The verdict: everybody is told, what it asked for and ran ends."""
        t = self.s.t
        self.s.record(Buried(node.id, reason))
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
        self.placer.look_again()

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

    # -------------------------------------------------------------- after a restart

    def expect_all(self) -> None:
        """A head begins with the members that its log names; none of them has returned."""
        t = self.s.t
        for number, member in t.durable.members.items():
            totals = dict(member.totals)
            t.nodes[number] = Node(
                number, member.incarnation, member.name, totals, names=tuple(totals),
                heard_ns=t.now_ns, is_expected=True, address=member.address, labels=member.labels,
            )  # fmt: skip
        if t.nodes:
            t.check_ns = t.now_ns + t.config.policy.return_grace_ns

    def on_node_returned(self, m: NodeReturned) -> None:
        """A member from before the restart is back: rebuild what is soft, even out the rest."""
        t = self.s.t
        node = t.nodes.get(m.node)
        if node is None or not node.is_expected or m.epoch >= t.durable.epoch:
            # Buried meanwhile; said twice; or it has seen a later head, and we are the old one.
            t.counts["returns refused"] = t.counts.get("returns refused", 0) + 1
            return
        self._take_back(node, m.link_seq, dict(zip(node.names, m.free, strict=False)))
        node.backlog, node.confirmed = m.backlog, m.received
        self._tell_members(node, m)
        self._even_out_jobs(node, m)
        self._tell_it_is_back(node)

    def _take_back(self, node: Node, link_seq: int, free: dict[str, int]) -> None:
        """An expected node is here; accusations of it and by it count from now."""
        t = self.s.t
        node.is_expected = False
        node.received, node.heard_ns, node.free = link_seq, t.now_ns, free
        for pair in t.unreachable:
            if str(node.id) in pair.split():
                t.unreachable[pair] = t.now_ns
        policy = t.config.policy
        due_ns = t.now_ns + min(policy.death_ns, policy.unreachable_grace_ns)
        t.check_ns = min(t.check_ns or due_ns, due_ns)
        self.placer.note_room(node)
        self.s.changed = True

    def _tell_it_is_back(self, node: Node) -> None:
        t = self.s.t
        self.s.send(node, NodeReadmitted, t.durable.epoch, t.durable.next_node - 1, t.jobs_before)

    def _tell_members(self, node: Node, m: NodeReturned) -> None:
        """Verdicts and announcements that it missed."""
        t = self.s.t
        for peer in m.peers:
            if peer not in t.nodes:
                self.s.send(node, NodeBuried, peer, "it died while the head was away")
        known = dict.fromkeys(m.peers)
        for other in t.nodes.values():
            if other is not node and (other.id not in known or other.id > m.highest_node):
                self._announce(node, other)

    def _even_out_jobs(self, node: Node, m: NodeReturned) -> None:
        """Its own jobs are what it says, those of others what the tables say."""
        t = self.s.t
        own = {job.job: job for job in m.jobs}
        for job in [job for job in t.jobs.values() if job.node == node.id]:
            if job.number not in own:
                self._close(job)
        for number, claimed in own.items():
            if number not in t.jobs:
                self._open(Job(number, node.id, claimed.entrypoint, claimed.namespace))
        known = dict.fromkeys(m.jobs_elsewhere)
        for number in known:
            # Beyond `jobs_before` a log may lack its end: the driver's node will know.
            if number not in t.jobs and number < t.jobs_before:
                self.s.send(node, JobClosed, number)
        for job in t.jobs.values():
            if job.node != node.id and job.number not in known:
                self.s.send(node, JobOpened, job.number, job.node, job.namespace)

    # -------------------------------------------------------------- jobs

    def on_job_requested(self, m: JobRequested) -> None:
        node = self.s.sender(m.node, m.link_seq)
        if node is None:
            return
        number = self.s.t.durable.next_job
        self.s.send(node, JobAdmitted, m.client, number)
        self._open(Job(number, m.node, m.entrypoint, m.namespace))

    def _open(self, job: Job) -> None:
        """Tell everybody else that a job began."""
        self.s.record(JobBegan(job.number, job.node, job.entrypoint, job.namespace))
        for other in self.s.t.nodes.values():
            if other.id != job.node:
                self.s.send(other, JobOpened, job.number, job.node, job.namespace)

    def on_job_ended(self, m: JobEnded) -> None:
        self.s.sender(m.node, m.link_seq)
        job = self.s.t.jobs.get(m.job)
        if job is not None:
            self._close(job)

    def _close(self, job: Job) -> None:
        """Tell everybody else that a job is over."""
        t = self.s.t
        self.s.record(JobOver(job.number))
        for node in t.nodes.values():
            if node.id != job.node:
                self.s.send(node, JobClosed, job.number)
