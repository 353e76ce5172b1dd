"""Membership as one node sees it: joining, other nodes, their deaths, its own, what it tells.

Rules (PROTOCOL N15, N16, T4, D 35 to 38)
-----------------------------------------
- The head alone admits and buries. On its verdict a node drops later messages of the dead one, ends
  its holds, copies, runs and attempts, and fails what it owned.
- A node that learns of its own burial does nothing more: its processes are killed, its memory is
  thrown away, and it joins as a new node.
- A node tells the head of a peer that it cannot reach; who dies of that, the head decides.
- Its load is told when it has changed, not too often, and now and then as a sign of life.
- A head that restarted knows who is a member and which jobs there are, and nothing else. A node
  numbers its messages anew, says what it has and asks again for what it wants; meanwhile it runs
  what it runs.
"""

from __future__ import annotations

from detray.core import clients, placing, resources
from detray.core.definitions import end_wants
from detray.core.effects import LeaveCluster, SendToHead, StopNode
from detray.core.handover import lose_run
from detray.core.head_messages import (
    JobClosed,
    JobOpened,
    KnownJob,
    LoadReported,
    NodeAdmitted,
    NodeAnnounced,
    NodeBuried,
    NodeLeft,
    NodeReadmitted,
    NodeReturned,
    PeerReachable,
    PeerUnreachable,
)
from detray.core.lending import ASKED, end_loan, orphan, refuse
from detray.core.payloads import template_key
from detray.core.peer_messages import PeerMessage
from detray.core.pulls import end_pauses, end_pulls_from
from detray.core.runs import cancel_task
from detray.core.states import Assigned, Delivered
from detray.core.step import Step
from detray.core.stimuli import (
    Fenced,
    HeadRestarted,
    NodeStarted,
    NodeStopping,
    PeerHeard,
    PeerSilent,
)
from detray.core.tables import DRIVER, HERE, Object, Peer, Shared
from detray.core.tasks import end_task, fail_task
from detray.core.values import lose_copy
from detray.errors import Failure
from detray.ids import NodeID, TaskID, job_of

# ------------------------------------------------------------------ this node


def on_node_started(s: Step, m: NodeStarted) -> None:
    """Part of a cluster from the start: join it, and say how we are from now on."""
    s.t.reporting = True
    if not s.t.link_seq:
        clients.join(s)


def on_node_admitted(s: Step, m: NodeAdmitted) -> None:
    """This node has a number; the drivers that wait can have their jobs."""
    t = s.t
    t.node, t.incarnation, t.epoch = m.node, m.incarnation, max(t.epoch, m.epoch)
    t.highest_node = max(t.highest_node, m.node)
    for client in t.clients.values():
        if client.kind == DRIVER and not client.job and client.connected:
            clients.request_job(s, client)


def on_head_restarted(s: Step, m: HeadRestarted) -> None:
    """Another head speaks from now on: begin anew with it (PROTOCOL D 38, 39).

    What this step has said so far was meant for the old one, and is told again below.
    """
    t = s.t
    if m.epoch <= t.epoch:
        s.count("old heads")
        return
    before, t.epoch = t.epoch, m.epoch
    has_spoken = t.link_seq > 0
    s.out = [effect for effect in s.out if type(effect) is not SendToHead]
    t.link_seq = 0
    t.stalled_at, t.stalled_ns = -1, 0
    if t.node >= 0:
        _say_what_is_here(s, before)
        _ask_again(s)
    elif has_spoken:
        clients.join(s)


def _say_what_is_here(s: Step, before: int) -> None:
    t = s.t
    load = _load(s)
    own = tuple(
        [
            KnownJob(client.job, client.entrypoint, client.namespace)
            for client in t.clients.values()
            if client.kind == DRIVER and client.job and client.connected
        ]
    )
    mine = [job.job for job in own]
    elsewhere = [job for job in (*t.jobs_elsewhere, *map(job_of, t.functions)) if job not in mine]
    s.to_head(
        NodeReturned(
            s.next_link_seq(), t.node, before, load[:-2], load[-2], load[-1], own,
            tuple(dict.fromkeys(elsewhere)), tuple(t.peers), t.highest_node,
        )
    )  # fmt: skip
    t.reported_load, t.reported_ns = load, t.now_ns


