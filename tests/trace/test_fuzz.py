"""Files that chance has changed: refused or read up to the change, never believed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from detray.trace.format import TraceError
from detray.trace.reading import RecordedStep, Trace
from detray.trace.replaying import replay
from detray.trace.timeline import chrome_events
from tests.trace.machine import Machine
from tests.trace.programs import dots, many, recorded, troubles

SEEDS = range(400)


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
