"""`--json` speaks one language: every command's answer is one object that keeps to the rules.

docs/json.md has the rules, and the keys of each command.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detray import cli
from detray.cli import command as commands_of_detray
from detray.cli import listing, status
from detray.trace.documents import SCHEMA, in_house_units
from detray_sim import cli as cli_of_simulator
from detray_sim.cli import command as commands_of_simulator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "json.md").read_text()
TRACE = str(ROOT / "traces" / "decisions.trace")
SCENARIO = str(ROOT / "sim" / "scenarios" / "cholesky.toml")
PROGRAM = """
import detray

@detray.remote
def half(x):
    return x / 2

with detray.init(num_cpus=1, record="run.trace", record_payloads=True, log_to_driver=False):
    detray.get([half.remote(2), half.remote(3)])
    try:
        detray.get(half.remote("x"))
    except TypeError:
        pass
"""
RUNS: dict[str, tuple[str, ...]] = {
    "detray status": ("status",),
    "detray list": ("list", "tasks"),
    "detray get": ("get", "tasks", "aa"),
    "detray replay": ("replay", "run.trace", "--check", "--expect", "no task fails"),
    "detray report": ("report", "run.trace"),
    "detray graph": ("graph", "run.trace", "--critical"),
    "detray story": ("story", "run.trace", "worker 1"),
    "detray why": ("why", "run.trace"),
    "detray diff": ("diff", "run.trace", TRACE),
    "detray trace collect": ("trace", "collect", "run.trace"),
    "detray rerun": ("rerun", "run.trace", "half", "--trust"),
    "detray rerun --list": ("rerun", "run.trace", "--list"),
    "detray rerun --all": ("rerun", "run.trace", "--all", "--trust"),
    "detray shrink": ("shrink", "run.trace", "--expect", "no task fails", "--runs", "20"),
    "detray-sim run": ("run", SCENARIO),
    "detray-sim compare": ("compare", SCENARIO, "--policies", "hybrid,blevel", "--seeds", "2"),
    "detray-sim swarm": ("swarm", "--seeds", "2"),
    "detray-sim seed": ("seed", "3", "--story", "00000001"),
    "detray-sim list": ("list",),
    "detray-sim whatif": ("whatif", "run.trace", "--nodes", "1,2,4"),
    "detray-sim whatif --profile": ("whatif", "run.trace", "--nodes", "2", "--profile"),
}
"""A run of every command, and of each shape that its answer has."""
OF_ITS_OWN = {"detray bench": "a document that is kept in files and compared with others"}
NAMED_BY_USERS = {
    "demand", "total", "available", "labels", "running", "tasks", "totals", "objects", "workers",
    "counts", "states", "by_kind", "kinds_ns", "functions_ns", "width_ns", "faults", "policies",
    "generators", "networks", "ends", "programs", "missing",
}  # fmt: skip
"""Keys whose value may have names of users and of things for keys."""
KEY = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
WRONG_UNIT = re.compile(r".*(_s|_ms|_us|_sec|seconds|_kb|_mb|_gib|_mib)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a program was recorded, with its payloads."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, timeout=60, check=True
    )
    return folder


class HeadThatLists:
    """A head with a row of each kind."""

    address = "10.0.0.1:6379"

    def ask(self, topic: str, *_: object) -> Any:
        """What a head answers."""
        if topic == "status":
            head = {"address": self.address, "up_s": 1.5, "store": {"lag_s": 0.0}}
            return {"head": head, "nodes": [{"age_s": None, "number": 1}]}
        row = {"id": "aa01", "name": "f", "demand": {"CPU": 5_000}, "age_ns": 7}
        return {"rows": [row], "missing": {}}


def said(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """What a command prints, and what it says beside that."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(listing, "find_head", lambda _: HeadThatLists())
    run = status.run
    monkeypatch.setattr(status, "run", lambda o: run(o, list, lambda _: HeadThatLists()))
    words = RUNS[name]
    main = cli_of_simulator.main if name.startswith("detray-sim") else cli.main
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    assert code in (0, 1), err
    return out, err


