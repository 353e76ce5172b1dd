"""The traces kept in `traces/`: formats stay readable for ever, decisions are re-recorded.

`format-1.trace` and `format-2.trace` were written when those formats were new, and are never
written again. `decisions.trace` is what the cores of today decide about `programs.troubles` and
`programs.experiments`, `real-*.trace` are runs of real processes with killed workers, spills,
cancellations and the like; after a change of decisions on purpose:
python -m tests.trace.test_fixtures; python -m tests.replays --fixtures
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from detray.trace.graphs.graph import build
from detray.trace.reading import open_trace
from detray.trace.replaying import replay
from detray.trace.timeline import chrome_events
from tests.replays.__main__ import TROUBLES, troubles_in
from tests.trace.machine import Machine
from tests.trace.programs import experiments, troubles

TRACES = Path(__file__).resolve().parents[2] / "traces"


def test_format_1_stays_readable():
    """Opens, knows its program, and is told to its end, whatever today's cores would decide."""
    trace = open_trace(TRACES / "format-1.trace")
    assert (trace.complete, trace.header.format_version) == (True, 1)
    assert trace.header.entrypoint == "/home/ada/program.py"
    assert [step.number for step in trace.steps()] == list(range(trace.step_count))
    names = {data["label"] for _, data in build(trace).nodes(data=True)}
    assert {"root\nprogram.py", "fine", "wrong", "shaky"} <= names
    assert len(chrome_events(trace)) > 10


def test_format_2_stays_readable():
    """A collected trace: several nodes, two from flight recorders, a head with a state."""
    trace = open_trace(TRACES / "format-2.trace")
    header = trace.header
    assert (trace.complete, header.format_version) == (True, 2)
    assert [core.name for core in header.cores] == ["head", "n0", "n1", "n2"]
    assert [core.node for _, core in header.local_cores()] == [0, 1, 2]
    assert len({process.life for process in header.processes}) == 4
    assert len(header.cluster) == 32
    assert any("begins in the middle" in note for note in header.notes)
    assert any(start.begins for start in trace.starts)
    assert [step.number for step in trace.steps()] == list(range(trace.step_count))
    assert {step.core for step in trace.steps()} == {0, 1, 2, 3}
    assert all(step.stimuli() is not None for step in trace.steps())
    owners = {data.get("owner") for _, data in build(trace).nodes(data=True)}
    assert "node 0" in owners
    assert len(chrome_events(trace)) > 10


def test_todays_decisions_are_those_that_were_kept():
    """A change of any decision shows here: re-record on purpose, raise CORE_REVISION."""
    report = replay(open_trace(TRACES / "decisions.trace"))
    assert report.difference is None and report.is_same


@pytest.mark.parametrize("path", sorted(TRACES.glob("real-*.trace")), ids=lambda path: path.stem)
def test_decisions_about_real_runs_are_those_that_were_kept(path):
    """What real processes met, decided again: on whatever Python runs this."""
    report = replay(open_trace(path))
    assert report.difference is None and report.is_same
    assert report.steps[0] > 500


def test_real_runs_hold_every_kind_of_trouble():
    """Kills, spills, cancellations, timeouts, nested submissions, dropped references."""
    found = sum((troubles_in(path) for path in TRACES.glob("real-*.trace")), Counter[str]())
    assert [name for name in TROUBLES if not found[name]] == []


@pytest.mark.parametrize("name", ["decisions", "real-1"])
@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_replay_does_not_depend_on_the_hash_seed(seed, name):
    """Another process with another seed decides the same (`-X dev` switches more things on)."""
    command = [sys.executable, "-X", "dev", "-m", "detray.cli", "replay"]
    path = str(TRACES / f"{name}.trace")
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([*command, path], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def record(name: str) -> None:
    """Write a fixture."""
    machine = Machine(TRACES / name)
    troubles(machine)
    experiments(machine)
    machine.recorder.close("done")


if __name__ == "__main__":
    record("decisions.trace")
