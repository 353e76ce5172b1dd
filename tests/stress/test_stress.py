"""A short stress run is part of the suite; the long one is `make stress`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_round_of_trouble_ends_right(tmp_path: Path) -> None:
    """Right answers, an empty store, nothing left behind, and a trace that replays."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress", "--seed", "1", "--minutes", "0", "--steps", "250"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
