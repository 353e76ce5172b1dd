"""What cores say to each other in plain words, for stories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.ids import NodeID, TaskID
from detray.trace.names import amounts_text, attempt_text, describe, first_line, items_text, short

Named = Callable[[TaskID], str]
"""A task by its function and short name."""
Say = Callable[[Any, Named], str]  # Any: each takes the message type that is its key


def message_text(message: Any, named: Named) -> str:  # Any: a message between cores
    """What a message says."""
    say = MESSAGES.get(type(message))
    return say(message, named) if say else describe(message)


def _nodes(nodes: tuple[NodeID, ...]) -> str:
    return "node " + " and ".join(map(str, nodes)) if nodes else "no node"


def _joined(m: hm.NodeJoined, n: Named) -> str:
    where = f" at {m.address}" if m.address else ""
    return f"I am {m.name or 'a node'}{where} with {amounts_text(m.totals)}: may I join?"


def _waits(m: hm.WaitsReported, n: Named) -> str:
    gets = ", ".join(f"{n(get.task)} in a get" for get in m.gets[:4])
    tasks = ", ".join(n(task.task) for task in m.tasks[:4])
    more = len(m.gets[4:]) + len(m.tasks[4:])
    shown = "; ".join(filter(None, (gets, tasks))) or "nothing"
    return f"these wait here: {shown}{f' and {more} more' if more else ''}"


MESSAGES: dict[type, Say] = {
    hm.NodeJoined: _joined,
    hm.NodeAdmitted: lambda m, n: f"you are node {m.node}, incarnation {m.incarnation}",
    hm.NodeReturned: lambda m, n: (
        f"I am node {m.node} and was a member before you began (epoch {m.epoch}); "
        f"{m.backlog} tasks wait here"
    ),
    hm.NodeReadmitted: lambda m, n: f"you are a member as before, under epoch {m.epoch}",
    hm.NodeAnnounced: lambda m, n: (
        f"node {m.node} ({m.name or 'without a name'}) is a member, with {amounts_text(m.totals)}"
    ),
    hm.NodeLeft: lambda m, n: f"I leave: {first_line(m.reason)}",
    hm.JobRequested: lambda m, n: f"a driver connected ({m.entrypoint}): which job is it?",
    hm.JobAdmitted: lambda m, n: f"driver {-m.client} is job {m.job}",
    hm.JobOpened: lambda m, n: f"job {m.job} began at node {m.node}",
    hm.JobEnded: lambda m, n: f"job {m.job} is over: its driver is gone",
    hm.JobClosed: lambda m, n: f"job {m.job} is over",
    hm.LoadReported: lambda m, n: f"{m.backlog} tasks wait here, {m.received} places were used",
    hm.PeerUnreachable: lambda m, n: f"nothing comes through to node {m.peer}",
    hm.PeerReachable: lambda m, n: f"it comes through to node {m.peer} again",
    hm.PlacementRefused: lambda m, n: (
        f"{n(m.task)} cannot run where it must: {m.reason}{attempt_text(m.attempt)}"
    ),
    hm.RunsRecalled: lambda m, n: f"others idle: give up to {m.count} runs back",
    hm.StallNoticed: lambda m, n: "runs are blocked here, and I cannot tell whether for ever",
    hm.WaitsAsked: lambda m, n: f"what waits at your place? (round {m.round})",
    hm.WaitsReported: _waits,
    hm.GetDoomed: lambda m, n: (
        f"request {m.request} of worker {m.client} is part of a deadlock: {first_line(m.text)}"
    ),
    pm.FunctionShipped: lambda m, n: f"here is the function {m.name}, {m.size_bytes} B",
    pm.TemplateShipped: lambda m, n: f"{m.name} is to be run so: {amounts_text(m.demand)}",
    pm.RefsSettled: lambda m, n: f"the owners know that I hold {items_text(m.objects)}",
    pm.FunctionWanted: lambda m, n: f"send me the function {short(m.function)}",
    pm.FunctionRefused: lambda m, n: f"there is no function {short(m.function)} any more",
    pm.NoticeSent: lambda m, n: f"the drivers of job {m.job} should hear: {first_line(m.text)}",
    hm.PlacementRequested: lambda m, n: (
        f"where should {n(m.task)} run{attempt_text(m.attempt)}? it needs {amounts_text(m.demand)}"
    ),
    hm.PlacementWithdrawn: lambda m, n: (
        f"{n(m.task)} needs no place any more{attempt_text(m.attempt)}"
    ),
    hm.Placed: lambda m, n: f"{n(m.task)} should run on node {m.node}{attempt_text(m.attempt)}",
    hm.DemandInfeasible: lambda m, n: f"no node can ever run {n(m.task)}",
    hm.NodeBuried: lambda m, n: f"node {m.node} is dead: {m.reason}",
    pm.RunDelivered: lambda m, n: f"run {n(m.task)}{attempt_text(m.attempt)}",
    pm.RunCancelled: lambda m, n: f"{n(m.task)} is cancelled{attempt_text(m.attempt)}",
    pm.RunDone: lambda m, n: (
        f"{n(m.task)} finished after {m.duration_ns / 1e6:.3f} ms{attempt_text(m.attempt)}"
    ),
    pm.RunErred: lambda m, n: (
        f"{n(m.task)} failed: {first_line(m.summary)}{attempt_text(m.attempt)}"
    ),
    pm.RunLost: lambda m, n: (
        f"the run of {n(m.task)} is lost: {first_line(m.reason)}{attempt_text(m.attempt)}"
    ),
    pm.RunReturned: lambda m, n: (
        f"{n(m.task)} does not run here: {m.reason}{attempt_text(m.attempt)}"
    ),
    pm.BorrowClaimed: lambda m, n: f"I was given {short(m.object)}: may I hold it?",
    pm.BorrowConfirmed: lambda m, n: f"{short(m.object)} stays while you hold it",
    pm.BorrowRefused: lambda m, n: f"there is no {short(m.object)} any more",
    pm.BorrowDropped: lambda m, n: f"nobody here needs {', '.join(map(short, m.objects))} any more",
    pm.ValueWanted: lambda m, n: f"tell me when {short(m.object)} is there",
    pm.ValueSent: lambda m, n: f"here is {short(m.object)}, {m.size_bytes} B",
    pm.ValueFound: lambda m, n: f"{short(m.object)} is there: {_nodes(m.nodes)} has it",
    pm.ValueFailed: lambda m, n: f"there will be no {short(m.object)}: {first_line(m.text)}",
    pm.CopyMissing: lambda m, n: f"{_nodes(m.nodes)} has no copy of {short(m.object)}",
    pm.CopyEvicted: lambda m, n: f"my copy of {short(m.object)} had to go",
    pm.CopyPromoted: lambda m, n: f"your copy of {short(m.object)} is the primary one now",
    pm.CopiesFreed: lambda m, n: f"nobody needs {', '.join(map(short, m.objects))} any more",
    pm.PullRequested: lambda m, n: f"send me the bytes of {short(m.object)}",
    pm.PullRefused: lambda m, n: f"I have no copy of {short(m.object)}",
}
"""How to say what, by type of message: of every type there is."""
