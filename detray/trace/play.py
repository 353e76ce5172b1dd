"""Playing: feed the steps of a trace to cores that are made, or restored, for it.

A trace can be played from its first step if that is step 0 (fresh cores) or a segment opens there
with snapshots; otherwise from the first segment that does. What comes before is told, not played.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from detray.core.effects import Effect, Order
from detray.core.outbox import Outbox
from detray.core.stimuli import Stimulus
from detray.trace.format import Header, SegmentStart, TraceError, chained
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
    from detray.core.global_scheduler import GlobalScheduler
    from detray.core.local import LocalScheduler

    return (
        Maker(
            lambda: LocalScheduler(header.local),
            lambda state: LocalScheduler.restore(header.local, state),
        ),
        Maker(
            lambda: GlobalScheduler(header.head),
            lambda state: GlobalScheduler.restore(header.head, state),
        ),
    )


class Opening(NamedTuple):
    """A segment opens before the next step. `is_fresh`: the cores were just made or restored."""

    start: SegmentStart
    cores: Sequence[Core]
    is_fresh: bool


class Played(NamedTuple):
    """A step and what the cores made of it.

    `is_played` is False for steps before the first state that a trace can be played from: then
    nothing else is filled in. `is_same`: the decisions are those that were recorded, to the byte.
    `raised` is the traceback if the core raised; such a step is the last.
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

    Each step is judged by itself: a difference in one does not make all that follow different.
    """
    made = makers(trace.header)
    starts = {start.first_step: start for start in trace.starts}
    outbox = Outbox()
    cores: Sequence[Core] | None = None
    digests: list[bytes] = []
    for step in trace.steps():
        start = starts.get(step.number)
        if start is not None:
            is_fresh = cores is None
            cores = cores or _cores(trace, made, start)
            digests = list(start.digests)
            if cores is not None:
                yield Opening(start, cores, is_fresh)
        if cores is None:
            yield Played(step, step.stimuli())
            continue
        played = _play_step(step, cores[step.core], outbox, digests[step.core])
        digests[step.core] = step.digest
        yield played
        if played.raised:
            return


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


def _cores(trace: Trace, makers: Sequence[Maker], start: SegmentStart) -> Sequence[Core] | None:
    if start.first_step == 0:
        return [maker.make() for maker in makers]
    if not start.snapshots:
        return None
    try:
        return [maker.restore(state) for maker, state in zip(makers, start.snapshots, strict=True)]
    except Exception as error:
        raise TraceError(
            f"{trace.name}: the state before step {start.first_step} cannot be restored by this "
            f"detray (the trace is of core revision {trace.header.core_revision}): {error!r}"
        ) from error


class Told(NamedTuple):
    """A step with its effects, None if they were not kept and cannot be found out by playing."""

    step: RecordedStep
    stimuli: list[Stimulus]
    effects: Sequence[Effect] | None


def tell(trace: Trace, makers: Makers = schedulers) -> Iterator[Opening | Told]:
    """All steps with their effects, recorded or else played. Raises TraceError.

    Playing ends where it differs from what was recorded: from there on effects are unknown.
    """
    if all(step.groups is not None or step.error for step in islice(trace.steps(), 1)):
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
        yield Told(item.step, item.stimuli, item.effects if item.is_played else None)
    for step in islice(trace.steps(), last + 1 - trace.first_step, None):
        yield Told(step, step.stimuli(), None)
