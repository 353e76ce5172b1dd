"""`detray graph`: what it says, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detray.cli.command import main
from tests.trace.machine import Machine
from tests.trace.programs import dots, experiments, recorded, troubles


@pytest.fixture
def trace(tmp_path: Path) -> str:
    return str(recorded(tmp_path / "run.trace", dots, experiments, troubles).name)


def test_numbers_and_a_picture(trace, capsys):
    """Counts are exact; failures and retries are counted."""
    assert main(["graph", trace]) == 0
    picture, *lines = capsys.readouterr().out.splitlines()
    assert picture == str(Path(trace).with_suffix(".svg"))
    said = {line[:15].strip(): line[15:] for line in lines}
    assert said["tasks"] == "62: 2 failed, 60 finished; 1 retried"
    assert said["functions"] == "7, 2 levels deep"
    assert said["objects"].startswith("64, 6.03 kB; ")
    assert list(said)[3:] == ["work", "span", "critical path", "at work"]


def test_json_is_for_programs_and_draws_nothing(trace, capsys):
    """All numbers; the parts of the path make its length."""
    assert main(["graph", trace, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["tasks"], said["states"]) == (62, {"failed": 2, "finished": 60})
    path = said["critical_path"]
    assert path["length_ns"] == sum(path["kinds_ns"].values())
    assert path["length_ns"] == sum(p["ended_ns"] - p["started_ns"] for p in path["parts"])
    assert sum(stats["calls"] for stats in said["functions"]) == 62
    assert not Path(trace).with_suffix(".svg").exists()
    assert main(["graph", trace, "--json", "-o", f"{trace}.svg"]) == 0
    json.loads(capsys.readouterr().out)  # the name of the picture is not in between
    assert Path(f"{trace}.svg").exists()


def test_functions_are_a_table(trace, capsys):
    """One line for each, the one that computed most first."""
    assert main(["graph", trace, "--functions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ["function", "calls", "failed"],
        ["sub_experiment", "50", "0"],
        ["run_experiment", "5", "0"],
    ]
    assert len(lines) == 8


def test_the_critical_path_is_told_and_marked(trace, capsys):
    """In the picture, and part by part; of many parts the longest."""
    assert main(["graph", trace, "--critical"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("at  ") for line in lines)
    assert 'class="critical"' in Path(trace).with_suffix(".svg").read_text()


def test_a_dash_is_stdout(trace, capsys):
    """For a pipe: nothing but the file."""
    assert main(["graph", trace, "-o", "-", "--format", "dot"]) == 0
    assert capsys.readouterr().out.startswith("digraph detray {")
    assert main(["graph", trace, "-o", "-"]) == 0
    assert capsys.readouterr().out.startswith("<svg")


@pytest.mark.parametrize("form", ["svg", "dot", "json", "graphml", "wfformat"])
def test_a_format_that_is_given_needs_no_ending(trace, capsys, form):
    """Without -o the file is beside the trace and has the format's name."""
    assert main(["graph", trace, "--format", form]) == 0
    ending = {"wfformat": "wf.json"}.get(form, form)
    drawn = Path(trace).with_suffix(f".{ending}")
    assert capsys.readouterr().out.splitlines()[0] == str(drawn)
    assert drawn.stat().st_size > 100


def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, trace, capsys):
    """Unknown endings, folders that are not there, workflows without tasks: exit code 2."""
    machine = Machine(tmp_path / "empty.trace")
    machine.recorder.close("done")
    empty = str(tmp_path / "empty.trace")
    for arguments, says in (
        (
            [trace, "-o", "run.png"],
            "ends in '.png': use .svg, .dot, .gv, .json, .graphml, .wf.json",
        ),
        ([trace, "-o", "/nowhere/run.svg"], "/nowhere/run.svg: No such file or directory"),
        ([empty, "-o", str(tmp_path / "x.wf.json")], "no task finished"),
        ([trace, "--format", "png"], "invalid choice: 'png'"),
    ):
        assert main(["graph", *arguments]) == 2
        said = capsys.readouterr()
        assert says in said.err and said.err.count("\n") == 1 and said.out == ""


def test_nothing_at_all_has_numbers_too(tmp_path, capsys):
    """A program that submitted nothing: zeros, no division by them."""
    machine = Machine(tmp_path / "empty.trace")
    machine.recorder.close("done")
    for more in ([], ["--critical"], ["--functions"], ["--json"]):
        assert main(["graph", str(tmp_path / "empty.trace"), *more]) == 0
    assert "no task ended: there is no critical path" in capsys.readouterr().out
