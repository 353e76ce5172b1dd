"""The demo's job is right, on detray as serially, and leaves what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detray.demo import index
from tests.docs.programs import ROOT

NUMBERS = st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=6)


def test_chunks_hold_every_file_once() -> None:
    """Cutting loses nothing and keeps the order."""
    files = index.library_files(40)
    chunks = index.cut(files, 7)
    assert len(chunks) == 7
    assert [item for chunk in chunks for item in chunk] == [
        (number, str(path)) for number, path in enumerate(files)
    ]


def test_the_index_counts_words(tmp_path: Path) -> None:
    """Postings name the file and how often; short words are left out."""
    (tmp_path / "a.py").write_text("spam eggs spam to")
    (tmp_path / "b.py").write_text("spam")
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    found = index.run_serially(index.cut(files, 2), reducers=3)
    assert found == {"spam": [0, 2, 1, 1], "eggs": [0, 1]}
    assert index.word_counts(found) == {"spam": 3, "eggs": 1}


@given(st.dictionaries(st.from_regex(r"[a-z]{3,5}", fullmatch=True), NUMBERS))
def test_columns_hold_the_postings(postings: dict[str, list[int]]) -> None:
    """What travels packed arrives as it was, an empty part included."""
    assert index.unpack(index.pack(postings)) == postings


def test_the_demo_equals_the_serial_run(tmp_path: Path) -> None:
    """On a part of the library; graph, timeline, trace and index are there afterwards."""
    pytest.importorskip("networkx")
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "detray.demo", "--out", str(out), "--files", "60"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "equals the one made serially" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "graph.dot",
        "graph.svg",
        "index.txt",
        "run.trace",
        "timeline.json",
    }
    assert json.loads((out / "timeline.json").read_text())
