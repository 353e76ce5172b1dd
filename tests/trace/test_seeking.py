"""Replay: any step of a trace, with the state that was there."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from detray.core.effects import RunTask
from detray.core.local import LocalScheduler
from detray.core.stimuli import ObjectPut
from detray.ids import child_prefix, put_object
from detray.trace.format import TraceError
from detray.trace.play import Maker, Opening, play, schedulers
from detray.trace.reading import Trace, open_trace
from detray.trace.travel import checkpoints, seeking
from detray.trace.travel.seeking import Replay
from detray_sim.traces import write_trace
from tests.trace.machine import DRIVER, ROOT, Machine
from tests.trace.programs import dots, experiments, many, recorded, ten_sleeps, troubles
from tests.trace.simulated import run_cluster
from tests.trace.test_replaying import changed


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables are kept row by row."""
    monkeypatch.setattr(checkpoints, "ROWS_MIN", 2)


@pytest.fixture
def trace(tmp_path) -> Trace:
    return recorded(tmp_path / "run.trace", dots, troubles, experiments)


def states_of(trace: Trace) -> dict[int, dict[int, bytes]]:
    """The snapshots of all cores after each step, from one play from the beginning."""
    states: dict[int, dict[int, bytes]] = {}
    cores: Any = {}
    for item in play(trace):
        if isinstance(item, Opening):
            cores = item.cores
        else:
            states[item.step.number + 1] = {n: core.snapshot() for n, core in cores.items()}
    return states


def assert_is_as_played(trace: Trace, replay: Replay, seeks: int, seed: int = 1) -> None:
    """At random positions, and stepwise around them, every core is what it was."""
    states = states_of(trace)
    chance = random.Random(seed)
    for _ in range(seeks):
        target = chance.choice(
            (chance.randint(replay.first + 1, replay.end), replay.at - 1, replay.at + 2)
        )
        replay.goto(min(replay.end, max(replay.first + 1, target)))
        expected = states[replay.at]
        for core, state in expected.items():
            assert replay.cores[core].snapshot() == state, (replay.at, core)
        assert set(replay.cores) == set(expected)
        if chance.random() < 0.5:
            assert replay.last is not None and replay.last.step.number == replay.at - 1


@pytest.mark.parametrize("spacing", [1, 30, 10_000])
def test_any_step_is_as_when_played_from_the_beginning(trace, spacing):
    """Forwards, backwards and far away, with marks that are close or far."""
    replay = Replay(trace, spacing=spacing)
    assert (replay.first, replay.end, replay.differing) == (0, trace.step_count, [])
    assert_is_as_played(trace, replay, 120)


def test_steps_of_a_cluster_are_as_when_played(tmp_path):
    """Many cores, of which some have not begun."""
    path = tmp_path / "cluster.trace"
    write_trace(run_cluster(4, 3), path)
    trace = open_trace(path)
    assert_is_as_played(trace, Replay(trace, spacing=100), 60)


def test_a_flight_recorder_is_replayed_from_its_first_snapshot():
    """Its numbers go on where they were; before its first state nothing is known."""
    machine = Machine(ring_bytes=100_000)
    many(machine)
    trace = Trace(machine.recorder.read_all())
    assert trace.first_step > 0 and trace.step_count > 100
    replay = Replay(trace, spacing=200)
    assert replay.first == trace.first_step and replay.end == trace.end_step
    assert_is_as_played(trace, replay, 40)
    with pytest.raises(TraceError, match=rf"can be at steps {replay.first} to {replay.end}, not 0"):
        replay.goto(0)


def test_bounded_memory_makes_marks_fewer_and_changes_nothing(trace):
    """Half of the marks go, the rest is compressed, as often as it takes."""
    free, bound = Replay(trace, spacing=5), Replay(trace, spacing=5, memory_bytes=60_000)
    assert bound.mark_count < free.mark_count / 2
    assert bound.weight < free.weight
    assert_is_as_played(trace, bound, 60)


def test_marks_are_set_by_time_as_well(trace, monkeypatch):
    """A few steps that take long are no reason for a long way."""
    monkeypatch.setattr(seeking, "MARK_S", 0.0)
    assert Replay(trace).mark_count > trace.step_count // 2


def test_position_state_and_what_led_there(trace):
    """`at` is the step that comes next, `last` the one before, with all it did."""
    replay = trace.replay()
    assert (replay.at, replay.last, replay.since_ns) == (0, None, 0)
    run = next(
        s.number for s in trace.steps() if any(type(e) is RunTask for e in s.effects() or ())
    )
    replay.goto(run + 1)
    assert replay.last is not None and replay.last.step.number == run
    effects = [e for e in replay.last.effects if type(e) is RunTask]
    assert replay.state(0).tasks[effects[0].task].state.worker == effects[0].client
    assert replay.now_ns == replay.last.step.now_ns
    replay.back()
    assert type(replay.state(0).tasks[effects[0].task].state).__name__ == "Ready"
    replay.step(2)
    assert replay.at == run + 2
    replay.back(10_000)
    assert replay.at == 0
    replay.step(10_000)
    assert replay.at == replay.end


def test_what_cannot_be_seen_is_said_why(trace):
    """A core that has not begun, that there is not; a step that there is not."""
    replay = trace.replay()
    with pytest.raises(TraceError, match="global scheduler here: before step 0 it has not begun"):
        replay.state(1)
    with pytest.raises(TraceError, match=r"there is no core 2: .* has 2"):
        replay.state(2)
    with pytest.raises(TraceError, match="can be at steps 0 to 150, not 151"):
        replay.goto(151)
    assert replay.at == 0


