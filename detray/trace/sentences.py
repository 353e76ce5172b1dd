"""Messages of the cores in plain words, for stories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.head_messages import JobAdmitted
from detray.errors import Failure
from detray.ids import ClientID, TaskID, task_of
from detray.trace.graph import size_text
from detray.trace.history import History
from detray.trace.link_sentences import message_text
from detray.trace.links import FROM_HEAD, FROM_PEER
from detray.trace.names import describe, short

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


def _items(items: tuple[bytes, ...]) -> str:
    shown = ", ".join(map(short, items[:4]))
    return f"{shown} and {len(items) - 4} more" if len(items) > 4 else shown


def _duration(m: st.RunFinished | st.RunFailed) -> str:
    return f"after {(m.ended_ns - m.started_ns) / 1e6:.3f} ms"


def _attempt(number: int) -> str:
    return f", attempt {number}" if number else ""


def _submitted(m: st.TaskSubmitted, h: History) -> str:
    waits = f", which takes {_items(m.args)}" if m.args else ""
    parent = "" if not any(m.parent[4:]) else f" from {task_name(m.parent, h)}"
    return f"{who(m.client, h)} submits {task_name(m.task, h)}{parent}{waits}"


def _finished(m: st.RunFinished, h: History) -> str:
    sizes = ", ".join(size_text(part.size_bytes) for part in m.returns) or "nothing"
    where = " in the store" if any(part.in_block for part in m.returns) else ""
    task = task_name(m.task, h)
    return f"{who(m.client, h)} finished {task} {_duration(m)}: {sizes}{where}{_attempt(m.attempt)}"


def _failed(m: st.RunFailed, h: History) -> str:
    kind = Failure(m.kind).name.lower() if m.kind in Failure.__members__.values() else m.kind
    task = task_name(m.task, h)
    return (
        f"{task} failed on {who(m.client, h)} {_duration(m)} ({kind}): "
        f"{m.summary}{_attempt(m.attempt)}"
    )


def _get(m: st.GetRequested, h: History) -> str:
    waiter = f"{task_name(m.blocks, h)} on {who(m.client, h)}" if m.blocks else who(m.client, h)
    return f"{waiter} waits for {m.needed} of {_items(m.objects)} (request {m.request})"


def _lost(m: st.WorkerLost, h: History) -> str:
    how = "left as it was told" if m.expected else f"is gone: {m.reason}"
    rest = f"; {m.unclaimed} of its runs were never begun" if m.unclaimed else ""
    return f"{who(m.client, h)} {how}{rest}"


def _run(e: ef.RunTask, h: History) -> str:
    return f"{task_name(e.task, h)} is sent to {who(e.client, h)}{_attempt(e.attempt)}"


def _answer(e: ef.GetAnswered, h: History) -> str:
    if e.timed_out:
        return f"request {e.request} of {who(e.client, h)} timed out"
    failed = [place for place in e.places if place.failure]
    text = f", {short(failed[0].object)} failed: {failed[0].text}" if failed else ""
    items = _items(tuple(place.object for place in e.places))
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
    st.RefsDropped: lambda m, h: f"{who(m.client, h)} needs {_items(m.objects)} no more",
    st.ViewsDropped: lambda m, h: f"{who(m.client, h)} no longer looks into {_items(m.objects)}",
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
    ef.DropPayloads: lambda e, h: f"the bytes of {_items(e.keys)} are forgotten{h.where(h.core)}",
    ef.MoveObject: lambda e, h: f"{short(e.object)} is moved to segment {e.to_segment}",
    ef.Notify: lambda e, h: f"{who(e.client, h)} is told: {e.text}",
    ef.DumpRecorder: lambda e, h: f"the flight recorder is to be written: {e.reason}",
}
"""How to say what, by type of message; others are shown field by field."""
