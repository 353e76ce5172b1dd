"""Recordings become workloads, by times or by causes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from detray_sim.workload import TaskSpec, Workload, WorkloadError, validate
from detray_sim.workloads import measure
from detray_sim.workloads.from_trace import FOLLOW, load_trace
from tests.sim.data import ROOT
from tests.trace.machine import MS, Machine
from tests.trace.programs import dots, ten_sleeps, troubles

FORMAT_1 = ROOT / "traces" / "format-1.trace"


def recorded(path: Path, *programs: object) -> Path:
    """A trace of programs on the scripted machine of four CPUs, whose tasks take 5 ms."""
    machine = Machine(path)
    for program in programs:
        program(machine)  # type: ignore[operator]
    machine.recorder.close("done")
    return path


def test_independent_tasks_are_independent(tmp_path: Path) -> None:
    """Ten tasks of 5 ms, all submitted at the start."""
    workload = load_trace(recorded(tmp_path / "a.trace", ten_sleeps))
    assert {(task.name, task.inputs, task.submit_ns) for task in workload.tasks} == {
        ("sleep", (), 0)
    }
    assert [task.duration_ns for task in workload.tasks] == [5 * MS - 1000] * 10
    assert (workload.name, workload.recorded_nodes) == ("a", (4,))
    assert workload.recorded_makespan_ns == 15 * MS


def test_arguments_are_inputs_and_returns_have_sizes(tmp_path: Path) -> None:
    """Two zeros and their product."""
    workload = load_trace(recorded(tmp_path / "a.trace", dots))
    assert [(t.name, t.inputs, t.outputs) for t in workload.tasks] == [
        ("zeros", (), (100,)),
        ("zeros", (), (100,)),
        ("dot", ((0, 0), (1, 0)), (100,)),
    ]


def test_only_what_finished_is_taken(tmp_path: Path) -> None:
    """Failures are left out, a retried task counts its last attempt, a put is read from outside."""
    workload = load_trace(recorded(tmp_path / "a.trace", troubles))
    assert [(t.name, t.files_bytes, t.duration_ns) for t in workload.tasks] == [
        ("fine", 20, 5 * MS - 1000),
        ("shaky", 0, 5 * MS - 1000),
    ]


@pytest.mark.parametrize("follow", FOLLOW)
def test_old_traces_stay_workloads(follow: str) -> None:
    """Five tasks that launch ten each are among them."""
    workload = load_trace(FORMAT_1, follow)
    names = Counter(task.name for task in validate(workload).tasks)
    assert names["sub_experiment"] == 50
    assert names["run_experiment"] == (5 if follow == "times" else 10)


_PROGRAM = """
import sys, time
import detray

@detray.remote
def inner(size):
    time.sleep(0.002)
    return bytes(size)

@detray.remote
def outer(count):
    parts = detray.get([inner.remote(1000 * n) for n in range(count)])
    return len(parts)

@detray.remote(num_cpus=2)
def last(total, data):
    return total

detray.init(num_cpus=2, record=sys.argv[1])
totals = [outer.remote(3) for _ in range(2)]
detray.get(totals)
detray.get(last.remote(totals[0], detray.put(bytes(500_000))))
detray.shutdown()
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of real processes: nested tasks, a driver that waits in between, a put."""
    path = tmp_path_factory.mktemp("real") / "real.trace"
    command = [sys.executable, "-c", _PROGRAM, str(path)]
    subprocess.run(command, timeout=60, check=True, capture_output=True)
    return path


def by_name(workload: Workload, name: str) -> list[TaskSpec]:
    """The tasks of one kind."""
    return [task for task in workload.tasks if task.name == name]


def test_by_times_each_task_is_one_and_begins_when_it_was_submitted(real: Path) -> None:
    """Who waited for others counts only what it computed: less than they took."""
    workload = load_trace(real, "times")
    assert Counter(t.name for t in workload.tasks) == {"inner": 6, "outer": 2, "last": 1}
    (last,) = by_name(workload, "last")
    assert last.demand == (("CPU", 20_000),) and last.files_bytes > 500_000
    assert [workload.tasks[p].name for p, _ in last.inputs] == ["outer"]
    assert last.submit_ns > max(task.submit_ns for task in by_name(workload, "inner"))
    assert min(task.duration_ns for task in by_name(workload, "inner")) >= 2 * MS
    assert measure(workload).work_ns <= 2 * workload.recorded_makespan_ns


def test_by_causes_submitters_are_cut_where_they_submit_and_wait(real: Path) -> None:
    """A part that launches, the launched, a part that returns; the driver waits for it."""
    workload = load_trace(real, "causes")
    tasks = workload.tasks
    assert {task.submit_ns for task in tasks} == {0}
    parents = {task.id: [tasks[p] for p, _ in task.inputs] for task in tasks}
    for inner in by_name(workload, "inner"):
        assert [parent.name for parent in parents[inner.id]] == ["outer"]
    returning = [task for task in by_name(workload, "outer") if task.outputs != (0,)]
    assert len(returning) == 2
    for outer in returning:
        assert Counter(parent.name for parent in parents[outer.id]) == {"inner": 3, "outer": 1}
    (last,) = by_name(workload, "last")
    assert Counter(parent.name for parent in parents[last.id]) == {"outer": 1, "(driver)": 1}
    (driver,) = [parent for parent in parents[last.id] if parent.name == "(driver)"]
    assert Counter(parent.name for parent in parents[driver.id]) == {"outer": 2, "(driver)": 1}
    assert {task.demand for task in by_name(workload, "(driver)")} == {()}


def test_reading_a_recording_twice_gives_the_same(real: Path) -> None:
    """Ids, order and all."""
    for follow in FOLLOW:
        assert load_trace(real, follow) == load_trace(real, follow)


def test_bad_recordings_are_one_line(tmp_path: Path) -> None:
    """Cut short, something else, empty of tasks, or read in a way that there is none of."""
    path = tmp_path / "bad.trace"
    for content in (b"", b"not a trace at all", FORMAT_1.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(WorkloadError, match=r"bad\.trace"):
            load_trace(path)
    with pytest.raises(WorkloadError, match="holds no task that finished"):
        load_trace(recorded(tmp_path / "empty.trace"))
    with pytest.raises(WorkloadError, match="follow is one of times, causes, not 'both'"):
        load_trace(FORMAT_1, "both")
    with pytest.raises(FileNotFoundError):
        load_trace(tmp_path / "none.trace")
