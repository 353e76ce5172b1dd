"""What cores say to each other in plain words, for stories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.ids import NodeID, TaskID
from detray.trace.names import describe, short

Named = Callable[[TaskID], str]
"""A task by its function and short name."""
Say = Callable[[Any, Named], str]  # Any: each takes the message type that is its key


def message_text(message: Any, named: Named) -> str:  # Any: a message between cores
    """What a message says."""
    say = MESSAGES.get(type(message))
    return say(message, named) if say else describe(message)


def _attempt(number: int) -> str:
    return f", attempt {number}" if number else ""


def _nodes(nodes: tuple[NodeID, ...]) -> str:
    return "node " + " and ".join(map(str, nodes)) if nodes else "no node"


MESSAGES: dict[type, Say] = {
    hm.PlacementRequested: lambda m, n: (
        f"where should {n(m.task)} run{_attempt(m.attempt)}? it needs "
        + (", ".join(f"{name} {amount / 10_000:g}" for name, amount in m.demand) or "nothing")
    ),
    hm.PlacementWithdrawn: lambda m, n: f"{n(m.task)} needs no place any more{_attempt(m.attempt)}",
    hm.Placed: lambda m, n: f"{n(m.task)} should run on node {m.node}{_attempt(m.attempt)}",
    hm.DemandInfeasible: lambda m, n: f"no node can ever run {n(m.task)}",
    hm.NodeBuried: lambda m, n: f"node {m.node} is dead: {m.reason}",
    pm.RunDelivered: lambda m, n: f"run {n(m.task)}{_attempt(m.attempt)}",
    pm.RunCancelled: lambda m, n: f"{n(m.task)} is cancelled{_attempt(m.attempt)}",
    pm.RunDone: lambda m, n: (
        f"{n(m.task)} finished after {m.duration_ns / 1e6:.3f} ms{_attempt(m.attempt)}"
    ),
    pm.RunErred: lambda m, n: f"{n(m.task)} failed: {m.summary}{_attempt(m.attempt)}",
    pm.RunLost: lambda m, n: f"the run of {n(m.task)} is lost: {m.reason}{_attempt(m.attempt)}",
    pm.RunReturned: lambda m, n: f"{n(m.task)} does not run here: {m.reason}{_attempt(m.attempt)}",
    pm.BorrowClaimed: lambda m, n: f"I was given {short(m.object)}: may I hold it?",
    pm.BorrowConfirmed: lambda m, n: f"{short(m.object)} stays while you hold it",
    pm.BorrowRefused: lambda m, n: f"there is no {short(m.object)} any more",
    pm.BorrowDropped: lambda m, n: f"nobody here needs {', '.join(map(short, m.objects))} any more",
    pm.ValueWanted: lambda m, n: f"tell me when {short(m.object)} is there",
    pm.ValueSent: lambda m, n: f"here is {short(m.object)}, {m.size_bytes} B",
    pm.ValueFound: lambda m, n: f"{short(m.object)} is there: {_nodes(m.nodes)} has it",
    pm.ValueFailed: lambda m, n: f"there will be no {short(m.object)}: {m.text}",
    pm.CopyMissing: lambda m, n: f"{_nodes(m.nodes)} has no copy of {short(m.object)}",
    pm.CopyEvicted: lambda m, n: f"my copy of {short(m.object)} had to go",
    pm.CopyPromoted: lambda m, n: f"your copy of {short(m.object)} is the primary one now",
    pm.CopiesFreed: lambda m, n: f"nobody needs {', '.join(map(short, m.objects))} any more",
    pm.PullRequested: lambda m, n: f"send me the bytes of {short(m.object)}",
    pm.PullRefused: lambda m, n: f"I have no copy of {short(m.object)}",
}
"""How to say what, by type of message; others are shown field by field."""
