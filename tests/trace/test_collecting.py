"""Collecting: many recordings become one that replays, and lies and gaps are told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detray.core.head_messages import Placed
from detray.core.peer_messages import RunDelivered
from detray.ids import NodeID
from detray.trace import collecting, writing
from detray.trace.collecting import collect
from detray.trace.format import TraceError
from detray.trace.graphs.graph import build
from detray.trace.reading import Trace, open_trace
from detray.trace.replaying import replay
from detray.trace.telling.story import find_subject, story
from detray.trace.timeline import chrome_events
from detray_sim.cluster import SimCluster
from detray_sim.tape import Tape
from detray_sim.traces import write_parts, write_trace
from detray_sim.trial import Watch, run_trial
from detray_sim.world import SMALL
from tests.trace.simulated import named, parts_of, rewritten, run_cluster


@pytest.fixture(scope="module")
def cluster() -> SimCluster:
    return run_cluster()


@pytest.fixture
def parts(cluster: SimCluster, tmp_path: Path) -> list[Trace]:
    return parts_of(cluster, tmp_path / "parts")


def test_what_was_recorded_apart_replays_together(
    cluster: SimCluster, parts: list[Trace], tmp_path: Path
) -> None:
    """Every step of every core is there and decided again; every message was compared."""
    collected = collect(parts, tmp_path / "all.trace")
    assert (collected.differences, collected.notes, collected.unmatched) == ([], [], 0)
    assert collected.cores == ["head", "node 0", "node 1", "node 2", "node 3"]
    write_trace(cluster, tmp_path / "original.trace")
    ours = replay(open_trace(tmp_path / "all.trace"))
    original = replay(open_trace(tmp_path / "original.trace"))
    assert ours.is_same and original.is_same
    assert (ours.names, ours.steps, ours.effects) == (
        original.names,
        original.steps,
        original.effects,
    )
    assert ours.link_messages == original.link_messages == collected.matched > 300
    assert steps_by_core(tmp_path / "all.trace") == steps_by_core(tmp_path / "original.trace")


def test_the_order_of_the_files_does_not_matter(
    cluster: SimCluster, parts: list[Trace], tmp_path: Path
) -> None:
    """The same recordings give the same trace, to the byte."""
    collect(parts, tmp_path / "one.trace")
    collect(parts[::-1], tmp_path / "two.trace")
    assert (tmp_path / "one.trace").read_bytes() == (tmp_path / "two.trace").read_bytes()


def test_no_message_arrives_before_it_is_sent_whatever_the_clocks_say(
    parts: list[Trace], tmp_path: Path
) -> None:
    """A machine that lives an hour ago changes dates, and no order between cores."""
    shifted = [at_another_hour(trace, number) for number, trace in enumerate(parts)]
    collected = collect(shifted, tmp_path / "all.trace")
    report = replay(open_trace(tmp_path / "all.trace"))
    assert report.is_same and not collected.differences
    assert (report.link_messages, report.unmatched) == (collected.matched, 0)


def test_worlds_with_faults_are_brought_together(tmp_path: Path) -> None:
    """Crashes, reboots, burials: each life of a machine is a core, and each replays."""
    lives = 0
    for seed in range(12):
        watch = Watch(SMALL, checks=False, keeps=True)
        run_trial(Tape(seed), SMALL, watch=watch)
        assert watch.cluster is not None
        lives += len(watch.cluster.cores) - 1 - len(watch.cluster.nodes)
        (tmp_path / str(seed)).mkdir()
        paths = write_parts(watch.cluster, tmp_path / str(seed))
        collected = collect([open_trace(path) for path in paths], tmp_path / "all.trace")
        assert (collected.differences, collected.notes) == ([], [])
        report = replay(open_trace(tmp_path / "all.trace"))
        assert report.is_same, report.difference
        assert (report.link_messages, report.unmatched) == (collected.matched, 0)
    assert lives > 0


def test_a_forged_message_is_found(parts: list[Trace], tmp_path: Path) -> None:
    """The link, the number and both versions are named."""
    victim = named(parts, "n2")
    changed: list[RunDelivered] = []

    def forge(number: int, stimuli: list[Any]) -> list[Any]:
        for place, stimulus in enumerate(stimuli):
            if isinstance(stimulus, RunDelivered) and not changed:
                changed.append(stimulus)
                stimuli[place] = msgspec.structs.replace(stimulus, depth=77)
        return stimuli

    forged = rewritten(victim, tmp_path / "forged.trace", change=forge)
    collected = collect([forged if t is victim else t for t in parts], tmp_path / "all.trace")
    first = collected.differences[0]
    sequence = changed[0].link_seq
    assert first.startswith("RunDelivered did not arrive as it was sent (message")
    assert f"(message {sequence} of the link from node 0 to node 2)" in first
    assert f"depth={changed[0].depth}," in first and "depth=77," in first
    whole = open_trace(tmp_path / "all.trace")
    report = replay(whole)
    assert report.difference is not None
    assert report.difference.what == first
    assert first in whole.header.notes


def test_a_message_that_nobody_sent_and_one_that_vanished_are_found(
    parts: list[Trace], tmp_path: Path
) -> None:
    """A complete recording of the sender does not have it; or the receiver's skips it."""
    victim = named(parts, "n0")
    gone: list[Placed] = []

    def drop(number: int, stimuli: list[Any]) -> list[Any]:
        for stimulus in stimuli:
            if isinstance(stimulus, Placed) and not gone:
                gone.append(stimulus)
        return [stimulus for stimulus in stimuli if not gone or stimulus is not gone[0]]

    header = named(parts, "n0").header
    forged = rewritten(victim, tmp_path / "forged.trace", change=drop, header=header)
    collected = collect([forged if t is victim else t for t in parts], tmp_path / "all.trace")
    link = "the link from the head to node 0"
    assert any(
        text.startswith(f"message {gone[0].link_seq} of {link} did not arrive")
        for text in collected.differences
    )
    # What node 0 would have sent to the node that was chosen, it now never sent.
    assert any("arrived, and nobody sent it" in text for text in collected.differences)


