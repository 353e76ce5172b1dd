"""Shrinking: what is left still violates, plays again, and is as little as it takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as gen

from detray.core.config import Policy
from detray.core.head_messages import NodeBuried
from detray.core.local import LocalScheduler
from detray.core.stimuli import ObjectPut, RefsDropped, StatusRequested, WorkerLost
from detray.ids import ClientID, put_object, return_object
from detray.trace import expect
from detray.trace.format import HeadCore, LocalCore, TraceError
from detray.trace.reading import Trace, open_trace
from detray.trace.reducing.rehearsal import RehearsedStep
from detray.trace.reducing.shrinking import NothingToShrink, NothingViolated, Shrunk, shrink
from detray.trace.transcript.script import render
from detray.trace.transcript.telling import is_telling, play_telling
from detray.trace.transcript.writing import shrunk_transcript, write_transcript
from detray_sim import behaviour as do
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.result import NodeShape
from detray_sim.traces import write_trace
from tests.golden.play import play, transcripts
from tests.sim.test_engine import MS, SECOND
from tests.trace.programs import dots, experiments, recorded, ten_sleeps, troubles
from tests.trace.test_expecting import busy_camera
from tests.trace.told import DRIVER, PREFIX, ToldNode

DIFFICULT = "no task waits more than 1 s while a CPU is idle"


def noise(node: ToldNode, count: int, seed: int = 1) -> None:
    """Tasks that come and go, questions, dropped references."""
    rng = random.Random(seed)
    for number in range(count):
        tasks = [node.submit() for _ in range(rng.randrange(1, 6))]
        node.drain(took_ms=rng.choice((0.1, 1, 3)))
        if rng.random() < 0.3:
            node.tell(StatusRequested(DRIVER, number + 1, "page"))
        refs = tuple(return_object(task, 0) for task in tasks)
        node.tell(RefsDropped(DRIVER, refs, (1,) * len(refs)))


def troubled(
    path: Path, trouble: Callable[[ToldNode], None], policy: Policy | None = None
) -> Trace:
    """A trace with a trouble in the middle of noise."""
    node = ToldNode(path, policy)
    node.open(peers=[1])
    noise(node, 40)
    trouble(node)
    noise(node, 10, seed=2)
    return node.close()


def transcript_of(shrunk: Shrunk) -> str:
    """The transcript, which says the violation and plays as it stands."""
    text = shrunk_transcript(shrunk, "told.trace")
    played, telling = play_telling(text)
    assert render(played) == text and is_telling(text)
    assert f'violated: "{shrunk.sentence}": ' in text
    assert telling.watcher is not None and telling.watcher.violation is not None
    assert telling.watcher.violation.kind == shrunk.found.kind
    return text


# ------------------------------------------------------------------ what is left


def test_a_wait_is_cut_down_to_who_holds_and_who_waits(tmp_path):
    """Hundreds of stimuli to a driver, a worker and two tasks."""
    shrunk = shrink(troubled(tmp_path / "told.trace", busy_camera), [expect(DIFFICULT)])
    assert shrunk.is_minimal and shrunk.told <= 7 < 200 < shrunk.told_before
    text = transcript_of(shrunk)
    assert text.startswith("# Shrunk from told.trace, ")
    assert "submit a name=film cpus=0 camera=1\n" in text and "run a\n" in text
    assert "core n totals=CPU:2,camera:1 shared\n" in text


def test_a_safeguard_that_is_off_is_found_by_its_invariant(tmp_path):
    """A node dies, and what was delivered to it is not cleaned up: I25."""

    def delivered_to_the_dead(node: ToldNode) -> None:
        node.template(1, "away", far=10_000)
        node.place(node.submit(1), 1)
        node.head(NodeBuried, 1, "it was silent for 5000 ms")

    policy = Policy(burial_cleanup_off=True, surplus_rounds=9)
    trace = troubled(tmp_path / "told.trace", delivered_to_the_dead, policy)
    shrunk = shrink(trace, [expect("no invariant breaks")])
    assert shrunk.found.kind == "invariant I25" and shrunk.told <= 8
    text = transcript_of(shrunk)
    assert "burial_cleanup_off=1" in text and "surplus_rounds" not in text
    assert "a task is delivered to a living node" in text
    with pytest.raises(NothingViolated):
        trace = troubled(tmp_path / "fine.trace", delivered_to_the_dead)
        shrink(trace, [expect("no invariant breaks")])


def test_a_death_keeps_whom_it_hit(tmp_path):
    """The run that the worker had begun, and not those that it had not."""

    def death(node: ToldNode) -> None:
        for _ in range(12):
            node.submit()
        node.ready()
        worker = next(w for w in node.core.tables.workers.values() if w.runs)
        node.tell(WorkerLost(worker.id, len(worker.runs) - 1, False, "exited with status 1"))

    trace = troubled(tmp_path / "told.trace", death)
    for sentence in ("no worker dies", "no task is retried"):
        shrunk = shrink(trace, [expect(sentence)])
        assert shrunk.told <= 8, sentence
        assert "lost w1" in transcript_of(shrunk)


def test_only_the_end_shows_it(tmp_path):
    """The last block of the transcript is `end`."""
    node = ToldNode(tmp_path / "told.trace")
    node.open()
    noise(node, 10)
    node.template(1, "huge", GPU=10_000)
    node.submit(1)
    shrunk = shrink(node.close(), [expect("every task ends")])
    text = transcript_of(shrunk)
    assert shrunk.told <= 5 and "\nend\n----\nviolated: " in text


def test_several_cores_are_played_if_it_takes_several(tmp_path):
    """The task has been under way before the node where it runs heard of it."""
    shrunk = shrink(cluster_trace(tmp_path), [expect("task far finishes within 100 ms")])
    assert shrunk.is_minimal and shrunk.told <= 20
    kinds = [type(core) for core in shrunk.cores]
    assert LocalCore in kinds and kinds.count(HeadCore) == 1
    text = transcript_of(shrunk)
    assert "submit a name=far" in text and ": hear head\n" in text and "head: hear n" in text


def cluster_trace(tmp_path: Path) -> Trace:
    """Two nodes and a head: `far` runs half a second at the other node, where small ones run."""
    unit = (("thing", 10_000),)
    here = NodeShape(cpus=1)
    there = NodeShape(cpus=2, resources=unit)
    cluster = SimCluster(ClusterConfig(nodes=(here, there)), record=True)
    cluster.settle(20 * MS)
    far = do.Remote(lambda run: do.Work(500 * MS, [do.Result(1)]), name="far", demand=unit)
    small = do.Remote(lambda run: do.Work(MS // 20, [do.Result(1)]), name="small", demand=unit[:0])

    def program(run: do.Run) -> do.Steps:
        (slow,) = yield do.Submit(far)
        for _ in range(2_000):
            (quick,) = yield do.Submit(small)
            yield do.GetValues((quick,))
            yield do.DropRefs([quick])
        yield do.GetValues((slow,))
        return [do.Result(1)]

    cluster.drive(0, program)
    assert cluster.run(100 * SECOND)
    write_trace(cluster, tmp_path / "cluster.trace")
    return open_trace(tmp_path / "cluster.trace")


# ------------------------------------------------------------------ any trace


SENTENCES = (
    "no task fails", "no task is retried", "no worker dies", "no task waits more than 3 ms",
    "no task runs more than 4 ms", "at most 2 tasks wait on a node", "every task ends",
    "task fine finishes within 1 ms", "shaky runs before fine", "no more than 2 workers",
)  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(gen.sampled_from(SENTENCES), gen.integers(0, 1 << 16))
def test_whatever_is_shrunk_still_violates(tmp_path_factory, sentence, seed):
    """Of a trace that violates it; the transcript says so, and plays again."""
    rng = random.Random(seed)
    programs = [rng.choice((ten_sleeps, troubles, dots, experiments)) for _ in range(3)]
    trace = recorded(tmp_path_factory.mktemp("any") / "run.trace", *programs)
    expectation = expect(sentence)
    found = expectation.check(trace)
    if found is None:
        with pytest.raises(NothingViolated, match="violates nothing"):
            shrink(trace, [expectation])
        return
    shrunk = shrink(trace, [expectation])
    assert shrunk.violation.kind == found.kind
    assert shrunk.told <= shrunk.told_before and shrunk.is_minimal
    transcript_of(shrunk)


def test_the_first_of_several_expectations_is_shrunk(tmp_path):
    """The one that is violated first."""
    trace = recorded(tmp_path / "run.trace", troubles)
    said = [expect("no object is spilled"), expect("no task fails"), expect("no worker dies")]
    first = min((v.step, v.sentence) for e in said if (v := e.check(trace)))[1]
    assert shrink(trace, said).sentence == first


def test_equal_traces_shrink_to_equal_transcripts(tmp_path):
    """Nothing depends on chance, or on the clock, within the budget."""
    texts = [
        shrunk_transcript(shrink(troubled(tmp_path / name, busy_camera), [expect(DIFFICULT)]), "x")
        for name in ("a.trace", "b.trace")
    ]
    assert texts[0] == texts[1]


def test_a_spent_budget_is_said(tmp_path):
    """What was found by then is still a part that violates."""
    trace = troubled(tmp_path / "told.trace", busy_camera)
    shrunk = shrink(trace, [expect(DIFFICULT)], runs_max=20)
    assert not shrunk.is_minimal and shrunk.runs <= 21
    assert shrunk.trail[-1][0] == "the budget is spent"
    transcript_of(shrunk)
    heard: list[str] = []
    shrink(trace, [expect(DIFFICULT)], report=heard.append)
    assert heard[0].startswith("violated in step") and "left after" in heard[-1]


# ------------------------------------------------------------------ what cannot be shrunk


def test_other_decisions_than_recorded_cannot_be_shrunk(tmp_path):
    """No part of a trace has a recording to compare with."""
    trace = troubled(tmp_path / "told.trace", busy_camera)
    data = bytearray((tmp_path / "told.trace").read_bytes())
    other = Trace(bytes(data), "other")
    header = msgspec.structs.replace(
        other.header,
        cores=(
            msgspec.structs.replace(
                other.header.cores[0],
                config=msgspec.structs.replace(other.header.cores[0].config, prestart_workers=3),
            ),
        ),
    )
    other.header = header
    with pytest.raises(NothingToShrink, match=r"not those that were recorded.*detray replay other"):
        shrink(other, [expect("no invariant breaks")])
    assert trace.header != header


def test_a_core_that_is_lied_to_raises_and_nobody_could_have_said_it(tmp_path):
    """A put of a client that never connected: a real one cannot, and the driver drops who does."""
    node = ToldNode(tmp_path / "told.trace")
    node.open()
    noise(node, 3)
    lie = ObjectPut(ClientID(55), put_object(PREFIX, 0), 10)
    with pytest.raises(KeyError):
        node.tell(lie)
    node.now_ns += 1
    node.recorder.step_raised(0, node.now_ns, [msgspec.msgpack.encode([lie])], "KeyError: 55")
    with pytest.raises(NothingToShrink, match=r"raises KeyError.*under other names"):
        shrink(node.close(), [expect("no invariant breaks")])


def test_cut_and_damaged_traces(tmp_path):
    """Up to the cut, or a clear refusal; never anything else."""
    path = tmp_path / "told.trace"
    troubled(path, busy_camera)
    data = path.read_bytes()
    rng = random.Random(7)
    for _ in range(40):
        broken = bytearray(data[: rng.randrange(len(data))] if rng.random() < 0.5 else data)
        if broken and rng.random() < 0.7:
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        try:
            shrunk = shrink(Trace(bytes(broken), "cut", salvage=True), [expect("no task fails")])
        except TraceError as error:
            assert str(error)
        else:
            transcript_of(shrunk)


# ------------------------------------------------------------------ the language


@pytest.mark.slow
@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
def test_whatever_a_node_can_be_told_can_be_written_and_read(path):
    """What each node of the golden transcripts was told, told again by a transcript."""
    for world in play(path.read_text())[1].worlds:
        steps = [
            RehearsedStep(number, 0, now_ns, tuple(stimuli), (None,) * len(stimuli))
            for number, (now_ns, stimuli, _) in enumerate(world.log)
        ]
        info = LocalCore(name="n", config=world.config)
        text = write_transcript(["{}"], [(info, False)], "no invariant breaks", steps)
        played, telling = play_telling(text)
        assert render(played) == text
        core = LocalScheduler(world.config)
        assert len(telling.worlds[0].log) == len(world.log)
        for (now_ns, told, effects), (_, stimuli, _) in zip(
            telling.worlds[0].log, world.log, strict=True
        ):
            wanted = core.handle(*stimuli, now_ns=now_ns)
            assert list(map(type, told)) == list(map(type, stimuli))
            assert list(map(type, effects)) == list(map(type, wanted))
