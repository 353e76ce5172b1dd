"""Recorded tasks run again: real sessions, then their tasks in this process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import detray
from detray import rerun
from detray.rerun.recorded import Recorded
from detray.trace.format import FrameWriter, TraceError
from detray.trace.payloads.format import CHUNK_HEAD, SAID_FRAME, payloads_path
from detray.trace.payloads.reading import Payloads, open_payloads
from detray.trace.payloads.recorder import opening
from detray.trace.reading import open_trace

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "support" / "rerun_program.py"
PATIENCE_S = 60.0

pytest.importorskip("numpy")


def record(trace: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program, recorded to `trace`."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), trace, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )


@pytest.fixture(autouse=True)
def no_session() -> Iterator[None]:
    """Reruns want this process for themselves, and leave it as it was."""
    detray.shutdown()
    before = surroundings()
    yield
    assert not detray.is_initialized()
    assert surroundings() == before


def surroundings() -> list[object]:
    """What a rerun borrows, and gives back."""
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return [os.getcwd(), list(sys.path), list(sys.argv), *map(os.environ.get, names)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run of the program, which dies of its last task."""
    directory = tmp_path_factory.mktemp("rerun")
    record("run.trace", "crash", cwd=directory)
    return directory / "run.trace"


@pytest.fixture
def recorded(path: Path) -> Recorded:
    return rerun.open_recorded(path)


def again(recorded: Recorded, task: str, **how: object) -> tuple[str, str]:
    """Verdict and text of one task."""
    report = rerun.run(recorded, task, trust=True, **how)  # type: ignore[arg-type]
    return report.verdict, report.text


SAME = ("same", "the result is the same, to the byte")


@pytest.mark.parametrize(
    "task",
    ["nested", "uses", "waits", "first_of_two", "impatient", "letters", "threads", "catches",
     "length", "two", "none", "thing", "dies_once", "third_time", "as_they_come", "unordered",
     "futures", "pickled", "unpickled", "defines", "cancels", "survives", "calls_with_arrays"],
)  # fmt: skip
def test_a_task_returns_what_it_returned(recorded: Recorded, task: str) -> None:
    """Nested calls, puts, waits, timeouts, threads, several returns and none, retries."""
    verdict, text = again(recorded, task)
    assert verdict == "same"
    assert text in (SAME[1], "the result is equal, though pickled otherwise")


@pytest.mark.parametrize("task", ["nested", "waits", "threads", "catches", "depth", "uses"])
def test_what_a_task_calls_may_run_again_too(recorded: Recorded, task: str) -> None:
    """With `deep`: every call, and the result is the same."""
    rows = [row for row in rerun.list_tasks(recorded) if row.function == task]
    outermost = min(rows, key=lambda row: rows.index(row))
    assert again(recorded, outermost.id, deep=True)[0] == "same"


def test_a_task_raises_what_it_raised(recorded: Recorded) -> None:
    """The one call that failed is meant by its function's name; its own error, its own line."""
    report = rerun.run(recorded, "parse", trust=True)
    assert report.verdict == "same"
    assert report.text == "it raises the same error: IndexError: list index out of range"
    assert 'number = line.split("=")[1]' in report.traceback
    verdict, text = again(recorded, "lock")
    assert (verdict, text[:46]) == ("same", "it raises the same error: TypeError: Could not")


def test_large_values_that_were_not_kept_are_made_again(recorded: Recorded) -> None:
    """From the recorded arguments of the first of their ancestors, each once."""
    rows = [row for row in rerun.list_tasks(recorded) if row.function == "total"]
    told: list[str] = []
    assert again(recorded, rows[0].id, tell=told.append) == SAME
    assert [line.split()[1] for line in told] == ["plus_one"] * 4
    assert len(set(told)) == 4
    del told[:]
    assert again(recorded, rows[2].id, tell=told.append) == SAME
    assert told == []  # 400 kB: that was kept


def test_what_ran_with_another_input_is_not_judged(recorded: Recorded) -> None:
    """An array of random numbers was not kept, and cannot be made as it was."""
    rows = [row for row in rerun.list_tasks(recorded) if row.function == "total"]
    verdict, text = again(recorded, rows[1].id)
    assert verdict == "unknown"
    assert "could not be made as it was" in text
    verdict, text = again(recorded, "noisy_array")
    assert verdict == "differs"
    assert "another digest" in text