def test_a_missing_recording_is_told(parts: list[Trace], tmp_path: Path) -> None:
    """The rest replays; what came from the missing node is counted, and not called wrong."""
    rest = [trace for trace in parts if trace.header.cores[0].name != "n3"]
    collected = collect(rest, tmp_path / "all.trace")
    assert collected.differences == []
    (note,) = collected.notes
    assert note.startswith("no recording of node 3 was given")
    report = replay(open_trace(tmp_path / "all.trace"))
    assert report.is_same and report.unmatched == collected.unmatched > 0


def test_the_end_that_a_killed_process_did_not_write_is_told(
    parts: list[Trace], tmp_path: Path
) -> None:
    """What it said in its last second arrived elsewhere: that is no lie, and not hidden."""
    victim = named(parts, "n2")
    cut = rewritten(victim, tmp_path / "cut.trace", steps=40)
    assert not cut.complete
    collected = collect([cut if t is victim else t for t in parts], tmp_path / "all.trace")
    assert collected.differences == []
    assert collected.notes[0].startswith("node 2's recording ends before its step 40: cut off")
    assert (
        "messages of node 2 arrived elsewhere that its recording does not hold"
        in (collected.notes[1])
    )
    whole = open_trace(tmp_path / "all.trace")
    report = replay(whole)
    assert report.is_same and report.unmatched == collected.unmatched
    assert [process.note != "" for process in whole.header.processes].count(True) == 1


def test_a_damaged_recording_is_salvaged_and_said_to_be(parts: list[Trace], tmp_path: Path) -> None:
    """Up to the damage it counts like any other."""
    victim = named(parts, "n1")
    data = bytearray(Path(victim.name).read_bytes())
    data[-400] ^= 4
    damaged = Trace(bytes(data), "damaged.trace", salvage=True)
    collected = collect([damaged if t is victim else t for t in parts], tmp_path / "all.trace")
    assert collected.differences == []
    assert any("node 1's recording ends" in n and "damaged" in n for n in collected.notes)
    assert replay(open_trace(tmp_path / "all.trace")).is_same


