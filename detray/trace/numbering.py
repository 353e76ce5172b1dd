"""Which node a recording is of, if its process ended before the head's answer reached it.

Such a core knows only that it asked to join. The head's recording says whom it admitted, in the
same words, and what it told it: a core that asked alike, and heard nothing else, is that node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from detray.core.effects import SendToHead, SendToNode
from detray.core.head_messages import NodeJoined
from detray.ids import NodeID
from detray.trace.format import LocalCore
from detray.trace.links import FROM_HEAD, admissions
from detray.trace.play import Makers, Opening, tell
from detray.trace.reading import Trace


class Applicant(NamedTuple):
    """A core without a number: what it asked for, and what the head told it."""

    trace: int
    core: int
    name: str
    request: NodeJoined | None
    heard: list[Any]  # Any: messages of the head
    began_ns: int


class Admission(NamedTuple):
    """A node as the head saw it come, and what it was told."""

    node: NodeID
    request: NodeJoined
    told: list[Any]  # Any: as above


def number_the_unknown(
    traces: Sequence[Trace], nodes: Sequence[list[NodeID]], makers: Makers
) -> None:
    """Fill in the nodes of cores that never learned them, where a head's recording tells.

    `nodes` are those known so far, by trace and core. Raises TraceError.
    """
    applicants = _applicants(traces, nodes, makers)
    if not applicants:
        return
    taken = {node for known in nodes for node in known}
    admissions = [a for trace in traces for a in _admissions(trace, makers) if a.node not in taken]
    for admission in admissions:
        for applicant in applicants:
            if _is_same(applicant, admission):
                nodes[applicant.trace][applicant.core] = admission.node
                applicants.remove(applicant)
                break


def _is_same(applicant: Applicant, admission: Admission) -> bool:
    """True if that core may be that node; one whose recording says nothing goes by its name."""
    if applicant.request is None:
        return applicant.name == admission.request.name
    is_alike = applicant.request == admission.request
    return is_alike and applicant.heard == admission.told[: len(applicant.heard)]


def _applicants(
    traces: Sequence[Trace], nodes: Sequence[list[NodeID]], makers: Makers
) -> list[Applicant]:
    """Those who heard most first: they can be only one. Of equals, those who began first."""
    found = []
    for number, trace in enumerate(traces):
        header = trace.header
        unknown = {core for core, _ in header.local_cores() if nodes[number][core] < 0}
        for core in unknown:
            request, heard = _words(trace, core, makers)
            began_ns = header.process_of(core).wall_ns
            name = header.cores[core].name
            found.append(Applicant(number, core, name, request, heard, began_ns))
    found.sort(key=lambda a: (-len(a.heard), a.began_ns, a.trace, a.core))
    return found


def _words(trace: Trace, core: int, makers: Makers) -> tuple[NodeJoined | None, list[Any]]:
    """What a core asked the head, and heard from it."""
    request: NodeJoined | None = None
    heard: list[Any] = []
    for item in tell(trace, makers):
        if isinstance(item, Opening) or item.step.core != core:
            continue
        heard += [stimulus for stimulus in item.stimuli if type(stimulus) in FROM_HEAD]
        for effect in item.effects or ():
            if isinstance(effect, SendToHead) and isinstance(effect.message, NodeJoined):
                request = effect.message
    return request, heard


def _admissions(trace: Trace, makers: Makers) -> list[Admission]:
    """Whom the heads of a trace admitted, in order."""
    cores = trace.header.cores
    if all(isinstance(core, LocalCore) for core in cores):
        return []
    found: dict[NodeID, Admission] = {}
    for item in tell(trace, makers):
        if isinstance(item, Opening) or isinstance(cores[item.step.core], LocalCore):
            continue
        requests = [stimulus for stimulus in item.stimuli if isinstance(stimulus, NodeJoined)]
        for node, request in zip(admissions(item.stimuli, item.effects), requests, strict=False):
            found[node] = Admission(node, request, [])
        for effect in item.effects or ():
            if isinstance(effect, SendToNode) and effect.node in found:
                found[effect.node].told.append(effect.message)
    return list(found.values())
