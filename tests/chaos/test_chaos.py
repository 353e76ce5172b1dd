"""A short chaos run is part of the suite; the long one is `make chaos`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_that_is_broken_gives_right_answers() -> None:
    """Right answers, empty stores, nothing left behind, and recordings that replay."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seed", "1", "--minutes", "0.3", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    summary = json.loads(done.stdout)
    assert summary["trouble"]
    assert summary["replayed"]["steps"] > 0
