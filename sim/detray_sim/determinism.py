"""Determinism: every world is played twice, and the two must not differ in anything.

The second run is given what may not matter: other objects in memory before it, another order of
the tape's dictionary, the cycle collector on or off. Compared are the chains of digests over all
stimuli and effects; on a difference both are run again with a digest of each table after each
step, and the first step that differs is named, with the table. Hash seeds and fresh processes
are for `check_in_processes`, which CI runs.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from detray.core.effects import Effect
from detray_sim.cluster import SimCluster
from detray_sim.server import CoreServer
from detray_sim.shrink import sign
from detray_sim.tape import Tape
from detray_sim.trial import Verdict, Watch, run_trial
from detray_sim.world import PROFILES, SMALL, Profile

_encode = msgspec.msgpack.Encoder().encode
HASH_SEEDS = ("0", "1", "4242")


class Chain(Watch):
    """Also keeps a digest of stimuli and effects, and of every table, after each step."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self.links: list[tuple[str, bytes, dict[str, bytes]]] = []
        """(core, digest of what went in and came out, digests of its tables)."""

    def step(
        self,
        cluster: SimCluster,
        server: CoreServer,
        now_ns: int,
        stimuli: Sequence[Any],
        effects: Sequence[Effect],
    ) -> None:
        """A core took a step. (Any: messages of all kinds.)"""
        traffic = _digest((server.number, now_ns, stimuli, effects))
        tables = server.core.tables
        states = {name: _digest(getattr(tables, name)) for name in tables.__struct_fields__}
        self.links.append((f"{server.name} at {cluster.clock.now_ns} ns", traffic, states))
        super().step(cluster, server, now_ns, stimuli, effects)


def _digest(value: Any) -> bytes:  # Any: rows of all kinds
    return blake2b(_encode(value), digest_size=8).digest()


class Difference(msgspec.Struct, frozen=True):
    """Where two runs of one world part."""

    step: int
    core: str
    where: str
    """"traffic", or the name of the first table that differs."""

    def __str__(self) -> str:
        return f"step {self.step} of {self.core}: {self.where}"


def play_twice(tape: Tape, profile: Profile = SMALL, *, ablate: tuple[str, ...] = ()) -> Verdict:
    """The verdict of a world; a violation if a second run differs from the first."""
    first = run_trial(tape, profile, ablate=ablate)
    if first.signature is not None and first.signature.oracle.startswith("L3"):
        return first  # cut off by the processor's time, which is not ours to repeat
    again = Tape(tape.seed, _shuffled(first.choices))
    ballast = [bytearray(64 + number) for number in range(tape.seed % 37)]
    was_enabled = gc.isenabled()
    if tape.seed % 8 == 1:
        gc.enable()
    try:
        watch = Watch(profile, checks=first.signature is not None)
        second = run_trial(again, profile, ablate=ablate, watch=watch)
    finally:
        if not was_enabled:
            gc.disable()
        del ballast
    if _same(first, second):
        return first
    difference = locate(lambda: Tape(tape.seed, first.choices), profile, ablate=ablate)
    text = str(difference) if difference else "the runs differ, and do not when looked at closely"
    first.signature = sign("D1 two runs differ", difference.where if difference else text)
    first.text = f"{text}\nfirst: {first.digest} {first.end}\nsecond: {second.digest} {second.end}"
    return first


def _same(a: Verdict, b: Verdict) -> bool:
    return (a.digest, a.steps, a.virtual_ns, a.signature) == (
        b.digest,
        b.steps,
        b.virtual_ns,
        b.signature,
    )


def _shuffled(choices: dict[str, int]) -> dict[str, int]:
    """The same choices in another order: a tape is a mapping, nothing may depend on its order."""
    labels = list(choices)
    return {label: choices[label] for label in labels[1::2] + labels[::2]}


def locate(
    make: Callable[[], Tape], profile: Profile = SMALL, *, ablate: tuple[str, ...] = ()
) -> Difference | None:
    """The first step in which two runs of a tape differ, and what differs in it."""
    chains = [Chain(profile), Chain(profile)]
    for number, chain in enumerate(chains):
        tape = make()
        if number and tape.is_recorded:
            tape = Tape(tape.seed, _shuffled({**(tape.given or {})}))
        run_trial(tape, profile, ablate=ablate, watch=chain)
    return first_difference(chains[0], chains[1])


def first_difference(a: Chain, b: Chain) -> Difference | None:
    """The first step after which the two differ.

    Not by bisection: tables may come together again.
    """
    high = min(len(a.links), len(b.links))
    for number in range(high):
        core, traffic, states = a.links[number]
        other = b.links[number]
        if traffic == other[1] and states == other[2]:
            continue
        for table, digest in states.items():
            if other[2].get(table) != digest:
                return Difference(number, core, table)
        return Difference(number, core, "traffic")
    if len(a.links) != len(b.links):
        longer = a if len(a.links) > len(b.links) else b
        return Difference(high, longer.links[high][0], "one run goes on")
    return None


# ---------------------------------------------------------------------------------- processes


def check_in_processes(
    seeds: Sequence[int],
    profile: Profile = SMALL,
    *,
    hash_seeds: Sequence[str] = HASH_SEEDS,
    seconds: float = 300.0,
) -> list[str]:
    """Play seeds in fresh processes under several hash seeds, the collector on and off.

    What differs, one line each; nothing if all is well.
    """
    outputs: dict[str, list[str]] = {}
    for place, hash_seed in enumerate(hash_seeds):
        command = [
            sys.executable,
            "-m",
            "detray_sim.determinism",
            profile.name,
            str(place % 2),
            *map(str, seeds),
        ]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            return [f"PYTHONHASHSEED={hash_seed}: {done.stderr[-2000:]}"]
        outputs[hash_seed] = done.stdout.splitlines()
    first, *others = outputs.items()
    return [
        f"seed {seed}: {a} under PYTHONHASHSEED={first[0]}, {b} under {hash_seed}"
        for hash_seed, lines in others
        for seed, a, b in zip(seeds, first[1], lines, strict=True)
        if a != b
    ]


def _main(arguments: Sequence[str]) -> None:
    """Print the digests of some seeds: what `check_in_processes` runs."""
    profile = PROFILES[arguments[0]]
    if arguments[1] == "1":
        gc.set_threshold(1)
    for word in arguments[2:]:
        verdict = run_trial(Tape(int(word)), profile)
        print(verdict.digest, verdict.steps, verdict.signature or "-")


if __name__ == "__main__":
    _main(sys.argv[1:])
