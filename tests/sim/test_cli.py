"""The command `detray-sim`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detray.trace.format import MAGIC
from detray_sim.cli import main
from detray_sim.faults import KINDS
from detray_sim.policies import CATALOGUE
from detray_sim.report import read_result, read_tasks_csv, read_tasks_json
from detray_sim.workloads.generators import GENERATORS
from tests.sim.data import ROOT

SCENARIO = """\
seeds = [1, 2]
[workload]
generator = "cholesky"
tiles = 4
[cluster]
nodes = 2
cpus = 2
[network]
model = "maxmin"
bandwidth = "1Gbit"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small scenario, where the command stands."""
    (tmp_path / "small.toml").write_text(SCENARIO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What was printed, for programs."""
    return msgspec.json.decode(capsys.readouterr().out, type=dict[str, Any])


def only_run(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The numbers of the only run."""
    [numbers] = answer(capsys)["runs"]
    return dict(numbers)


# ------------------------------------------------------------------------------- run


def test_a_run_in_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that programs ask for."""
    assert main(["run", "small.toml", "--seed", "3", "--json"]) == 0
    numbers = only_run(capsys)
    assert {"makespan_ns", "critical_path_ns", "work_ns", "utilisation"} <= set(numbers)
    assert {"moved_bytes", "tasks", "digest", "seed"} <= set(numbers)
    assert (numbers["tasks"], numbers["seed"]) == (20, 3)


def test_all_seeds_of_the_file_are_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for each; folders of their own."""
    assert main(["run", "small.toml", "--out", "out"]) == 0
    assert capsys.readouterr().out.count("makespan") == 2
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["seed1", "seed2"]


def test_what_a_run_writes(folder: Path) -> None:
    """Tables that can be read back, charts, a trace for Perfetto, every step of every core."""
    assert main(["run", "small.toml", "--seed", "1", "--out", "out"]) == 0
    out = folder / "out"
    made = {path.name for path in out.iterdir()}
    assert {
        *("tasks.csv", "tasks.json", "summary.json", "result.json", "gantt.svg", "gantt.png"),
        *("utilisation.svg", "timeline.json", "run.trace"),
    } <= made
    result = read_result((out / "result.json").read_bytes())
    assert read_tasks_csv((out / "tasks.csv").read_text()) == result.tasks
    assert read_tasks_json((out / "tasks.json").read_bytes()) == result.tasks
    assert len(list(csv.reader((out / "tasks.csv").open()))) == 21
    assert msgspec.json.decode((out / "timeline.json").read_bytes())
    assert not [path for path in folder.iterdir() if path.name.startswith(".out")]


def test_a_run_of_one_node_writes_a_trace(folder: Path) -> None:
    """One that `detray replay` verifies."""
    from detray.cli import main as detray

    changes = ["--set", "cluster.nodes=1", "--seed", "1"]
    assert main(["run", "small.toml", *changes, "--out", "out"]) == 0
    assert detray(["replay", "out/run.trace"]) == 0


def test_settings_replace_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, quantities, lists, texts; the policy has an option of its own."""
    changes = ["cluster.nodes=1", "cluster.cpus=1", "network.bandwidth=10Gbit", "seeds=[7]"]
    options = [word for change in changes for word in ("--set", change)]
    assert main(["run", "small.toml", *options, "--policy", "blevel", "--json"]) == 0
    numbers = only_run(capsys)
    assert (numbers["cluster"], numbers["seed"], numbers["policy"]) == ("1x1", 7, "blevel")
    assert numbers["makespan_ns"] == numbers["work_ns"]


def test_paths_on_the_command_line_count_from_here(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And those in a file from the file."""
    (folder / "deep").mkdir()
    top = SCENARIO.replace('generator = "cholesky"\ntiles = 4', 'stg = "none.stg"')
    (folder / "deep" / "stg.toml").write_text(top)
    (folder / "two.stg").write_text("2\n0 0 0\n1 3 1 0\n2 4 1 1\n3 0 1 2\n")
    assert main(["run", "deep/stg.toml", "--set", "workload.stg=two.stg", "--json"]) == 0
    assert [run["critical_path_ns"] for run in answer(capsys)["runs"]] == [7 * 10**9] * 2


def test_tasks_that_fail_are_an_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1; the report is written all the same."""
    faults = "\n[faults]\nplanned = [{ at = '50ms', kind = 'driver_killed' }]\n"
    (folder / "bad.toml").write_text(SCENARIO + faults)
    assert main(["run", "bad.toml", "--seed", "1", "--out", "out", "--json"]) == 1
    assert only_run(capsys)["never_ran"] > 0
    assert (folder / "out" / "summary.json").exists()


# --------------------------------------------------------------------------- compare


def test_policies_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every policy on every cluster over every seed; tables, a chart, the scaling."""
    words = "compare small.toml --policies hybrid,blevel --nodes 1,2 --seeds 3 --out out --json"
    assert main(words.split()) == 0
    report = answer(capsys)
    assert report["runs"] == 12
    rows = report["rows"]
    assert isinstance(rows, list)
    assert [(row["cluster"], row["policy"], row["n"]) for row in rows] == [
        ("1x2", "hybrid", 3),
        ("1x2", "blevel", 3),
        ("2x2", "hybrid", 3),
        ("2x2", "blevel", 3),
    ]
    made = {path.name for path in (folder / "out").iterdir()}
    assert {"comparison.csv", "comparison.json", "comparison.svg", "scaling-cholesky.svg"} <= made


def test_several_processes_give_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--jobs changes nothing but the time it takes."""
    words = ["compare", "small.toml", "--policies", "random,etf", "--seeds", "2", "--json"]
    assert main(words) == 0
    alone = answer(capsys)
    assert main([*words, "--jobs", "2"]) == 0
    assert answer(capsys) == alone


# ------------------------------------------------------------------------------ seeds


def test_a_swarm_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """Equal seeds give the equal digest, in however many processes."""
    assert main(["swarm", "--seeds", "60", "--first", "5", "--json"]) == 0
    report = answer(capsys)
    assert {"seeds", "failures", "stimuli", "faults", "pairs", "digest", "wall_ns"} <= set(report)
    assert main(["swarm", "--seeds", "60", "--first", "5", "--jobs", "2", "--json"]) == 0
    assert answer(capsys)["digest"] == report["digest"]


def test_a_seed_and_its_story(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it was, what happened; steps that touch an id; a file that plays again."""
    assert main(["seed", "4", "--record", "story.txt", "--json"]) == 0
    report = answer(capsys)
    assert (report["seed"], report["failed"]) == (4, False)
    assert "\ntape " in (folder / "story.txt").read_text()
    assert main(["seed", "4", "--story", "00000001"]) == 0
    assert "TaskSubmitted" in capsys.readouterr().out


# --------------------------------------------------------------------------- the rest


def test_the_list_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that a scenario may name, with a line for each."""
    assert main(["list", "--json"]) == 0
    found = answer(capsys)
    groups = {name: group for name, group in found.items() if isinstance(group, dict)}
    assert list(groups["generators"]) == list(GENERATORS)
    assert list(groups["policies"]) == list(CATALOGUE)
    assert list(groups["faults"]) == list(KINDS)
    assert all(line for group in groups.values() for line in group.values())
    assert main(["list"]) == 0
    assert "  maxmin   transfers share" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "run", "compare", "swarm", "seed", "list"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With examples that begin with the command."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert f"detray-sim {command}".strip() in capsys.readouterr().out


CYCLE = """{"name": "c", "schemaVersion": "1.5", "workflow": {"specification": {"tasks": [
{"id": "a", "name": "a", "parents": ["b"], "children": ["b"]},
{"id": "b", "name": "b", "parents": ["a"], "children": ["a"]}], "files": []},
"execution": {"tasks": [{"id": "a", "runtimeInSeconds": 1}, {"id": "b", "runtimeInSeconds": 1}]}}}
"""
REFUSED = [
    ("run none.toml", "none.toml: No such file or directory"),
    ("run .", ".: Is a directory"),
    ("run broken.toml", "broken.toml: no TOML file"),
    ("run binary.toml", "binary.toml: no TOML file"),
    ("run a.trace", "a.trace: a trace: `detray-sim whatif a.trace` plays it"),
    ("run /dev/zero", "/dev/zero: no TOML file of ours: it is longer than 16 MB"),
    ("run small.toml --seed x", "argument --seed: invalid int value: 'x'"),
    ("run small.toml --seed -3", "--seed: it is from 0 on, not -3"),
    ("run small.toml --policy hybird", "'hybird' is none of hybrid, locality"),
    ("run small.toml --set cluster.nodes", "it is KEY=VALUE, as cluster.nodes=16"),
    ("run small.toml --set cluster.nodes=0", "[cluster] nodes: it is from 1 to"),
    ("run small.toml --set cluster.nodes=many", "[cluster] nodes: expected `int`, got `str`"),
    ("run small.toml --set seeds.x=1", "--set seeds.x: seeds is no table"),
    ("run small.toml --set workload.tiels=3", "tiels: unknown key; did you mean 'tiles'?"),
    ("run small.toml --set workload.tiles=0", "tiles is at least 1, not 0"),
    ("run small.toml --set workload.cpus=3", "no node can run task 'potrf-0', which needs CPU 3"),
    ("run small.toml --set workload.generator=cholsky", "did you mean 'cholesky'?"),
    ("run small.toml --set network.bandwidth=1Gbut", "no unit 'Gbut'"),
    ("run small.toml --set network.model=maxmim", "did you mean 'maxmin'?"),
    ("run small.toml --set faults.worker_kiled=1", "did you mean 'worker_killed'?"),
    ("run small.toml --set policy.imode=excat", "did you mean 'exact'?"),
    ("run small.toml --set policy.parameters.nope=1", "nope: hybrid knows no such parameter"),
    ("run cycle.toml", "cycle.json: tasks wait for each other: 'a' -> 'b' -> 'a'"),
    ("run missing.toml", "missing.toml: [workload] wfformat: there is no file missing.json"),
    ("run small.toml --out full", "--out full: it is there already, and not an empty folder"),
    ("run small.toml --out no/such/place", "there is no folder"),
    ("run small.toml --frobnicate", "unrecognized arguments: --frobnicate"),
    ("compare small.toml --policies hybrid,nope", "'nope' is none of hybrid"),
    ("compare small.toml --nodes 1,x", "--nodes: whole numbers with commas between, not '1,x'"),
    ("compare small.toml --nodes 0", "--nodes: numbers from 1 on, not '0'"),
    ("compare small.toml --jobs 0", "--seeds is from 1 on, --jobs from 1 to 256"),
    ("compare small.toml none.toml", "none.toml: No such file or directory"),
    ("swarm --seeds 0", "--seeds is from 1 on"),
    ("swarm --seeds 5 --profile huge", "--profile: it is one of small, medium, large, not 'huge'"),
    ("swarm", "the following arguments are required: --seeds"),
    ("seed -1", "a seed is from 0 on, not -1"),
    ("seed 1 --story xyz", "--story xyz: an id is hexadecimal"),
    ("seed 1 --record no/such/place", "--record no/such/place: there is no such folder"),
    ("fly", "invalid choice: 'fly'"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_what_makes_no_sense_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    """On stderr, with exit status 2; nothing on stdout, nothing in the folder."""
    (folder / "broken.toml").write_text("seed = [1, 2")
    (folder / "binary.toml").write_bytes(bytes(range(256)))
    (folder / "a.trace").write_bytes(MAGIC + bytes(16))
    (folder / "cycle.json").write_text(CYCLE)
    for name in ("cycle", "missing"):
        text = SCENARIO.replace('generator = "cholesky"\ntiles = 4', f'wfformat = "{name}.json"')
        (folder / f"{name}.toml").write_text(text)
    (folder / "full").mkdir()
    (folder / "full" / "thing").touch()
    before = sorted(folder.rglob("*"))
    if "--out" not in words and words.startswith(("run", "compare")):
        words += " --out fresh"
    assert main(words.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("detray-sim: ")
    assert told.err.count("\n") == 1
    assert message in told.err
    assert sorted(folder.rglob("*")) == before


def test_an_interrupted_run_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 130; the temporary folder is gone."""

    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("detray_sim.experiment.Experiment.run", interrupt)
    assert main(["run", "small.toml", "--out", "out"]) == 130
    assert [path.name for path in folder.iterdir()] == ["small.toml"]


def test_the_command_stands_alone(folder: Path) -> None:
    """As a process of its own, with a reader that goes away early."""
    command = f"{sys.executable} -m detray_sim.cli list | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ)
    )
    assert (done.stdout, done.stderr) == ("generators:\n", "")


def test_without_its_extra_the_command_says_what_to_install() -> None:
    """One line, exit code 2: `make demo` installs detray without the simulator's libraries."""
    code = (
        "import sys; sys.modules['simpy'] = None; from detray_sim.cli import main; "
        "sys.exit(main(['--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "simpy is not installed" in line and "pip install 'detray[sim]'" in line