def test_an_interrupted_seek_stays_where_it_was(trace, monkeypatch):
    """A core that was stopped in a step is thrown away."""
    replay = Replay(trace, spacing=10_000)
    replay.goto(40)
    state = replay.cores[0].snapshot()
    passed = iter(range(10**6))

    def interrupted(self: Any, step: Any) -> None:
        real(self, step)
        if next(passed) == 20:
            raise KeyboardInterrupt

    real = seeking.Stage.skip
    monkeypatch.setattr(seeking.Stage, "skip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replay.goto(140)
    assert replay.at == 40 and replay.cores[0].snapshot() == state


def test_a_trace_that_decides_otherwise_is_played_on_and_says_so(trace):
    """The steps are listed; what comes after the first is not what was."""

    def reverse(effects: list[Any]) -> list[Any]:
        return effects[::-1]

    replay = Replay(trace, changed(reverse))
    assert len(replay.differing) > 3 and replay.end == trace.step_count
    replay.goto(replay.differing[0])
    assert replay.is_true
    replay.step()
    assert not replay.is_true
    assert replay.last is not None and not replay.last.is_same


def test_a_core_that_raises_ends_what_can_be_played(trace):
    """Up to there everything can be seen."""

    def fail(effects: list[Any]) -> list[Any]:
        if any(type(effect) is RunTask for effect in effects):
            raise RuntimeError("invariant I7 is broken")
        return effects

    replay = Replay(trace, changed(fail))
    assert 0 < replay.end < trace.step_count
    assert replay.note == (
        f"the core raises in step {replay.end}, and did not when it was recorded: "
        "RuntimeError: invariant I7 is broken"
    )
    replay.goto(replay.end)
    with pytest.raises(TraceError, match="I7 is broken"):
        replay.goto(replay.end + 1)


def test_a_recorded_crash_can_be_stood_at():
    """The step that raised is the core's last, and shows its traceback."""
    machine = Machine()
    dots(machine)
    put = ObjectPut(DRIVER, put_object(child_prefix(ROOT, 0, 0), 9), 1)
    machine.recorder.step_raised(0, machine.now_ns, [msgspec.msgpack.encode([put])], "boom")
    trace = Trace(machine.recorder.read_all())

    class Raising(LocalScheduler):
        def handle(self, *stimuli: Any, now_ns: int) -> list[Any]:
            if stimuli == (put,):
                raise RuntimeError("boom")
            return super().handle(*stimuli, now_ns=now_ns)

    config = trace.header.cores[0].config
    maker = Maker(lambda: Raising(config), lambda state: Raising.restore(config, state))
    replay = Replay(trace, lambda header: (maker, schedulers(header)[1]))
    assert (replay.end, replay.note, replay.differing) == (trace.step_count, "", [])
    replay.goto(replay.end)
    assert replay.last is not None and "RuntimeError: boom" in replay.last.raised
    assert list(replay.cores) == [1]
    with pytest.raises(TraceError, match="nothing is known of the state of local scheduler"):
        replay.state(0)


def test_a_core_that_is_not_a_function_of_its_stimuli_is_found_out(trace):
    """Playing the same step twice must give the same: else every state shown would be a guess."""
    calls = iter(range(10**9))

    def moody(effects: list[Any]) -> list[Any]:
        return effects[::-1] if next(calls) > trace.step_count else effects

    replay = Replay(trace, changed(moody), spacing=10_000)
    with pytest.raises(TraceError, match="depends on more than its stimuli, which is a bug"):
        for number in range(1, replay.end):
            replay.goto(number)


def test_what_cannot_be_replayed_is_refused(tmp_path):
    """No steps, or no state to begin with."""
    empty = recorded(tmp_path / "run.trace")
    empty._chunks.clear()
    with pytest.raises(TraceError, match="holds no steps: there is nothing to replay"):
        empty.replay()
    trace = recorded(tmp_path / "ten.trace", ten_sleeps)
    cores = [msgspec.structs.replace(core, unplayable="made so") for core in trace.header.cores]
    trace.header = msgspec.structs.replace(trace.header, cores=tuple(cores))
    with pytest.raises(TraceError, match=r"cannot be replayed \(made so\), only told"):
        trace.replay()


def test_progress_is_told(trace, monkeypatch):
    """How many steps of how many; all at the end."""
    monkeypatch.setattr(seeking, "PROGRESS_STEPS", 50)
    told: list[tuple[int, int]] = []
    trace.replay(progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 150), (50, 150), (100, 150), (150, 150)]


def test_steps_are_read_from_the_middle(tmp_path):
    """From any number on, as if all before had been read."""
    trace = recorded(tmp_path / "run.trace", many)
    every = list(trace.steps())
    assert len(trace._chunks) > 3
    for number in (0, 1, 700, trace.step_count - 1, trace.step_count):
        assert list(trace.steps(number)) == every[number:]


def test_steps_that_mention_something_are_found(tmp_path):
    """Both ways, between any two numbers."""
    trace = recorded(tmp_path / "run.trace", many)
    run = next(e for s in trace.steps() for e in s.effects() or () if type(e) is RunTask)

    def is_in(blobs: Any) -> bool:
        return any(run.task in blob for blob in blobs)

    found = [s for s in trace.steps() if is_in(s.metas) or is_in(s.groups or ())]
    assert len(found) > 2
    assert list(trace.mentions(run.task, 0, trace.step_count)) == found
    assert list(trace.mentions(run.task, 0, trace.step_count, True)) == found[::-1]
    low, high = found[0].number + 1, found[-1].number
    assert list(trace.mentions(run.task, low, high)) == found[1:-1]
