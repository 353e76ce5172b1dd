"""`docs/why.md`: its programs are run, and its commands print what stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from detray.cli.command import main
from tests.docs.programs import DOCS, ROOT, python_blocks
from tests.trace.test_parts import seed_trace

PAGE = DOCS / "why.md"


def blocks() -> list[tuple[str, list[str]]]:
    """Commands with the lines that they print."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, *lines = part.splitlines()
            found.append((command, lines))
    return found


def printed(command: str, folder: Path, capsys) -> list[str]:
    """What a command of the page prints."""
    words = [first or second for first, second in re.findall(r'"([^"]+)"|(\S+)', command)]
    assert words[0] == "detray"
    assert main([word if word != words[2] else str(folder / word) for word in words[1:]]) == 0
    return capsys.readouterr().out.splitlines()


def masked(line: str) -> str:
    """A line without what differs from run to run: times, workers, folders, memory."""
    line = re.sub(r'File "[^"]*/', 'File "', line)
    line = re.sub(r"@?[\d.]+ (us|ms|s)\b|@[\d.]+|at [\d.]+ s", "T", line)
    return re.sub(r"(worker) \d+", r"\1 N", line).strip()


def test_the_commands_of_the_page_print_what_stands_there(tmp_path, capsys):
    """The conclusions, and the way to them; small parts come and go with the machine's load."""
    *programs, _ = python_blocks(PAGE)
    for name, program in zip(("slow", "fails", "stuck"), programs, strict=True):
        script = tmp_path / f"{name}.py"
        script.write_text(program)
        command = [sys.executable, str(script)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == (name != "fails"), done.stderr
    seed_trace(28, tmp_path / "seed.trace")
    chosen = {"slow.trace": 4, "fails.trace": 10, "stuck.trace": 4, "seed.trace": 99}
    commands = blocks()
    assert len(commands) == 5
    for command, lines in commands:
        found = [masked(line) for line in printed(command, tmp_path, capsys)]
        count = chosen[command.split()[2]]
        assert found[:count] == [masked(line) for line in lines][:count], command


def test_the_program_of_the_page_asks_from_python(tmp_path, monkeypatch, capsys):
    """On the recording of the first program."""
    first, *_, last = python_blocks(PAGE)
    (tmp_path / "slow.py").write_text(first)
    command = [sys.executable, "slow.py"]
    subprocess.run(command, cwd=tmp_path, env=environment(), timeout=60, check=True)
    monkeypatch.chdir(tmp_path)
    exec(last, {})
    conclusion, cause = capsys.readouterr().out.splitlines()
    assert conclusion.startswith("waited ") and "of merge" in cause


def environment() -> dict[str, str]:
    """For programs that are run beside the test."""
    import os

    return os.environ | {"PYTHONPATH": str(ROOT)}
