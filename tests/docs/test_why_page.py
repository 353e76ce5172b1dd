"""`docs/why.md`: its programs are run, and its commands print what stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.consoles import commands, run_one, surroundings
from tests.docs.programs import DOCS, python_blocks
from tests.trace.test_parts import seed_trace

PAGE = DOCS / "why.md"


def masked(line: str) -> str:
    """A line without what differs from run to run: times, workers, folders, memory."""
    line = re.sub(r'File "[^"]*/', 'File "', line)
    line = re.sub(r"@?[\d.]+ (us|ms|s)\b|@[\d.]+|at [\d.]+ s", "T", line)
    return re.sub(r"(worker) \d+", r"\1 N", line).strip()


def test_the_commands_of_the_page_print_what_stands_there(tmp_path: Path) -> None:
    """The conclusions, and the way to them; small parts come and go with the machine's load."""
    *programs, _ = python_blocks(PAGE)
    for name, program in zip(("slow", "fails", "stuck"), programs, strict=True):
        script = tmp_path / f"{name}.py"
        script.write_text(program)
        command = [sys.executable, str(script)]
        done = subprocess.run(
            command, cwd=tmp_path, env=surroundings(), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == (name != "fails"), done.stderr
    seed_trace(28, tmp_path / "seed.trace")
    chosen = {"slow.trace": 4, "fails.trace": 8, "stuck.trace": 4, "seed.trace": 99}
    walk = commands(PAGE.read_text())
    assert len(walk) == 5
    for command in walk:
        found = run_one(command, tmp_path, surroundings()).splitlines()
        count = chosen[command.line.split()[2]]
        shown = [masked(line) for line in command.printed[:count]]
        assert [masked(line) for line in found[:count]] == shown, command.line


def test_the_program_of_the_page_asks_from_python(tmp_path, monkeypatch, capsys):
    """On the recording of the first program."""
    first, *_, last = python_blocks(PAGE)
    (tmp_path / "slow.py").write_text(first)
    command = [sys.executable, "slow.py"]
    subprocess.run(command, cwd=tmp_path, env=surroundings(), timeout=60, check=True)
    monkeypatch.chdir(tmp_path)
    exec(last, {})
    conclusion, cause = capsys.readouterr().out.splitlines()
    assert conclusion.startswith("waited ") and "of merge" in cause
