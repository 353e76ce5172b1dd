"""The walk of `docs/traces.md`: from a flight recorder's file to the line at fault, command by
command, on a failure that really happens."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.docs.consoles import (
    assert_printed,
    commands,
    line_pattern,
    run_all,
    run_one,
    surroundings,
)
from tests.docs.programs import DOCS, EXAMPLES

PAGE = DOCS / "traces.md"


def walk() -> str:
    """The part of the page that is walked."""
    return PAGE.read_text().partition("## A walk")[2].partition("\n## ")[0]


@pytest.mark.slow
def test_the_walk_leads_from_the_flight_recorder_to_the_line_at_fault(tmp_path: Path) -> None:
    """Every command of the walk prints what the page shows, on a night that dies."""
    shutil.copy(EXAMPLES / "night_job.py", tmp_path)
    home = tmp_path / "tmp"
    home.mkdir()
    places = surroundings({"TMPDIR": str(home)})
    fine, bad, *_ = commands(walk())
    assert (fine.line, bad.line) == ("python night_job.py 1", "python night_job.py 102")
    assert_printed(fine, run_one(fine, tmp_path, places))
    output = run_one(bad, tmp_path, places)
    for line in bad.printed:  # the two of them are said by different threads
        assert line == "..." or re.search(line_pattern(line), output), output
    [flight] = set(re.findall(r"the flight recorder is in (\S+\.trace)", output))
    assert Path(flight).is_relative_to(home)
    rest = walk().partition("**Is it detray?**")[2]
    run_all(rest, tmp_path, {"TMPDIR": str(home), "FLIGHT": flight})
    page = (tmp_path / "night.html").read_text()
    assert "<script" in page and "night_job.py" in page


def test_the_line_that_the_walk_names_is_the_line_at_fault(tmp_path: Path) -> None:
    """Its number and text are those of the script; with it mended the night is fine."""
    lines = (EXAMPLES / "night_job.py").read_text().splitlines()
    number, text = re.findall(r"line at fault is (\d+),\s+`([^`]+)`", walk())[0]
    assert lines[int(number) - 1].strip() == text
    assert lines[38].strip() == "ctypes.memmove(packed, least, 4)"
    assert "    ctypes.memmove(packed, least, 4)" in lines
    mended = "\n".join(lines).replace(
        "    ctypes.memmove(packed, least, 4)",
        "    if values:\n        ctypes.memmove(packed, least, 4)",
    )
    (tmp_path / "mended.py").write_text(mended)
    [command] = commands("```console\n$ python mended.py 102\nnight 102: 159024 mV\n```")
    assert_printed(command, run_one(command, tmp_path, surroundings()))


def test_dots_numbers_and_words_of_a_console_block() -> None:
    """What may differ may, and what may not may not."""
    [command] = commands("```console\n$ x\na 1.5 ms  b\n...\nlast 7, c ...\n```")
    for output in ("a 22 ms b\nfoo\nbar\nlast 1, c yy\n", "a 22 us b\nlast 1, c yy"):
        assert_printed(command, output)
    for output in (
        "a 22 ms c\nlast 1, c y",
        "a 2 ms b\nlast q, c y",
        "a 1 ms b\nlast 1, c y\nmore",
    ):
        with pytest.raises(AssertionError):
            assert_printed(command, output)
