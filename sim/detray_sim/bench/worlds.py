"""How many made-up worlds a minute are played: `python -m detray_sim.bench.worlds`.

Each seed is played twice (its determinism check), with invariants, oracles and the digest of every
step on, in this one process. Rates are per CPU-second, so a busy machine only adds its caches.
"""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from detray_sim.determinism import play_twice
from detray_sim.tape import Tape
from detray_sim.world import PROFILES


class WorldRow(msgspec.Struct, frozen=True, kw_only=True):
    """One profile: `goal` seeds a CPU-minute (0: none)."""

    profile: str
    seeds: int
    cpu_s: float
    seeds_per_cpu_minute: int
    goal: int
    steps_per_cpu_s: int
    """Steps of cores, both runs counted."""
    stimuli_per_seed: int
    failures: int


CASES = (("small", 2_000, 10_000), ("medium", 60, 300))
"""Profile, seeds, goal; 600 medium seeds a minute on two cores are 300 on one."""


def main(argv: list[str]) -> int:
    """Print a row for each profile."""
    parser = argparse.ArgumentParser(prog="python -m detray_sim.bench.worlds", description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="instead of 2,000 small, 60 medium")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args(argv)
    rows = [measure(name, options.seeds or seeds, goal) for name, seeds, goal in CASES]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return 0
    heads = f"{'worlds':8} {'seeds':>6} {'a CPU-minute':>13} {'goal':>7}"
    print(f"{heads} {'steps/CPU-s':>12} {'stimuli':>8}")
    for row in rows:
        print(
            f"{row.profile:8} {row.seeds:6,} {row.seeds_per_cpu_minute:13,} {row.goal:7,}"
            f" {row.steps_per_cpu_s:12,} {row.stimuli_per_seed:8,}"
        )
    return 0


def measure(name: str, seeds: int, goal: int) -> WorldRow:
    """Play the first `seeds` of a profile, after a few to warm up."""
    profile = PROFILES[name]
    for seed in range(5):
        play_twice(Tape(seed), profile)
    start_s = time.process_time()
    verdicts = [play_twice(Tape(seed), profile) for seed in range(seeds)]
    cpu_s = time.process_time() - start_s
    return WorldRow(
        profile=name,
        seeds=seeds,
        cpu_s=round(cpu_s, 2),
        seeds_per_cpu_minute=round(60 * seeds / cpu_s),
        goal=goal,
        steps_per_cpu_s=round(2 * sum(verdict.steps for verdict in verdicts) / cpu_s),
        stimuli_per_seed=sum(verdict.stimuli for verdict in verdicts) // seeds,
        failures=sum(verdict.signature is not None for verdict in verdicts),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
