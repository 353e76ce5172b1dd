"""What messages say of drivers, workers, nodes and heads, entered into a `History`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detray.core.durable import Admitted, Buried
from detray.core.effects import ExitWorker, KillWorker, Persist, SendToNode, StartWorker
from detray.core.head_messages import (
    JobAdmitted,
    JobClosed,
    NodeAdmitted,
    NodeAnnounced,
    NodeBuried,
)
from detray.core.stimuli import (
    ClientLost,
    DriverConnected,
    Fenced,
    HeadRestarted,
    NodeStopping,
    WorkerLost,
    WorkerReady,
    WorkerStartFailed,
)
from detray.ids import JobNumber, NodeID
from detray.trace.gathering import tasks as history_tasks
from detray.trace.gathering.lives import SENT, UNKNOWN_CORE, HeadChange, Program

if TYPE_CHECKING:
    from detray.trace.gathering.history import History

Handler = Callable[["History", Any, int], None]  # Any: each takes the message type that is its key
HeadHandler = Callable[["History", Any, int, int], None]  # Any: the same
NO_JOB = JobNumber(0)


# ------------------------------------------------------------------ drivers


def on_driver(h: History, m: DriverConnected, now_ns: int) -> None:
    """A program begins."""
    program = Program(m.client, NO_JOB, m.entrypoint, m.pid, now_ns, h.core)
    h.programs[h.core, m.client] = program


def on_job(h: History, m: JobAdmitted, now_ns: int) -> None:
    """It has a number."""
    program = h.programs.get((h.core, m.client))
    if program is not None:
        program.job = m.job


def on_client_lost(h: History, m: ClientLost, now_ns: int) -> None:
    """It ends."""
    program = h.programs.get((h.core, m.client))
    if program is not None:
        program.lost_ns, program.reason = now_ns, m.reason
        if program.job:
            h.closed_jobs.setdefault(program.job, (h.core, now_ns, m.reason))


def on_job_closed(h: History, m: JobClosed, now_ns: int) -> None:
    """A job whose driver is at another node is over."""
    h.closed_jobs.setdefault(m.job, (h.core, now_ns, "its driver is gone"))


# ------------------------------------------------------------------ workers


def on_start(h: History, e: StartWorker, now_ns: int) -> None:
    """A worker process is ordered."""
    worker = h.worker(e.client)
    worker.asked_ns, worker.job = now_ns, e.job


def on_ready(h: History, m: WorkerReady, now_ns: int) -> None:
    """It is up."""
    worker = h.worker(m.client)
    worker.pid, worker.ready_ns = m.pid, now_ns


def on_start_failed(h: History, m: WorkerStartFailed, now_ns: int) -> None:
    """It never came to be."""
    worker = h.worker(m.client)
    worker.lost_ns, worker.reason = now_ns, f"it could not be started: {m.reason}"


def on_exit(h: History, e: ExitWorker, now_ns: int) -> None:
    """It is told to leave."""
    h.worker(e.client).exit_ns = now_ns


def on_kill(h: History, e: KillWorker, now_ns: int) -> None:
    """It is to be killed."""
    h.worker(e.client).killed_ns = now_ns


def on_worker_lost(h: History, m: WorkerLost, now_ns: int) -> None:
    """It is gone, and what it had begun is lost."""
    worker = h.worker(m.client)
    worker.lost_ns, worker.reason = now_ns, "" if m.expected else m.reason
    worker.unclaimed = m.unclaimed
    history_tasks.unsend(h, m.client, m.unclaimed, now_ns)
    begun = h.queues.pop((h.core, m.client), [])
    worker.lost_runs = tuple(begun)
    for task, number in begun:
        life = h.tasks[task]
        run = life.attempt(number, m.client)
        run.ended_ns = now_ns
        is_owned = life.core in (h.core, UNKNOWN_CORE)
        history_tasks.lose(h, life, run, m.reason, now_ns if life.core == h.core else -1)
        if not is_owned and run is life.attempts[-1]:
            life.state = SENT  # its owner has not heard of it yet


# ------------------------------------------------------------------ nodes


def on_admitted(h: History, m: NodeAdmitted, now_ns: int) -> None:
    """This node is a member of the cluster."""
    node = h.member(m.node)
    node.core = node.joined_core = h.core
    node.joined_ns = now_ns


def on_announced(h: History, m: NodeAnnounced, now_ns: int) -> None:
    """Another one is."""
    node = h.member(m.node)
    node.name, node.totals = m.name, m.totals
    if node.joined_ns < 0:
        node.joined_ns, node.joined_core = now_ns, h.core


def on_buried(h: History, m: NodeBuried, now_ns: int) -> None:
    """One is dead: what it ran for this node is lost."""
    _bury(h, m.node, m.reason, h.core, now_ns)
    reason = f"node {m.node} died: {m.reason}"
    away = h.away.get(m.node, {})
    for task in list(away):
        life = h.tasks[task]
        last = life.last
        if last is None or last.node != m.node or last.closed_ns >= 0:
            del away[task]
        elif life.core == h.core:
            history_tasks.lose(h, life, last, reason, now_ns)
            del away[task]
        elif life.core == UNKNOWN_CORE and last.state == SENT:
            history_tasks.lose(h, life, last, reason, -1)


def _bury(h: History, node: NodeID, reason: str, core: int, now_ns: int) -> None:
    member = h.member(node)
    if member.buried_ns < 0:
        member.buried_ns, member.buried_core, member.reason = now_ns, core, reason


def on_stopping(h: History, m: NodeStopping, now_ns: int) -> None:
    """This node is told to end."""
    node = h.member(h.node_of(h.core))
    node.stopped_ns, node.stop_reason = now_ns, m.reason


def on_fenced(h: History, m: Fenced, now_ns: int) -> None:
    """This node learns that it was buried."""
    node = h.member(h.node_of(h.core))
    node.fenced_ns, node.reason = now_ns, node.reason or m.reason


def on_head_restarted(h: History, m: HeadRestarted, now_ns: int) -> None:
    """Another head speaks."""
    h.head_changes.append(HeadChange(h.core, m.epoch, now_ns))


# ------------------------------------------------------------------ the head


def on_sent_to_node(h: History, e: SendToNode, core: int, now_ns: int) -> None:
    """The head admits or buries, and says so."""
    m = e.message
    if type(m) is NodeBuried:
        _bury(h, m.node, m.reason, core, now_ns)
    elif type(m) is NodeAdmitted:
        _admit(h, m.node, core, now_ns)


def on_persist(h: History, e: Persist, core: int, now_ns: int) -> None:
    """The head admits or buries, and writes it down."""
    for event in e.events:
        if isinstance(event, Admitted):
            _admit(h, event.node, core, now_ns)
            h.member(event.node).name, h.member(event.node).totals = event.name, event.totals
        elif isinstance(event, Buried):
            _bury(h, event.node, event.reason, core, now_ns)


def _admit(h: History, node: NodeID, core: int, now_ns: int) -> None:
    member = h.member(node)
    if member.joined_ns < 0:
        member.joined_ns, member.joined_core = now_ns, core


ON_STIMULUS: dict[type, Handler] = {
    DriverConnected: on_driver,
    JobAdmitted: on_job,
    ClientLost: on_client_lost,
    JobClosed: on_job_closed,
    WorkerReady: on_ready,
    WorkerStartFailed: on_start_failed,
    WorkerLost: on_worker_lost,
    NodeAdmitted: on_admitted,
    NodeAnnounced: on_announced,
    NodeBuried: on_buried,
    NodeStopping: on_stopping,
    Fenced: on_fenced,
    HeadRestarted: on_head_restarted,
}
ON_EFFECT: dict[type, Handler] = {
    StartWorker: on_start,
    ExitWorker: on_exit,
    KillWorker: on_kill,
}
ON_HEAD_EFFECT: dict[type, HeadHandler] = {
    SendToNode: on_sent_to_node,
    Persist: on_persist,
}
