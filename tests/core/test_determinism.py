"""The same stimuli give the same effects in every process, and the test would notice if not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.house.source import ROOT

HASH_SEEDS = ("0", "1", "31337")


def digest(*options: str, hash_seed: str) -> str:
    """What `tests.support.digests` prints in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.digests", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()[0]


def test_effects_and_state_are_the_same_in_every_process() -> None:
    """Three hash seeds; the collector on, off, and after every allocation."""
    collectors = zip(HASH_SEEDS, ("on", "off", "often"), strict=True)
    found = [
        digest("--seeds", "3,4,5,6,7", "--gc", collector, "--ballast", seed[:1], hash_seed=seed)
        for seed, collector in collectors
    ]
    assert len(set(found)) == 1, found


@pytest.mark.parametrize("leak", ["hash", "id"])
def test_a_decision_that_depends_on_the_process_is_found(leak: str) -> None:
    """A set that is iterated, an address that is sorted by."""
    found = [
        digest("--seeds", "3,4", "--leak", leak, "--ballast", str(number), hash_seed=seed)
        for number, seed in enumerate(HASH_SEEDS)
    ]
    assert len(set(found)) > 1, "nobody would notice"