def test_every_attempt_can_run_again(recorded: Recorded) -> None:
    """Each with its number, hence its ids; a failed one fails again."""
    for number in (0, 1):
        verdict, text = again(recorded, "third_time", attempt=number)
        assert (verdict, text) == (
            "same",
            f"it raises the same error: RuntimeError: attempt {number}",
        )
    assert again(recorded, "third_time", attempt=2) == SAME
    with pytest.raises(rerun.RerunError, match="there are 0, 1, 2"):
        rerun.run(recorded, "third_time", trust=True, attempt=3)


def test_a_task_that_killed_its_process_kills_another(recorded: Recorded) -> None:
    """Not this one: and it is told where."""
    report = rerun.run(recorded, "crash", trust=True, here=False)
    assert (report.verdict, report.text) == ("same", "it dies again: killed by signal 11 (SIGSEGV)")
    assert "in crash" in report.stack
    assert "detray/rerun" not in report.stack
    report = rerun.run(recorded, "dies_once", trust=True, here=False, attempt=0)
    assert (report.verdict, report.text) == ("same", "it dies again: exited with status 3")


def test_all_tasks_run_again_and_those_of_chance_are_found(recorded: Recorded) -> None:
    """And no others: neither what kills its process nor what raises."""
    summary = rerun.run_all(recorded, trust=True)
    assert {report.function for report in summary.differing} == {
        "noisy_call", "noisy_put", "noisy_array", "clock",
    }  # fmt: skip
    assert [report.function for report in summary.unknown] == ["total"]
    assert [report.text for report in summary.cannot] == []
    assert summary.skipped == 2  # what took the error of another, and what was cancelled
    remarks = {r.function: r.remarks for r in summary.differing}
    assert "with other arguments than then" in remarks["noisy_call"][0]
    assert "/put was 0." in remarks["noisy_put"][0]
    total = summary.same + len(summary.differing) + len(summary.unknown) + summary.skipped
    assert total == summary.tasks == len(recorded.calls)


def test_tasks_are_listed_without_loading_anything(recorded: Recorded) -> None:
    """What went wrong first; nothing is unpickled, so nobody needs to be trusted."""
    rows = rerun.list_tasks(recorded)
    assert [row.function for row in rows[:3]] == ["exits", "crash", "bad"]
    assert {row.state for row in rows} == {"lost", "failed", "finished", "cancelled"}
    assert all(not row.why_not for row in rows)
    by_name = {row.function: row for row in rows}
    assert by_name["third_time"].attempts == 3
    assert by_name["crash"].error == "killed by signal 11 (SIGSEGV)"


def test_nothing_is_loaded_for_who_does_not_say_so(recorded: Recorded) -> None:
    """Unpickling runs code: that is asked for, each time."""
    for ask in (lambda: rerun.run(recorded, "parse"), lambda: rerun.run_all(recorded)):
        with pytest.raises(rerun.RerunError, match="--trust"):
            ask()


def test_a_task_is_found_by_what_people_call_it(recorded: Recorded) -> None:
    """An id, the id of its result, a beginning, a short name; several are told apart."""
    row = next(row for row in rerun.list_tasks(recorded) if row.function == "nested")
    for name in (row.id, row.id + "00000000", row.name, f"{row.name}/0", "nested"):
        assert again(recorded, name) == SAME
    with pytest.raises(TraceError, match=r"may be any of \d+: 1\."):
        rerun.run(recorded, "double", trust=True)
    with pytest.raises(TraceError, match="knows no task 'nobody'"):
        rerun.run(recorded, "nobody", trust=True)


def test_a_task_that_never_ran_says_what_to_run_instead(recorded: Recorded) -> None:
    """Its argument failed: the one who made that is the one to look at."""
    row = next(r for r in rerun.list_tasks(recorded) if r.error == "an argument failed")
    with pytest.raises(rerun.RerunError, match=r"never ran: its argument .* failed .*Rerun bad"):
        rerun.run(recorded, row.id, trust=True)


# ------------------------------------------------------------------ what cannot be


def test_a_trace_without_payloads_says_how_to_record_them(path: Path, tmp_path: Path) -> None:
    """The trace alone is not enough."""
    alone = tmp_path / "alone.trace"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(rerun.RerunError, match="record_payloads=True"):
        rerun.open_recorded(alone)


