"""The bench compares like with like, says what is missing, and judges goals as they are written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from detray.bench import command
from detray.bench.clusters.plain import PlainLink
from detray.bench.goals import GOALS, Goal
from detray.bench.groups import MEASUREMENTS
from detray.bench.rows import BY_NAME, CLUSTER_GROUPS, GROUPS, ON_REQUEST, ROWS, chosen_groups
from detray.bench.subjects import PEERS, is_installed
from detray.bench.table import as_json, as_text, medians_of, number, ratio

SAMPLES = {
    "detray": {"batch": [90_000.0, 100_000.0, 30_000.0], "start": [190.0]},
    "ray": {"batch": [2_000.0]},
}


def test_every_group_is_measured_by_somebody() -> None:
    """A row that no measurement fills would be a dash for ever."""
    assert {*MEASUREMENTS, "start"} == set(GROUPS)


def test_every_goal_is_about_a_row() -> None:
    """Goals and what they refer to exist."""
    assert all(goal.row in BY_NAME for goal in GOALS)
    assert all(goal.reference in BY_NAME for goal in GOALS if goal.reference)


def test_minutes_are_spent_on_request_only() -> None:
    """The default leaves out what takes minutes, `all` does not."""
    assert not ON_REQUEST & set(chosen_groups(""))
    assert chosen_groups("all") == GROUPS


def test_clusters_are_measured_on_request() -> None:
    """Their rows are those of `--cluster`, unless `--rows` names others."""
    assert chosen_groups("", cluster=True) == CLUSTER_GROUPS
    assert chosen_groups("remote", cluster=True) == chosen_groups("remote") == ("remote",)


def test_peers_are_looked_for_where_they_are_said_to_be(tmp_path: Path) -> None:
    """In another interpreter, or none."""
    lacking = tmp_path / "python"
    lacking.write_text("#!/bin/sh\nexit 1\n")
    lacking.chmod(0o755)
    assert is_installed("pool", sys.executable)
    assert not is_installed("pool", str(lacking))


def test_an_interpreter_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With its name."""
    with pytest.raises(SystemExit):
        command.main(["--peer-python", "/nowhere/python", "--peers", "pool"])
    assert "/nowhere/python cannot be run" in capsys.readouterr().err


def test_plain_sockets_carry_what_was_asked_for() -> None:
    """Time after time, and the other process ends with its end of the link."""
    with PlainLink(3_000_000) as plain:
        assert plain.seconds() > 0
        assert plain.seconds() > 0


def test_rows_that_do_not_exist_are_refused() -> None:
    """With the list of those that do."""
    with pytest.raises(ValueError, match=r"no such rows: speed; there are start,"):
        chosen_groups("batch,speed")


def test_a_ratio_above_one_is_better_either_way() -> None:
    """More tasks a second and fewer milliseconds are both better."""
    assert ratio(BY_NAME["batch"], 100.0, 50.0) == 2.0
    assert ratio(BY_NAME["start"], 100.0, 5_000.0) == 50.0


def test_medians_not_means() -> None:
    """One disturbed round does not move the number."""
    assert medians_of(SAMPLES)["detray"]["batch"] == 90_000.0


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("batch", "", True, 30, "ray", "batch"), "met"),
        (Goal("batch", "", True, 60, "ray", "batch"), "missed"),
        (Goal("batch", "", True, 2, "pool", "batch"), "open"),
        (Goal("start", "", False, 200), "met"),
        (Goal("start", "", False, 150), "missed"),
        (Goal("chain", "", False, 1), "open"),
    ],
)
def test_a_goal_is_met_missed_or_open(goal: Goal, verdict: str) -> None:
    """Open: what it compares with was not measured."""
    assert goal.verdict(medians_of(SAMPLES)) == verdict


def test_the_table_shows_medians_ratios_goals_and_verdicts() -> None:
    """A row a line, rows without a number left out."""
    lines = as_text(SAMPLES, ("detray", "ray")).splitlines()
    assert len(lines) == 4
    want = "batches of 1,000 tasks 90,000 /s 2,000 /s (45x) >= 30 x Ray, >= 2 x Pool met, open"
    assert " ".join(lines[3].split()) == want


def test_json_keeps_every_sample() -> None:
    """So that somebody else can take another statistic."""
    rows = as_json(SAMPLES, ("detray", "ray"), {"cpus": 2})["rows"]
    batch = next(row for row in rows if row["name"] == "batch")
    assert batch["engines"]["detray"]["samples"] == SAMPLES["detray"]["batch"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.567, "4.57"),
        (123.4, "123"),
        (1_234.5, "1,230"),
        (103_456.0, "103,000"),
        (0.0173, "0.0173"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """More would be noise."""
    assert number(value) == text


def test_a_peer_that_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the run goes on without it."""
    monkeypatch.setattr(command, "is_installed", lambda *_: False)
    monkeypatch.setattr(command, "_visit_once", lambda *_: None)
    assert command.main(["--peers", "ray", "--quick"]) == 0
    assert "ray: not installed, left out" in capsys.readouterr().err


def test_unknown_peers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the list of those that are known."""
    with pytest.raises(SystemExit):
        command.main(["--peers", "spark"])
    assert f"there are {', '.join(PEERS)}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_quick_run_measures_detray_and_a_peer(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the numbers are, they are there."""
    assert command.main(["--quick", "--json", "--peers", "pool", "--rows", "batch,cpu"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows["batch"]["engines"]) == {"detray", "pool"}
    assert rows["cpu_service"]["engines"]["detray"]["median"] > 0


@pytest.mark.slow
def test_a_quick_run_measures_clusters(capsys: pytest.CaptureFixture[str]) -> None:
    """Here and there, beside the machine itself."""
    assert command.main(["--cluster", "--quick", "--json", "--rows", "remote,transfer"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    wanted = {"local_one", "remote_one", "cpu_remote_batch", "fetch_100mb", "plain_100mb"}
    assert wanted <= set(rows)
    assert [goal["verdict"] for goal in rows["remote_one"]["goals"]] != ["open"]


def test_rows_have_names_of_their_own() -> None:
    """One row, one name."""
    assert len(BY_NAME) == len(ROWS)
