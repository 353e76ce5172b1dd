"""Ablations: each safeguard is switched off, and the swarm must notice (PROTOCOL T16).

A rule whose absence nobody can tell is either superfluous, or masked by another one, or not tested.
The table says for each switch how many seeds it took, which oracle caught it and, if none did, by
which other switch it is masked: then both are off together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from detray.core.config import Policy
from detray.core.session import SessionPolicy
from detray_sim.tape import Tape
from detray_sim.trial import run_trial
from detray_sim.world import PROFILES, SMALL, Profile

SEEDS_MAX = 2_000
SWITCHES = tuple(name for name in Policy.__struct_fields__ if name.endswith("_off"))
"""The safeguards of the cores."""
SESSION_SWITCHES = tuple(name for name in SessionPolicy.__struct_fields__ if name.endswith("_off"))
"""And of the sessions between them."""
MASKS = {
    "attempt_check_off": "dedupe_off",
    "acceptance_check_off": "in_flight_hold_off",
    "fencing_off": "burial_cleanup_off",
    "promotion_off": "lineage_off",
}
"""Which layer hides the absence of which: with sessions right, no stale report ever arrives."""


class AblationRow(msgspec.Struct, frozen=True, kw_only=True):
    """What it took to notice that a safeguard is missing."""

    switch: str
    seeds: int
    """Played until it was caught, or in all."""
    caught_by: str = ""
    """The signature that showed it; "" if nothing did."""
    seed: int = -1
    masked_by: str = ""
    """The switch that was off as well when it was caught."""


def ablate(
    switch: str,
    profile: Profile = SMALL,
    *,
    seeds: Sequence[int] = range(SEEDS_MAX),
    masks: dict[str, str] = MASKS,
) -> AblationRow:
    """Play seeds without a safeguard until an oracle notices what it does not notice with it."""
    row = _hunt((switch,), profile, seeds)
    if not row.caught_by and switch in masks:
        both = _hunt((switch, masks[switch]), profile, seeds)
        alone = _hunt((masks[switch],), profile, seeds[: both.seeds]) if both.caught_by else None
        if both.caught_by and (alone is None or alone.caught_by != both.caught_by):
            return msgspec.structs.replace(both, switch=switch, masked_by=masks[switch])
    return row


def _hunt(switches: tuple[str, ...], profile: Profile, seeds: Sequence[int]) -> AblationRow:
    for number, seed in enumerate(seeds, 1):
        verdict = run_trial(Tape(seed), profile, ablate=switches)
        if verdict.signature is None:
            continue
        if run_trial(Tape(seed), profile).signature is not None:
            continue  # it fails with the safeguard too: another bug
        return AblationRow(
            switch=switches[0], seeds=number, caught_by=str(verdict.signature), seed=seed
        )
    return AblationRow(switch=switches[0], seeds=len(seeds))


def as_table(rows: Iterable[AblationRow]) -> Iterator[str]:
    """The lines of the table as Markdown, each as soon as its row is known."""
    yield "| switch | seeds | caught by | masked by |"
    yield "|---|---:|---|---|"
    for row in rows:
        caught = row.caught_by[:90] or "**nothing**"
        yield f"| `{row.switch}` | {row.seeds:,} | {caught} | {row.masked_by or '-'} |"


def main(arguments: Sequence[str]) -> int:
    """Print the table, of all switches or of those that are named."""
    every = (*SWITCHES, *SESSION_SWITCHES)
    parser = argparse.ArgumentParser(prog="python -m detray_sim.ablation", description=main.__doc__)
    parser.add_argument("switches", metavar="SWITCH", nargs="*", help=", ".join(every))
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="(default: %(default)s)")
    parser.add_argument("--profile", choices=sorted(PROFILES), default=SMALL.name)
    options = parser.parse_args(arguments)
    if unknown := set(options.switches).difference(every):
        parser.error(f"no such switch: {', '.join(sorted(unknown))}")
    profile, seeds = PROFILES[options.profile], range(options.seeds)
    rows = (ablate(switch, profile, seeds=seeds) for switch in options.switches or every)
    for line in as_table(rows):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
