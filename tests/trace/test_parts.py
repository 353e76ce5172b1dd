"""Where the time of tasks went: parts that cover the whole, in traces of all kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from detray.trace.explaining.causes import Explainer
from detray.trace.explaining.parts import (
    ARGUMENT,
    GET,
    KEPT,
    PARTS,
    PLACE,
    QUEUE,
    RESOURCE,
    ROOM,
    RUN,
    Part,
    Timeline,
    clip,
)
from detray.trace.explaining.tree import TIME
from detray.trace.gathering.history import History, history_of
from detray.trace.gathering.lives import LOST, OBJECT_MOVES, TASK_MOVES
from detray.trace.reading import Trace, open_trace
from detray_sim.tape import Tape
from detray_sim.traces import write_trace
from detray_sim.trial import Watch, run_trial
from detray_sim.world import SMALL
from tests.trace.machine import MS, ROOT, Machine
from tests.trace.programs import dots, experiments, many, recorded, ten_sleeps, troubles
from tests.trace.simulated import named, parts_of, run_cluster

FIXTURES = sorted((Path(__file__).resolve().parents[2] / "traces").glob("*.trace"))
SEEDS = range(1, 25)


def seed_trace(seed: int, path: Path) -> Trace:
    """What a seed of the swarm recorded: faults of all kinds strike in it."""
    watch = Watch(SMALL, checks=False, keeps=True)
    run_trial(Tape(seed), SMALL, watch=watch)
    assert watch.cluster is not None
    write_trace(watch.cluster, path)
    return open_trace(path)


def timeline_of(trace: Trace) -> Timeline:
    """The timeline of a trace."""
    history = history_of(trace)
    history.use_dates(trace.header)
    return Timeline(history)


def assert_whole(timeline: Timeline) -> dict[str, int]:
    """Parts follow each other without gap from the first moment to the last; lengths by kind."""
    lengths = dict.fromkeys(PARTS, 0)
    explainer = Explainer(timeline, depth=3)
    for life in timeline.history.tasks.values():
        at_ns = began_ns = timeline.began_ns(life)
        for part in timeline.parts(life):
            assert part.started_ns == at_ns < part.ended_ns, (life, part)
            at_ns = part.ended_ns
            lengths[part.kind] += part.length_ns
        assert at_ns == timeline.ended_ns(life), life
        answer = explainer.explain_task(life)
        told = sum(cause.length_ns for cause in answer.causes if cause.kind == TIME)
        assert told == answer.length_ns == at_ns - began_ns, answer
        assert_inside(answer.causes)
    return lengths


def assert_inside(causes: tuple) -> None:
    """What is behind a share of the time is never longer than that."""
    for cause in causes:
        inner = [deeper for deeper in cause.causes if deeper.kind == TIME]
        if cause.kind == TIME:
            assert sum(deeper.length_ns for deeper in inner) <= cause.length_ns, cause
        assert_inside(cause.causes)


def assert_sane(history: History, *, scripted: bool = False) -> None:
    """Times of one clock are in the order in which things happen; kinds of moves are known.

    Scripted workers may say that they began a run before it was sent to them.
    """
    for life in history.tasks.values():
        numbers = [run.number for run in life.attempts]
        assert numbers == sorted(set(numbers))
        assert {move.kind for move in life.moves} <= set(TASK_MOVES)
        if life.submitted_ns >= 0 and life.ready_ns >= 0:
            assert life.submitted_ns <= life.ready_ns
        for run in life.attempts:
            sent_ns = -1 if scripted else run.sent_ns
            known = [ns for ns in (run.received_ns, sent_ns, run.started_ns) if ns >= 0]
            if run.ended_ns >= 0 and run.state != LOST:
                known.append(run.ended_ns)
            assert known == sorted(known), run
            if run.delivered_ns >= 0 and run.closed_ns >= 0:
                assert run.delivered_ns <= run.closed_ns
    for item in history.objects.values():
        assert {move.kind for move in item.moves} <= set(OBJECT_MOVES)
        if item.created_ns >= 0 and item.sealed_ns >= 0:
            assert item.created_ns <= item.sealed_ns
        here = [move.at_ns for move in item.moves if move.core == item.core]
        assert here == sorted(here)
    for worker in history.workers.values():
        known = [ns for ns in (worker.asked_ns, worker.ready_ns, worker.lost_ns) if ns >= 0]
        assert known == sorted(known), worker
    for transfer in history.transfers:
        assert transfer.ended_ns < 0 or transfer.began_ns <= transfer.ended_ns
    for wait in history.waits:
        assert wait.started_ns <= wait.ended_ns


@pytest.mark.parametrize("seed", SEEDS)
def test_the_parts_of_a_seed_cover_the_whole(tmp_path, seed):
    """Workers and nodes die, links are cut, heads restart: nothing is missing or told twice."""
    trace = seed_trace(seed, tmp_path / "seed.trace")
    assert_sane(history_of(trace))
    assert_whole(timeline_of(trace))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_the_parts_of_real_recordings_cover_the_whole(path):
    """Also of format 1, and of runs with kills, spills and cancellations."""
    trace = open_trace(path)
    assert_sane(history_of(trace), scripted=path.stem in ("decisions", "format-1"))
    lengths = assert_whole(timeline_of(trace))
    assert sum(lengths.values()) > 0


@pytest.mark.parametrize("program", [dots, troubles, ten_sleeps, experiments])
def test_the_parts_of_a_machine_cover_the_whole(tmp_path, program):
    """Every run of the scripted machine takes five milliseconds."""
    lengths = assert_whole(timeline_of(recorded(tmp_path / "run.trace", program)))
    assert lengths[RUN] >= 5 * MS - 1000 and not lengths[PLACE]


def test_the_parts_cover_the_whole_from_the_middle_on(tmp_path):
    """A flight recorder has lost the beginnings: less is said, and it still adds up."""
    machine = Machine(ring_bytes=100_000)
    many(machine)
    trace = Trace(machine.recorder.read_all())
    assert trace.first_step
    assert_sane(history_of(trace), scripted=True)
    assert_whole(timeline_of(trace))


def test_the_parts_cover_the_whole_with_one_side_only(tmp_path):
    """The recording of one node of several: other nodes are known by what they say."""
    cluster = run_cluster(3)
    for trace in parts_of(cluster, tmp_path / "parts"):
        assert_sane(history_of(trace))
        assert_whole(timeline_of(trace))
    alone = timeline_of(named(parts_of(cluster, tmp_path / "again"), "n0"))
    assert any(life.core < 0 for life in alone.history.tasks.values()) or alone.history.away


def test_dot_waited_for_the_argument_that_came_last(tmp_path):
    """Both zeros take as long; the parts name what was waited for."""
    trace = recorded(tmp_path / "run.trace", dots)
    timeline = timeline_of(trace)
    lives = {life.name: life for life in timeline.history.tasks.values()}
    parts = timeline.parts(lives["dot"])
    assert [(part.kind, part.length_ns) for part in parts] == [
        (ARGUMENT, 5 * MS), (QUEUE, 1000), (RUN, 5 * MS - 1000)
    ]  # fmt: skip
    assert parts[0].item in lives["dot"].args
    assert lives["dot"].last_arg == parts[0].item


def test_a_run_that_waits_in_a_get_is_split_there(tmp_path):
    """The time in the get is the get's, before and after it is the run's."""
    machine = Machine(tmp_path / "run.trace", cpus=1)
    inner = machine.define("inner")

    def outer(machine: Machine, run) -> bool:
        machine.get(machine.submit(inner, parent=run.task))
        return True

    machine.submit(machine.define("outer", outer))
    machine.work()
    machine.recorder.close("done")
    timeline = timeline_of(open_trace(tmp_path / "run.trace"))
    assert_whole(timeline)


def test_a_task_that_finds_no_cpu_waits_for_resources(tmp_path):
    """The second of two on one CPU, of a kind that is not sent ahead."""
    machine = Machine(tmp_path / "run.trace", cpus=1)
    first, second = machine.define("first"), machine.define("second", cpus=5_000)
    machine.submit(first)
    machine.submit(second)
    machine.work()
    machine.recorder.close("done")
    timeline = timeline_of(open_trace(tmp_path / "run.trace"))
    lives = {life.name: life for life in timeline.history.tasks.values()}
    waits = [part.kind for part in timeline.parts(lives["second"])]
    assert waits[0] == RESOURCE and waits[-1] == RUN
    (other,) = timeline.runs_between(0, timeline.begin_ns, timeline.end_ns - 5 * MS)
    assert other[1].name == "first"


def test_a_task_asked_for_in_vain_waits_at_the_head(tmp_path):
    """Nobody has so many CPUs: it waits for a place to the end; the trace says what there is."""
    machine = Machine(tmp_path / "run.trace", cpus=2)
    huge = machine.define("huge", cpus=640_000)
    machine.submit(huge)
    machine.submit(machine.define("fine"))
    machine.work()
    machine.recorder.close("done")
    timeline = timeline_of(open_trace(tmp_path / "run.trace"))
    lives = {life.name: life for life in timeline.history.tasks.values()}
    last = timeline.parts(lives["huge"])[-1]
    assert (last.kind, last.text) == (PLACE, "CPU 2")
    assert not timeline.has_ended(lives["huge"])


def test_parts_are_clipped_to_windows():
    """What lies outside is not told, what crosses an edge is cut."""
    parts = [Part(RUN, 0, 10), Part(GET, 10, 30), Part(RUN, 30, 40)]
    cut = [(part.kind, part.started_ns, part.ended_ns) for part in clip(parts, [(5, 12), (25, 60)])]
    assert cut == [(RUN, 5, 10), (GET, 10, 12), (GET, 25, 30), (RUN, 30, 40)]
    assert not list(clip(parts, [(40, 50)]))


def test_every_kind_of_part_is_told_in_words():
    """And by a sentence of its own."""
    from detray.trace.explaining.words import part_text
    from detray.trace.gathering.lives import TaskLife
    from detray.trace.names import short

    life = TaskLife(ROOT, "work", ROOT, 0)
    explainer = Explainer(Timeline(History()))
    texts = {
        kind: part_text(explainer, life, Part(kind, 0, 1, item=ROOT + bytes(4))) for kind in PARTS
    }
    assert len(set(texts.values())) == len(PARTS)
    assert short(ROOT + bytes(4)) in texts[ROOM]
    assert texts[KEPT].startswith("had finished")
