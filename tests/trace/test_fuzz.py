"""Files that chance has changed: refused or read up to the change, never believed."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from detray.trace.collecting import collect
from detray.trace.format import PREAMBLE, FrameWriter, TraceError
from detray.trace.reading import RecordedStep, Trace, open_trace
from detray.trace.replaying import replay
from detray.trace.timeline import chrome_events
from tests.trace.machine import Machine
from tests.trace.programs import dots, many, recorded, troubles

SEEDS = range(400)
FIXTURES = sorted((Path(__file__).resolve().parents[2] / "traces").glob("*.trace"))
[MANY_CORES] = [path for path in FIXTURES if path.name == "format-2.trace"]
"""With segments of a state, and parts that are missing."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "run.trace"
    recorded(path, dots, troubles)
    return path.read_bytes()


@pytest.fixture(scope="module")
def flight() -> bytes:
    machine = Machine(ring_bytes=100_000)
    many(machine)
    return machine.recorder.read_all()


def test_no_flipped_bit_is_believed(whole):
    """One changed bit anywhere is refused, or noticed as a cut that keeps the steps before it."""
    steps = list(Trace(whole).steps())
    for seed in SEEDS:
        chance = random.Random(seed)
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        read = attempt(bytes(data))
        assert read is None or (
            not read.complete and list(read.steps()) == steps[: read.step_count]
        )


def test_no_flipped_bit_of_a_flight_recorder_is_believed(flight):
    """The same, where segments and snapshots are in the file."""
    steps = list(Trace(flight).steps())
    for seed in SEEDS:
        chance = random.Random(seed)
        data = bytearray(flight)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        read = attempt(bytes(data))
        assert read is None or (
            not read.complete and list(read.steps()) == steps[: read.step_count]
        )


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_no_change_of_a_fixture_is_believed(path):
    """Of every format: flipped bits, cuts, doubled and exchanged frames, other versions."""
    whole = path.read_bytes()
    steps = list(Trace(whole).steps())
    frames = split(whole)
    for seed in range(120):
        chance = random.Random(seed)
        a, b = (chance.randrange(len(frames)) for _ in range(2))
        cut = chance.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[cut] ^= 1 << chance.randrange(8)
        moved = frames.copy()
        moved[a], moved[b] = moved[b], moved[a]
        doubled = [*frames[: a + 1], *frames[a:]]
        for data in (bytes(flipped), whole[:cut], b"".join(moved), b"".join(doubled)):
            if data == whole:
                continue
            try:
                read = Trace(data)
                kept = list(read.steps())
            except TraceError:
                continue
            assert not read.complete and kept == steps[: len(kept)]


@settings(max_examples=150, deadline=None)
@given(where=some.integers(min_value=0), what=some.binary(min_size=1, max_size=60))
def test_a_header_that_lies_behind_right_checks_ends_in_an_error(tmp_path_factory, where, what):
    """Cores, processes, nodes and segments that do not fit: refused, or a trace like another."""
    whole = MANY_CORES.read_bytes()
    frames = [(frame[0], frame[17:]) for frame in split(whole[PREAMBLE.size :], 0)]
    number = where % 3
    payload = bytearray(frames[number][1])
    at = where % len(payload)
    payload[at : at + len(what)] = what
    frames[number] = frames[number][0], bytes(payload)
    writer = FrameWriter()
    data = whole[: PREAMBLE.size] + b"".join(writer.frame(*frame) for frame in frames)
    try:
        trace = Trace(data)
        replay(trace)
        chrome_events(trace)
        collect([trace], tmp_path_factory.mktemp("lies") / "all.trace")
    except TraceError:
        pass


def split(data: bytes, at: int = PREAMBLE.size) -> list[bytes]:
    """The frames of a trace; the preamble stays with the first."""
    frames = [data[:at]]
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 1)
        frames.append(data[at : at + 17 + size])
        at += 17 + size
    return [frames[0] + frames[1], *frames[2:]]


def test_nothing_read_from_moved_pieces_is_believed(whole):
    """Pieces that were cut out, doubled or exchanged leave at most the steps before them."""
    steps = list(Trace(whole).steps())
    for seed in SEEDS:
        chance = random.Random(seed)
        a, b, c = sorted(chance.randrange(len(whole)) for _ in range(3))
        data = chance.choice(
            (
                whole[:a] + whole[b:],
                whole[:b] + whole[a:],
                whole[:a] + whole[b:c] + whole[a:b] + whole[c:],
                whole[:a] + bytes(b - a) + whole[b:],
            )
        )
        if data == whole:
            continue
        assert is_refused_or_cut(data, steps)


@settings(max_examples=150, deadline=None)
@given(some.binary(max_size=300))
def test_any_bytes_at_all_are_refused_in_order(data):
    """Rubbish is refused by the one error that callers expect."""
    assert attempt(data) is None


def test_what_is_no_trace_is_not_read_to_its_end():
    """A device without end is refused by its first bytes."""
    with pytest.raises(TraceError, match="is not a detray trace"):
        open_trace("/dev/zero")


@settings(max_examples=150, deadline=None)
@given(where=some.integers(min_value=0), what=some.binary(min_size=1, max_size=40))
def test_messages_that_lie_behind_right_checks_end_in_an_error(whole, where, what):
    """Even one who computes all checks again gets an error or a difference, not a crash."""
    trace = Trace(whole)
    chunk = trace._chunks[0]
    data = bytearray(chunk.data)
    at = where % len(data)
    data[at : at + len(what)] = what[: len(data) - at]
    trace._chunks[0] = chunk._replace(data=memoryview(bytes(data)))
    for use in (replay, chrome_events):
        try:
            use(trace)
        except TraceError:
            pass


def is_refused_or_cut(data: bytes, steps: list[RecordedStep]) -> bool:
    """True if `data` is refused, or read as the beginning of `steps`, and said to be no more."""
    read = attempt(data)
    if read is None:
        return True
    return not read.complete and list(read.steps()) == steps[: read.step_count]


def attempt(data: bytes) -> Trace | None:
    """The trace, None if it is refused: when opened, replayed or told."""
    try:
        trace = Trace(data)
        list(trace.steps())
        replay(trace)
    except TraceError:
        return None
    return trace


def test_a_policy_that_nobody_knows_is_an_error_and_no_crash(whole):
    """The header names the head's placement policy, which this detray may not have."""
    frames = [(frame[0], frame[17:]) for frame in split(whole[PREAMBLE.size :], 0)]
    (kind, header), *rest = frames
    assert b"hybrid" in header
    writer = FrameWriter()
    lies = (kind, header.replace(b"hybrid", b"hybrix")), *rest
    data = whole[: PREAMBLE.size] + b"".join(writer.frame(*frame) for frame in lies)
    with pytest.raises(TraceError, match=r"cannot be made by this detray.*hybrix"):
        replay(Trace(data))
