"""Replay: identical, or the first difference with everything one needs to understand it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from detray.core.effects import Effect, RunTask
from detray.core.head_messages import JobAdmitted
from detray.core.local import LocalScheduler
from detray.core.stimuli import ObjectPut
from detray.ids import ClientID, JobNumber, child_prefix, put_object
from detray.trace.difference import as_data, first_differing, render
from detray.trace.format import Header
from detray.trace.play import Maker, Opening, schedulers, tell
from detray.trace.reading import Trace, open_trace
from detray.trace.replaying import replay
from tests.trace.machine import DRIVER, ROOT, Machine
from tests.trace.programs import dots, experiments, many, recorded, ten_sleeps, troubles

PROGRAMS = [ten_sleeps, dots, experiments, troubles, many]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_effect_of_every_core_is_reproduced(tmp_path, program):
    """Fresh cores decide what the recorded ones did; nothing is left out of the count."""
    trace = recorded(tmp_path / "run.trace", program)
    report = replay(trace)
    assert report.is_same
    assert sum(report.steps) == trace.step_count
    assert sum(report.effects) == sum(len(step.effects() or ()) for step in trace.steps())
    assert report.link_messages == 4


def test_a_trace_with_digests_only_replays_as_well():
    """The flight recorder keeps no effects: their digest tells whether they are the same."""
    machine = Machine()
    troubles(machine)
    trace = Trace(machine.recorder.read_all())
    assert all(step.groups is None for step in trace.steps())
    assert replay(trace).is_same


def test_the_first_difference_is_shown(tmp_path):
    """Step, stimuli, both lists of effects, where they part, and the story of what is concerned."""
    trace = recorded(tmp_path / "run.trace", dots)
    makers = changed(lambda effects: [e for e in effects if not is_run(e, "dot", trace)])
    report = replay(trace, makers)
    assert (report.is_same, report.differing) == (False, 1)
    assert report.difference is not None
    text = render(report.difference, trace, makers)
    assert "the effects are not those that were recorded" in text
    assert "   >  RunTask(" in text
    assert "submits dot" in text
    data = as_data(report.difference, trace)
    assert data["step"] == 14
    assert len(data["expected"]) == len(data["came"]) + 1


def test_effects_in_another_order_are_a_difference(tmp_path):
    """Order is part of a decision."""
    trace = recorded(tmp_path / "run.trace", experiments)
    report = replay(trace, changed(lambda effects: effects[::-1]))
    assert report.difference is not None
    assert first_differing(report.difference) == 0


def test_a_core_that_raises_where_it_did_not_is_a_difference(tmp_path):
    """The traceback is part of what is shown."""
    trace = recorded(tmp_path / "run.trace", dots)

    def fail(effects: list[Effect]) -> list[Effect]:
        if any(type(effect) is RunTask for effect in effects):
            raise RuntimeError("invariant I7 is broken")
        return effects

    report = replay(trace, changed(fail))
    assert report.difference is not None
    assert "the core raised" in report.difference.what
    assert "invariant I7 is broken" in render(report.difference, trace, changed(fail))


def test_a_recorded_crash_of_a_core_is_reproduced():
    """A bug that stopped a node stops its replay at the same step; once mended, that shows."""
    machine = Machine()
    dots(machine)
    put = ObjectPut(DRIVER, put_object(child_prefix(ROOT, 0, 0), 9), 1)
    machine.recorder.step_raised(0, machine.now_ns, [msgspec.msgpack.encode([put])], "boom")
    trace = Trace(machine.recorder.read_all())
    mended = replay(trace)
    assert mended.difference is not None
    assert mended.difference.what == "the core raised when it was recorded, and does not now"
    assert "boom" in render(mended.difference, trace)
    broken = replay(trace, raising_at(trace.step_count - 1))
    assert broken.is_same and "RuntimeError: boom" in broken.raised


def test_replay_of_another_revision_goes_on_and_counts(tmp_path, monkeypatch):
    """Equality is promised within one revision; beyond it the differences are counted."""
    trace = recorded(tmp_path / "run.trace", ten_sleeps)
    monkeypatch.setattr("detray.trace.replaying.CORE_REVISION", 99)
    report = replay(trace, changed(lambda effects: effects[::-1]))
    assert not report.is_same_revision
    assert report.differing > 1
    assert sum(report.steps) == trace.step_count


def test_a_message_that_was_not_sent_is_noticed(tmp_path):
    """What one core got is what the other says it sent (PROTOCOL T15)."""
    machine = Machine(tmp_path / "run.trace")
    machine.tell(JobAdmitted(3, ClientID(-9), JobNumber(9)))
    machine.recorder.close("done")
    report = replay(open_trace(tmp_path / "run.trace"))
    assert report.difference is not None
    assert report.difference.what == (
        "JobAdmitted arrived, and nobody sent it (message 3 of the link from the head to node 0)"
    )


def test_invariants_are_checked_after_every_step(tmp_path):
    """A broken one is a difference, with what the check said."""
    trace = recorded(tmp_path / "run.trace", ten_sleeps)
    seen: list[Any] = []

    def check(core: Any) -> None:
        seen.append(core)
        if len(seen) == 5:
            raise AssertionError("I3: a task is lost")

    report = replay(trace, check=check)
    assert report.difference is not None
    assert (report.difference.what, report.difference.detail) == (
        "an invariant is broken",
        "I3: a task is lost",
    )
    assert len(seen) == 5


def test_telling_gives_the_effects_recorded_or_played(tmp_path):
    """Stories read the same whether a trace keeps effects or only digests."""
    kept = recorded(tmp_path / "run.trace", troubles)
    machine = Machine()
    troubles(machine)
    digests = Trace(machine.recorder.read_all())
    assert effects_of(kept) == effects_of(digests)


def test_what_cannot_be_played_is_told_without_effects(tmp_path):
    """From the step on where replay differs, effects are unknown and not made up."""
    machine = Machine()
    dots(machine)
    trace = Trace(machine.recorder.read_all())
    told = effects_of(trace, changed(lambda effects: effects[::-1]))
    assert len(told) == trace.step_count
    assert told[0] is not None and told[-1] is None


# ------------------------------------------------------------------ helpers


def changed(change: Callable[[list[Effect]], list[Effect]]) -> Callable[[Header], Sequence[Maker]]:
    """Makers of a local scheduler whose effects are changed."""

    class Changed(LocalScheduler):
        def handle(self, *stimuli: Any, now_ns: int) -> list[Effect]:
            return change(super().handle(*stimuli, now_ns=now_ns))

    return lambda header: (
        Maker(
            lambda: Changed(header.cores[0].config),
            lambda state: Changed.restore(header.cores[0].config, state),
        ),
        schedulers(header)[1],
    )


def is_run(effect: Effect, name: str, trace: Trace) -> bool:
    """True if `effect` runs a task of the third submission, which is `name`."""
    return type(effect) is RunTask and effect.task[12:] == b"\0\0\0\2"


def effects_of(trace: Trace, makers: Any = schedulers) -> list[list[Effect] | None]:
    """All effects that are told, sorted by destination, step by step."""
    return [
        None if item.effects is None else sorted(item.effects, key=repr)
        for item in tell(trace, makers)
        if not isinstance(item, Opening)
    ]


def raising_at(number: int) -> Callable[[Header], Sequence[Maker]]:
    """Makers of a local scheduler that raises in the step of that number, of both cores' steps."""
    count = iter(range(number + 1))

    def fail(effects: list[Effect]) -> list[Effect]:
        if next(count) == number - 2:  # two steps are the head's
            raise RuntimeError("boom")
        return effects

    return changed(fail)
