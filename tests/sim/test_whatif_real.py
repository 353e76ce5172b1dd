"""The study of real runs: its table, and one real cluster that is recorded and played."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detray_sim.bench.whatif import PROGRAMS, WARM, Cell, Config, report, run_apart
from detray_sim.whatif import Question


def test_the_table_counts_predictions_only() -> None:
    """What was recorded is shown, and is no prediction."""
    cell = Cell(
        program="bag", config="1x4", is_recorded=True, measured_s=2.0, lowest_s=1.9, highest_s=2.1,
        predicted_s=1.0, error=-0.5, bound="work",
    )  # fmt: skip
    other = Cell(
        program="bag", config="1x8", is_recorded=False, measured_s=1.0, lowest_s=1.0,
        highest_s=1.0, predicted_s=1.02, error=0.02, bound="work",
    )  # fmt: skip
    lines = report([cell, other]).splitlines()
    assert lines[2].split() == [
        "bag",
        "1x4",
        "(recorded)",
        "2.00",
        "10",
        "%",
        "1.00",
        "-50.0",
        "%",
        "work",
    ]
    assert lines[-1] == "1 prediction: median error 2.0 %, largest 2.0 %"


@pytest.mark.slow
def test_a_real_cluster_is_recorded_and_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes, brought together: all tasks are there, and all are played."""
    paths = [str(Path(__file__).resolve().parents[2] / part) for part in ("", "sim")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    recording = run_apart("map_reduce", Config(2, 2), tmp_path)
    assert (len(recording.nodes), len(recording.tasks)) == (2, WARM + 24 + 8)
    assert recording.left_out == ()
    asked = Question(recording)
    for config in (PROGRAMS["map_reduce"].recorded, Config(1, 4)):
        row = asked.predict(asked.cluster(config.nodes, config.cpus))
        assert row.never_ran == 0 and row.lost == ()
        assert row.makespan_s >= row.bound.s
