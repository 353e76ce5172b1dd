"""All real inputs read alike in every process, and damage to any of them is one clear line."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detray_sim.workload import WorkloadError
from detray_sim.workloads.estee import load_all
from detray_sim.workloads.from_trace import load_trace
from detray_sim.workloads.stg import load_stg
from detray_sim.workloads.wfformat import load_wfformat
from tests.sim.data import ROOT, data_files, data_folder

_PROGRAM = """
import sys
from pathlib import Path
from detray_sim.workloads import digest
from detray_sim.workloads.estee import load_all
from detray_sim.workloads.stg import load_stg
from detray_sim.workloads.wfformat import load_wfformat

data = Path(sys.argv[1])
for path in sorted(data.glob("estee/*.zip")):
    for name, workload in load_all(path).items():
        print(name, digest(workload))
for load, pattern in ((load_stg, "stg/50/*.stg"), (load_wfformat, "wfinstances/*.json")):
    for path in sorted(data.glob(pattern)):
        print(path.name, digest(load(path)))
"""


def test_reading_does_not_depend_on_the_hash_seed() -> None:
    """Fresh processes with other hashes of strings read the same workloads."""
    folder = data_folder("estee").parent
    read = []
    for seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(folder)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        read.append(done.stdout)
    assert read[0] == read[1] and read[0].count("\n") >= 27


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """A byte changed, some lost, or some there twice."""
    at, end = chance.randrange(len(content)), chance.randrange(len(content))
    match chance.randrange(3):
        case 0:
            return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        case 1:
            return content[:at] + content[at + chance.randrange(1, 40) :]
        case _:
            return content[:at] + content[end : end + 40] + content[at:]


def _damage(path: Path, load: Callable[[Path], object], times: int, folder: Path) -> None:
    content, chance = path.read_bytes(), random.Random(times)
    copy = folder / path.name
    for _ in range(times):
        copy.write_bytes(_damaged(content, chance))
        try:
            load(copy)
        except WorkloadError as error:
            assert path.stem in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "pattern", "load", "times"),
    [
        ("wfinstances", "bacass-*.json", load_wfformat, 300),
        ("stg/50", "rand0000.stg", load_stg, 300),
        ("estee", "pegasus.zip", load_all, 100),
    ],
)
def test_damaged_inputs_are_workload_errors(
    tmp_path: Path, name: str, pattern: str, load: Callable[[Path], object], times: int
) -> None:
    """Or still make sense; nothing else is raised, whatever was changed."""
    _damage(data_files(name, pattern)[0], load, times, tmp_path)


def test_damaged_recordings_are_workload_errors(tmp_path: Path) -> None:
    """A recording that was cut off between two frames still tells what ran before."""
    _damage(ROOT / "traces" / "format-1.trace", load_trace, 40, tmp_path)
