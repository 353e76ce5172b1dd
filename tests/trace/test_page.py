"""`docs/traces.md` describes the format well enough to read it."""

from __future__ import annotations

import subprocess
import sys

from detray.trace.reading import open_trace
from tests.docs.programs import DOCS, python_blocks
from tests.trace.programs import dots, recorded, troubles


def test_the_program_that_needs_no_detray_reads_a_trace(tmp_path):
    """Written from the description alone, it sees the same steps and stimuli."""
    trace = recorded(tmp_path / "run.trace", dots, troubles)
    *_, reader = python_blocks(DOCS / "traces.md")
    assert "import detray" not in reader
    command = [sys.executable, "-c", reader, str(tmp_path / "run.trace")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    program, *lines = text.splitlines()
    assert program == "/home/ada/program.py"
    assert [line.split()[:3] for line in lines] == [
        [str(step.number), str(step.core), str(step.now_ns)] for step in trace.steps()
    ]
    assert open_trace(tmp_path / "run.trace").step_count == len(lines)


def test_the_example_of_the_python_interface_runs(tmp_path, monkeypatch, capsys):
    """Opening, stepping, replaying, drawing."""
    recorded(tmp_path / "run.trace", dots)
    monkeypatch.chdir(tmp_path)
    exec(python_blocks(DOCS / "traces.md")[0], {})
    assert "True [" in capsys.readouterr().out
    assert (tmp_path / "run.svg").exists()
