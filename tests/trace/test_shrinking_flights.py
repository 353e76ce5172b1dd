"""Shrinking recordings that begin in the middle: what was there is told anew, and goes as well."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as gen

from detray.core import peer_messages as pm
from detray.core.effects import Effect, RunTask
from detray.core.head_messages import NodeBuried
from detray.core.snapshot import decode_tables
from detray.core.states import Assigned
from detray.core.stimuli import RefsDropped, WorkerLost
from detray.ids import child_prefix, child_task, function_id, return_object, root_task
from detray.trace import expect
from detray.trace.format import SegmentStart, TraceError
from detray.trace.reading import Trace
from detray.trace.recorder import Recorder
from detray.trace.reducing.expecting import Violation
from detray.trace.reducing.ledger import LedgerRow, state_in_words
from detray.trace.reducing.shrinking import NothingToShrink, NothingViolated, shrink
from detray.trace.transcript.writing import shrunk_transcript
from tests.trace.machine import MS, Machine
from tests.trace.programs import dots, experiments, many, ten_sleeps, troubles
from tests.trace.test_shrinking import SENTENCES, noise, transcript_of
from tests.trace.told import DRIVER, ToldNode

RING_BYTES = 1 << 18


def flight(*programs: Callable[[Machine], object], ring_bytes: int = RING_BYTES) -> Trace:
    """What a small flight recorder holds at the end of a machine that ran these programs."""
    machine = Machine(ring_bytes=ring_bytes)
    for program in programs:
        program(machine)
    return Trace(machine.recorder.read_all(), "flight")


def never_ends(machine: Machine) -> None:
    """A task that takes a value and never ends, and one that waits for it."""
    machine.get(machine.submit(machine.define("slow", lambda *_: False), machine.put(100)))


@lru_cache
def slow_flight() -> Trace:
    """A flight of both."""
    return flight(never_ends, noisy)


def noisy(machine: Machine) -> None:
    """More than the ring holds."""
    many(machine, rounds=80)


class FlownNode(ToldNode):
    """A told node whose recorder is a ring, of a few hundred steps."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        header = self.recorder.header
        self.recorder.close("")
        self.recorder = Recorder(header, (self.core,), None, 1 << 16)
        self._steps = 0

    def tell(self, *stimuli: Any, after_ms: float = 0.01) -> list[Effect]:
        """A chunk of the ring is a few steps long."""
        self._steps += 1
        if self._steps % 20 == 0:
            self.recorder.read_all()
        return super().tell(*stimuli, after_ms=after_ms)

    def land(self) -> Trace:
        """The trace, which has lost its first steps."""
        trace = Trace(self.recorder.read_all(), "flight")
        assert trace.first_step > 100 and trace.step_count > 20
        return trace


# ------------------------------------------------------------------ what was there is told


@pytest.mark.parametrize(
    ("sentence", "most"),
    [
        ("no task runs more than 20 ms", 7),
        ("every task ends", 7),
        ("no task waits more than 8 ms", 9),
        ("at most 3 tasks wait on a node", 8),
        ("work runs before slow", 7),
    ],
)
def test_the_task_that_was_there_is_told_anew(sentence, most):
    """It was submitted long before the first step of the file."""
    trace = slow_flight()
    assert trace.first_step > 1_000
    shrunk = shrink(trace, [expect(sentence)])
    assert shrunk.is_minimal and shrunk.told <= most and shrunk.told_anew > 0
    text = transcript_of(shrunk)
    assert "# Its first steps were gone: " in text and "driver d1\n" in text


def test_who_waits_for_what_was_there(tmp_path):
    """The camera was taken before, by a run that has it still."""
    node = FlownNode(tmp_path / "told.trace")
    node.open(peers=[1])
    node.template(1, "film", camera=10_000)
    node.submit(1)
    node.ready()
    noise_beside(node, 120)
    node.submit(1)
    node.tell(after_ms=2_000)
    shrunk = shrink(node.land(), [expect("no task waits more than 1 s while a CPU is idle")])
    assert shrunk.is_minimal and shrunk.told <= 8
    text = transcript_of(shrunk)
    assert "submit a name=film cpus=0 camera=1\n" in text and "camera is taken" in text


def noise_beside(node: ToldNode, rounds: int) -> None:
    """As `noise`, while another run goes on."""
    keep = {w.runs[0].task for w in node.core.tables.workers.values() if w.runs}
    for _ in range(rounds):
        tasks = [node.submit() for _ in range(3)]
        while any(task in node.core.tables.tasks for task in tasks):
            node.ready()
            runs = [w.runs[0].task for w in node.core.tables.workers.values() if w.runs]
            node.run(next(task for task in runs if task not in keep))
        node.tell(RefsDropped(DRIVER, tuple(return_object(task, 0) for task in tasks), (1,) * 3))


