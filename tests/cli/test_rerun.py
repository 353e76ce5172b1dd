"""`detray rerun`: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detray.cli import main
from detray.trace.payloads.format import payloads_path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import random
import a_module_of_its_own
import detray

@detray.remote
def good(x):
    print("good says", x)
    return x + 1

@detray.remote
def chance():
    return random.uniform(0.1, 0.9)

@detray.remote
def bad(x):
    raise KeyError(x)

@detray.remote
def helped():
    return a_module_of_its_own.value()

with detray.init(num_cpus=1, record="run.trace", record_payloads=True, log_to_driver=False):
    detray.get([good.remote(1), chance.remote()])
    for ref in (bad.remote("key"), good.remote(2)):
        try:
            detray.get(ref)
        except KeyError:
            pass
    assert detray.get(helped.remote()) == 5
"""
MODULE = """
def value():
    return 5
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cli-rerun")
    (directory / "program.py").write_text(PROGRAM)
    (directory / "a_module_of_its_own.py").write_text(MODULE)
    subprocess.run(
        [sys.executable, "program.py"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )
    return directory


def ask(directory: Path, *arguments: str, typed: str = "") -> tuple[int, str, str]:
    """The command in that directory: exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "detray.cli", "rerun", *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_exit_codes_say_whether_it_is_the_same(directory: Path) -> None:
    """0 the same, 1 not, 2 it cannot run, with one line that says why."""
    status, out, _ = ask(directory, "run.trace", "bad", "--trust")
    assert (status, out.splitlines()[-1]) == (0, "same: it raises the same error: KeyError: 'key'")
    status, out, _ = ask(directory, "run.trace", "chance", "--trust")
    assert status == 1 and out.splitlines()[-1].startswith("differs: the result was 0.")
    for arguments, text in (
        (("run.trace", "chance"), "--trust"),
        (("run.trace", "nobody", "--trust"), "--list"),
        (("run.trace",), "--all"),
        (("run.trace", "bad", "--all"), "--all"),
        (("run.trace", "--all", "--pdb", "--trust"), "belong to one task"),
        (("run.trace", "bad", "--pdb", "--json"), "for people"),
        (("program.py", "--list"), "not a detray trace"),
        (("nothing.trace", "--list"), "nothing.trace"),
        (("run.trace.payloads", "--list"), "not a detray trace"),
        (("run.trace", "--list", "--payloads", "run.trace"), "not a detray payload file"),
    ):
        status, out, err = ask(directory, *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), arguments
        assert text in err


def test_what_tasks_print_does_not_mix_with_an_answer_for_programs(directory: Path) -> None:
    """With --json, and with --all, it goes to standard error."""
    status, out, err = ask(directory, "run.trace", "1.0c10a9.0", "--trust", "--json")
    assert (status, err) == (0, "good says 1\n")
    assert json.loads(out)["verdict"] == "same"
    status, out, err = ask(directory, "run.trace", "--all", "--trust", "--json")
    summary = json.loads(out)
    assert status == 1
    assert (summary["tasks"], summary["same"]) == (5, 4)
    assert [report["name"] for report in summary["differing"]] == ["chance"]
    told = [line for line in err.splitlines() if not line.startswith("rerun: ")]  # how far it is
    assert told == ["good says 1", "good says 2"]
    status, out, _ = ask(directory, "run.trace", "1.0c10a9.0", "--trust")
    assert out.splitlines()[0] == "good says 1"


def test_tasks_are_listed(directory: Path) -> None:
    """What failed first, for people and for programs."""
    status, out, _ = ask(directory, "run.trace", "--list")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 5)
    assert lines[0].split()[1] == "failed" and lines[0].endswith("bad  KeyError: 'key'")
    rows = json.loads(ask(directory, "run.trace", "--list", "--json")[1])["rows"]
    assert [row["name"] for row in rows] == ["bad", "good", "chance", "good", "helped"]
    assert rows[0]["why_not"] == ""


def test_the_debugger_stops_at_the_first_line_and_can_be_left(directory: Path) -> None:
    """Variables are there; whoever quits early is told so, and the task has not run."""
    status, out, err = ask(
        directory, "run.trace", "1.0c10a9.0", "--trust", "--pdb", typed="p x\nc\n"
    )
    assert (status, err) == (0, "")
    assert out.splitlines()[0].endswith("program.py(8)good()")
    assert '-> print("good says", x)' in out
    assert "(Pdb) 1\n" in out
    status, out, err = ask(directory, "run.trace", "1.0c10a9.0", "--trust", "--pdb", typed="q\n")
    assert status == 2
    assert "you left the debugger" in err


def test_a_module_that_is_gone_is_named(directory: Path, tmp_path: Path) -> None:
    """What a task imports is imported: as it is now, from where it was, or not at all."""
    module = directory / "a_module_of_its_own.py"
    assert ask(directory, "run.trace", "helped", "--trust")[0] == 0
    module.rename(tmp_path / module.name)
    try:
        status, _, err = ask(directory, "run.trace", "helped", "--trust")
        assert status == 2
        assert "a_module_of_its_own" in err and "PYTHONPATH" in err
    finally:
        (tmp_path / module.name).rename(module)
    # Not of the same length: what Python compiled is told from it by that, and by whole seconds.
    module.write_text(MODULE.replace("5", "5 + 1"))
    status, out, _ = ask(directory, "run.trace", "helped", "--trust")
    assert (status, out.splitlines()[-1]) == (1, "differs: the result was 5, now 6")
    module.write_text(MODULE)


def test_damaged_payloads_are_refused_or_read_up_to_the_damage(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is with traces."""
    trace = tmp_path / "run.trace"
    trace.write_bytes((directory / "run.trace").read_bytes())
    beside = Path(payloads_path(str(trace)))
    data = bytearray((directory / "run.trace.payloads").read_bytes())
    data[-3] ^= 1
    beside.write_bytes(data)
    assert main(["rerun", str(trace), "--list"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert main(["rerun", str(trace), "bad", "--trust", "--salvage"]) == 0
    out = capsys.readouterr().out
    assert "note: " in out and "damaged" in out
    beside.write_bytes(data[: len(data) // 2])
    assert main(["rerun", str(trace), "--list"]) == 0
    beside.unlink()
    assert main(["rerun", str(trace), "--list"]) == 2
    assert "record_payloads=True" in capsys.readouterr().err
