"""Definitions that a node has not heard of, though a client there has their names.

A remote function that travels inside of an argument, a value or another function's closure travels
as its id and the node that exported it. Who submits it at another node makes that node ask for the
definition; tasks of it wait meanwhile, as they would for an argument.

A function wanted here is a row without a name, with `home` as the node that was asked. It answers
FunctionShipped or FunctionRefused; if it dies first, the tasks fail (PROTOCOL D 40).
"""

from __future__ import annotations

from detray.core import objects, tasks
from detray.core.lending import borrow, lend
from detray.core.links import is_alive, tell
from detray.core.peer_messages import FunctionRefused, FunctionShipped, FunctionWanted
from detray.core.step import Step
from detray.core.tables import HERE, Function
from detray.errors import Failure
from detray.ids import FunctionID, NodeID, job_of


def want_function(s: Step, function: FunctionID, home: NodeID) -> bool:
    """Ask `home` for a definition that is not here; False if there is nobody to ask."""
    t = s.t
    if home in (HERE, t.node) or t.node < 0 or not is_alive(s, home):
        return False
    tell(s, home, FunctionWanted, function)
    t.functions[function] = Function(function, "", 0, (), home=home)
    return True


def on_function_wanted(s: Step, m: FunctionWanted) -> None:
    """Another node has the name of a function of ours, and wants what it stands for."""
    function = s.t.functions.get(m.function)
    if function is None or function.home != HERE:
        tell(s, m.node, FunctionRefused, m.function)
        return
    peer = s.t.peers[m.node]
    if function.id not in peer.functions:  # else it is on its way
        peer.functions[function.id] = None
        refs = lend(s, function.refs, m.node)
        tell(s, m.node, FunctionShipped, function.id, function.name, function.size_bytes, refs)


def on_function_shipped(s: Step, m: FunctionShipped) -> None:
    """A definition for later runs; it holds what its closure refers to."""
    t = s.t
    refs = borrow(s, m.refs, m.node)
    known = t.functions.get(m.function)
    is_wanted = known is not None and known.home != HERE
    if not is_wanted and (known is not None or job_of(m.function) in t.closed_jobs):
        s.count("stale")
        if known is None and m.size_bytes:
            s.drops.append(m.function)
        return
    held = objects.hold_contained(s, refs)
    t.functions[m.function] = Function(m.function, m.name, m.size_bytes, held)
    if known is not None:
        for template in t.templates.values():
            if template.function == m.function:
                template.waits = False
        for name in known.takers:
            task = t.tasks.get(name)
            if task is not None:
                tasks.recount(s, task)


def on_function_refused(s: Step, m: FunctionRefused) -> None:
    """The node that exported it does not have it: its job is over there."""
    function = s.t.functions.get(m.function)
    if function is not None and function.home == m.node:
        _give_up(s, function, f"node {m.node}, which had defined it, has it no more")


def end_wants(s: Step, node: NodeID, reason: str) -> None:
    """A node died that was asked for definitions."""
    for function in [f for f in s.t.functions.values() if f.home == node]:
        _give_up(s, function, f"node {node}, which had defined it, died: {reason}")


def _give_up(s: Step, function: Function, reason: str) -> None:
    """Its tasks fail, those to come are refused."""
    del s.t.functions[function.id]
    for name in function.takers:
        task = s.t.tasks.get(name)
        if task is not None:
            template = s.t.templates[task.template]
            text = f"the function {template.name} cannot be had: {reason}"
            tasks.fail_task(s, task, Failure.OWNER_DIED, text)