def test_payloads_of_another_run_are_refused(path: Path, tmp_path: Path) -> None:
    """They say to which trace they belong."""
    record("other.trace", cwd=tmp_path)
    with pytest.raises(TraceError, match="does not belong to"):
        rerun.open_recorded(path, payloads_path(str(tmp_path / "other.trace")))


def test_a_process_with_a_session_is_no_place_for_it(recorded: Recorded) -> None:
    """Its references would be taken for the recorded ones."""
    with detray.init(num_cpus=1), pytest.raises(rerun.RerunError, match="has a session"):
        rerun.run(recorded, "nested", trust=True)


def test_bytecode_of_another_python_is_not_run(recorded: Recorded) -> None:
    """It would not fail in order."""
    import msgspec

    header = recorded.payloads.header
    old = msgspec.structs.replace(header.processes[0], python_version="3.9.1")
    recorded.payloads.header = msgspec.structs.replace(header, processes=(old,))
    with pytest.raises(rerun.RerunError, match=r"Use Python 3\.9"):
        rerun.run(recorded, "nested", trust=True)


def test_lies_of_a_stranger_are_refused_or_listed(path: Path) -> None:
    """Whole frames with changed messages: no error but a refusal, and nothing is loaded.

    Few or many changes, but not more of them for more frames: the slower the run that was recorded,
    the more there are.
    """
    trace, payloads = open_trace(path), open_payloads(payloads_path(str(path)))
    refused = 0
    for seed in range(100):
        chance = random.Random(seed)
        writer = FrameWriter()
        parts = [opening(writer, payloads.header)]
        changed = [bytearray(chunk.data) for chunk in payloads.chunks]
        for _ in range(chance.randrange(1, 25)):
            data = chance.choice(changed)
            data[chance.randrange(len(data))] = chance.randrange(256)
        for chunk, data in zip(payloads.chunks, changed, strict=True):
            head = CHUNK_HEAD.pack(chunk.process, chunk.entries)
            parts.append(writer.frame(SAID_FRAME, head + bytes(data)))
        try:
            recorded = Recorded(trace, Payloads(b"".join(parts)))
            assert rerun.list_tasks(recorded)
            for call in recorded.calls.values():
                for item in (*call.args, *call.refs):
                    recorded.bytes_of(item), recorded.error_of(item), recorded.maker_of(item)
        except TraceError:
            refused += 1
    assert 0 < refused < 100


# ------------------------------------------------------------------ crashes


def test_the_files_of_a_program_that_was_killed_are_enough(tmp_path: Path) -> None:
    """kill -9 of the driver and its service: both files are cut, and tasks of them run."""
    driver = subprocess.Popen(
        [sys.executable, str(PROGRAM), "run.trace", "forever"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    with driver, driver.stdout:
        while driver.stdout.readline() != "ready\n":
            assert driver.poll() is None
        _wait_for_the_last_task(tmp_path / "run.trace")
        [service] = _children(driver.pid)
        os.kill(service, signal.SIGKILL)
        driver.kill()
    recorded = rerun.open_recorded(tmp_path / "run.trace")
    assert not recorded.trace.complete and not recorded.payloads.complete
    assert again(recorded, "nested") == SAME
    assert "parse" in {row.function for row in rerun.list_tasks(recorded)}


def _wait_for_the_last_task(trace: Path) -> None:
    """Until both files tell of it: they are brought up to date once a second."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        rows = rerun.list_tasks(rerun.open_recorded(trace))
        if any((row.function, row.state) == ("lock", "failed") for row in rows):
            return
        time.sleep(0.1)
    raise AssertionError("the last task is never written down")


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children()]


def test_a_flight_recorder_has_payloads_beside_it(tmp_path: Path) -> None:
    """Of a program that recorded nothing but kept payloads: the crash runs again."""
    done = record("-", "crash", cwd=tmp_path)
    said = done.stderr.split()
    *_, trace = [word for word in said if word.endswith(".trace") and "flights" in word]
    recorded = rerun.open_recorded(trace)
    rows = {row.function: row for row in rerun.list_tasks(recorded)}
    assert rows["crash"].state == "lost"
    report = rerun.run(recorded, "crash", trust=True, here=False)
    assert report.text == "it dies again: killed by signal 11 (SIGSEGV)"
    assert again(recorded, "nested") == SAME
