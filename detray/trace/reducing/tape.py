"""The tape of a trace: its stimuli one by one, each with who said it, to be played in parts.

A stimulus of a worker belongs to the run that the worker had begun: in a part of the tape that run
may be another worker's. A message of another core is known by the link that it came on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.tables import Tables
from detray.ids import ClientID, NodeID, TaskID
from detray.trace.format import CoreInfo, Header, TraceError
from detray.trace.links import LINK_MESSAGES, Directory, nodes_of
from detray.trace.play import Makers, Opening, Played, play, schedulers
from detray.trace.reading import Trace
from detray.trace.reducing.prelude import prelude

NO_ACTOR = TaskID(b"")
GAP_NS = 1_000
"""What lies between two steps if nothing hangs on it."""


class Item(NamedTuple):
    """The `place`-th stimulus of a tape, None for a step without any, of a core by its number.

    `actor` is the run that the client which says it has begun. `source` is the core that sent it,
    -1 if that is nobody or not in the trace; `node` the number of its node (-1: the head, or none).
    """

    place: int
    step: int
    core: int
    stimulus: Any  # Any: of all kinds
    actor: TaskID
    source: int
    node: NodeID


class Tape(NamedTuple):
    """What the cores of a trace were told up to a step; times are dates from 0 on, by step.

    `infos` are what the cores are made of: at first those of the header.
    """

    header: Header
    infos: list[CoreInfo]
    nodes: Sequence[NodeID]
    items: list[Item]
    dates_ns: dict[int, int]
    states: dict[int, bytes]
    """By core, the state that it began with, of those that did not begin fresh."""
    late: frozenset[int]
    """Cores of which the trace does not have the beginning."""
    told_anew: int
    """Items at the beginning that nobody recorded: they tell a late core what was there."""

    @property
    def node_numbers(self) -> set[NodeID]:
        """All numbers of nodes that are told to anybody."""
        numbers = {getattr(item.stimulus, "node", -1) for item in self.items}
        return {NodeID(number) for number in numbers}


def tape_of(
    trace: Trace, last_step: int, core: int, makers: Makers = schedulers, *, has_run: bool = False
) -> Tape:
    """Everything up to `last_step`, that one included (-1: all). Raises TraceError.

    In the end comes a step of `core` at the same time: whoever plays only that core knows it. If
    that core begins in the middle a prelude comes first (`prelude.py`, which knows `has_run`).
    """
    reel = _Reel(trace, has_run)
    for item in play(trace, makers):
        if isinstance(item, Opening):
            reel.open(item, core, makers)
        elif 0 <= last_step < item.step.number:
            break
        else:
            reel.step(item)
    if not reel.items:
        raise TraceError(f"{trace.name} holds no steps: there is nothing to shrink")
    return reel.tape(core)


class _Reel:
    """Winds the steps of a trace onto a tape."""

    def __init__(self, trace: Trace, has_run: bool) -> None:
        self._has_run = has_run
        self._header = trace.header
        self._directory = Directory(trace.header, nodes_of(trace))
        self.items: list[Item] = []
        self._prelude: list[Item] = []
        self._dates: dict[int, int] = {}
        self._states: dict[int, bytes] = {}
        self._late: set[int] = set()
        self._queues: dict[tuple[int, ClientID], list[TaskID]] = {}
        self._first_ns: int | None = None
        self._last_ns = 0

    def open(self, opening: Opening, core: int, makers: Makers) -> None:
        """Cores begin; a prelude is made for `core` if it begins in the middle."""
        for fresh in opening.fresh:
            self._directory.begin(fresh, opening.cores[fresh])
            state = _state(opening, fresh)
            if not state or state == makers(self._header)[fresh].make().snapshot():
                continue
            self._states[fresh] = state
            if opening.start is not None and not opening.start.begins:
                self._late.add(fresh)
                self._begin_late(fresh, getattr(opening.cores[fresh], "tables", None), core)

    def _begin_late(self, core: int, tables: Any, wanted: int) -> None:  # Any: of any core
        """What was recorded of it before is not played: it does not count."""
        self.items = [item for item in self.items if item.core != core]
        if not isinstance(tables, Tables):
            return
        for worker in tables.workers.values():
            self._queues[core, worker.id] = [run.task for run in worker.runs]
        if core == wanted:
            steps = prelude(tables, self._has_run)
            self._prelude = [
                Item(0, number - len(steps) - 1, core, told.stimulus, told.actor, -1, told.node)
                for number, step in enumerate(steps)
                for told in step
            ]

    def step(self, item: Played) -> None:
        """All stimuli of a step, with who said them."""
        step = item.step
        date_ns = self._header.date_ns(step.core, step.now_ns)
        self._first_ns = date_ns if self._first_ns is None else self._first_ns
        self._last_ns = max(self._last_ns, date_ns - self._first_ns)
        self._dates[step.number] = self._last_ns
        passing = iter(self._directory.received(step.core, item.stimuli, item.effects))
        stimuli: list[Any] = [*item.stimuli] or [None]
        for stimulus in stimuli:
            source, node = -1, NodeID(-1)
            if type(stimulus) in LINK_MESSAGES:
                link = next(passing).link
                found = self._directory.core_at(link, source=True)
                source, node = -1 if found is None else found, link.source
            actor = _actor(self._queues, step.core, stimulus)
            self.items.append(Item(0, step.number, step.core, stimulus, actor, source, node))
            _follow(self._queues, step.core, stimulus)
        for effect in item.effects:
            if type(effect) is ef.RunTask:
                self._queues.setdefault((step.core, effect.client), []).append(effect.task)
        for _ in self._directory.sent(step.core, item.effects):
            pass

    def tape(self, core: int) -> Tape:
        """All of it, with a step of `core` at the end."""
        end = self.items[-1].step + 1
        self._dates[end] = self._last_ns
        last = Item(0, end, core, None, NO_ACTOR, -1, NodeID(-1))
        steps = list(dict.fromkeys(item.step for item in self._prelude))
        dates = {step: number * GAP_NS for number, step in enumerate(steps)}
        later_ns = len(steps) * GAP_NS
        dates.update({step: date + later_ns for step, date in self._dates.items()})
        items = [*self._prelude, *self.items, last]
        return Tape(
            header=self._header,
            infos=list(self._header.cores),
            nodes=self._directory.nodes,
            items=[item._replace(place=place) for place, item in enumerate(items)],
            dates_ns=dates,
            states=self._states,
            late=frozenset(self._late),
            told_anew=len(self._prelude),
        )


def _state(opening: Opening, core: int) -> bytes:
    """What a core was restored from, b"" if it was made."""
    start = opening.start
    return b"" if start is None else start.snapshots[start.cores.index(core)]


def _actor(queues: dict[tuple[int, ClientID], list[TaskID]], core: int, m: Any) -> TaskID:
    """The run that a worker has begun; of a dead one, if it had begun any. (Any: a stimulus.)"""
    queue = queues.get((core, getattr(m, "client", ClientID(0))))
    if not queue or (type(m) is st.WorkerLost and m.unclaimed >= len(queue)):
        return NO_ACTOR
    return m.task if type(m) in (st.RunFinished, st.RunFailed) else queue[0]


def _follow(queues: dict[tuple[int, ClientID], list[TaskID]], core: int, m: Any) -> None:
    kind = type(m)
    if kind is st.RunFinished or kind is st.RunFailed:
        queue = queues.get((core, m.client), [])
        if m.task in queue:
            queue.remove(m.task)
    elif kind is st.RunsRetracted:
        queue = queues.get((core, m.client), [])
        del queue[max(0, len(queue) - m.count) :]
    elif kind is st.WorkerLost:
        queues.pop((core, m.client), None)
