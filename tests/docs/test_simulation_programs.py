"""The page about programs in the simulator keeps its promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.programs import DOCS, assert_keeps_promises, python_blocks, run_program


def test_the_programs_of_the_page_run(tmp_path: Path) -> None:
    """All of them, one after the other."""
    pytest.importorskip("simpy")
    program = "\n".join(python_blocks(DOCS / "simulation-programs.md"))
    assert_keeps_promises(program, run_program(program, tmp_path))