@pytest.mark.parametrize("name", RUNS)
def test_an_answer_for_programs_is_one_object_by_the_rules(name, folder, monkeypatch, capfd):
    """Nothing else is printed; its keys are spelled alike, and the page lists them."""
    out, err = said(name, folder, monkeypatch, capfd)
    found = json.loads(out)
    assert list(found)[:2] == ["command", "schema"], err
    assert found["command"] == name.partition(" --")[0] and found["schema"] == SCHEMA
    wrong = [text for path, value in keys(found) for text in complaints(path, value)]
    assert wrong == []
    listed = _listed(name)
    assert set(found) - {"command", "schema"} <= listed, f"docs/json.md, {name}"


def keys(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key with its value, and those that it is within."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name), inner
            yield from keys(inner, (*path, name))
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, path)


def complaints(path: tuple[str, ...], value: Any) -> Iterator[str]:
    """What is wrong with a key."""
    *within, name = path
    if within and within[-1] in NAMED_BY_USERS:
        return
    where = ".".join(path)
    if KEY.fullmatch(name) is None:
        yield f"{where}: not in lower case with _ between"
    if WRONG_UNIT.fullmatch(name):
        yield f"{where}: times are _ns, sizes _bytes"
    if name.startswith("bytes_"):
        yield f"{where}: a unit ends the key"
    if name.endswith(("_ns", "_bytes")) and not isinstance(value, int | dict | None):
        yield f"{where}: {value!r} is no integer"
    if name in ("path", "file", "filename"):
        yield f"{where}: what was read is trace, what was written output"
    if name in ("function", "func", "task_id", "object_id"):
        yield f"{where}: it is name, id, task or object"
    if name == "short" and not (isinstance(value, str) and len(value) < 40):
        yield f"{where}: {value!r} is no short name"


def _listed(name: str) -> set[str]:
    """The keys that the page lists for a command."""
    for spelling in (name, name.partition(" --")[0]):
        row = re.search(rf"^\| `{re.escape(spelling)}` \|(.*)\|$", PAGE, re.MULTILINE)
        if row is not None:
            return set(re.findall(r"`([a-z0-9_]+)`", row[1]))
    raise AssertionError(f"docs/json.md has no row for `{name}`")


def test_every_command_that_has_json_is_run_here():
    """A new one belongs into the table, and into the page."""
    parsers = (commands_of_detray._parser(), commands_of_simulator._parser())
    with_json = {name for parser in parsers for name in _with_json(parser)}
    assert with_json == {name.partition(" --")[0] for name in RUNS}
    assert all(name in PAGE for name in OF_ITS_OWN)


def _with_json(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _with_json(inner)
        elif "--json" in action.option_strings:
            yield parser.prog


BAD = {
    "detray status": ("status", "77777777"),
    "detray list": ("list", "nonsense"),
    "detray get": ("get", "nonsense", "aa"),
    "detray-sim list": ("list", "nonsense"),
    "detray-sim swarm": ("swarm", "--seeds", "0"),
    "detray-sim seed": ("seed", "-1"),
}


@pytest.mark.parametrize("name", [name for name in RUNS if " --" not in name])
def test_an_error_is_a_line_beside_an_empty_answer(name, tmp_path, monkeypatch, capfd):
    """With exit code 2, and nothing on standard output for a program to trip over."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    missing = [word.replace("run.trace", "none.trace") for word in RUNS[name]]
    missing = [word.replace(SCENARIO, "none.toml") for word in missing]
    words = BAD.get(name, missing)
    main = cli_of_simulator.main if name.startswith("detray-sim") else cli.main
    assert main([*words, "--json"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1, err
    assert err.startswith(("detray: ", "detray-sim: ")) and "Traceback" not in err


def test_units_are_those_of_the_house_and_end_the_key():
    """Wherever they are; what only looks like it stays."""
    told = {"a_s": 1.5, "b": [{"c_s": None, "d_s": "text"}], "s": 2, "e_s": 0, "bytes_f": 3}
    assert in_house_units(told) == {
        "a_ns": 1_500_000_000,
        "b": [{"c_ns": None, "d_s": "text"}],
        "s": 2,
        "e_ns": 0,
        "f_bytes": 3,
    }
