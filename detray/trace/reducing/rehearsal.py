"""Rehearsals: a part of a tape played on fresh cores, as it could have happened.

Rules
-----
- What nobody could say is left out: an answer to what was not asked, a finish of a run that was not
  sent (`desk.py`, `outside.py`). So a part that leaves a task out leaves out what came of it.
- Between cores that are played only what one sent reaches the other, in the order in which it was
  sent; the tape says when.
- Ids are minted as their makers mint them, so names follow from the part alone.
- All cores share one clock, which starts at `START_NS`.
- For a core whose past is gone this is too strict: it sends runs in another order than it did. What
  they say waits until they were sent (`Players.is_patient`).
- A part ends where an expectation is violated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from detray.core import effects as ef
from detray.core.durable import DurableTables
from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_messages import NodeAdmitted, NodeJoined
from detray.core.local import LocalScheduler
from detray.core.stimuli import FunctionExported, HeadRestarted, TemplateDefined, WorkerReady
from detray.ids import JobNumber, NodeID
from detray.trace.format import HeadCore, LocalCore
from detray.trace.links import LINK_MESSAGES
from detray.trace.reducing.desk import NOTHING, Desk, Said
from detray.trace.reducing.expecting import Expectation, Violation, Watcher
from detray.trace.reducing.naming import Naming
from detray.trace.reducing.outside import Outside, OutsideHead
from detray.trace.reducing.tape import Item, Tape

START_NS, STEP_NS = 1_000, 1_000
"""The clock of a transcript begins here, and moves on so much in a step that says nothing of it."""


class Letter(NamedTuple):
    """A message that was delivered from one played core to another."""

    source: int
    message: Any  # Any: between cores


class RehearsedStep(NamedTuple):
    """A step of a part: what was told, by whom (`letters` has what other played cores sent)."""

    number: int
    core: int
    now_ns: int
    stimuli: Said
    letters: tuple[Letter | None, ...]
    """In step with `stimuli`."""


class Take(NamedTuple):
    """What came of a rehearsal: `kept` are the items that were said, up to the violation."""

    violation: Violation | None
    kept: tuple[int, ...]
    steps: list[RehearsedStep]


class Players(NamedTuple):
    """Who is played, and how. `played` are core numbers.

    With `is_lazy` definitions are said when something needs them. With `is_patient` what a run says
    before it was sent here is said when it has been: a core whose past is gone may send it later.
    """

    played: frozenset[int]
    is_lazy: bool
    is_patient: bool = False


def has_empty_store(config: Any, state: bytes) -> bool:
    """True if a head began with this state in its first life: with a store that held nothing."""
    head = GlobalScheduler.restore(config, state)
    durable = head.tables.durable
    return durable.epoch == 1 and not (durable.members or durable.lives or durable.jobs)


def new_core(info: LocalCore | HeadCore, has_store: bool) -> LocalScheduler | GlobalScheduler:
    """A fresh core of that configuration; a head with a store has read an empty one."""
    if isinstance(info, LocalCore):
        return LocalScheduler(info.config)
    if has_store:
        durable = DurableTables(next_job=JobNumber(info.config.first_job))
        return GlobalScheduler.recover(info.config, durable, START_NS)
    return GlobalScheduler(info.config)


class Rehearsal:
    """Plays parts of one tape with one players."""

    def __init__(self, tape: Tape, expectations: Sequence[Expectation], players: Players) -> None:
        self.tape = tape
        self.players = players
        self.runs = 0
        self.stimuli = 0
        """How many there were, over all runs."""
        self._expectations = expectations
        kinds = (FunctionExported, TemplateDefined)
        self.definitions = [item.place for item in tape.items if isinstance(item.stimulus, kinds)]
        """Places of what is said when something needs it, if the players is lazy."""

    def play(self, part: Sequence[int], times: Mapping[int, int], record: bool = False) -> Take:
        """Play the items of `part`, in order; `times` are dates by step, from 0 on."""
        self.runs += 1
        return _Run(self, times, record).play(part)

    @property
    def expectations(self) -> Sequence[Expectation]:
        """What is watched."""
        return self._expectations


class _Run:
    """One rehearsal."""

    def __init__(self, rehearsal: Rehearsal, times: Mapping[int, int], record: bool) -> None:
        self._tape = tape = rehearsal.tape
        self._rehearsal = rehearsal
        self._times = times
        self._record = record
        self._played = rehearsal.players.played
        players = rehearsal.players
        infos = tape.infos
        has_head = any(isinstance(infos[core], HeadCore) for core in players.played)
        has_nodes = any(isinstance(infos[core], LocalCore) for core in players.played)
        self._naming = Naming(players.is_lazy, keeps_numbers=has_head and not has_nodes)
        if players.is_lazy:
            for place in rehearsal.definitions:
                self._naming.define(tape.items[place])
        if not has_head:
            self._naming.nodes.update({number: number for number in tape.node_numbers})
        self._watcher = Watcher(lambda core, now_ns: now_ns, rehearsal.expectations)
        self._cores: dict[int, Any] = {}  # Any: of both kinds
        self._desks: dict[int, Desk] = {}
        self._outsides: dict[int, Outside | OutsideHead] = {}
        self._links: dict[tuple[int, int], deque[Any]] = {}
        self._at: dict[NodeID, int] = {}
        self._joining: list[tuple[int, NodeID]] = []
        """Who asked the head for a number: the core, or -1, and the number on the tape."""
        self._head = next((n for n in players.played if isinstance(infos[n], HeadCore)), -1)
        self._began: set[int] = set()
        """Cores that took a step."""
        self._held: dict[int, list[Item]] = {}
        """By core, what runs say that it has not sent to a worker yet."""
        self._kept: list[int] = []
        self._steps: list[RehearsedStep] = []

    # -------------------------------------------------------------- the part

    def play(self, part: Sequence[int]) -> Take:
        """All of it, or up to the violation."""
        items, watcher = self._tape.items, self._watcher
        at, end = 0, len(part)
        while at < end and watcher.violation is None:
            first = items[part[at]]
            stop = at + 1
            while stop < end and items[part[stop]].step == first.step:
                stop += 1
            if not self._step(first, [items[index] for index in part[at:stop]]):
                break
            at = stop
        if watcher.violation is None:
            watcher.end()
        return Take(watcher.violation, tuple(sorted(self._kept)), self._steps)

    def _step(self, first: Item, items: Sequence[Item]) -> bool:
        """One step of a core; False if the core raised."""
        number = first.core
        core = self._cores.get(number) or self._begin(number)
        now_ns = START_NS + STEP_NS + self._times[first.step]
        said: list[Any] = []
        letters: list[Letter | None] = []
        is_step = False
        desk = self._desks.get(number)
        if desk is not None:
            if desk.early:
                said += desk.say_belated()
            said += self._say_held(number)
            letters += [None] * len(said)
        for item in items:
            if item.stimulus is None:
                self._kept.append(item.place)
                is_step = True
                continue
            before = len(said)
            if item.source in self._played and type(item.stimulus) in LINK_MESSAGES:
                for message in self._deliver(item):
                    if type(message) is NodeJoined:
                        self._joining.append((item.source, self._tape.nodes[item.source]))
                    said.append(message)
                    letters.append(Letter(item.source, message))
            else:
                said += self._say(item)
                letters += [None] * (len(said) - before)
            if len(said) > before:
                self._kept.append(item.place)
                is_step = True
            elif desk is not None and type(item.stimulus) is WorkerReady:
                self._kept.append(item.place)  # its time comes when it is ordered
        if not is_step and not said:
            return True
        if not self._take(core, number, first.step, now_ns, said, letters):
            return False
        while self._watcher.violation is None and (held := self._say_held(number)):
            now_ns += STEP_NS
            if not self._take(core, number, first.step, now_ns, held, [None] * len(held)):
                return False
        return True

    def _take(
        self, core: Any, number: int, step: int, now_ns: int, said: list[Any],
        letters: list[Letter | None],
    ) -> bool:  # fmt: skip  # Any: of both kinds, stimuli
        """The core is told that; False if it raised."""
        self._rehearsal.stimuli += len(said)
        if self._record:
            self._steps.append(RehearsedStep(step, number, now_ns, tuple(said), tuple(letters)))
        watcher = self._watcher
        watcher.step = step
        if number not in self._began:
            self._began.add(number)
            watcher.begin(number, core.tables)
        watcher.before(number, now_ns)
        try:
            effects = core.handle(*said, now_ns=now_ns)
        except Exception as error:
            watcher.raised(number, error)
            return False
        watcher.after(number, said, effects, core.tables)
        self._see(number, effects)
        return True

    def _say_held(self, number: int) -> list[Any]:  # Any: stimuli
        """What runs would have said before, that have begun by now."""
        held = self._held.get(number)
        if not held:
            return []
        desk = self._desks[number]
        said: list[Any] = []
        left: list[Item] = []
        for item in held:
            new = desk.say(item)
            if new:
                said += new
                self._kept.append(item.place)
            elif desk.may_say(item):
                left.append(item)
        self._held[number] = left
        return said

    def _begin(self, number: int) -> Any:  # Any: as above
        info = self._tape.infos[number]
        has_store = number in self._tape.states and isinstance(info, HeadCore)
        core = self._cores[number] = new_core(info, has_store)
        if isinstance(info, LocalCore):
            desk = self._desks[number] = Desk(self._naming, core.tables)
            self._outsides[number] = Outside(desk)
        else:
            self._outsides[number] = OutsideHead(self._naming)
        return core

    # -------------------------------------------------------------- what is told

    def _say(self, item: Item) -> Said:
        m = item.stimulus
        if type(m) in LINK_MESSAGES:
            if type(m) is NodeJoined:
                self._joining.append((-1, item.node))
            return self._outsides[item.core].say(item)
        if isinstance(m, HeadRestarted):
            outside = self._outsides[item.core]
            assert isinstance(outside, Outside)
            outside.restart(m)
        desk = self._desks[item.core]
        said = desk.say(item)
        if not said and self._rehearsal.players.is_patient and desk.may_say(item):
            self._held.setdefault(item.core, []).append(item)
        return said

    def _deliver(self, item: Item) -> Said:
        """The letters of a link up to the one that the tape tells of; none if it was not sent."""
        link = self._links.get((item.source, item.core))
        if not link:
            return NOTHING
        wanted = self._key(item.stimulus)
        place = next((n for n, m in enumerate(link) if self._is_like(m, wanted)), -1)
        return tuple(link.popleft() for _ in range(place + 1))

    def _key(self, m: Any) -> tuple[type, dict[str, bytes | None]]:  # Any: a message
        found = {}
        for name in ("task", "object", "function"):
            if hasattr(m, name):
                found[name] = self._naming.known(getattr(m, name))
        return type(m), found

    def _is_like(self, m: Any, wanted: tuple[type, dict[str, bytes | None]]) -> bool:
        kind, found = wanted
        return type(m) is kind and all(getattr(m, name) == new for name, new in found.items())

    def _see(self, number: int, effects: list[Any]) -> None:  # Any: effects
        desk = self._desks.get(number)
        if desk is not None:
            desk.see(effects)
        for effect in effects:
            if type(effect) is ef.SendToNode and type(effect.message) is NodeAdmitted:
                self._admit(effect.node)
        for effect in effects:
            kind = type(effect)
            if kind is ef.SendToHead:
                if self._head >= 0:
                    self._post(number, self._head, effect.message)
            elif kind is ef.SendToPeer or kind is ef.SendToNode:
                self._post(number, self._at.get(effect.node, -1), effect.message)

    def _post(self, source: int, target: int, message: Any) -> None:  # Any: a message
        if target in self._played:
            self._links.setdefault((source, target), deque()).append(message)

    def _admit(self, node: NodeID) -> None:
        """The head numbered a node: the next of those who asked to join."""
        if not self._joining:
            return
        core, old = self._joining.pop(0)
        self._naming.nodes[old] = node
        if core >= 0:
            self._at[node] = core
        else:
            outside = self._outsides[self._head]
            assert isinstance(outside, OutsideHead)
            outside.admit(node)
