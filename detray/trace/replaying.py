"""Replay: play a trace again and compare every effect with what was recorded.

Within one core revision the effects are the same, to the byte, or a bug was found: replay stops at
the first difference and shows it (`difference.py`). A trace of another revision is played to its
end, and the steps that decide otherwise are counted; stimuli that answer the old decisions soon
make little sense to the new ones, so the first difference is the one to read.

Also checked on the way: that what one core says it sent is what the other got, in order (PROTOCOL
T15); that a snapshot inside the trace is the state that replay arrives at (T13); and, if asked for,
every invariant after every step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, get_args

import msgspec

from detray.core.config import CORE_REVISION
from detray.core.effects import Order, SendToHead, SendToNode
from detray.core.head_messages import (
    HeadMessage,
    NodeMessage,
)
from detray.core.stimuli import (
    Stimulus,
)
from detray.trace.format import CORES, HEAD, LOCAL
from detray.trace.play import Core, Makers, Opening, Played, play, schedulers
from detray.trace.reading import RecordedStep, Trace

CORE_NAMES = ("local scheduler", "global scheduler")
LINK_MESSAGES = frozenset(get_args(HeadMessage) + get_args(NodeMessage))
Check = Callable[[Any], None]  # Any: the core that was stepped, of whatever class
"""Raises if an invariant of the core does not hold."""


class Difference(msgspec.Struct, kw_only=True):
    """A step in which replay and recording disagree; `what` says in one line how."""

    what: str
    played: Played
    detail: str = ""


class ReplayReport(msgspec.Struct):
    """What a replay found. Lists are by core number."""

    revision: int
    steps: list[int] = msgspec.field(default_factory=lambda: [0] * CORES)
    effects: list[int] = msgspec.field(default_factory=lambda: [0] * CORES)
    stimuli: list[int] = msgspec.field(default_factory=lambda: [0] * CORES)
    skipped: int = 0
    """Steps before the first state that the trace can be replayed from."""
    snapshots: int = 0
    """Snapshots inside the trace that replay arrived at."""
    link_messages: int = 0
    raised: str = ""
    """What the core raised in the last step, when it was recorded as now."""
    differing: int = 0
    """Steps that decided otherwise; more than one only if the revision differs."""
    difference: Difference | None = None
    """The first of them."""

    @property
    def is_same(self) -> bool:
        """True if something was replayed and nothing differed."""
        return self.difference is None and any(self.steps)

    @property
    def is_same_revision(self) -> bool:
        """True if replay promises equality."""
        return self.revision == CORE_REVISION


def replay(trace: Trace, makers: Makers = schedulers, check: Check | None = None) -> ReplayReport:
    """Play `trace` and compare. Raises TraceError if it cannot be read."""
    report = ReplayReport(trace.header.core_revision)
    links = Links(is_binding=report.is_same_revision)
    cores: Sequence[Core] = ()
    last: Played | None = None
    for item in play(trace, makers):
        if isinstance(item, Opening):
            cores = item.cores
            problem = _arrive(item, links, report)
            if problem and last is not None:
                _differ(report, Difference(what=problem, played=last))
        elif not item.is_played:
            report.skipped += 1
        else:
            last = item
            difference = _judge(item, links, cores[item.step.core], check)
            _count(report, item)
            if difference is not None:
                _differ(report, difference)
        if report.difference is not None and report.is_same_revision:
            break
    report.link_messages = links.received
    return report


def _judge(item: Played, links: Links, core: Core, check: Check | None) -> Difference | None:
    problem = links.follow(item)
    if not item.is_same:
        return Difference(what=_what_differs(item), played=item, detail=item.raised)
    if problem and links.is_binding:
        return Difference(what=problem, played=item)
    if check is not None and not item.raised:
        try:
            check(core)
        except Exception as error:
            return Difference(what="an invariant is broken", played=item, detail=str(error))
    return None


def _what_differs(item: Played) -> str:
    if item.raised:
        return "the core raised, and did not when it was recorded"
    if item.step.error:
        return "the core raised when it was recorded, and does not now"
    return "the effects are not those that were recorded"


def _arrive(opening: Opening, links: Links, report: ReplayReport) -> str:
    if opening.is_fresh:
        links.is_whole = opening.start.first_step == 0
        return ""
    if not opening.start.snapshots:
        return ""
    for name, core, state in zip(CORE_NAMES, opening.cores, opening.start.snapshots, strict=True):
        if core.snapshot() != state:
            return f"after this step the state of the {name} is not the one in the trace's snapshot"
    report.snapshots += 1
    return ""


def _count(report: ReplayReport, item: Played) -> None:
    core = item.step.core
    report.steps[core] += 1
    report.effects[core] += len(item.effects)
    report.stimuli[core] += len(item.stimuli)
    if item.is_same and item.raised:
        report.raised = item.raised


def _differ(report: ReplayReport, difference: Difference) -> None:
    report.differing += 1
    report.difference = report.difference or difference


class Links:
    """The ordered links between the two cores: what was sent and is not delivered yet."""

    def __init__(self, is_binding: bool) -> None:
        self.is_binding = is_binding
        """False if the cores decide by another revision: then they also send otherwise."""
        self.is_whole = True
        """False if messages may have been under way when the trace begins."""
        self.received = 0
        self._under_way: tuple[deque[Any], deque[Any]] = (deque(), deque())

    def follow(self, item: Played) -> str:
        """Take a step's messages; says what is wrong with them, "" if nothing is."""
        problem = ""
        for stimulus in item.stimuli:
            if type(stimulus) in LINK_MESSAGES:
                problem = problem or self._receive(item.step, stimulus)
        for order in item.orders:
            if type(order) is SendToHead or type(order) is SendToNode:
                self._send(order)
        return problem

    def _send(self, order: Order) -> None:
        if isinstance(order, SendToHead):
            self._under_way[HEAD].append(order.message)
        elif isinstance(order, SendToNode):
            self._under_way[LOCAL].append(order.message)

    def _receive(self, step: RecordedStep, stimulus: Stimulus) -> str:
        queue = self._under_way[step.core]
        self.received += 1
        if not queue:
            if not self.is_whole:
                return ""
            return f"{type(stimulus).__name__} arrived, and nobody sent it"
        sent = queue.popleft()
        if sent != stimulus:
            return f"{type(stimulus).__name__} arrived where {type(sent).__name__} was sent"
        return ""
