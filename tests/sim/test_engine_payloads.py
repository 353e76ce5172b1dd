"""What a simulated session keeps beside its trace: its tasks run again as those of a real one."""

from __future__ import annotations

import random
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import detray
from detray import rerun
from detray.cli import main
from detray.core.peer_messages import RunDelivered, RunDone
from detray.trace.format import TraceError
from detray.trace.payloads.format import payloads_path
from detray.trace.payloads.reading import open_payloads
from detray.trace.reading import open_trace
from detray.trace.replaying import replay
from detray_sim.engine import SimSession
from tests.sim.engine_tasks import add, pause

LARGE = 200_000
"""Bytes that do not travel inline."""
MIB = 1 << 20
ONE: dict[str, Any] = {"nodes": 1, "cpus": 2, "seed": 3}
THREE: dict[str, Any] = {"nodes": 3, "cpus": 2, "seed": 7}
TROUBLED: dict[str, Any] = {**THREE, "seed": 2, "faults": {"worker_crash": 50.0, "node_crash": 5.0}}
WORLDS = {"one": ONE, "three": THREE, "troubled": TROUBLED}


@pytest.fixture(autouse=True)
def no_session() -> Iterator[None]:
    """Reruns want this process for themselves."""
    detray.shutdown()
    yield
    assert not detray.is_initialized()


@detray.remote(max_retries=-1, num_returns=2, scheduling_strategy="SPREAD")
def both(box: Any, n: int) -> Any:
    detray.sleep(0.01)
    return len(box), bytes([n]) * LARGE


@detray.remote(max_retries=-1)
def spread(n: int) -> int:
    boxes = [detray.put([n] * 10), detray.put(bytes(LARGE)), bytes(LARGE)]
    parts: list[Any] = [both.remote(box, n) for box in boxes]
    return sum(detray.get(size) + len(detray.get(whole)) for size, whole in parts)


@detray.remote(max_retries=-1, scheduling_strategy="SPREAD")
def make(n: int) -> bytes:
    return bytes([n]) * (3 * MIB)


@detray.remote(max_retries=-1)
def measure(data: bytes) -> int:
    return len(data)


@detray.remote(max_retries=-1)
def define(n: int) -> list[int]:
    captured = detray.put(n)

    @detray.remote(max_retries=-1, scheduling_strategy="SPREAD")
    def inner(x: int) -> int:
        return x + int(detray.get(captured))

    return detray.get([inner.options(num_cpus=0.5).remote(x) for x in range(3)])


@detray.remote(max_retries=5, retry_exceptions=[ValueError])
def third_time() -> int:
    attempt: int = detray.get_runtime_context().get_attempt_number()
    if attempt < 2:
        raise ValueError(attempt)
    return attempt


@detray.remote
def fail(word: str) -> None:
    raise KeyError(word)


@detray.remote(max_retries=0)
def leave() -> None:
    sys.exit(3)


@detray.remote
def roll() -> None:
    """Whatever it is given, `add` must add it: the right function runs."""
    number = random.random()
    assert detray.get(add.options(num_cpus=0.5).remote(number, 1)) == number + 1


def program() -> None:
    """Values small and large, put, passed and returned; errors, retries, functions within."""
    get = detray.get
    assert get([spread.remote(5), both.remote(detray.put(b"l"), 1)[0]]) == [5 * LARGE + 10, 1]
    assert get([measure.remote(make.remote(4)), measure.remote(bytes(MIB))]) == [3 * MIB, MIB]
    assert get(measure.remote(detray.put(bytes(2 * MIB)))) == 2 * MIB
    assert get(define.remote(4)) == [4, 5, 6]
    for ref in (fail.remote("word"), measure.remote(fail.remote("other"))):
        with pytest.raises(KeyError):
            get(ref)


def record(path: Path, **options: Any) -> Path:
    """Run the program in a simulated cluster; where its trace is."""
    with detray.init(engine="sim", record=path, record_payloads=True, **options):
        program()
    return path


@pytest.mark.parametrize("world", WORLDS)
def test_tasks_of_a_simulated_session_run_again(tmp_path: Path, world: str) -> None:
    """All that ended by itself does the same, in clusters and after crashes, too."""
    path = record(tmp_path / "run.trace", **WORLDS[world])
    assert replay(open_trace(path)).is_same
    recorded = rerun.open_recorded(path)
    ended = []
    for row in rerun.list_tasks(recorded):
        if row.state == "finished" or (row.state == "failed" and row.function == "fail"):
            report = rerun.run(recorded, row.id, trust=True)
            ended.append(row)
            assert report.verdict == "same", report
    assert len(ended) >= 15
    assert recorded.payloads.complete and not recorded.payloads.lacks


def test_an_attempt_has_its_number_and_a_death_its_words(tmp_path: Path) -> None:
    """Earlier attempts run again; a task that ended its process ends it again."""
    path = tmp_path / "run.trace"
    with detray.init(engine="sim", record=path, record_payloads=True):
        assert detray.get(third_time.remote()) == 2
        with pytest.raises(detray.exceptions.WorkerCrashedError):
            detray.get(leave.remote())
    recorded = rerun.open_recorded(path)
    first = rerun.run(recorded, "third_time", trust=True, attempt=0)
    assert first.text == "it raises the same error: ValueError: 0"
    assert rerun.run(recorded, "third_time", trust=True).verdict == "same"
    assert rerun.run(recorded, "leave", trust=True).text == "it dies again: exited with status 3"


