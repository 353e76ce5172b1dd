"""`docs/report.md`: its commands print what stands there; what it says of the example is true."""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from pathlib import Path

import pytest

from tests.docs.consoles import run_all
from tests.docs.programs import DOCS, assert_keeps_promises, python_blocks, run_program

pytest.importorskip("networkx")


def test_the_page_of_the_report_does_what_it_says(tmp_path: Path) -> None:
    """The commands, the program that calls it from Python, and the mistake that it finds."""
    page = DOCS / "report.md"
    run_all(page.read_text(), tmp_path, {"TMPDIR": os.environ.get("TMPDIR", "/tmp")})
    first = (tmp_path / "season.html").read_text()
    assert "<title>A season&#x27;s forecasts · detray</title>" in first
    program = python_blocks(page)[0]
    assert_keeps_promises(program, run_program(program, tmp_path))
    packed = re.search(r'id="packed">([^<]*)<', first)
    assert packed
    data = zlib.decompress(base64.b64decode(packed[1]))
    head = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    rows = {row["name"]: row for row in head["functionRows"]}
    assert rows["clean"]["failed"] == 1 and rows["forecast"]["retries"] == 1
    assert rows["forecast"]["bytes"] >= 8 * 24 * 4_000_000
    assert rows["grid"]["bytes"] < 5_000_000
