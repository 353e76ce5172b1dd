"""Messages of the cores in plain words, for stories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.durable import Admitted, Buried, DurableEvent, EpochRaised, JobBegan, JobOver
from detray.core.head_messages import JobAdmitted
from detray.errors import Failure
from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES, ClientID, TaskID, task_of
from detray.trace.gathering.history import History
from detray.trace.links import FROM_HEAD, FROM_PEER, TO_HEAD
from detray.trace.names import attempt_text, describe, first_line, items_text, short, why_stopped
from detray.trace.quantities import size_text
from detray.trace.telling.link_sentences import message_text

Say = Callable[[Any, History], str]  # Any: each takes the message type that is its key


def sentence(message: Any, history: History) -> str:  # Any: a stimulus or an effect
    """What a message says, with the names that `history` knows."""
    kind = type(message)
    say = SENTENCES.get(kind)
    if say is not None:
        return say(message, history)
    if kind in FROM_HEAD or kind in FROM_PEER:
        teller = "the head" if kind in FROM_HEAD else f"node {message.node}"
        return f"{_here(history)} hears from {teller}: {_text(message, history)}"
    if kind in TO_HEAD:
        teller = f"node {message.node}" if hasattr(message, "node") else "a node"
        return f"the head hears from {teller}: {_text(message, history)}"
    if kind is ef.SendToNode:
        return f"the head tells node {message.node}: {_text(message.message, history)}"
    if kind in _SENT:
        hearer = "the head" if kind is ef.SendToHead else f"node {message.node}"
        return f"{_here(history)} tells {hearer}: {_text(message.message, history)}"
    return describe(message)


_SENT = (ef.SendToHead, ef.SendToPeer)


def _here(history: History) -> str:
    """The node whose step it is."""
    return history.names[history.core] if history.names else "this node"


def _text(message: Any, history: History) -> str:  # Any: a message between cores
    return message_text(message, lambda task: task_name(task, history))


def who(client: ClientID, history: History) -> str:
    """A client in words, of the node whose step it is."""
    name = f"worker {client}" if client > 0 else f"driver {-client}"
    return name + history.where(history.core)


def task_name(task: TaskID, history: History) -> str:
    """A task by its function and short name."""
    life = history.tasks.get(task)
    return f"{life.name} ({short(task)})" if life else short(task)


def _duration(m: st.RunFinished | st.RunFailed) -> str:
    return f"after {(m.ended_ns - m.started_ns) / 1e6:.3f} ms"


def _submitted(m: st.TaskSubmitted, h: History) -> str:
    waits = f", which takes {items_text(m.args)}" if m.args else ""
    parent = "" if not any(m.parent[4:]) else f" from {task_name(m.parent, h)}"
    return f"{who(m.client, h)} submits {task_name(m.task, h)}{parent}{waits}"


def _finished(m: st.RunFinished, h: History) -> str:
    sizes = ", ".join(size_text(part.size_bytes) for part in m.returns) or "nothing"
    where = " in the store" if any(part.in_block for part in m.returns) else ""
    what = f"{task_name(m.task, h)} {_duration(m)}"
    return f"{who(m.client, h)} finished {what}: {sizes}{where}{attempt_text(m.attempt)}"


def _failed(m: st.RunFailed, h: History) -> str:
    kind = Failure(m.kind).name.lower() if m.kind in Failure.__members__.values() else m.kind
    task = task_name(m.task, h)
    return (
        f"{task} failed on {who(m.client, h)} {_duration(m)} ({kind}): "
        f"{m.summary}{attempt_text(m.attempt)}"
    )


def _get(m: st.GetRequested, h: History) -> str:
    waiter = f"{task_name(m.blocks, h)} on {who(m.client, h)}" if m.blocks else who(m.client, h)
    return f"{waiter} waits for {m.needed} of {items_text(m.objects)} (request {m.request})"


def _key(key: bytes) -> str:
    """Whose bytes are kept under a key (`core/payloads.py`)."""
    if key[:1] == b"T" and len(key) == 9:
        return "the exceptions that are retried"
    if len(key) == TASK_ID_BYTES + 5:
        return f"the error of {short(key[:TASK_ID_BYTES])}"
    if len(key) == OBJECT_ID_BYTES + 4:
        return f"{short(key[:OBJECT_ID_BYTES])}, made again"
    if len(key) == TASK_ID_BYTES:
        is_code = key[12] >= 0x80  # `function_id`
        return "the code of a function" if is_code else f"the arguments of {short(key)}"
    return short(key)


def _keys(keys: Sequence[bytes]) -> str:
    """The first few of many."""
    shown = ", ".join(map(_key, keys[:4]))
    return f"{shown} and {len(keys) - 4} more" if len(keys) > 4 else shown


def _event(event: DurableEvent) -> str:
    match event:
        case EpochRaised():
            return f"epoch {event.epoch} begins"
        case Admitted():
            return f"node {event.node} ({event.name or 'without a name'}) is a member"
        case Buried():
            return f"node {event.node} is dead: {event.reason}"
        case JobBegan():
            return f"job {event.job} began at node {event.node}"
        case JobOver():
            return f"job {event.job} is over"


def _lost(m: st.WorkerLost, h: History) -> str:
    how = "left as it was told" if m.expected else f"is gone: {first_line(m.reason)}"
    rest = f"; {m.unclaimed} of its runs were never begun" if m.unclaimed else ""
    return f"{who(m.client, h)} {how}{rest}"


def _run(e: ef.RunTask, h: History) -> str:
    return f"{task_name(e.task, h)} is sent to {who(e.client, h)}{attempt_text(e.attempt)}"


def _answer(e: ef.GetAnswered, h: History) -> str:
    if e.timed_out:
        return f"request {e.request} of {who(e.client, h)} timed out"
    failed = [place for place in e.places if place.failure]
    text = f", {short(failed[0].object)} failed: {first_line(failed[0].text)}" if failed else ""
    items = items_text(tuple(place.object for place in e.places))
    return f"{who(e.client, h)} is given {items} (request {e.request}){text}"


SENTENCES: dict[type, Say] = {
    st.DriverConnected: lambda m, h: f"{who(m.client, h)} ({m.entrypoint}, pid {m.pid}) connects",
    st.FunctionExported: lambda m, h: f"{who(m.client, h)} exports the function {m.name}",
    st.TemplateDefined: lambda m, h: f"{who(m.client, h)} defines how {m.name} is to be run",
    st.TaskSubmitted: _submitted,
    st.ObjectPut: lambda m, h: (
        f"{who(m.client, h)} puts {short(m.object)}, {size_text(m.size_bytes)}"
    ),
    st.BlockRequested: lambda m, h: (
        f"{who(m.client, h)} asks for {size_text(m.size_bytes)} of the store for {short(m.object)}"
    ),
    st.BlockSealed: lambda m, h: f"{who(m.client, h)} has written {short(m.object)}",
    st.GetRequested: _get,
    st.GetAbandoned: lambda m, h: f"{who(m.client, h)} gives up request {m.request}",
    st.RefsDropped: lambda m, h: f"{who(m.client, h)} needs {items_text(m.objects)} no more",
    st.ViewsDropped: lambda m, h: (
        f"{who(m.client, h)} no longer looks into {items_text(m.objects)}"
    ),
    st.CancelRequested: lambda m, h: (
        f"{who(m.client, h)} wants {task_name(task_of(m.object), h)} cancelled"
        f"{' by force' if m.force else ''}"
    ),
    st.RefPinned: lambda m, h: (
        f"{who(m.client, h)} pickles its reference to {short(m.object)} itself"
    ),
    st.RefClaimed: lambda m, h: (
        f"{who(m.client, h)} has unpickled a reference to {short(m.object)}"
        f"{f' of node {m.owner}' if m.owner >= 0 else ''}"
    ),
    st.RunFinished: _finished,
    st.RunFailed: _failed,
    st.WorkerReady: lambda m, h: f"{who(m.client, h)} is ready (pid {m.pid})",
    st.WorkerStartFailed: lambda m, h: f"{who(m.client, h)} could not be started: {m.reason}",
    st.WorkerLost: _lost,
    st.ClientLost: lambda m, h: f"{who(m.client, h)} is gone: {m.reason}",
    st.ProcessGone: lambda m, h: f"all processes of {who(m.client, h)} have ended",
    st.RunsRetracted: lambda m, h: (
        f"{m.count} unbegun runs were taken back from {who(m.client, h)}"
    ),
    st.NodeStarted: lambda m, h: f"the service{h.where(h.core)} is up",
    st.NodeStopping: lambda m, h: f"{_here(h)} is told to stop{why_stopped(m.reason)}",
    st.HeadRestarted: lambda m, h: f"{_here(h)} has a new head, which speaks under epoch {m.epoch}",
    st.Fenced: lambda m, h: f"{_here(h)} learns that it was buried: {m.reason}",
    st.PeerSilent: lambda m, h: f"{_here(h)} hears nothing from node {m.node}",
    st.PeerHeard: lambda m, h: f"{_here(h)} hears from node {m.node} again",
    st.ObserverConnected: lambda m, h: f"somebody who watches (pid {m.pid}) connects",
    st.BlockAbandoned: lambda m, h: f"{who(m.client, h)} gives up writing {short(m.object)}",
    st.ObjectArrivalFailed: lambda m, h: (
        f"the bytes of {short(m.object)} did not get here{h.where(h.core)}: {m.reason}"
    ),
    st.ObjectSent: lambda m, h: (
        f"{_here(h)} need not keep {short(m.object)} for node {m.node} any more"
    ),
    st.ObjectCorrupted: lambda m, h: (
        f"what the disk gives back of {short(m.object)} is not what was written{h.where(h.core)}"
    ),
    st.ObjectMoveFailed: lambda m, h: f"{short(m.object)} could not be moved to disk: {m.reason}",
    st.SegmentOpened: lambda m, h: f"file segment {m.segment} is there{h.where(h.core)}",
    st.SegmentFailed: lambda m, h: (
        f"file segment {m.segment} could not be made{h.where(h.core)}: {m.reason}"
    ),
    st.ObjectArrived: lambda m, h: f"all bytes of {short(m.object)} are here{h.where(h.core)}",
    st.ObjectMoved: lambda m, h: f"{short(m.object)} now lies in segment {m.segment}",
    JobAdmitted: lambda m, h: f"{who(m.client, h)} is job {m.job}",
    ef.Welcome: lambda e, h: f"{who(e.client, h)} is welcome on node {e.node} as job {e.job}",
    ef.DefineFunction: lambda e, h: f"{who(e.client, h)} learns the function {e.name}",
    ef.DefineTemplate: lambda e, h: f"{who(e.client, h)} learns how {e.name} is to be run",
    ef.RunTask: _run,
    ef.InterruptRun: lambda e, h: f"{task_name(e.task, h)} on {who(e.client, h)} is interrupted",
    ef.GetAnswered: _answer,
    ef.GrantBlock: lambda e, h: (
        f"{short(e.object)} gets a block at {e.offset} of segment {e.segment}"
    ),
    ef.RefuseBlock: lambda e, h: f"there is no room for {short(e.object)}: {e.text}",
    ef.ConfirmPin: lambda e, h: (
        f"{who(e.client, h)} may let its reference go (request {e.request})"
    ),
    ef.StartWorker: lambda e, h: f"{who(e.client, h)} is to be started for job {e.job}",
    ef.KillWorker: lambda e, h: f"{who(e.client, h)} is killed",
    ef.ExitWorker: lambda e, h: f"{who(e.client, h)} is told to leave",
    ef.RetractRuns: lambda e, h: (
        f"up to {e.count} runs are to be taken back from {who(e.client, h)}"
    ),
    ef.DropPayloads: lambda e, h: f"freed{h.where(h.core)}: {_keys(e.keys)}",
    ef.MoveObject: lambda e, h: f"{short(e.object)} is moved to segment {e.to_segment}",
    ef.Notify: lambda e, h: f"{who(e.client, h)} is told: {e.text}",
    ef.CopyPayload: lambda e, h: f"{_key(e.source)} is kept as {_key(e.target)}, too",
    ef.FailRequest: lambda e, h: (
        f"{who(e.client, h)} is told that {e.what} made no sense: {e.text}"
    ),
    ef.SendObject: lambda e, h: (
        f"{_here(h)} sends {size_text(e.size_bytes)} of {short(e.object)} to node {e.node}"
        f"{attempt_text(e.attempt)}"
    ),
    ef.ReceiveObject: lambda e, h: (
        f"{_here(h)} makes room for {size_text(e.size_bytes)} of {short(e.object)} from node "
        f"{e.node}{attempt_text(e.attempt)}"
    ),
    ef.AbortReceive: lambda e, h: f"{_here(h)} waits no longer for the bytes of {short(e.object)}",
    ef.OpenSegment: lambda e, h: (
        f"file segment {e.segment} of {size_text(e.size_bytes)} is to be made{h.where(h.core)}"
    ),
    ef.CloseSegment: lambda e, h: f"file segment {e.segment} is removed{h.where(h.core)}",
    ef.StopNode: lambda e, h: f"{_here(h)} ends: {e.reason}",
    ef.LeaveCluster: lambda e, h: f"{_here(h)} ends what it runs and joins anew: {e.reason}",
    ef.Persist: lambda e, h: f"the head writes down: {', '.join(map(_event, e.events))}",
    ef.DumpRecorder: lambda e, h: f"the flight recorder is to be written: {e.reason}",
}
"""How to say what, by type of message; those between cores are in `link_sentences.py`."""
SILENT = (st.StatusRequested, ef.ReportStatus, ef.FreeBlock)
"""Types of which no story tells: pages for people, and blocks, which have no names. Shown field by
field where somebody asks for them."""