def test_a_death_of_what_was_there(tmp_path):
    """Its run had begun before the first step; so had that of a task of another node."""
    node = FlownNode(tmp_path / "told.trace")
    node.open(peers=[1])
    task = node.submit()
    node.ready()
    noise_beside(node, 120)
    worker = node.core.tables.tasks[task].state.worker  # type: ignore[union-attr]
    node.tell(WorkerLost(worker, 0, False, "killed by signal SIGKILL"))
    noise(node, 3)
    for sentence in ("no worker dies", "no task is retried"):
        shrunk = shrink(node.land(), [expect(sentence)])
        assert shrunk.told <= 7, sentence
        assert "lost w1" in transcript_of(shrunk)


def test_who_was_delivered_elsewhere(tmp_path):
    """A task is at another node, which dies."""
    node = FlownNode(tmp_path / "told.trace")
    node.open(peers=[1])
    node.template(1, "away", far=10_000)
    node.place(node.submit(1), 1)
    noise(node, 120)
    node.head(NodeBuried, 1, "it was silent for 5000 ms")
    shrunk = shrink(node.land(), [expect("no task is retried")])
    assert shrunk.told <= 8
    text = transcript_of(shrunk)
    assert "told Placed task=a" in text and "told NodeBuried" in text


def test_a_worker_that_has_no_run_finishes_none(tmp_path):
    """The snapshot has the node fenced, so nothing runs that the steps behind it finish."""
    node = FlownNode(tmp_path / "told.trace")
    node.open(peers=[1])
    task = node.submit()
    node.ready()
    noise_beside(node, 120)
    worker = node.core.tables.tasks[task].state.worker  # type: ignore[union-attr]
    node.tell(WorkerLost(worker, 0, False, "killed by signal SIGKILL"))
    noise(node, 3)
    trace = node.land()
    first = trace.starts[0]
    tables = msgspec.msgpack.decode(first.snapshots[0], strict=False) | {"fenced": True}
    trace.starts[0] = msgspec.structs.replace(first, snapshots=(msgspec.msgpack.encode(tables),))
    with pytest.raises(TraceError, match="it takes more of what was there"):
        shrink(trace, [expect("every task ends")])


def test_a_state_that_contradicts_itself_has_words():
    """A run at a worker that there is not."""
    tables = decode_tables(slow_flight().starts[0].snapshots[0])
    task = next(row for row in tables.tasks.values() if isinstance(row.state, Assigned))
    row = LedgerRow(task.spec.task, 0)
    assert state_in_words(tables, row) == "it runs"
    tables.workers.clear()
    assert state_in_words(tables, row) == "what its node says of it makes no sense"


def test_who_was_delivered_here(tmp_path):
    """Another node's task has run since long before."""
    node = FlownNode(tmp_path / "told.trace")
    node.open(peers=[1])
    function = function_id(child_prefix(root_task(1), 0, 7), 0)
    task = child_task(child_prefix(root_task(1), 0, 7), 0)
    node.tell(pm.FunctionShipped(1, 1, function, "theirs", 30))
    cpu = (("CPU", 10_000),)
    node.tell(pm.TemplateShipped(2, 1, 5, function, "theirs", 1, cpu, 0, False, 0))
    node.tell(pm.RunDelivered(3, 1, task, 0, 5, root_task(1), 1, 20))
    node.ready()
    noise_beside(node, 120)
    node.tell(after_ms=2_000)
    shrunk = shrink(node.land(), [expect("no task runs more than 1 s")])
    assert shrunk.told <= 8
    text = transcript_of(shrunk)
    assert "told RunDelivered" in text and "w1 <- run a" in text


def test_runs_that_stand_still_in_a_get_have_their_children(tmp_path):
    """A parent that waits for its child: the child was submitted by it, and so it is again."""
    launched: list[bytes] = []

    def parent(machine: Machine, run: RunTask) -> bool:
        if run.task not in launched:
            launched.append(run.task)
            machine.submit(child, parent=run.task)
        return False

    machine = Machine(ring_bytes=RING_BYTES)
    child = machine.define("child", lambda *_: False)
    outer = machine.define("outer", parent)
    machine.submit(outer)
    machine.work()
    noisy(machine)
    trace = Trace(machine.recorder.read_all(), "flight")
    shrunk = shrink(trace, [expect("no task runs more than 30 ms")])
    assert shrunk.told <= 8
    transcript_of(shrunk)


# ------------------------------------------------------------------ any flight


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(gen.sampled_from(SENTENCES), gen.integers(0, 1 << 16))
def test_any_flight_is_shrunk_or_says_why_not(sentence, seed):
    """Rings of any size over any program; what is shrunk violates in the same way, and plays."""
    rng = random.Random(seed)
    programs = [rng.choice((ten_sleeps, troubles, dots, experiments, never_ends)) for _ in range(4)]
    place = rng.randrange(1, 4)
    programs.insert(place, lambda machine: many(machine, rounds=rng.randrange(20, 60)))
    trace = flight(*programs, ring_bytes=rng.randrange(1 << 15, 1 << 18))
    try:
        shrunk = shrink(trace, [expect(sentence)])
    except (NothingViolated, NothingToShrink) as problem:
        assert str(problem)
    else:
        assert shrunk.is_minimal and shrunk.told <= 40
        assert ("first steps were gone" in transcript_of(shrunk)) == (shrunk.told_anew > 0)


