"""Playing: feed the steps of a trace to cores that are made, or restored, for it.

A core whose first step is in the trace is played from there, fresh. One that begins in the middle
(a flight recorder let its earlier steps go) is played from the first segment that opens with its
snapshot; what comes before is told, not played.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol

from detray.core.config import GlobalConfig, LocalConfig
from detray.core.effects import Effect, Order
from detray.core.outbox import Outbox
from detray.core.stimuli import Stimulus
from detray.trace.format import NO_DIGEST, Header, LocalCore, SegmentStart, TraceError, chained
from detray.trace.reading import RecordedStep, Trace


class Core(Protocol):
    """What is played: the pure part of a scheduler."""

    # Any: each core takes its own kind of stimuli
    def handle(self, *stimuli: Any, now_ns: int) -> list[Effect]:
        """Take what happened, return what is to be done."""

    def snapshot(self) -> bytes:
        """The whole state, encoded."""


class Maker(NamedTuple):
    """How one core of a trace comes to be: fresh, or from a snapshot."""

    make: Callable[[], Core]
    restore: Callable[[bytes], Core]


Makers = Callable[[Header], Sequence[Maker]]
"""The makers for the cores of a trace, by core number."""


def schedulers(header: Header) -> Sequence[Maker]:
    """The makers of the real cores."""
    return [
        local_maker(core.config) if isinstance(core, LocalCore) else head_maker(core.config)
        for core in header.cores
    ]


def local_maker(config: LocalConfig) -> Maker:
    """How a local scheduler comes to be."""
    from detray.core.local import LocalScheduler

    return Maker(
        lambda: LocalScheduler(config), lambda state: LocalScheduler.restore(config, state)
    )


def head_maker(config: GlobalConfig) -> Maker:
    """How a global scheduler comes to be."""
    from detray.core.global_scheduler import GlobalScheduler

    return Maker(
        lambda: GlobalScheduler(config), lambda state: GlobalScheduler.restore(config, state)
    )


class Opening(NamedTuple):
    """Before the next step: cores begin, or a segment opens.

    `cores` are all that are played by now, by number; `fresh` those that were just made or
    restored. `start` is the segment, None where a core begins with its first step.
    """

    start: SegmentStart | None
    cores: Mapping[int, Core]
    fresh: tuple[int, ...]


class Played(NamedTuple):
    """A step and what its core made of it.

    `is_played` is False for steps of a core before its first state that can be played from: then
    nothing else is filled in. `is_same`: the decisions are those that were recorded, to the byte.
    `raised` is the traceback if the core raised; such a step is its core's last.
    """

    step: RecordedStep
    stimuli: list[Stimulus]
    is_played: bool = False
    is_same: bool = False
    effects: Sequence[Effect] = ()
    orders: Sequence[Order] = ()
    groups: Sequence[bytes] = ()
    raised: str = ""


def play(trace: Trace, makers: Makers = schedulers) -> Iterator[Opening | Played]:
    """Play all steps, as far as the cores go. Raises TraceError.

    Each step is judged by itself: a difference in one does not make all that follow different. A
    core that raises where it did not ends it all.
    """
    stage = Stage(trace, makers(trace.header))
    for step in trace.steps():
        yield from stage.open(step)
        played = stage.take(step)
        yield played
        if played.raised:
            if not step.error:
                return
            stage.end(step.core)


class Moment(NamedTuple):
    """Where a `Stage` stands, but for its cores."""

    opened: int
    """How many segments."""
    digests: dict[int, bytes]
    known: frozenset[int]
    over: frozenset[int]


class Stage:
    """The cores that are played, and the segments that are still to open.

    `cores` are those that live, by number; another mapping may take its place.
    """

    def __init__(self, trace: Trace, makers: Sequence[Maker]) -> None:
        self.cores: MutableMapping[int, Core] = {}
        self.makers = makers
        self._trace = trace
        self._outbox = Outbox()
        self._opened = 0
        self._digests: dict[int, bytes] = {}
        self._known = {n for n, core in enumerate(trace.header.cores) if core.unplayable}
        """Cores that began, were named by a segment, or are not to be played."""
        self._over = set(self._known)

    def open(self, step: RecordedStep) -> Iterator[Opening]:
        """What opens before this step. All of it is to be taken before the step is."""
        starts = self._trace.starts
        while self._opened < len(starts) and starts[self._opened].first_step <= step.number:
            start = starts[self._opened]
            self._opened += 1
            yield Opening(start, self.cores, self._enter(start))
        if step.core not in self._known:
            self._known.add(step.core)
            self.cores[step.core] = self._make(step.core)
            self._digests[step.core] = NO_DIGEST
            yield Opening(None, self.cores, (step.core,))

    def take(self, step: RecordedStep) -> Played:
        """Play a step and compare it. A core that raised is to be ended then."""
        core = self.cores.get(step.core)
        if core is None:
            return Played(step, step.stimuli())
        played = _play_step(step, core, self._outbox, self._digests[step.core])
        self._digests[step.core] = step.digest
        return played

    def skip(self, step: RecordedStep) -> None:
        """Play a step without a look at its effects: it is known what they are.

        Raises what the core raises, where it did not when it was recorded.
        """
        core = self.cores.get(step.core)
        if core is None:
            return
        self._digests[step.core] = step.digest
        try:
            core.handle(*step.stimuli(), now_ns=step.now_ns)
        except Exception:
            if not step.error:
                raise
            self.end(step.core)

    def moment(self) -> Moment:
        """Where it stands."""
        over = frozenset(self._over)
        return Moment(self._opened, self._digests.copy(), frozenset(self._known), over)

    def go_to(self, moment: Moment, cores: MutableMapping[int, Core]) -> None:
        """Stand where it stood, with these cores."""
        self.cores = cores
        self._opened = moment.opened
        self._digests = moment.digests.copy()
        self._known, self._over = set(moment.known), set(moment.over)

    def end(self, core: int) -> None:
        """That core is no more."""
        del self.cores[core]
        self._over.add(core)

    def _enter(self, start: SegmentStart) -> tuple[int, ...]:
        """Restore the cores of a segment that are not played yet; which those are."""
        fresh = []
        for place, core in enumerate(start.cores):
            self._known.add(core)
            if core in self._over:
                continue
            self._digests[core] = start.digests[place]
            if core not in self.cores and start.snapshots:
                self.cores[core] = self._restore(core, start.snapshots[place], start.first_step)
                fresh.append(core)
        return tuple(fresh)

    def _make(self, core: int) -> Core:
        try:
            return self.makers[core].make()
        except Exception as error:
            name = self._trace.header.cores[core].name
            raise TraceError(
                f"{self._trace.name}: {name}'s core cannot be made by this detray from the "
                f"configuration in the header: {error!r}"
            ) from error

    def _restore(self, core: int, state: bytes, first_step: int) -> Core:
        try:
            return self.makers[core].restore(state)
        except Exception as error:
            revision = self._trace.header.core_revision
            raise TraceError(
                f"{self._trace.name}: the state before step {first_step} cannot be restored by "
                f"this detray (the trace is of core revision {revision}): {error!r}"
            ) from error


def _play_step(step: RecordedStep, core: Core, outbox: Outbox, before: bytes) -> Played:
    stimuli = step.stimuli()
    try:
        effects = core.handle(*stimuli, now_ns=step.now_ns)
    except Exception:
        raised = traceback.format_exc()
        return Played(step, stimuli, True, bool(step.error), raised=raised)
    messages, orders = outbox.group(effects)
    groups = outbox.encode(messages, orders)
    is_same = not step.error and chained(before, groups) == step.digest
    return Played(step, stimuli, True, is_same, effects, orders, groups)


class Told(NamedTuple):
    """A step with its effects, None if they were not kept and cannot be found out by playing."""

    step: RecordedStep
    stimuli: list[Stimulus]
    effects: Sequence[Effect] | None


def tell(trace: Trace, makers: Makers = schedulers) -> Iterator[Opening | Told]:
    """All steps with their effects, recorded or else played. Raises TraceError.

    Playing ends where it differs from what was recorded: from there on only recorded effects are
    known.
    """
    if trace.keeps_effects:
        for step in trace.steps():
            yield Told(step, step.stimuli(), step.effects())
        return
    last = trace.first_step - 1
    for item in play(trace, makers):
        if isinstance(item, Opening):
            yield item
            continue
        if item.is_played and not item.is_same:
            break
        last = item.step.number
        effects = item.effects if item.is_played else item.step.effects()
        yield Told(item.step, item.stimuli, effects)
    for step in trace.steps(last + 1):
        yield Told(step, step.stimuli(), step.effects())
