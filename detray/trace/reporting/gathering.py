"""One walk through a trace that gathers all that a report shows.

The steps are played, because memory over time is read from the tables of the cores. Where a trace
cannot be played, or this detray decides otherwise than was recorded, the walk goes on with what was
recorded, and `Gathered.usage_note` says from where on the tables are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from detray.core.config import CORE_REVISION
from detray.core.effects import DumpRecorder, Notify
from detray.core.head_messages import NodeBuried
from detray.core.stimuli import WorkerStartFailed
from detray.core.tables import Tables
from detray.ids import NodeID
from detray.trace.format import LocalCore, TraceError
from detray.trace.gathering.history import History, follow, new_history
from detray.trace.play import Makers, Opening, Played, Told, play, schedulers
from detray.trace.reading import Trace
from detray.trace.usage import Usage, UsageSampler

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and out of how much."""
_PROGRESS_STEPS = 2000


class Incident(NamedTuple):
    """Something that went wrong and is no task's failure. `node`: whom it is about, -1 nobody."""

    kind: str
    core: int
    date_ns: int
    text: str
    node: NodeID = NodeID(-1)


class Gathered(NamedTuple):
    """What is known of a run. All times are dates: nanoseconds since 1970.

    `began_ns` is that of the first step, from which stories count; `spans_ns` are the first and the
    last step of each local core, by number.
    """

    trace: Trace
    history: History
    began_ns: int
    ended_ns: int
    spans_ns: dict[int, tuple[int, int]]
    usage: dict[int, Usage]
    usage_note: str
    incidents: list[Incident]


def gather(trace: Trace, makers: Makers = schedulers, progress: Progress | None = None) -> Gathered:
    """Walk through `trace`. Raises TraceError."""
    walk = _Walk(trace, makers)
    history = new_history(trace)
    dates: list[int] = []
    spans: dict[int, tuple[int, int]] = {}
    incidents: dict[tuple[str, str, int], Incident] = {}
    for item in walk.told():
        if not follow(history, trace, item) or isinstance(item, Opening):
            continue
        core = item.step.core
        date = trace.header.date_ns(core, item.step.now_ns)
        first, last = spans.get(core, (date, date))
        spans[core] = min(first, date), max(last, date)
        if not dates:
            dates.append(date)
        for incident in _incidents(item, core, date):
            key = incident.kind, incident.text, incident.node
            incidents.setdefault(key, incident)
        done = item.step.number - trace.first_step
        if progress is not None and done % _PROGRESS_STEPS == 0:
            progress("reading", done, trace.step_count)
    history.close()
    history.use_dates(trace.header)
    began = dates[0] if dates else 0
    ended = max((last for _, last in spans.values()), default=began)
    usage = {core: sampler.usage() for core, sampler in walk.samplers.items()}
    found = sorted(incidents.values(), key=lambda one: (one.date_ns, one.core, one.text))
    return Gathered(trace, history, began, ended, spans, usage, walk.note, found)


class _Walk:
    """Plays as far as playing goes, and looks at the tables meanwhile."""

    def __init__(self, trace: Trace, makers: Makers) -> None:
        self.samplers: dict[int, UsageSampler] = {}
        self.note = ""
        self._trace = trace
        self._makers = makers
        self._last = trace.first_step - 1

    def told(self) -> Iterator[Opening | Told]:
        """All openings and steps; effects as they were played, or else as they were recorded."""
        trace = self._trace
        try:
            yield from self._played()
        except _Ended as end:
            self.note = str(end)
        except TraceError as error:
            self.note = str(error)
        for step in islice(trace.steps(), self._last + 1 - trace.first_step, None):
            yield Told(step, step.stimuli(), step.effects())

    def _played(self) -> Iterator[Opening | Told]:
        tables: dict[int, Tables] = {}
        unplayed = set()
        for item in play(self._trace, self._makers):
            if isinstance(item, Opening):
                for core in item.fresh:
                    state = getattr(item.cores[core], "tables", None)
                    if isinstance(state, Tables):
                        tables[core] = state
                yield item
                continue
            self._check(item)
            step = item.step
            self._last = step.number
            yield Told(step, item.stimuli, item.effects if item.is_played else step.effects())
            if item.is_played and step.core in tables:
                sampler = self.samplers.setdefault(step.core, UsageSampler())
                sampler.look(tables[step.core], step.now_ns)
            elif not item.is_played and isinstance(self._trace.header.cores[step.core], LocalCore):
                unplayed.add(step.core)
        if unplayed:
            self.note = "the trace does not hold all that is needed to play it from its beginning"

    def _check(self, item: Played) -> None:
        if not item.is_played or item.is_same:
            return
        revision = self._trace.header.core_revision
        if revision != CORE_REVISION:
            raise _Ended(
                f"from step {item.step.number} on, this detray (core revision {CORE_REVISION}) "
                f"decides otherwise than the one that recorded it (core revision {revision})"
            )
        raise _Ended(f"step {item.step.number} plays otherwise than it was recorded: detray replay")


class _Ended(Exception):
    """The tables are not known any further, and why."""


def _incidents(item: Told, core: int, date_ns: int) -> Iterator[Incident]:
    messages: list[Any] = [*item.stimuli, *(item.effects or ())]  # Any: stimuli and effects
    for message in messages:
        kind = type(message)
        if kind is NodeBuried:
            yield Incident("node died", core, date_ns, message.reason, message.node)
        elif kind is WorkerStartFailed:
            yield Incident("worker not started", core, date_ns, message.reason)
        elif kind is Notify:
            yield Incident("warning", core, date_ns, message.text)
        elif kind is DumpRecorder:
            yield Incident("flight recorder written", core, date_ns, message.reason)
