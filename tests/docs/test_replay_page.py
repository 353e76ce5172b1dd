"""`docs/replay.md`: commands print what stands there, the program runs, lists are complete."""

from __future__ import annotations

from pathlib import Path

from detray.cli.debug import Debugger
from detray.trace.travel.conditions import LISTING
from tests.docs.consoles import run_all
from tests.docs.programs import DOCS, assert_keeps_promises, python_blocks, run_program

PAGE = DOCS / "replay.md"


def test_the_page_is_walked(tmp_path: Path) -> None:
    """A session on a real recording, then the same from Python."""
    text = PAGE.read_text()
    run_all(text, tmp_path)
    (program,) = python_blocks(PAGE)
    assert_keeps_promises(program, run_program(program, tmp_path))


def test_every_command_and_every_sentence_is_on_the_page() -> None:
    """Nothing that a session knows is left out."""
    text = PAGE.read_text()
    names = [name[3:] for name in vars(Debugger) if name.startswith("do_")]
    assert [name for name in names if f"`{name}" not in text] == []
    assert LISTING in text
