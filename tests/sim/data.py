"""Where the real inputs are, if they are there: published graphs and recorded workflows.

`DETRAY_DATA` names the folder; without it, `shared/data` beside the repository is looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def data_folder(name: str) -> Path:
    """A folder of the data; skips the test if it is not there."""
    given = os.environ.get("DETRAY_DATA")
    folder = (Path(given) if given else ROOT.parent / "shared" / "data") / name
    if not folder.is_dir():
        pytest.skip(f"no real inputs: set DETRAY_DATA to a folder that holds {name}/")
    return folder


def data_files(name: str, pattern: str) -> list[Path]:
    """Files of the data in order of their names; skips the test if there are none."""
    found = sorted(data_folder(name).glob(pattern))
    if not found:
        pytest.skip(f"no real inputs: {name}/ holds no {pattern}")
    return found
