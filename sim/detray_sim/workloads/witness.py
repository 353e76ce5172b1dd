"""What a recording says of programs: who submitted, put, waited and let go of what, and when.

Drivers and tasks are told apart by the task that acts: a driver acts as the root of its job. Times
are dates in nanoseconds. The order of acts is that in which the core heard of them, which is the
order in which their process did them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from detray.core.effects import GetAnswered
from detray.core.stimuli import (
    BlockRequested,
    BlockSealed,
    DriverConnected,
    FunctionExported,
    GetRequested,
    ObjectPut,
    RefsDropped,
    TaskSubmitted,
    TemplateDefined,
)
from detray.core.strategy import Strategy
from detray.ids import ClientID, FunctionID, JobNumber, ObjectID, TaskID, TemplateID, root_task
from detray.trace.gathering.history import follow, new_history
from detray.trace.gathering.lives import TaskLife
from detray.trace.play import Opening, tell
from detray.trace.reading import Trace
from detray_sim.workload import UNIT

Demand = tuple[tuple[str, int], ...]
ONE_CPU: Demand = (("CPU", UNIT),)


def span(life: TaskLife) -> tuple[int, int]:
    """When its last attempt began and ended, -1 where that is not known."""
    last = life.last
    return (last.started_ns, last.ended_ns) if last is not None else (-1, -1)


def first_submission_ns(lives: Sequence[TaskLife]) -> int:
    """When the first of these tasks was submitted."""
    return min(life.submitted_ns for life in lives)


@dataclass(slots=True)
class Stop:
    """A `get` or `wait`: who stood still for what, from when to when (-1: to the end).

    `ready` are those that were there at its end, in the order of the request.
    """

    who: TaskID
    objects: tuple[ObjectID, ...]
    needed: int
    began_ns: int
    ended_ns: int = -1
    fetches: bool = True
    timed_out: bool = False
    ready: list[ObjectID] = field(default_factory=list)


@dataclass(slots=True)
class Submission:
    """A task was submitted: its message, and at what date."""

    message: TaskSubmitted
    at_ns: int


@dataclass(slots=True)
class Put:
    """A value was put: from when (a large one first asks for room) to when."""

    object: ObjectID
    began_ns: int
    ended_ns: int


@dataclass(slots=True)
class Drop:
    """A driver has no reference to these left."""

    objects: tuple[ObjectID, ...]
    at_ns: int


Act = Submission | Put | Stop | Drop
Watcher = Callable[[int, int, Sequence[Any], Sequence[Any]], None]
"""Hears the number of a core, its own time, stimuli and effects. (Any: messages of all kinds.)"""


class Witness:
    """All that a trace says about tasks: their history, what they asked for, what they did."""

    def __init__(self, trace: Trace, *watchers: Watcher) -> None:
        """Each of `watchers` is told all steps of local schedulers, too. Raises TraceError."""
        self.history = new_history(trace)
        self.demands: dict[TaskID, Demand] = {}
        self.strategies: dict[TaskID, Strategy] = {}
        self.messages: dict[TaskID, TaskSubmitted] = {}
        self.stops: dict[TaskID, list[Stop]] = {}
        """Those that were answered, by who stood still."""
        self.acts: dict[TaskID, list[Act]] = {}
        """Of tasks and drivers, in order. Of drops, only those of drivers."""
        self.homes: dict[TaskID, tuple[int, ClientID]] = {}
        """The core to which each driver belongs, and its client there."""
        self.connected_ns: dict[tuple[int, ClientID], int] = {}
        """The date at which each driver connected."""
        self._templates: dict[tuple[int, ClientID, TemplateID], TemplateDefined] = {}
        self._closures: dict[FunctionID, tuple[ObjectID, ...]] = {}
        self._functions: dict[TaskID, FunctionID] = {}
        """Of tasks whose function has references in its closure."""
        self._open: dict[tuple[int, ClientID, int], Stop] = {}
        self._asked_ns: dict[ObjectID, int] = {}
        self._puts: list[tuple[int, Put]] = []
        """Of workers, with the number of the act after which they came."""
        self._count = 0
        self._numbers: dict[TaskID, list[int]] = {}
        for item in tell(trace):
            if follow(self.history, trace, item) and not isinstance(item, Opening):
                core = item.step.core
                now_ns = trace.header.date_ns(core, item.step.now_ns)
                effects = item.effects or ()
                self._take(core, now_ns, item.stimuli, effects)
                for watcher in watchers:
                    watcher(core, item.step.now_ns, item.stimuli, effects)
        self.history.close()
        self._sort_puts()
        self.history.use_dates(trace.header)

    def captured(self, task: TaskID) -> tuple[ObjectID, ...]:
        """The references in the closure of a task's function."""
        function = self._functions.get(task)
        return self._closures[function] if function is not None else ()

    def _take(self, core: int, now_ns: int, stimuli: Sequence[Any], effects: Sequence[Any]) -> None:
        # Any: of all messages, some are looked at.
        for stimulus in stimuli:
            kind = type(stimulus)
            if kind is TaskSubmitted:
                self._on_submitted(core, stimulus, now_ns)
            elif kind is GetRequested:
                self._on_get(core, stimulus, now_ns)
            elif kind is DriverConnected:
                self.connected_ns[core, stimulus.client] = now_ns
            elif kind is FunctionExported:
                if stimulus.refs:
                    self._closures[stimulus.function] = stimulus.refs
            elif kind is TemplateDefined:
                self._templates[core, stimulus.client, stimulus.template] = stimulus
            elif kind is ObjectPut or kind is BlockSealed:
                began_ns = self._asked_ns.pop(stimulus.object, now_ns)
                self._on_put(core, stimulus.client, Put(stimulus.object, began_ns, now_ns))
            elif kind is BlockRequested:
                self._asked_ns[stimulus.object] = now_ns
            elif kind is RefsDropped:
                driver = self._driver(core, stimulus.client)
                if driver is not None:
                    self._act(driver, Drop(stimulus.objects, now_ns))
        for effect in effects:
            if type(effect) is GetAnswered:
                self._on_answer(core, effect, now_ns)

    def _act(self, who: TaskID, act: Act) -> None:
        self._count += 1
        self.acts.setdefault(who, []).append(act)
        self._numbers.setdefault(who, []).append(self._count)

    def _driver(self, core: int, client: ClientID) -> TaskID | None:
        """The root task of a driver; None for workers."""
        program = self.history.programs.get((core, client))
        if program is None:
            return None
        root = root_task(JobNumber(program.job))
        self.homes[root] = (core, client)
        return root

    def _on_submitted(self, core: int, m: TaskSubmitted, now_ns: int) -> None:
        template = self._templates.get((core, m.client, m.template))
        self.demands[m.task] = ONE_CPU if template is None else template.demand
        self.messages[m.task] = m
        if template is not None:
            if template.strategy is not None:
                self.strategies[m.task] = template.strategy
            if template.function in self._closures:
                self._functions[m.task] = template.function
        self._driver(core, m.client)
        self._act(m.parent, Submission(m, now_ns))

    def _on_get(self, core: int, m: GetRequested, now_ns: int) -> None:
        who = self._driver(core, m.client) or m.blocks
        if who:
            stop = Stop(who, m.objects, m.needed, now_ns, fetches=m.fetch)
            self._open[core, m.client, m.request] = stop
            self._act(who, stop)

    def _on_answer(self, core: int, e: GetAnswered, now_ns: int) -> None:
        stop = self._open.get((core, e.client, e.request))
        if stop is None:
            return
        stop.ready += [place.object for place in e.places]
        if not e.more:
            del self._open[core, e.client, e.request]
            stop.ended_ns, stop.timed_out = now_ns, e.timed_out
            self.stops.setdefault(stop.who, []).append(stop)

    def _on_put(self, core: int, client: ClientID, put: Put) -> None:
        driver = self._driver(core, client)
        if driver is not None:
            self._act(driver, put)
        else:
            self._count += 1
            self._puts.append((self._count, put))

    def _sort_puts(self) -> None:
        """Give each put of a worker to the task that the history found for it."""
        touched: dict[TaskID, list[tuple[int, Act]]] = {}
        for number, put in self._puts:
            life = self.history.objects.get(put.object)
            if life is not None and life.producer:
                touched.setdefault(life.producer, []).append((number, put))
        for who, puts in touched.items():
            known = list(zip(self._numbers.get(who, ()), self.acts.get(who, ()), strict=True))
            self.acts[who] = [act for _, act in sorted(known + puts, key=lambda pair: pair[0])]
        self._numbers.clear()
        self._puts.clear()
