"""Comparing traces of every kind: simulated, of several nodes, cut, flights, old, and garbage."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from detray.cli import main
from detray.core.stimuli import Return, RunFinished, TaskSubmitted
from detray.trace.collecting import collect
from detray.trace.comparing.diffing import diff
from detray.trace.format import PREAMBLE, FrameWriter, TraceError
from detray.trace.reading import Trace, open_trace
from tests.trace.machine import MS, Machine
from tests.trace.programs import dots, many, recorded, troubles
from tests.trace.simulated import parts_of, run_cluster
from tests.trace.test_fuzz import split

FIXTURES = sorted((Path(__file__).resolve().parents[2] / "traces").glob("*.trace"))
SMALL = [path for path in FIXTURES if path.stat().st_size < 1 << 20]


def whole_cluster(folder: Path, nodes: int = 4) -> Path:
    """The collected trace of a simulated cluster."""
    path = folder / "all.trace"
    collect(parts_of(run_cluster(nodes), folder), path)
    return path


def test_a_simulation_repeats_itself(tmp_path: Path) -> None:
    """Not even a time differs."""
    found = diff(whole_cluster(tmp_path / "a"), whole_cluster(tmp_path / "b"))
    assert found.is_same and found.is_placed_alike and not found.departures
    assert found.counts.other_workers == 0 and found.counts.common > 20
    assert not found.times.functions and not found.times.tasks
    assert found.times.makespan_a_ns == found.times.makespan_b_ns > 0


def test_another_cluster_does_the_same_work_elsewhere(tmp_path: Path) -> None:
    """Placement and times alone are no difference; who else dies with a worker is one."""
    found = diff(whole_cluster(tmp_path / "a"), whole_cluster(tmp_path / "b", nodes=3))
    assert {item.kind for item in found.departures} <= {"placement", "failure"}
    assert found.counts.only_a == found.counts.only_b == 0
    assert found.times.functions


@pytest.mark.parametrize(
    "pair", list(itertools.product(SMALL, SMALL)), ids=lambda p: f"{p[0].stem}-{p[1].stem}"
)
def test_any_two_traces_can_be_compared(pair: tuple[Path, Path]) -> None:
    """Of any age and kind; one and itself are the same."""
    found = diff(*pair)
    assert found.is_same or pair[0] != pair[1]
    json.dumps(msgspec.to_builtins(found))


def test_a_cut_trace_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    """What is missing behind the cut is no difference, and the cut is said."""
    whole = recorded(tmp_path / "whole.trace", dots, troubles, dots)
    data = (tmp_path / "whole.trace").read_bytes()
    tasks = len([m for m in told(whole) if isinstance(m, TaskSubmitted)])
    machine = Machine(tmp_path / "cut.trace")
    dots(machine)
    machine.recorder.flush()
    cut = tmp_path / "cut.trace"
    for other in (cut, tmp_path / "half.trace"):
        if other != cut:
            other.write_bytes(data[: len(data) // 2])
        found = diff(tmp_path / "whole.trace", other)
        assert found.is_same, found.departures
        assert "cut off" in found.b.note and not found.b.is_whole and found.a.is_whole
        assert found.counts.only_a + found.counts.common == tasks
        assert any(note.startswith("B is not the whole run") for note in found.notes)


def test_a_flight_recorder_is_compared_where_it_goes(tmp_path: Path) -> None:
    """It begins in the middle; both are known only from there on."""
    flown = Machine(ring_bytes=100_000)
    many(flown)
    flight = Trace(flown.recorder.read_all(), "flight")
    assert flight.first_step > 0
    found = diff(recorded(tmp_path / "whole.trace", many), flight)
    assert found.is_same and 0 < found.counts.common < found.a.tasks
    assert found.b.note.startswith("begins with step")
    machine = Machine(ring_bytes=100_000)
    many(machine)
    again = diff(flight, Trace(machine.recorder.read_all(), "again"))
    assert again.is_same and not again.times.tasks


def test_another_revision_is_said(tmp_path: Path) -> None:
    a, b = recorded(tmp_path / "a.trace", dots), recorded(tmp_path / "b.trace", dots)
    b.header = msgspec.structs.replace(b.header, core_revision=b.header.core_revision - 1)
    found = diff(a, b)
    assert found.is_same and any("core revisions" in note for note in found.notes)


Change = Callable[[Any], Any]  # Any: a stimulus


def changed(path: Path, change: Change) -> Path:
    """A trace of the machine that was told something else."""
    machine = Machine(path)
    tell = machine.tell
    machine.tell = lambda *items: tell(*map(change, items))  # type: ignore[method-assign]
    dots(machine)
    machine.recorder.close("done")
    return path


def marked(size_bytes: int, digest: bytes) -> Change:
    """Returns of every task that has arguments, replaced."""

    def change(item: Any) -> Any:
        if isinstance(item, RunFinished) and item.task[-1] == 2:
            return msgspec.structs.replace(item, returns=(Return(size_bytes, digest=digest),))
        return item

    return change


def test_sizes_stand_in_for_digests(tmp_path: Path) -> None:
    """A trace that has none is compared by sizes with any other, and that is said."""
    plain = changed(tmp_path / "plain.trace", lambda item: item)
    sized = changed(tmp_path / "sized.trace", marked(101, b""))
    one = changed(tmp_path / "one.trace", marked(100, b"12345678"))
    two = changed(tmp_path / "two.trace", marked(100, b"87654321"))
    assert diff(plain, one).is_same and diff(one, plain).is_same
    assert diff(one, plain).counts.by_size_only == diff(one, plain).counts.compared
    for a, b in ((plain, sized), (one, two)):
        (found,) = diff(a, b).first
        assert (found.kind, found.name, found.what) == ("result", "dot", "return 0")
    assert any(note.startswith("B holds no digests") for note in diff(one, plain).notes)


def test_slower_tasks_are_listed_with_what_they_cost(tmp_path: Path) -> None:
    def slow(machine: Machine) -> None:
        machine.run_ns = 50 * MS
        dots(machine)

    found = diff(recorded(tmp_path / "a.trace", dots), recorded(tmp_path / "b.trace", slow))
    times = found.times
    assert found.is_same and times.makespan_b_ns - times.makespan_a_ns == 90 * MS
    assert [(item.name, item.calls) for item in times.functions] == [("dot", 1), ("zeros", 2)]
    dot = times.tasks[0]
    assert (dot.name, dot.ran_b_ns - dot.ran_a_ns, dot.change_ns) == ("dot", 45 * MS, 90 * MS)
    assert len(diff(tmp_path / "a.trace", tmp_path / "b.trace", top=1).times.tasks) == 1


# ------------------------------------------------------------------ chance


@settings(max_examples=50, deadline=None)
@given(where=some.integers(min_value=0), what=some.binary(min_size=1, max_size=40))
def test_a_trace_that_lies_ends_in_an_error_or_an_answer(where: int, what: bytes) -> None:
    """Steps and headers overwritten behind right checks, compared both ways round."""
    path = SMALL[where % len(SMALL)]
    whole = path.read_bytes()
    frames = [(frame[0], frame[17:]) for frame in split(whole[PREAMBLE.size :], 0)]
    number = where // 7 % len(frames)
    payload = bytearray(frames[number][1])
    at = where % max(1, len(payload))
    payload[at : at + len(what)] = what
    frames[number] = frames[number][0], bytes(payload)
    writer = FrameWriter()
    data = whole[: PREAMBLE.size] + b"".join(writer.frame(*frame) for frame in frames)
    for a, b in ((0, 1), (1, 0)):
        try:
            traces = Trace(data, salvage=True), open_trace(path)
            json.dumps(msgspec.to_builtins(diff(traces[a], traces[b])))
        except TraceError:
            pass


@settings(max_examples=100, deadline=None)
@given(places=some.lists(some.integers(0, 1 << 20), min_size=1, max_size=6), seed=some.binary())
def test_ids_that_lie_make_nobody_wait(
    tmp_path_factory: pytest.TempPathFactory, places: list[int], seed: bytes
) -> None:
    """Tasks that are their own parents, returns by the million, attempts beyond all numbers."""
    lies = itertools.cycle(places)

    def change(item: Any) -> Any:
        lie = next(lies)
        if isinstance(item, TaskSubmitted) and lie % 2:
            parent = [item.task, item.parent[:3], b"", seed * 16][lie // 2 % 4]
            return msgspec.structs.replace(item, parent=parent)
        if isinstance(item, RunFinished) and lie % 3 == 0:
            return msgspec.structs.replace(item, attempt=[lie, 1 << 62, 1 << 31][lie // 3 % 3])
        return item

    folder = tmp_path_factory.mktemp("lies")
    path = retold(recorded(folder / "a.trace", dots, troubles), folder / "b.trace", change)
    diff(folder / "a.trace", path)
    diff(path, folder / "a.trace")


def retold(trace: Trace, path: Path, change: Change) -> Path:
    """The file with other stimuli, which no core was ever told; its checks are right."""
    frames = split(path.with_name("a.trace").read_bytes())
    writer = FrameWriter()
    parts = [frames[0][: PREAMBLE.size], writer.frame(1, frames[0][PREAMBLE.size + 17 :])]
    for step in trace.steps():
        blob = msgspec.msgpack.encode([change(item) for item in step.stimuli()])
        groups = step.groups or ()
        sizes = [len(part) for part in (blob, *groups)]
        head = struct.pack(
            "<QIHBHHQ8s", step.number, 1, step.core, 1, 1, len(groups), step.now_ns, step.digest
        )
        body = head + struct.pack(f"<{len(sizes)}I", *sizes) + b"".join((blob, *groups))
        parts.append(writer.frame(2, body))
    path.write_bytes(b"".join(parts))
    return path


def told(trace: Trace) -> list[object]:
    return [item for step in trace.steps() for item in step.stimuli()]


# ------------------------------------------------------------------ the command


def test_the_command_says_it_and_ends_accordingly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(changed(tmp_path / "one.trace", marked(100, b"12345678")))
    two = str(changed(tmp_path / "two.trace", marked(100, b"87654321")))
    assert main(["diff", one, one]) == 0
    text = capsys.readouterr().out
    assert "results      the same, of 3 compared" in text and "where it began" not in text
    assert main(["diff", one, two]) == 1
    text = capsys.readouterr().out
    assert "    A  100 B 3132333435363738\n    B  100 B 3837363534333231\n" in text
    assert main(["diff", one, two, "--json", "--top", "3"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["is_same"] is False and report["first"][0]["what"] == "return 0"
    assert report["counts"]["by_kind"] == {
        "submission": 0, "placement": 0, "result": 1, "failure": 0,
    }  # fmt: skip


def test_placement_counts_if_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = whole_cluster(tmp_path / "a"), whole_cluster(tmp_path / "b", nodes=3)
    found = diff(a, b)
    assert found.counts.other_nodes
    assert main(["diff", str(a), str(b)]) == (0 if found.is_same else 1)
    assert "ran elsewhere, the first of" in capsys.readouterr().out
    assert main(["diff", str(a), str(a), "--placement"]) == 0
    assert main(["diff", str(a), str(b), "--placement"]) == 1


def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "a.trace")
    recorded(Path(path), dots)
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    for arguments in (
        [path, str(tmp_path / "none")],
        [str(tmp_path / "junk"), path],
        [path, path, "--top", "0"],
        [path],
    ):
        assert main(["diff", *arguments]) == 2
        out, err = capsys.readouterr()
        assert not out and len(err.splitlines()) == 1 and err.startswith("detray: ")
