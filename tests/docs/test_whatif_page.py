"""The walk of `docs/simulation-whatif.md`: its program runs, its commands answer as there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.programs import DOCS, ROOT, assert_keeps_promises, python_blocks, run_program

PAGE = DOCS / "simulation-whatif.md"


def walk() -> list[tuple[str, str]]:
    """Commands and what the page says that they print."""
    blocks = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return list(blocks)


def shape_of(output: str) -> list[str]:
    """The output without what differs from machine to machine: numbers, widths, their order."""
    lines = []
    for line in output.splitlines():
        if line.startswith(("the rest is no better", "(driver)")):  # a busy machine
            continue
        if " would take " in line:  # the table says what stops it; how much else there is, varies
            line = line.partition(";")[0]
        line = re.sub(r"[-+]?\d[\d.,]*( (s|ms|µs)\b)?%?", "#", line)
        lines.append(re.sub(r"\s+|-{2,}", " ", line).strip())
    return lines


@pytest.mark.slow
def test_the_walk_goes_as_the_page_says(tmp_path: Path) -> None:
    """Record the job, ask all questions: the same tables, bounds and sentences."""
    pytest.importorskip("matplotlib")
    (program,) = python_blocks(PAGE)
    assert_keeps_promises(program, run_program(program, tmp_path))
    commands = walk()
    assert len(commands) == 4
    for command, output in commands:
        words = command.split()
        assert words[0] == "detray-sim"
        done = subprocess.run(
            [sys.executable, "-m", "detray_sim.cli", *words[1:]],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sim'}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert shape_of(done.stdout) == shape_of(output), command
    names = {path.name for path in (tmp_path / "answer").iterdir()}
    assert names == {"whatif.txt", "whatif.json", "whatif.svg", "whatif.png"}