def _ask_again(s: Step) -> None:
    """What the old head was asked for and has not given, and what it was told of the others."""
    t = s.t
    for client in t.clients.values():
        if client.kind == DRIVER and not client.job and client.connected:
            clients.request_job(s, client)
    for peer in t.peers.values():
        if peer.silent:
            s.to_head(PeerUnreachable(s.next_link_seq(), t.node, peer.id))
    for name in t.placing:
        task = t.tasks[name]
        hints = placing.find_hints(s, task) if task.spec.args else ()
        placing.request_place(s, task, t.templates[task.template], hints)


def on_node_readmitted(s: Step, m: NodeReadmitted) -> None:
    """All that a restarted head had to tell was told: what it did not mention is dead, or over."""
    t = s.t
    t.highest_node = max(t.highest_node, m.highest_node)
    t.jobs_before = max(t.jobs_before, m.jobs_before)
    for peer in list(t.peers.values()):
        if not peer.name and peer.id <= m.highest_node:
            # It spoke before anybody had announced it, and is dead.
            on_node_buried(s, NodeBuried(0, peer.id, "it died while the head was away"))


def take_early(s: Step) -> list[PeerMessage]:
    """What faster nodes said before our admission reached us."""
    if s.t.node < 0 or not s.t.early:
        return []
    early, s.t.early = s.t.early, []
    return early


def on_node_stopping(s: Step, m: NodeStopping) -> None:
    """This node ends: the others need not wait for its silence."""
    if s.t.node >= 0:
        s.to_head(NodeLeft(s.next_link_seq(), s.t.node, m.reason))
    s.out.append(StopNode(m.reason))


def on_fenced(s: Step, m: Fenced) -> None:
    """This incarnation is dead for everybody else."""
    if not s.t.config.policy.fencing_off:
        s.t.fenced = True
        s.out.append(LeaveCluster(m.reason))


# ------------------------------------------------------------------ others


def on_node_announced(s: Step, m: NodeAnnounced) -> None:
    """Another node is a member."""
    t = s.t
    t.highest_node = max(t.highest_node, m.node)
    if m.node == t.node:
        return
    peer = t.peers.get(m.node)
    if peer is None:
        peer = t.peers[m.node] = Peer(m.node)
    peer.name, peer.totals, peer.address = m.name, m.totals, m.address


def on_peer_silent(s: Step, m: PeerSilent) -> None:
    """Nothing comes through to a peer."""
    peer = s.t.peers.get(m.node)
    if peer is not None and not peer.silent and s.t.node >= 0:
        peer.silent = True
        s.to_head(PeerUnreachable(s.next_link_seq(), s.t.node, m.node))


def on_peer_heard(s: Step, m: PeerHeard) -> None:
    """It comes through again."""
    peer = s.t.peers.get(m.node)
    if peer is not None and peer.silent:
        peer.silent = False
        s.to_head(PeerReachable(s.next_link_seq(), s.t.node, m.node))
        end_pauses(s, m.node)


def on_job_opened(s: Step, m: JobOpened) -> None:
    """A job whose driver is at another node began."""
    s.t.jobs_elsewhere[m.job] = m.node


def on_job_closed(s: Step, m: JobClosed) -> None:
    """A job whose driver is at another node is over."""
    s.t.jobs_elsewhere.pop(m.job, None)
    clients.end_job(s, m.job)
    for number, template in list(s.t.templates.items()):
        if job_of(template.function) == m.job:
            del s.t.templates[number]
            if template.size_bytes:
                s.drops.append(template_key(number))
    for peer in s.t.peers.values():
        for theirs, ours in list(peer.known_templates.items()):
            if ours not in s.t.templates:
                del peer.known_templates[theirs]


