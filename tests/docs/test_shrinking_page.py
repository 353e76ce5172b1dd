"""`docs/shrinking.md`: its commands print what stands there, its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

from detray.trace.reducing.expecting import RULES
from detray.trace.transcript.script import render
from detray.trace.transcript.telling import _SETTINGS, play_telling
from tests.docs.consoles import run_all
from tests.docs.programs import DOCS, assert_keeps_promises, python_blocks, run_program

PAGE = DOCS / "shrinking.md"


def test_the_page_is_walked(tmp_path: Path) -> None:
    """From a program to a transcript that plays, and the same from Python."""
    assert (DOCS / "examples" / "filming.py").exists()
    run_all(PAGE.read_text(), tmp_path)
    text = (tmp_path / "second_film.txt").read_text()
    played, _ = play_telling(text)
    assert render(played) == text and 'violated: "no task waits more than 2 s' in text
    (program,) = python_blocks(PAGE)
    assert_keeps_promises(program, run_program(program, tmp_path))


def test_the_transcript_of_the_page_plays_as_it_stands() -> None:
    """To the letter."""
    (text,) = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    played, _ = play_telling(text)
    assert render(played) == text


def test_every_sentence_and_directive_is_on_the_page() -> None:
    """With its meaning."""
    text = PAGE.read_text()
    for rule in RULES:
        assert f"| {rule.form.replace('|', chr(92) + '|')} | {rule.meaning} |" in text
    text = text.replace("`b: ", "`")
    assert [
        name for name in (*_SETTINGS, "told", "hear") if f"`{name} " not in text + "`end "
    ] == []
