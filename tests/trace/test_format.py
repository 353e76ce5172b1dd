"""The trace format: what was recorded is read, what was damaged is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from detray.trace.flight import chunk_of
from detray.trace.format import (
    END_FRAME,
    FORMAT_VERSION,
    MAGIC,
    OPTIONAL_FRAMES,
    PREAMBLE,
    STEPS_FRAME,
    FrameWriter,
    TraceError,
    chained,
)
from detray.trace.reading import Trace, open_trace
from tests.trace.machine import DRIVER, Machine
from tests.trace.programs import recorded, ten_sleeps, troubles


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    recorded(tmp_path / "run.trace", ten_sleeps)
    return (tmp_path / "run.trace").read_bytes()


def test_reading_gives_back_what_was_recorded(tmp_path):
    """Header, stimuli, times and effects come back as they were; the trace ended in order."""
    machine = Machine(tmp_path / "run.trace")
    ten_sleeps(machine)
    machine.recorder.close("the program ended")
    trace = open_trace(tmp_path / "run.trace")
    steps = list(trace.steps())
    assert trace.header == machine.recorder.header
    assert (trace.complete, trace.reason, trace.note) == (True, "the program ended", "")
    assert len(steps) == trace.step_count == machine.recorder.step_count
    assert [step.number for step in steps] == list(range(len(steps)))
    assert steps[0].stimuli()[0].client == DRIVER
    assert {step.core for step in steps} == {0, 1}
    assert all(step.effects() is not None for step in steps)


def test_each_digest_chains_the_effects_of_one_core(whole):
    """A step's digest follows from the digest of its core's step before and its own effects."""
    before = {0: bytes(8), 1: bytes(8)}
    for step in Trace(whole).steps():
        assert step.digest == chained(before[step.core], step.groups or ())
        before[step.core] = step.digest


def test_a_trace_that_was_cut_reads_up_to_the_cut(whole):
    """Wherever a crash cuts a trace: its whole frames are read, and it is said that it was cut."""
    full = Trace(whole)
    head = len(FrameWriter().opening(full.header))
    seen = set()
    for size in range(head, len(whole)):
        trace = Trace(whole[:size])
        assert not trace.complete
        assert trace.note.startswith("cut off")
        steps = list(trace.steps())
        assert steps == list(full.steps())[: len(steps)]
        seen.add(len(steps))
    assert seen == {0, full.step_count}


def test_a_cut_within_the_header_leaves_nothing_to_read(whole):
    """Without its header a trace is refused, with a reason, at every length."""
    head = len(FrameWriter().opening(Trace(whole).header))
    for size in range(head):
        with pytest.raises(TraceError, match=r"cut off|empty|header"):
            Trace(whole[:size])


def test_zeros_after_a_whole_frame_are_a_cut(whole):
    """What some file systems leave after a power failure is not taken for damage."""
    *frames, _end = split(whole)
    trace = Trace(b"".join(frames) + bytes(5000))
    assert (trace.complete, trace.step_count) == (False, Trace(whole).step_count)
    assert "5000 bytes" in trace.note


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 something else entirely", "not a detray trace"),
        (PREAMBLE.pack(MAGIC, FORMAT_VERSION + 1), "later one"),
        (PREAMBLE.pack(MAGIC, 0), "has trace format 0"),
    ],
)
def test_foreign_and_newer_files_are_refused(data, says):
    """The error says what the file is instead."""
    with pytest.raises(TraceError, match=says):
        Trace(data, "some.file")


def test_swapped_repeated_and_missing_frames_are_noticed(tmp_path):
    """The index and the chained check give every frame its one place."""
    machine = Machine(tmp_path / "run.trace")
    for _ in range(3):
        ten_sleeps(machine)
        machine.recorder.flush()
    machine.recorder.close("done")
    frames = split((tmp_path / "run.trace").read_bytes())
    head, first, second, third, end = frames
    assert Trace(b"".join(frames)).complete
    for wrong in (
        [head, second, first, third, end],
        [head, first, first, second, third, end],
        [head, second, third, end],
        [head, first, third, end],
        [head, first, second, third, end, end],
    ):
        with pytest.raises(TraceError, match="damaged"):
            Trace(b"".join(wrong))


def test_salvage_reads_what_precedes_the_damage(tmp_path):
    """Asked to, the reader stops at the damage instead, and says so."""
    machine = Machine(tmp_path / "run.trace")
    ten_sleeps(machine)
    machine.recorder.flush()
    good = machine.recorder.step_count
    troubles(machine)
    machine.recorder.close("done")
    head, first, second, end = split((tmp_path / "run.trace").read_bytes())
    damaged = bytearray(second)
    damaged[-1] ^= 1
    data = b"".join([head, first, bytes(damaged), end])
    with pytest.raises(TraceError, match="--salvage"):
        Trace(data)
    trace = Trace(data, salvage=True)
    assert (trace.step_count, trace.complete) == (good, False)
    assert "frame 2" in trace.note


def test_unknown_frames_are_skipped_only_if_they_may_be(whole):
    """A reader of this version passes over additions, and refuses what it must understand."""
    header = Trace(whole).header
    steps = [bytes(frame[17:]) for frame in split(whole)[1:-1]]

    def with_frame(kind: int) -> bytes:
        writer = FrameWriter()
        frames = [writer.opening(header), *(writer.frame(STEPS_FRAME, part) for part in steps)]
        return b"".join([*frames, writer.frame(kind, b"from the future")])

    assert Trace(with_frame(OPTIONAL_FRAMES)).step_count == Trace(whole).step_count
    with pytest.raises(TraceError, match="unknown frame kind 9"):
        Trace(with_frame(9))


def test_frames_that_contradict_each_other_are_refused(whole):
    """Sound checks do not excuse a gap in the numbers, or steps that are not laid out right."""
    header = Trace(whole).header

    def only(*frames: tuple[int, bytes]) -> bytes:
        writer = FrameWriter()
        return writer.opening(header) + b"".join(writer.frame(*frame) for frame in frames)

    with pytest.raises(TraceError, match="steps from 7"):
        Trace(only((STEPS_FRAME, chunk_of(7, 0, []))))
    with pytest.raises(TraceError, match="End frame makes no sense"):
        Trace(only((END_FRAME, b"\xc1")))
    with pytest.raises(TraceError, match="make no sense"):
        list(Trace(only((STEPS_FRAME, chunk_of(0, 1, [b"\0" * 10])))).steps())
    with pytest.raises(TraceError, match="make no sense"):
        list(Trace(only((STEPS_FRAME, chunk_of(0, 0, [b"more"])))).steps())


def split(data: bytes) -> list[bytes]:
    """The frames of a trace; the preamble stays with the first."""
    at, frames = PREAMBLE.size, []
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 1)
        frames.append(data[at : at + 17 + size])
        at += 17 + size
    frames[0] = data[: PREAMBLE.size] + frames[0]
    return frames
