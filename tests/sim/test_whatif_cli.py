"""The command `detray-sim whatif`: what it prints and writes, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from detray_sim import behaviour as do
from detray_sim.cli import main
from detray_sim.result import NodeShape
from detray_sim.workloads.from_trace import load_trace
from tests.sim.data import ROOT
from tests.sim.recorded import MS, bag, chain, record, remote
from tests.trace.machine import Machine
from tests.trace.programs import ten_sleeps

FREE = ("--network", "instant", "--costs", "free")


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bag and a chain, recorded on one CPU, in the folder where the command stands."""
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "run.trace", bag(12), chain(4))
    return "run.trace"


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The answer to a question, for programs."""
    assert main(["whatif", *arguments, "--json"]) == 0
    return msgspec.json.decode(capsys.readouterr().out, type=dict[str, Any])


def test_the_answer_in_words(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was recorded, how well it is reproduced, a table, a sentence."""
    assert main(["whatif", trace, "--nodes", "1,2,4", "--cpus", "2", *FREE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: 16 tasks on 1 node of 1 CPU"
    assert lines[1] == "the recorded cluster itself: 160 ms simulated, 160 ms recorded (+0.0%)"
    assert lines[3].split()[:4] == ["nodes", "cpus", "network", "policy"]
    assert [line.split()[0] for line in lines[5:8]] == ["1", "2", "4"]
    assert lines[-1].startswith("4 nodes of 2 CPUs would take ")


def test_the_answer_for_programs(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows with all bounds, knees, the sentence."""
    found = asked(capsys, trace, "--nodes", "1,2,4", *FREE, "--policy", "spread,locality")
    assert found["recorded_ns"] == found["reproduced_ns"] == 160 * MS and found["tasks"] == 16
    assert [(row["policy"], row["nodes"]) for row in found["rows"]] == [
        (policy, nodes) for policy in ("spread", "locality") for nodes in (1, 2, 4)
    ]
    assert {row["bounds"][0]["kind"] for row in found["rows"]} <= {"work", "critical path"}
    assert len(found["knees"]) == 2
    assert asked(capsys, trace, "--nodes", "1,2,4", *FREE, "--policy", "spread,locality") == found


def test_processes_share_the_work(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same answer."""
    sweep = [trace, "--nodes", "1,2", "--cpus", "1,2", "--network", "1Gbit,10Gbit", "--seeds", "2"]
    assert len(asked(capsys, *sweep)["rows"]) == 8
    assert asked(capsys, *sweep, "--jobs", "2") == asked(capsys, *sweep)


def test_functions_made_faster(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One by one, or one by a factor."""
    sweep = [trace, "--nodes", "1", "--cpus", "16", *FREE]
    found = asked(capsys, *sweep, "--profile")
    halved = {each["name"]: each["halved_makespan_ns"] for each in found["profile"]}
    assert found["rows"][0]["makespan_ns"] == 40 * MS
    assert halved == {"link": 20 * MS, "work": 40 * MS}
    assert asked(capsys, *sweep, "--function", "link=0.5")["rows"][0]["makespan_ns"] == 20 * MS
    assert main(["whatif", *sweep, "--profile"]) == 0
    text = capsys.readouterr().out
    assert "if it took half" in text and text.index("\nlink") < text.index("\nwork")


def test_machines_as_recorded_but_faster(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a number of nodes or CPUs it is the recorded cluster that is asked about."""
    assert asked(capsys, trace, *FREE, "--speed", "2")["rows"][0]["makespan_ns"] == 80 * MS


def test_what_is_written(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Text, JSON, and the plot twice, which names knee and bound."""
    pytest.importorskip("matplotlib")
    assert main(["whatif", trace, "--nodes", "1,2,4,8", *FREE, "--out", "answer"]) == 0
    names = {path.name for path in Path("answer").iterdir()}
    assert names == {"whatif.txt", "whatif.json", "whatif.svg", "whatif.png"}
    assert Path("answer/whatif.txt").read_text() == capsys.readouterr().out
    picture = Path("answer/whatif.svg").read_text()
    for text in ("knee", "recorded", "work", "nodes", "makespan"):
        assert text in picture
    assert main(["whatif", trace, "--cpus", "1,2", *FREE, "--out", "other"]) == 0
    assert "CPUs of each node" in Path("other/whatif.svg").read_text()


def test_a_store_that_cannot_hold_an_object_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the largest, its size, and how many there are; not if all fit, or are inline."""

    def body(run: do.Run) -> do.Steps:
        small = yield do.Submit(remote("small", 1, 1_000))
        large = yield do.Submit(remote("large", 1, 4 << 20))
        yield do.GetValues((*small, *large, (yield do.PutValue(bytes(2 << 20)))))
        return []

    path = str(record(tmp_path / "a.trace", body, shapes=(NodeShape(cpus=1),) * 2))
    notes = asked(capsys, path, "--memory", "1MiB")["notes"]
    assert len(notes) == 1
    assert notes[0].startswith("--memory 1MiB: what large returned (") and "4 MiB" in notes[0]
    assert "2 objects are" in notes[0] and "a file of its own" in notes[0]
    assert "objects are" not in asked(capsys, path, "--memory", "3MiB")["notes"][0]
    assert asked(capsys, path, "--memory", "5MiB")["notes"] == []
    assert main(["whatif", path, "--memory", "1"]) == 0
    assert "\nnote: --memory 1: what large returned" in capsys.readouterr().out


def test_what_changes_nothing_is_noted(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Options about a network that nobody uses, resources that nobody asks for."""
    for arguments, text in (
        (["--nodes", "1", "--latency", "1ms"], "--latency changes nothing: one node"),
        (["--network", "1Gbit"], "--network changes nothing: one node"),
        (["--nodes", "2", "--latency", "1ms", "--network", "instant"], "in an instant network"),
        (["--resource", "GPU=2"], "--resource GPU changes nothing: no task asks for it"),
    ):
        [note] = asked(capsys, trace, *arguments)["notes"]
        assert text in note
    assert asked(capsys, trace, "--nodes", "1,2", "--latency", "1ms")["notes"] == []


def test_a_task_that_no_node_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is refused before anything is played."""
    body = bag(2, demand=(("CPU", 40_000),))
    path = record(tmp_path / "a.trace", body, shapes=(NodeShape(cpus=4),))
    assert main(["whatif", str(path), "--nodes", "2", "--cpus", "2,4"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "detray-sim: a task of work asks for CPU 4, and each node has 2: give more with --cpus\n"
    )


MANY = ",".join(map(str, range(1, 101)))
REFUSALS = [
    (["none.trace"], "none.trace"),
    (["foreign.trace"], "foreign.trace"),
    (["cut.trace"], "cut.trace"),
    (["flight.trace"], ", as a flight recorder does when"),
    (["empty.trace"], "holds no task that ran to its end"),
    (["run.trace", "--nodes", "many"], "--nodes: whole numbers"),
    (["run.trace", "--nodes", "0"], "--nodes: numbers from 1 on"),
    (["run.trace", "--nodes", "-3"], "--nodes"),
    (["run.trace", "--nodes", "1000000000"], "--nodes: at most 2,000"),
    (["run.trace", "--cpus", "1000000000"], "--cpus: at most 100,000"),
    (["run.trace", "--cpus", "1,x"], "--cpus: whole numbers"),
    (["run.trace", "--network", "10Gbits"], "no unit 'Gbits'"),
    (["run.trace", "--network", "-1Gbit"], "--network"),
    (["run.trace", "--network", "0Gbit"], "moves nothing"),
    (["run.trace", "--latency", "1parsec"], "--latency"),
    (["run.trace", "--latency", "1d"], "--latency: at most 1 min"),
    (["run.trace", "--memory", "lots"], "--memory"),
    (["run.trace", "--memory", "0"], "a store of 0 bytes holds nothing"),
    (["run.trace", "--policy", "localty"], "did you mean 'locality'?"),
    (["run.trace", "--policy", "heft"], "knows the whole workload beforehand"),
    (["run.trace", "--policy", "spread,,random"], "names with commas between"),
    (["run.trace", "--speed", "0"], "--speed: from 0.001"),
    (["run.trace", "--speed", "fast"], "a number like 2 or 0.5"),
    (["run.trace", "--resource", "GPU"], "it is like GPU=2"),
    (["run.trace", "--resource", "CPU=2"], "CPUs are given with --cpus"),
    (["run.trace", "--function", "wrk=0.5"], "did you mean 'work'?"),
    (["run.trace", "--function", "work=-1"], "--function work: from 0"),
    (["run.trace", "--seeds", "0"], "--seeds"),
    (["run.trace", "--jobs", "100000"], "--jobs from 1 to 256"),
    (
        ["run.trace", "--nodes", MANY, "--cpus", MANY],
        "100 --nodes x 100 --cpus is 10,000 runs; at most 1,000",
    ),
    (["run.trace", "--nodes", "1,2", "--profile"], "--profile is about one cluster"),
    (["run.trace", "--costs", "cheap"], "--costs"),
    (["run.trace", "--out", "."], "it is there already"),
]


@pytest.mark.parametrize("arguments, text", REFUSALS, ids=lambda value: str(value)[:40])
def test_questions_that_make_no_sense(
    arguments: list[str], text: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr, exit status 2, nothing written."""
    here = Path.cwd()
    (here / "foreign.trace").write_bytes(b"PK\x03\x04 no trace at all")
    (here / "cut.trace").write_bytes((ROOT / "traces" / "format-1.trace").read_bytes()[:100])
    record(here / "empty.trace", lambda run: do.Work(1))
    _flight(here / "flight.trace")
    before = sorted(path.name for path in here.iterdir())
    assert main(["whatif", *arguments]) == 2
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == 1
    assert sorted(path.name for path in here.iterdir()) == before


def _flight(path: Path) -> None:
    """What a flight recorder writes whose memory was too small for all."""
    machine = Machine(ring_bytes=4_000)
    for _ in range(10):
        ten_sleeps(machine)
    path.write_bytes(machine.recorder.read_all())


def test_the_graph_of_the_same_recording_is_a_scenario(trace: str) -> None:
    """For policies that know the workload: what the refusal of `heft` says to do."""
    assert len(load_trace(trace, "causes").tasks) >= 16
