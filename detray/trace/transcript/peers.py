"""What nodes say to each other, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detray.core import peer_messages as pm
from detray.core.resources import format_demand
from detray.errors import Failure
from detray.ids import FunctionID, NodeID, ObjectID
from detray.trace.names import attempt_text
from detray.trace.transcript.cast import Cast
from detray.trace.transcript.strategies import say_strategy


def say(message: pm.PeerMessage, cast: Cast) -> str:
    """A message as one line."""
    return f"{type(message).__name__} {SAYINGS[type(message)](message, cast)}"


def _refs(refs: tuple[pm.Ref, ...], cast: Cast) -> str:
    """The references in a message, each with its owner."""
    if not refs:
        return ""
    return " lending " + ", ".join(
        f"{cast.name(item)} of {cast.node_name(owner)}" for item, owner in refs
    )


def _nodes(nodes: tuple[NodeID, ...], cast: Cast) -> str:
    return ", ".join(map(cast.node_name, nodes)) or "nowhere"


def _run(m: pm.RunDone | pm.RunErred | pm.RunLost | pm.RunReturned, cast: Cast) -> str:
    return f"{cast.name(m.task)}{attempt_text(m.attempt)}"


def _object(m: Any, cast: Cast) -> str:  # Any: those that name an object and its attempt
    return f"{cast.name(m.object)}{attempt_text(m.attempt)}"


def _argument(arg: pm.Argument, cast: Cast) -> str:
    text = f"{cast.name(arg.object)} of {cast.node_name(arg.owner)}"
    if arg.is_inline:
        text += f" inline {arg.size_bytes}"
    elif arg.nodes:
        text += f" {arg.size_bytes} at {_nodes(arg.nodes, cast)}{attempt_text(arg.attempt)}"
    return text + _refs(arg.refs, cast)


def _delivered(m: pm.RunDelivered, cast: Cast) -> str:
    text = f"{cast.name(m.task)}{attempt_text(m.attempt)}"
    text += f" with {'; '.join(_argument(arg, cast) for arg in m.args)}" if m.args else ""
    text += " (packed)" if m.packed else ""
    text += f", wanted {', '.join(map(str, m.wanted))}" if m.wanted else ""
    text += f", refused {m.refusals}" if m.refusals else ""
    text += ", leased" if m.is_leased else ""
    return text + _refs(m.refs, cast)


def _returned(part: pm.Returned, cast: Cast) -> str:
    if part.size_bytes < 0:
        return "not wanted"
    return f"{'kept' if part.is_kept else 'inline'} {part.size_bytes}{_refs(part.refs, cast)}"


def _done(m: pm.RunDone, cast: Cast) -> str:
    return f"{_run(m, cast)}: {'; '.join(_returned(part, cast) for part in m.returns) or 'nothing'}"


def _erred(m: pm.RunErred, cast: Cast) -> str:
    text = f"{_run(m, cast)}: {Failure(m.kind).name}, {cast.symbolic(m.summary)}"
    text += f", {m.size_bytes} bytes" if m.size_bytes else ""
    return text + (", retryable" if m.retryable else "") + _refs(m.refs, cast)


def _function(function: FunctionID, cast: Cast) -> str:
    found = (name for name, known in cast.functions.items() if known == function)
    return next(found, function.hex())


def _cancelled(m: pm.RunCancelled, cast: Cast) -> str:
    words = [word for word in ("force", "recursive") if getattr(m, word)]
    return " ".join([f"{cast.name(m.task)}{attempt_text(m.attempt)}", *words])


def _counted(objects: tuple[ObjectID, ...], counts: tuple[int, ...], cast: Cast) -> str:
    return ", ".join(
        f"{cast.name(item)} {count}" for item, count in zip(objects, counts, strict=True)
    )


def _failed(m: pm.ValueFailed, cast: Cast) -> str:
    text = f"{cast.name(m.object)}: {Failure(m.failure).name}, {cast.symbolic(m.text)}"
    return text + (f", {m.size_bytes} bytes" if m.size_bytes else "") + _refs(m.refs, cast)


# Any: each takes the message type that is its key.
SAYINGS: dict[type, Callable[[Any, Cast], str]] = {
    pm.FunctionShipped: lambda m, c: f"{m.name}{_refs(m.refs, c)}",
    pm.TemplateShipped: lambda m, c: (
        f"{m.name}: {m.num_returns} returns, {format_demand(m.demand)}"
        + (f", {say_strategy(m.strategy, c)}" if m.strategy is not None else "")
    ),
    pm.RunDelivered: _delivered,
    pm.RunCancelled: _cancelled,
    pm.RunDone: _done,
    pm.RunErred: _erred,
    pm.RunLost: lambda m, c: f"{_run(m, c)}: {Failure(m.kind).name}, {c.symbolic(m.reason)}",
    pm.RunReturned: lambda m, c: f"{_run(m, c)}: {m.reason}",
    pm.BorrowClaimed: lambda m, c: c.name(m.object),
    pm.BorrowConfirmed: lambda m, c: c.name(m.object),
    pm.BorrowRefused: lambda m, c: c.name(m.object),
    pm.RefsSettled: lambda m, c: _counted(m.objects, m.counts, c),
    pm.BorrowDropped: lambda m, c: _counted(m.objects, m.counts, c),
    pm.ValueWanted: lambda m, c: c.name(m.object),
    pm.ValueSent: lambda m, c: f"{_object(m, c)}, {m.size_bytes} bytes{_refs(m.refs, c)}",
    pm.ValueFound: lambda m, c: (
        f"{_object(m, c)}, {m.size_bytes} bytes at {_nodes(m.nodes, c)}{_refs(m.refs, c)}"
    ),
    pm.ValueFailed: _failed,
    pm.CopyMissing: lambda m, c: (
        f"{_object(m, c)} at {_nodes(m.nodes, c)}{', wanted' if m.is_wanted else ''}"
    ),
    pm.CopyEvicted: _object,
    pm.CopyPromoted: _object,
    pm.CopiesFreed: lambda m, c: ", ".join(map(c.name, m.objects)),
    pm.PullRequested: _object,
    pm.PullRefused: _object,
    pm.FunctionWanted: lambda m, c: _function(m.function, c),
    pm.FunctionRefused: lambda m, c: _function(m.function, c),
    pm.NoticeSent: lambda m, c: f"job {m.job}, {m.level} ({m.kind}): {c.symbolic(m.text)}",
}
