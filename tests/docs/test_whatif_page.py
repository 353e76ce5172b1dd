"""The walk of `docs/simulation-whatif.md`: its program runs, its commands answer as there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.docs.consoles import commands, run_one, surroundings
from tests.docs.programs import DOCS, assert_keeps_promises, python_blocks, run_program

PAGE = DOCS / "simulation-whatif.md"


def shape_of(output: Iterable[str]) -> list[str]:
    """The output without what differs from machine to machine: numbers and widths, which function
    gains most, and whether work or the longest chain is more where they are near each other.
    """
    lines = []
    for line in output:
        if line.startswith(("the rest is no better", "(driver)")):  # a busy machine
            continue
        if " would take " in line:  # the table says what stops it; how much else there is, varies
            line = line.partition(";")[0]
        line = re.sub(r"[-+]?\d[\d.,]*( (s|ms|µs)\b)?%?", "#", line)
        line = re.sub(r" (work|driver|critical path: # \S+)$", " BOUND", line)
        lines.append(re.sub(r"\s+|-{2,}", " ", line).strip())
    return sorted(lines)


def what_stops_it(output: str) -> dict[int, str]:
    """The last column of the table, by nodes."""
    return {int(nodes): text for nodes, text in re.findall(r"^ *(\d+) .*  (\w.*)$", output, re.M)}


@pytest.mark.slow
def test_the_walk_goes_as_the_page_says(tmp_path: Path) -> None:
    """Record the job, ask all questions: the same tables, bounds and sentences."""
    pytest.importorskip("matplotlib")
    (program,) = python_blocks(PAGE)
    assert_keeps_promises(program, run_program(program, tmp_path))
    walk = commands(PAGE.read_text())
    assert len(walk) == 4
    for command in walk:
        output = run_one(command, tmp_path, surroundings())
        assert shape_of(output.splitlines()) == shape_of(command.printed), command.line
        if "--nodes 1,2,4,8,16" in command.line:
            stops = what_stops_it(output)
            assert stops.keys() == {1, 2, 4, 8, 16} and stops[1] == "work"
            assert stops[16].startswith(("critical path: ", "driver"))
    names = {path.name for path in (tmp_path / "answer").iterdir()}
    assert names == {"whatif.txt", "whatif.json", "whatif.svg", "whatif.png"}