def test_a_call_that_is_new_runs_the_function_that_it_names(tmp_path: Path) -> None:
    """Pickled code and the file name functions alike, whatever options they are called with."""
    path = tmp_path / "run.trace"
    with detray.init(engine="sim", record=path, record_payloads=True):
        detray.get([pause.remote(0), pause.options(num_cpus=0).remote(0), roll.remote()])
    report = rerun.run(path, "roll", trust=True)
    assert report.text == "the result is the same, to the byte"
    assert [text.split(" (")[0] for text in report.remarks] == ["it calls add"]
    assert "with other arguments than then" in report.remarks[0]
    with_calls = rerun.run(path, "roll", trust=True, deep=True)
    assert (with_calls.text, with_calls.verdict) == (report.text, "differs")


def test_virtual_sleep_takes_no_time_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual day is over at once."""
    path = tmp_path / "run.trace"
    with detray.init(engine="sim", record=path, record_payloads=True):
        assert detray.get(pause.remote(86_400, 5)) == 5
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it sleeps"))
    report = rerun.run(path, "pause", trust=True)
    assert report.verdict == "same"
    assert report.now_ns < 86_400 * 10**9 < report.then_ns


@pytest.mark.parametrize("world", WORLDS)
def test_a_seed_decides_what_is_kept(tmp_path: Path, world: str) -> None:
    """The same program and seed: the same files, to the byte."""
    paths = [record(tmp_path / name, **WORLDS[world]) for name in ("a.trace", "b.trace")]
    for name in (str, payloads_path):
        one, other = (Path(name(str(path))).read_bytes() for path in paths)
        assert one == other


def test_payloads_change_no_decision(tmp_path: Path) -> None:
    """The steps are those of a run that keeps none."""
    found = []
    for keeps in (False, True):
        sessions: list[SimSession] = []
        with detray.init(
            engine="sim", record=tmp_path / "run.trace", record_payloads=keeps, sessions=sessions,
            **TROUBLED,
        ):  # fmt: skip
            program()
        found.append(sessions[0].cluster.recorded)
    assert found[0] == found[1]


def test_another_run_of_the_same_seed_is_another_run(tmp_path: Path) -> None:
    """What one program left beside a trace does not become the arguments of the next one."""
    path = tmp_path / "run.trace"
    for number in (1, 2):
        with detray.init(engine="sim", record=path, record_payloads=number == 1):
            detray.get(add.remote(number))
    with pytest.raises(TraceError, match="does not belong to"):
        rerun.open_recorded(path)
    with detray.init(engine="sim", record=tmp_path / "other.trace", record_payloads=True):
        detray.get(add.remote(3))
    with pytest.raises(TraceError, match="does not belong to"):
        rerun.open_recorded(tmp_path / "other.trace", payloads_path(str(path)))


def test_the_file_is_private_and_says_where_it_comes_from(tmp_path: Path) -> None:
    """As that of a real session; without tasks it is there, too."""
    path = tmp_path / "run.trace"
    with detray.init(engine="sim", record=path, record_payloads=True, **THREE):
        pass
    beside = Path(payloads_path(str(path)))
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    processes = open_payloads(beside).header.processes
    assert {process.session for process in processes} == {"sim-7"}
    assert {process.argv for process in processes} == {tuple(sys.argv)}
    assert [process.virtual_time for process in processes] == [True] * 3
    assert rerun.list_tasks(rerun.open_recorded(path)) == []


def test_a_collected_trace_keeps_them(tmp_path: Path) -> None:
    """`detray trace collect` takes them along, and tasks of all nodes run again."""
    path, whole = record(tmp_path / "run.trace", **THREE), tmp_path / "whole.trace"
    assert main(["trace", "collect", str(path), "-o", str(whole)]) == 0
    recorded = rerun.open_recorded(whole)
    assert {seat.node for seat in recorded.seats.values()} == {0, 1, 2}
    assert {type(said.message) for said in recorded.payloads.said()} > {RunDelivered, RunDone}
    for row in rerun.list_tasks(recorded):
        if row.state == "finished":
            assert rerun.run(recorded, row.id, trust=True).verdict == "same"


def test_without_a_trace_file_nothing_is_kept(tmp_path: Path) -> None:
    """A program that asks for payloads runs all the same: there is no flight recorder to fill."""
    sessions: list[SimSession] = []
    with detray.init(engine="sim", record_payloads=True, sessions=sessions):
        assert detray.get(add.remote(1, 2)) == 3
        assert sessions[0].cluster.tap is None
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program ends as ever, and its trace is there."""
    path = tmp_path / "run.trace"
    Path(payloads_path(str(path))).mkdir()
    record(path, **ONE)
    told = capsys.readouterr().err
    assert told == (
        f"(detray error: trace) payloads are not recorded to {path}.payloads: Is a directory\n"
    )
    assert replay(open_trace(path)).is_same
    assert not list(tmp_path.glob("*.part"))
