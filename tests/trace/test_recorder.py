"""The recorder: bounded memory, snapshots, files that fail."""

from __future__ import annotations

import os
import stat

import pytest

from detray.trace import recorder as recorder_module
from detray.trace.reading import Trace, open_trace
from detray.trace.recorder import Recorder, begun_with, new_header
from detray.trace.replaying import replay
from tests.trace.machine import Machine
from tests.trace.programs import many, ten_sleeps, troubles


def test_the_ring_keeps_the_end_of_a_long_run_within_its_bound():
    """Old segments go, the newest steps stay, and what is held never exceeds the ring."""
    machine = Machine(ring_bytes=100_000)
    many(machine)
    recorder = machine.recorder
    trace = Trace(recorder.read_all())
    assert trace.first_step > 0
    assert trace.first_step + trace.step_count == recorder.step_count
    assert recorder._ring.size_bytes <= 100_000 + recorder_module.CHUNK_BYTES


def test_what_the_ring_keeps_replays_from_its_first_snapshot():
    """A segment that opens with snapshots needs nothing of what is gone (PROTOCOL N18)."""
    machine = Machine(ring_bytes=400_000)
    many(machine, rounds=200)
    trace = Trace(machine.recorder.read_all())
    report = replay(trace)
    assert trace.first_step > 0
    assert (report.is_same, report.skipped, sum(report.steps)) == (True, 0, trace.step_count)


def test_snapshots_within_a_ring_are_the_states_that_replay_arrives_at():
    """Restore, then continue, is the same as continue (PROTOCOL T13)."""
    machine = Machine(ring_bytes=1 << 20)
    many(machine, rounds=150)
    report = replay(Trace(machine.recorder.read_all()))
    assert report.is_same and report.snapshots > 0


def test_a_large_state_is_not_encoded_but_said_to_be_missing(monkeypatch):
    """Without snapshots the ring is told only, until the state has become small again."""
    monkeypatch.setattr(recorder_module, "SNAPSHOT_ROWS_MAX", 0)
    machine = Machine(ring_bytes=200_000)
    many(machine, rounds=60)
    trace = Trace(machine.recorder.read_all())
    assert trace.starts[0].note == "the state was too large to be encoded between two steps"
    assert not any(replay(trace).steps)
    monkeypatch.undo()
    many(machine, rounds=60)
    report = replay(Trace(machine.recorder.read_all()))
    assert report.is_same and any(report.steps)


def test_a_file_grows_whenever_it_is_flushed(tmp_path):
    """What was recorded before a flush outlives a crash right after it."""
    machine = Machine(tmp_path / "run.trace")
    ten_sleeps(machine)
    machine.recorder.flush()
    trace = open_trace(tmp_path / "run.trace")
    assert (trace.step_count, trace.complete) == (machine.recorder.step_count, False)
    assert replay(trace).is_same
    machine.recorder.close("done")


def test_a_trace_file_is_for_its_user_only(tmp_path):
    """A trace tells what a program did; others need not know."""
    machine = Machine(tmp_path / "run.trace")
    machine.recorder.close("done")
    assert stat.S_IMODE(os.stat(tmp_path / "run.trace").st_mode) == 0o600


def test_a_dump_is_a_complete_trace(tmp_path):
    """The flight recorder's file says why it was written, and replays."""
    machine = Machine()
    troubles(machine)
    path = machine.recorder.dump(tmp_path / "flight.trace", "a worker died")
    trace = open_trace(path)
    assert (trace.complete, trace.reason) == (True, "a worker died")
    assert replay(trace).is_same
    assert os.listdir(tmp_path) == ["flight.trace"]


def test_a_dump_that_fails_leaves_nothing(tmp_path):
    """Half a file would be taken for a trace."""
    machine = Machine()
    ten_sleeps(machine)
    (tmp_path / "flight.trace").mkdir()
    with pytest.raises(OSError):
        machine.recorder.dump(tmp_path / "flight.trace", "why not")
    assert os.listdir(tmp_path) == ["flight.trace"]