def on_node_buried(s: Step, m: NodeBuried) -> None:
    """A member is dead, whatever it may still say."""
    t = s.t
    t.highest_node = max(t.highest_node, m.node)
    if t.peers.pop(m.node, None) is None or t.config.policy.burial_cleanup_off:
        return
    end_pulls_from(s, m.node)
    end_wants(s, m.node, m.reason)
    for row in list(t.objects.values()):
        if row.shared is not None:
            _bury_in_object(s, row, row.shared, m.node)
    for task in list(t.tasks.values()):
        if task.spec.task not in t.tasks:
            continue
        if type(task.state) is Delivered and task.state.node == m.node:
            template = t.templates[task.template]
            text = f"node {m.node}, which ran {template.name}, died: {m.reason}"
            lose_run(s, task, Failure.NODE_DIED, text)
        elif task.owner == m.node:
            _end_orphaned(s, task.spec.task)
        elif not isinstance(task.state, Delivered | Assigned):
            _fail_for_orphans(s, task.spec.task)


def _bury_in_object(s: Step, row: Object, shared: Shared, node: NodeID) -> None:
    """End what the dead node had to do with one object."""
    shared.watchers.pop(node, None)
    if shared.in_flight.pop(node, None) is not None:
        s.suspects.append(row.id)
    shared.settle.pop(node, None)
    if shared.home == node:
        if shared.claims == ASKED:
            refuse(s, row, shared)
        else:
            orphan(s, row, shared, f"node {node}, which owned {row.id.hex()}, died")
        return
    if shared.home != HERE:
        if shared.is_primary and shared.home not in s.t.peers:
            shared.orphan = True
        return
    if shared.lent.get(node):
        end_loan(s, row, shared, node, 1 << 62)
        shared.lent.pop(node, None)
    lose_copy(s, row, shared, node)


def _end_orphaned(s: Step, name: TaskID) -> None:
    """A run whose owner is dead: nobody wants its result (PROTOCOL N15)."""
    task = s.t.tasks[name]
    if type(task.state) is Assigned:
        cancel_task(s, task, force=True, recursive=True)
        return
    for child in task.children or ():
        row = s.t.tasks.get(child)
        if row is not None:
            cancel_task(s, row, force=True, recursive=True)
    end_task(s, task, s.t.templates[task.template])


def _fail_for_orphans(s: Step, name: TaskID) -> None:
    """A task here takes an object whose owner is dead, copies or not."""
    task = s.t.tasks[name]
    for ref in task.spec.args:
        row = s.t.objects.get(ref)
        if row is not None and row.shared is not None and row.shared.orphan:
            text = f"node {row.shared.home}, which owned {ref.hex()}, died"
            fail_task(s, task, Failure.OWNER_DIED, text)
            return


# ------------------------------------------------------------------ how we are


def report_load(s: Step) -> None:
    """Tell the head what is free and what waits, if that changed or it is time for a sign."""
    t = s.t
    if t.node < 0:
        return
    policy = t.config.policy
    load = _load(s)
    since_ns = t.now_ns - t.reported_ns
    if load != t.reported_load and (since_ns >= policy.report_interval_ns or not t.reported_load):
        due = True
    else:
        due = since_ns >= policy.heartbeat_ns
    if due:
        t.reported_load = load
        t.reported_ns = t.now_ns
        s.to_head(LoadReported(s.next_link_seq(), t.node, load[:-2], load[-2], load[-1], t.run_ns))
        t.report_ns = t.now_ns + policy.heartbeat_ns
    elif load != t.reported_load:
        t.report_ns = t.reported_ns + policy.report_interval_ns
    else:
        t.report_ns = t.reported_ns + policy.heartbeat_ns


def _load(s: Step) -> tuple[int, ...]:
    """What is free, by resource, then what waits here, then placements that reached this node.

    What ready tasks will take is not free, though no run holds it before they have workers, and
    they do not wait for room: nothing counts as both. Nor is what tasks will take whose arguments
    are on their way.
    """
    t = s.t
    waiting = [(shape.amounts, shape.count) for shape in t.shapes if shape.count]
    free, backlog = resources.left_over(t.pool, waiting)
    for shape in t.shapes:
        if shape.promised:
            for index, amount in shape.amounts:
                free[index] -= amount * shape.promised
    return (*free[resources.CPU :], backlog, t.received)