def test_equal_flights_shrink_to_equal_transcripts():
    """Nothing depends on chance, or on the clock."""
    texts = [
        shrunk_transcript(shrink(flight(never_ends, noisy), [expect("every task ends")]), "x")
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_what_was_there_counts_from_the_first_step(tmp_path):
    """How long it has waited before nobody recorded: it is not taken for the time since 1970."""
    found: Violation | None = expect("no task runs more than 1 ms").check(slow_flight())
    assert found is not None and 0 < found.since_ns < 1_000 * MS
    assert "runs for 5 ms" in found.text() or " ms: " in found.text()


# ------------------------------------------------------------------ snapshots that lie


class OtherStarts(Trace):
    """A trace with other snapshots."""

    def __init__(self, data: bytes, change: Callable[[bytes], bytes]) -> None:
        super().__init__(data, "lies")
        self.starts = [_changed(start, change) for start in self.starts]


def _changed(start: SegmentStart, change: Callable[[bytes], bytes]) -> SegmentStart:
    if not start.snapshots:
        return start
    return msgspec.structs.replace(start, snapshots=tuple(map(change, start.snapshots)))


def test_snapshots_that_lie_are_refused_or_shrunk():
    """Bits turned, numbers changed, rows left out: a transcript that plays, or one clear line."""
    data = flight_bytes()
    for seed in range(25):
        rng = random.Random(seed)
        trace = OtherStarts(data, lambda state, rng=rng: _lie(rng, state))  # type: ignore[misc]
        try:
            shrunk = shrink(trace, [expect(rng.choice(SENTENCES))], runs_max=200)
            transcript_of(shrunk)
        except TraceError as problem:
            assert str(problem)


def flight_bytes() -> bytes:
    """A flight that has lost its first steps, with much in its state."""
    machine = Machine(ring_bytes=RING_BYTES)
    for program in (never_ends, troubles, noisy):
        program(machine)
    return machine.recorder.read_all()


def _lie(rng: random.Random, state: bytes) -> bytes:
    """A state with something else in it, of the same form more often than not."""
    if rng.random() < 0.3:
        broken = bytearray(state)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        return bytes(broken)
    tables = msgspec.msgpack.decode(state, strict=False)
    for _ in range(rng.randrange(1, 4)):
        _change(rng, tables)
    return msgspec.msgpack.encode(tables)


def _change(rng: random.Random, value: object) -> None:
    """One place somewhere inside gets another value of its type, or goes."""
    while True:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))  # type: ignore[arg-type, call-overload]
        if not places:
            return
        place = rng.choice(places)
        inner = value[place]  # type: ignore[index]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.9:
            value = inner
            continue
        if isinstance(inner, bool):
            value[place] = not inner  # type: ignore[index]
        elif isinstance(inner, int):
            value[place] = rng.choice((0, -1, 1, 7, 1 << 40))  # type: ignore[index]
        elif isinstance(inner, bytes):
            value[place] = inner[::-1]  # type: ignore[index]
        elif isinstance(inner, str):
            value[place] = "x" * 300  # type: ignore[index]
        elif isinstance(value, dict) and not isinstance(place, str):
            del value[place]
        return


def test_a_file_without_any_state_or_step_says_so():
    """Nothing to play is no proof that all is well."""
    trace = Trace(flight_bytes(), "flight")
    bare = [msgspec.structs.replace(start, snapshots=()) for start in trace.starts]
    trace.starts = bare
    with pytest.raises(TraceError, match=r"none of its .* steps can be played.*record from the"):
        shrink(trace, [expect("every task ends")])
    with pytest.raises(TraceError, match=r"none of its .* steps can be played"):
        expect("no task fails").check(trace)


def test_what_failed_before_does_not_count(tmp_path):
    """The core has counted it; the recording has not got it."""
    node = FlownNode(tmp_path / "told.trace")
    node.open()
    task = node.submit()
    node.ready()
    worker = node.core.tables.tasks[task].state.worker  # type: ignore[union-attr]
    node.tell(WorkerLost(worker, 0, False, "killed by signal SIGKILL"))
    noise(node, 120)
    trace = node.land()
    assert node.core.tables.counts["workers lost"] == 1
    assert expect("no worker dies").check(trace) is None
    assert expect("no task is retried").check(trace) is None


def test_idle_workers_are_there_once_they_have_run_something(tmp_path):
    """As many as there were."""
    node = FlownNode(tmp_path / "told.trace")
    node.open()
    noise(node, 120)
    shrunk = shrink(node.land(), [expect("no more than 1 workers on a node")])
    assert shrunk.told <= 6
    transcript_of(shrunk)
