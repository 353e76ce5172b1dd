"""Replay: play a trace again and compare every effect with what was recorded.

Within one core revision the effects are the same, to the byte, or a bug was found: replay stops at
the first difference and shows it (`difference.py`). A trace of another revision is played to its
end, and the steps that decide otherwise are counted; stimuli that answer the old decisions soon
make little sense to the new ones, so the first difference is the one to read.

Also checked on the way: that what one core says it sent is what the other got, in order (PROTOCOL
T15, `links.py`); that a snapshot inside the trace is the state that replay arrives at (T13); and
the invariants: after every step if asked for, and for another revision always, though seldom where
the state is large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from detray.core import invariants
from detray.core.config import CORE_REVISION
from detray.core.head_invariants import check_head
from detray.core.head_tables import GlobalTables
from detray.core.tables import Tables
from detray.trace.format import SegmentStart
from detray.trace.links import Links
from detray.trace.names import core_names
from detray.trace.play import Core, Makers, Opening, Played, play, schedulers
from detray.trace.reading import Trace

Check = Callable[[Any], None]  # Any: the core that was stepped, of whatever class
"""Raises if an invariant of the core does not hold."""
Progress = Callable[[int, int], None]
"""Told now and then: steps that were played, of how many."""
PROGRESS_STEPS = 1_000
PLACES_MAX = 100
ROWS_EASY = 1_000
"""Of so many rows the invariants are checked without thinking."""


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
    differing_steps: list[int] = []
    """The numbers of the first of them."""
    difference: Difference | None = None
    """The first of them."""
    checked: int = 0
    """Steps after which the invariants were checked."""
    broken: Difference | None = None
    """The first step after which an invariant did not hold."""

    @property
    def is_same(self) -> bool:
        """True if something was replayed and nothing differed."""
        return self.difference is None and any(self.steps)

    @property
    def is_same_revision(self) -> bool:
        """True if replay promises equality."""
        return self.revision == CORE_REVISION


def check_invariants(core: object) -> None:
    """The check of both kinds of schedulers. Raises InvariantBroken."""
    tables = getattr(core, "tables", None)
    if isinstance(tables, Tables):
        invariants.check(tables)
    elif isinstance(tables, GlobalTables):
        check_head(tables)


def replay(
    trace: Trace,
    makers: Makers = schedulers,
    check: Check | None = None,
    progress: Progress | None = None,
) -> ReplayReport:
    """Play `trace` and compare. Raises TraceError if it cannot be read.

    `check` is done after every step; without one, the invariants are checked now and then if the
    trace is of another core revision.
    """
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
    checks = _Checks(check, report)
    for item in play(trace, makers):
        if isinstance(item, Opening):
            cores = item.cores
            for core in item.fresh:
                links.directory.begin(core, cores[core])
            if item.start is not None:
                _arrive(item, item.start, report, last)
        else:
            if not item.is_played:
                report.skipped += 1
                problem = links.follow(item.step, item.stimuli, item.step.effects())
                if problem and report.is_same_revision:
                    _differ(report, Difference(what=problem, played=item))
            else:
                last[item.step.core] = item
                difference = _judge(item, links, report)
                _count(report, item)
                broken = checks.look(item, cores[item.step.core])
                if report.is_same_revision:
                    difference = difference or broken
                if difference is not None:
                    _differ(report, difference)
            if progress is not None and not item.step.number % PROGRESS_STEPS:
                progress(item.step.number - trace.first_step, trace.step_count)
        if report.difference is not None and report.is_same_revision:
            break
    report.link_messages, report.unmatched = links.matched, links.unmatched
    return report


def _judge(item: Played, links: Links, report: ReplayReport) -> Difference | None:
    problem = links.follow(item.step, item.stimuli, item.effects)
    if not item.is_same:
        return Difference(what=_what_differs(item), played=item, detail=item.raised)
    if problem and report.is_same_revision:
        return Difference(what=problem, played=item)
    return None


class _Checks:
    """Looks at the invariants after each step, or as often as is no burden."""

    def __init__(self, check: Check | None, report: ReplayReport) -> None:
        self._is_sparing = check is None
        self._check = check
        if check is None and not report.is_same_revision:
            self._check = check_invariants
        self._report = report
        self._owed = 0

    def look(self, item: Played, core: Core) -> Difference | None:
        """A step was played."""
        if self._check is None or item.raised or self._report.broken is not None:
            return None
        if self._is_sparing and self._owed > 0:
            self._owed -= ROWS_EASY
            return None
        self._report.checked += 1
        self._owed = getattr(core, "state_size", 0) - ROWS_EASY
        try:
            self._check(core)
        except Exception as error:
            what = "an invariant is broken"
            self._report.broken = Difference(what=what, played=item, detail=str(error))
        return self._report.broken


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
    if len(report.differing_steps) < PLACES_MAX:
        report.differing_steps.append(difference.played.step.number)
    report.difference = report.difference or difference