def test_flight_recorders_of_several_processes_are_brought_together(
    parts: list[Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins where its ring does; what was under way then cannot be compared."""
    monkeypatch.setattr("detray.trace.recorder.CHUNK_BYTES", 1000)
    flights = [rewritten(trace, tmp_path / "none", ring_bytes=12_000) for trace in parts]
    assert sum(flight.first_step > 0 for flight in flights) >= 2
    collected = collect(flights, tmp_path / "all.trace")
    assert collected.differences == []
    assert any("begins in the middle" in note for note in collected.notes)
    whole = open_trace(tmp_path / "all.trace")
    report = replay(whole)
    assert report.is_same, report.difference
    assert (report.link_messages, report.unmatched) == (collected.matched, collected.unmatched)
    assert sum(report.steps) == whole.step_count == sum(flight.step_count for flight in flights)
    assert collected.matched > 20


def test_two_runs_are_not_mixed(parts: list[Trace], tmp_path: Path) -> None:
    """Another cluster's id, or two lives of one node, are refused; nothing is written."""
    others = parts_of(run_cluster(2, seed=5), tmp_path / "others")
    with pytest.raises(TraceError, match="not of one cluster"):
        collect([*parts, named(others, "n0")], tmp_path / "all.trace")
    nameless = [of_cluster(trace, "") for trace in (*parts, named(others, "n0"))]
    with pytest.raises(TraceError, match=r"both hold node 0, in two lives: .* of two runs"):
        collect(nameless, tmp_path / "all.trace")
    with pytest.raises(TraceError, match="nothing to collect"):
        collect([], tmp_path / "all.trace")
    assert not list(tmp_path.glob("all.trace*"))


def test_a_process_counts_once(parts: list[Trace], tmp_path: Path) -> None:
    """Of two recordings of one process the longer one is taken, and that is said."""
    victim = named(parts, "n2")
    short = rewritten(victim, tmp_path / "short.trace", steps=20)
    collected = collect([*parts, short], tmp_path / "all.trace")
    assert collected.notes == [
        f"{short.name} is left out: {victim.name} holds the same process, longer"
    ]
    assert replay(open_trace(tmp_path / "all.trace")).is_same


def test_what_was_collected_can_be_collected_again(parts: list[Trace], tmp_path: Path) -> None:
    """A part of a cluster first, the rest later."""
    collect(parts[:3], tmp_path / "some.trace")
    collected = collect([open_trace(tmp_path / "some.trace"), *parts[3:]], tmp_path / "all.trace")
    assert collected.differences == []
    assert replay(open_trace(tmp_path / "all.trace")).is_same
    assert collected.matched == collect(parts, tmp_path / "once.trace").matched


def test_recordings_that_contradict_each_other_end_in_a_trace_and_a_complaint(
    parts: list[Trace], tmp_path: Path
) -> None:
    """A circle of "after" is broken somewhere, and told; it is no endless wait."""
    sources = [collecting.Source(trace, [NodeID(0)]) for trace in parts[:2]]
    needs = {(0, 0): [(1, 3)], (1, 2): [(0, 5)]}
    order, contradictions = collecting._order(sources, needs)
    assert len(order) == sum(source.trace.step_count for source in sources)
    assert len(contradictions) == 1 and "contradict each other" in contradictions[0]


def test_nothing_is_left_of_a_trace_that_could_not_be_written(
    parts: list[Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a trace would be taken for one."""

    def fail(step: object, core: int) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_packed", fail)
    with pytest.raises(OSError, match="No space left"):
        collect(parts, tmp_path / "all.trace")
    assert not list(tmp_path.glob("all.trace*"))


# ------------------------------------------------------------------ what reads it


def test_a_task_is_one_box_wherever_it_ran(parts: list[Trace], tmp_path: Path) -> None:
    """Submitted on node 0, run elsewhere: one life, with both places in it."""
    collect(parts, tmp_path / "all.trace")
    graph = build(open_trace(tmp_path / "all.trace"))
    tasks = [data for _, data in graph.nodes(data=True) if data["kind"] == "task"]
    ran = Counter(data["node"] for data in tasks if not data["is_root"])
    assert set(ran) == {"node 0", "node 1", "node 2", "node 3"}
    assert "node 0" in {data["owner"] for data in tasks if data["node"] == "node 3"}
    assert {data["state"] for data in tasks if not data["is_root"]} == {"finished"}
    assert all(data["started_ns"] >= 0 for data in tasks if not data["is_root"])


def test_the_timeline_has_a_group_for_each_node(parts: list[Trace], tmp_path: Path) -> None:
    """And runs are shown where they were, once."""
    collect(parts, tmp_path / "all.trace")
    events = chrome_events(open_trace(tmp_path / "all.trace"))
    groups = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert groups == {number: f"node {number} (n{number})" for number in range(4)}
    runs = [e for e in events if e.get("cat") == "task"]
    assert {run["pid"] for run in runs} == set(groups)
    keys = Counter((run["args"]["id"], run["args"]["attempt"]) for run in runs)
    assert set(keys.values()) == {1}
    assert all(run["ts"] >= 0 for run in runs)


def test_stories_say_the_node(parts: list[Trace], tmp_path: Path) -> None:
    """A worker is one of a node, and a task's story crosses nodes."""
    collect(parts, tmp_path / "all.trace")
    trace = open_trace(tmp_path / "all.trace")
    with pytest.raises(TraceError, match="worker 1 on node 0, worker 1 on node 1"):
        find_subject(trace, "worker 1")
    subject = find_subject(trace, "worker 1 on node 2")
    lines = [line.text for line in story(trace, subject)]
    assert lines[0] == "worker 1 on node 2 is to be started for job 1"
    assert all("node 1" not in line for line in lines)
    graph = build(trace)
    far = next(n for n, d in graph.nodes(data=True) if d.get("node") == "node 2")
    text = "\n".join(line.text for line in story(trace, find_subject(trace, far)))
    assert "node 0 tells node 2: run" in text
    assert "node 2 hears from node 0: run" in text
    assert "is sent to worker" in text and "on node 2" in text
    assert "node 0 hears from node 2:" in text


def test_the_owner_alone_tells_that_a_run_elsewhere_ended(
    parts: list[Trace], tmp_path: Path
) -> None:
    """One node's recording is a trace like any other; what it does not know it does not say."""
    graph = build(named(parts, "n0"))
    tasks = [d for _, d in graph.nodes(data=True) if d["kind"] == "task" and not d["is_root"]]
    assert {data["state"] for data in tasks} == {"finished"}
    far = [data for data in tasks if data["node"] != "node 0"]
    assert far and all(data["node"].startswith("node ") for data in far)
    assert all(data["started_ns"] == -1 for data in far)
    report = replay(named(parts, "n0"))
    assert report.is_same and report.link_messages == 0 and report.unmatched > 0


# ------------------------------------------------------------------ helpers


def steps_by_core(path: Path) -> dict[int, list[tuple[int, bytes, tuple[bytes, ...]]]]:
    """What each core was told and decided, in its own order."""
    found: dict[int, list[tuple[int, bytes, tuple[bytes, ...]]]] = {}
    for step in open_trace(path).steps():
        found.setdefault(step.core, []).append((step.now_ns, step.digest, step.metas))
    return found


def at_another_hour(trace: Trace, number: int) -> Trace:
    """As if the machine's clocks had shown something else altogether."""
    process = trace.header.processes[0]
    moved = msgspec.structs.replace(process, wall_ns=(7 - number * 3) * 3600 * 10**9 + 10**15)
    trace.header = msgspec.structs.replace(trace.header, processes=(moved,))
    return trace


def of_cluster(trace: Trace, cluster: str) -> Trace:
    """As if recorded in that cluster."""
    trace.header = msgspec.structs.replace(trace.header, cluster=cluster)
    return trace
