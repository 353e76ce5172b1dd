"""Effects in words: one line each, with the names of the transcript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from detray.core import effects as ef
from detray.core.effects import ARENA, INLINE, Effect, Place
from detray.core.head_messages import WaitsReported
from detray.core.resources import format_demand
from detray.errors import Failure
from detray.trace.names import attempt_text
from detray.trace.transcript import peers
from detray.trace.transcript.cast import Cast
from detray.trace.transcript.strategies import say_strategy


def say(effect: Effect, cast: Cast) -> list[str]:
    """An effect as lines; all but the first are indented."""
    text = SAYINGS[type(effect)](effect, cast)
    if type(effect) in _MESSAGES:
        text = f"{cast.client_name(effect.client)} <- {text}"  # type: ignore[union-attr]  # the table
    first, *rest = text.splitlines()
    return [first, *("    " + line.strip() for line in rest)]


def place_text(place: Place, cast: Cast) -> str:
    """`x inline 10`, `x at arena:0 600000`, `x failed CANCELLED`."""
    text = cast.name(place.object)
    if place.failure:
        text += f" failed {Failure(place.failure).name}"
        text += f" with {place.size_bytes} bytes" if place.size_bytes else ""
        text += f" ({cast.symbolic(place.text)})" if place.text else ""
    elif place.segment != INLINE:
        text += f" at {spot(place.segment, place.offset)} {place.size_bytes}"
    elif place.size_bytes:
        text += f" inline {place.size_bytes}"
    return text + (f" granting {_names(place.refs, cast)}" if place.refs else "")


def spot(segment: int, offset: int) -> str:
    """A place in the arena or in a file."""
    return f"{'arena' if segment == ARENA else f'segment {segment}'}:{offset}"


def _names(items: tuple[bytes, ...], cast: Cast) -> str:
    return ", ".join(cast.name(item) for item in items)


def _run(e: ef.RunTask, cast: Cast) -> str:
    text = f"run {cast.name(e.task)}{attempt_text(e.attempt)}"
    if e.args:
        text += f" with {', '.join(place_text(place, cast) for place in e.args)}"
        text += " (packed)" if e.packed else ""
    text += f" granting {_names(e.refs, cast)}" if e.refs else ""
    for name, devices in e.units:
        text += f" on {name} {', '.join(map(str, devices))}"
    return text


def _answer(e: ef.GetAnswered, cast: Cast) -> str:
    text = f"answer r{e.request}{', timed out' if e.timed_out else ''}{', more' if e.more else ''}"
    text += f": {', '.join(place_text(place, cast) for place in e.places) or 'nothing'}"
    also = ", ".join(place_text(place, cast) for place in e.also)
    return f"{text}; along come {also}" if also else text


def _template(e: ef.DefineTemplate, cast: Cast) -> str:
    text = f"how to run {e.name}: {e.num_returns} returns, {format_demand(e.demand)}"
    return text + (", retrying exceptions" if e.retry_application_errors else "")


def _status(e: ef.ReportStatus, cast: Cast) -> str:
    body = msgspec.msgpack.decode(e.body)
    rows = body if isinstance(body, list) else [body]
    lines = [f"status r{e.request}"]
    for row in rows:
        lines.append(", ".join(f"{key}={value}" for key, value in row.items()))
    return cast.symbolic("\n".join(lines))


def _move(e: ef.MoveObject, cast: Cast) -> str:
    source = "inline" if e.segment == INLINE else spot(e.segment, e.offset)
    target = spot(e.to_segment, e.to_offset)
    return f"move {cast.name(e.object)}, {e.size_bytes} bytes, {source} -> {target}"


def _to_head(e: ef.SendToHead, cast: Cast) -> str:
    if type(e.message) is WaitsReported:
        return f"head <- {_waits(e.message, cast)}"
    return f"head <- {_message(e.message, cast)}"


def _waits(m: WaitsReported, cast: Cast) -> str:
    """What waits at a node, and for what."""
    text = f"WaitsReported node {cast.node_name(m.node)}, round {m.round}:"
    for get in m.gets:
        missing = ", ".join(cast.name(item) for item in get.missing)
        text += f" {cast.name(get.task)} holds {format_demand(get.kept)}, gets {missing};"
    for task in m.tasks:
        text += f" {cast.name(task.task)} wants {format_demand(task.kept)};"
    for name in m.finishing:
        text += f" {cast.name(name)} goes on;"
    return text.rstrip(":;") if m.gets or m.tasks or m.finishing else text + " nothing"


def _to_node(e: ef.SendToNode, cast: Cast) -> str:
    return f"{cast.node_name(e.node)} <- {_message(e.message, cast)}"


def _persist(e: ef.Persist, cast: Cast) -> str:
    return "write " + "\nwrite ".join(_message(event, cast).rstrip() for event in e.events)


def _to_peer(e: ef.SendToPeer, cast: Cast) -> str:
    return f"{cast.node_name(e.node)} <- {peers.say(e.message, cast)}"


def _send_object(e: ef.SendObject, cast: Cast) -> str:
    source = f"{cast.name(e.object)}{attempt_text(e.attempt)}, {e.size_bytes} bytes"
    return f"send {source} at {spot(e.segment, e.offset)} to {cast.node_name(e.node)}"


def _receive_object(e: ef.ReceiveObject, cast: Cast) -> str:
    source = f"{cast.name(e.object)}{attempt_text(e.attempt)}, {e.size_bytes} bytes"
    return f"receive {source} from {cast.node_name(e.node)} at {spot(e.segment, e.offset)}"


def _message(message: msgspec.Struct, cast: Cast) -> str:
    """A message between cores, field by field; those that say nothing are left out."""
    parts = []
    for field in msgspec.structs.fields(message):
        name, value = field.name, getattr(message, field.name)
        if name in ("link_seq", "lease_ns") or value == field.default:
            continue
        if name in ("totals", "demand", "offers"):
            value = format_demand(value)
        elif name == "client":
            value = cast.client_name(value)
        elif name == "jobs":
            value = ", ".join(str(job.job) for job in value)
        elif name == "jobs_elsewhere":
            value = ", ".join(map(str, value))
        elif name == "peers":
            value = ", ".join(map(cast.node_name, value))
        elif name in ("node", "peer", "declined"):
            value = cast.node_name(value)
        elif name == "hints":
            value = ", ".join(f"{size} at {cast.node_name(node)}" for node, size in value)
        elif name == "strategy":
            value = say_strategy(value, cast)
        elif isinstance(value, bytes):
            value = cast.name(value)
        elif isinstance(value, str):
            value = cast.symbolic(value)
        parts.append(f"{name} {value}")
    return f"{type(message).__name__} {', '.join(parts)}"


# Any: each takes the effect type that is its key.
_MESSAGES: dict[type, Callable[[Any, Cast], str]] = {
    ef.Welcome: lambda e, c: f"welcome to job {e.job} on node {c.node_name(e.node)}",
    ef.DefineFunction: lambda e, c: (
        f"the function {e.name}" + (f" granting {_names(e.refs, c)}" if e.refs else "")
    ),
    ef.DefineTemplate: _template,
    ef.RunTask: _run,
    ef.InterruptRun: lambda e, c: f"interrupt {c.name(e.task)}{attempt_text(e.attempt)}",
    ef.GetAnswered: _answer,
    ef.GrantBlock: lambda e, c: f"block for {c.name(e.object)} at {spot(e.segment, e.offset)}",
    ef.RefuseBlock: lambda e, c: (
        f"no block for {c.name(e.object)}: {Failure(e.failure).name}, {c.symbolic(e.text)}"
    ),
    ef.ReportStatus: _status,
    ef.ConfirmPin: lambda e, c: (
        f"pinned r{e.request}, "
        + (f"owned by {c.node_name(e.owner)}" if e.owner >= 0 else "known to nobody")
    ),
    ef.ExitWorker: lambda e, c: "exit",
    ef.Notify: lambda e, c: f"{e.level} ({e.kind}): {c.symbolic(e.text)}",
    ef.FailRequest: lambda e, c: f"refused {c.symbolic(e.what)}: {c.symbolic(e.text)}",
}
_ORDERS: dict[type, Callable[[Any, Cast], str]] = {
    ef.StartWorker: lambda e, c: f"start {c.client_name(e.client)} for job {e.job}",
    ef.KillWorker: lambda e, c: f"kill {c.client_name(e.client)}",
    ef.RetractRuns: lambda e, c: f"retract up to {e.count} from {c.client_name(e.client)}",
    ef.DropPayloads: lambda e, c: f"forget the bytes of {', '.join(map(c.key_name, e.keys))}",
    ef.CopyPayload: lambda e, c: (
        f"copy the bytes of {c.key_name(e.source)} for {c.key_name(e.target)}"
    ),
    ef.FreeBlock: lambda e, c: f"free {spot(e.segment, e.offset)}, {e.size_bytes} bytes",
    ef.OpenSegment: lambda e, c: f"open segment {e.segment} of {e.size_bytes} bytes",
    ef.CloseSegment: lambda e, c: f"close segment {e.segment}",
    ef.MoveObject: _move,
    ef.DumpRecorder: lambda e, c: f"write the flight recorder: {c.symbolic(e.reason)}",
    ef.StopNode: lambda e, c: f"stop: {e.reason}",
    ef.SendToHead: _to_head,
    ef.SendToNode: _to_node,
    ef.SendToPeer: _to_peer,
    ef.SendObject: _send_object,
    ef.ReceiveObject: _receive_object,
    ef.AbortReceive: lambda e, c: f"stop receiving {c.name(e.object)}{attempt_text(e.attempt)}",
    ef.LeaveCluster: lambda e, c: f"leave the cluster: {e.reason}",
    ef.Persist: _persist,
}
SAYINGS = _MESSAGES | _ORDERS