def test_a_frozen_flight_is_not_changed_by_later_steps():
    """It can be written in another thread while the run goes on."""
    machine = Machine()
    ten_sleeps(machine)
    flight = machine.recorder.freeze("now")
    steps = machine.recorder.step_count
    ten_sleeps(machine)
    assert Trace(b"".join(flight.pieces())).step_count == steps


@pytest.mark.parametrize("is_head", [False, True])
def test_a_process_of_a_cluster_records_one_core(tmp_path, is_head):
    """Its number is 0, whichever kind it is; cluster, life and epoch are in the header."""
    machine = Machine(tmp_path / "both.trace")
    ten_sleeps(machine)
    machine.recorder.close("done")
    both = open_trace(tmp_path / "both.trace")
    node, head = both.header.cores
    header = new_header(
        local=None if is_head else node.config,
        head=head.config if is_head else None,
        entrypoint="",
        wall_ns=1,
        monotonic_ns=2,
        detray_version="test",
        cluster="c" * 32,
        life="1" * 32,
        epoch=3,
    )
    recorder = Recorder(header, [machine.cores[is_head]], tmp_path / "one.trace")
    for step in both.steps():
        if step.core == is_head:
            recorder.step(0, step.now_ns, step.metas, step.groups)
    recorder.close("done")
    trace = open_trace(tmp_path / "one.trace")
    report = replay(trace)
    assert (report.is_same, report.steps) == (True, [trace.step_count])
    assert report.names == ["head" if is_head else "node 0"]
    assert (report.link_messages, report.unmatched) == (0, 2)
    assert (trace.header.cluster, trace.header.processes[0].life) == ("c" * 32, "1" * 32)


@pytest.mark.parametrize("is_ring", [False, True])
def test_cores_that_were_not_empty_bring_their_state(tmp_path, is_ring):
    """A trace that begins with a state replays from it, whole from its first step (PROTOCOL N8)."""
    machine = Machine()
    ten_sleeps(machine)
    start = begun_with(machine.cores)
    header = machine.recorder.header
    path = None if is_ring else tmp_path / "run.trace"
    machine.recorder = Recorder(header, machine.cores, path, start=start)
    troubles(machine)
    trace = Trace(machine.recorder.read_all())
    report = replay(trace)
    assert (trace.first_step, trace.starts[0].begins) == (0, True)
    assert (report.is_same, report.skipped, sum(report.steps)) == (True, 0, trace.step_count)
    machine.recorder.close("done")


def test_a_flight_recorder_knows_its_node():
    """What the head said when it admitted the node has long gone from the ring."""
    machine = Machine(ring_bytes=400_000)
    many(machine, rounds=200)
    trace = Trace(machine.recorder.read_all())
    (_, node), *_ = trace.header.local_cores()
    assert trace.first_step > 0
    assert node.node == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_ends_the_file_and_not_the_run():
    """The recorder says what happened once, and goes on in memory with the steps that follow."""
    machine = Machine()
    recorder = Recorder(machine.recorder.header, machine.cores, "/dev/full")
    machine.recorder = recorder
    ten_sleeps(machine)
    recorder.flush()
    assert recorder.path is None
    assert "No space left" in (recorder.problem or "")
    before = recorder.step_count
    ten_sleeps(machine)
    trace = Trace(recorder.read_all())
    assert trace.first_step == before
    assert replay(trace).is_same
    recorder.close("done")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_file_that_fails_with_its_last_words_is_reported_too():
    """A run too short for any flush before the end notices the full disk when it closes."""
    machine = Machine()
    recorder = Recorder(machine.recorder.header, machine.cores, "/dev/full")
    machine.recorder = recorder
    ten_sleeps(machine)
    recorder.close("done")
    assert "No space left" in (recorder.problem or "")
