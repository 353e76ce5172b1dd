"""Replay: play a trace again and compare every effect with what was recorded.

Within one core revision the effects are the same, to the byte, or a bug was found: replay stops at
the first difference and shows it (`difference.py`). A trace of another revision is played to its
end, and the steps that decide otherwise are counted; stimuli that answer the old decisions soon
make little sense to the new ones, so the first difference is the one to read.

Also checked on the way: that what one core says it sent is what the other got, in order (PROTOCOL
T15, `links.py`); that a snapshot inside the trace is the state that replay arrives at (T13); and,
if asked for, every invariant after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from detray.core.config import CORE_REVISION
from detray.trace.format import SegmentStart
from detray.trace.links import Links
from detray.trace.names import core_names
from detray.trace.play import Core, Makers, Opening, Played, play, schedulers
from detray.trace.reading import Trace

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
    names: list[str]
    """Of the cores."""
    steps: list[int]
    effects: list[int]
    stimuli: list[int]
    skipped: int = 0
    """Steps before the first state that their core can be replayed from."""
    snapshots: int = 0
    """Snapshots inside the trace that replay arrived at."""
    link_messages: int = 0
    """Messages between cores that arrived as they were sent."""
    unmatched: int = 0
    """Messages from cores, or from times, that the trace does not hold."""
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
    nothing = [0] * len(trace.header.cores)
    links = Links(trace)
    report = ReplayReport(
        trace.header.core_revision,
        core_names(trace.header, links.directory.nodes),
        nothing.copy(),
        nothing.copy(),
        nothing.copy(),
    )
    cores: Mapping[int, Core] = {}
    last: dict[int, Played] = {}
    for item in play(trace, makers):
        if isinstance(item, Opening):
            cores = item.cores
            for core in item.fresh:
                links.directory.begin(core, cores[core])
            if item.start is not None:
                _arrive(item, item.start, report, last)
        elif not item.is_played:
            report.skipped += 1
            problem = links.follow(item.step, item.stimuli, item.step.effects())
            if problem and report.is_same_revision:
                _differ(report, Difference(what=problem, played=item))
        else:
            last[item.step.core] = item
            difference = _judge(item, links, cores[item.step.core], check, report)
            _count(report, item)
            if difference is not None:
                _differ(report, difference)
        if report.difference is not None and report.is_same_revision:
            break
    report.link_messages, report.unmatched = links.matched, links.unmatched
    return report


def _judge(
    item: Played, links: Links, core: Core, check: Check | None, report: ReplayReport
) -> Difference | None:
    problem = links.follow(item.step, item.stimuli, item.effects)
    if not item.is_same:
        return Difference(what=_what_differs(item), played=item, detail=item.raised)
    if problem and report.is_same_revision:
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


def _arrive(
    opening: Opening, start: SegmentStart, report: ReplayReport, last: Mapping[int, Played]
) -> None:
    """The snapshots of a segment are the states that its cores have been played to."""
    is_compared = False
    for core, state in zip(start.cores, start.snapshots, strict=False):
        if core in opening.fresh or core not in last or core not in opening.cores:
            continue
        is_compared = True
        if opening.cores[core].snapshot() != state:
            name = report.names[core]
            what = f"after this step the state of the {name} is not the one in the trace's snapshot"
            _differ(report, Difference(what=what, played=last[core]))
    report.snapshots += is_compared


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
