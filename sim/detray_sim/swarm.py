"""Swarms: many seeds in several processes, what failed told once, one number for all.

    report = swarm(range(0, 10_000), jobs=2)
    print(report.failures, report.digest)

Each run of a swarm must also catch its canary: a world with a planted bug. If the canary lives, the
oracles are blind and the report says so (`canary` is False).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from time import perf_counter

import msgspec

from detray_sim.coverage import Coverage
from detray_sim.determinism import play_twice
from detray_sim.shrink import RUNS_MAX, SECONDS_MAX, Choices, Shrunk, Signature, shrink
from detray_sim.story import tell
from detray_sim.tape import Tape
from detray_sim.trial import Verdict, run_trial
from detray_sim.world import SMALL, Profile

CHUNK = 50
"""Seeds that a process takes at a time."""
COLLECT_EVERY = 8
"""A world is one large cycle of references: garbage of so many seeds is collected at once."""
CANARY = "grant_count_off"
"""The safeguard whose absence every swarm must notice."""
CANARY_WORLDS = msgspec.structs.replace(SMALL, kinds=("borrows", "relay", "again"))
"""Small worlds whose programs hand references on and back, which is what the canary miscounts."""
CANARY_SEEDS = 3_000
Progress = Callable[[int, int, int], None]
"""Told (seeds done, seeds in all, kinds of failures)."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of failure: the first seed that showed it, how many did."""

    seed: int
    signature: str
    count: int
    text: str
    command: str
    """Plays the first of them again."""


class SwarmReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a swarm; msgspec writes it as one JSON object."""

    profile: str
    seeds: int
    failures: tuple[Found, ...]
    failed: int
    """Seeds that failed, of all kinds."""
    stimuli: int
    steps: int
    virtual_s: float
    faults: dict[str, int]
    pairs: float
    """Share of pairs of kinds of faults that struck in one seed."""
    ends: dict[str, int]
    programs: dict[str, int]
    missing: dict[str, list[str]]
    digest: str
    """Over the digests of all seeds, in order: equal on every machine."""
    wall_s: float
    canary: bool | None = None
    """True if the planted bug was caught; None if nobody looked."""


def swarm(
    seeds: Sequence[int],
    profile: Profile = SMALL,
    *,
    jobs: int = 1,
    ablate: tuple[str, ...] = (),
    twice: bool = True,
    canary: bool = False,
    progress: Progress | None = None,
    command: str = "detray-sim seed {seed} --profile {profile}",
) -> SwarmReport:
    """Play all seeds and report; `twice` compares two runs of each."""
    began = perf_counter()
    coverage = Coverage()
    kinds: dict[str, list[Verdict]] = {}
    digest = blake2b(digest_size=16)
    stimuli = steps = virtual_ns = 0
    verdicts_of_all = play_all(seeds, profile, jobs=jobs, ablate=ablate, twice=twice)
    for done, verdict in enumerate(verdicts_of_all, 1):
        coverage.add(verdict)
        digest.update(verdict.digest.encode())
        stimuli += verdict.stimuli
        steps += verdict.steps
        virtual_ns += verdict.virtual_ns
        if verdict.signature is not None:
            kinds.setdefault(str(verdict.signature), []).append(verdict)
        if progress is not None:
            progress(done, len(seeds), len(kinds))
    found = [
        Found(
            seed=verdicts[0].seed,
            signature=name,
            count=len(verdicts),
            text=verdicts[0].text,
            command=command.format(seed=verdicts[0].seed, profile=profile.name),
        )
        for name, verdicts in kinds.items()
    ]
    return SwarmReport(
        profile=profile.name,
        seeds=len(seeds),
        failures=tuple(sorted(found, key=lambda each: -each.count)),
        failed=sum(map(len, kinds.values())),
        stimuli=stimuli,
        steps=steps,
        virtual_s=virtual_ns / 1e9,
        faults=dict(sorted(coverage.faults.items())),
        pairs=round(coverage.pair_share, 4),
        ends=dict(coverage.ends),
        programs=dict(coverage.programs),
        missing=coverage.missing,
        digest=digest.hexdigest(),
        wall_s=round(perf_counter() - began, 3),
        canary=catch_canary() if canary else None,
    )


def play_all(
    seeds: Sequence[int],
    profile: Profile = SMALL,
    *,
    jobs: int = 1,
    ablate: tuple[str, ...] = (),
    twice: bool = True,
) -> Iterator[Verdict]:
    """The verdicts of seeds, in their order, whoever played them. `jobs` 0: one for each CPU."""
    jobs = jobs or os.cpu_count() or 1
    chunks = [
        (tuple(seeds[start : start + CHUNK]), profile, ablate, twice)
        for start in range(0, len(seeds), CHUNK)
    ]
    if jobs == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield from _play_chunk(chunk)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for verdicts in pool.imap(_play_chunk, chunks):
            yield from verdicts


Chunk = tuple[tuple[int, ...], Profile, tuple[str, ...], bool]


def _play_chunk(chunk: Chunk) -> list[Verdict]:
    """Some seeds in this process. What it makes is garbage at the end, not in between."""
    seeds, profile, ablate, twice = chunk
    verdicts: list[Verdict] = []
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    for number, seed in enumerate(seeds):
        tape = Tape(seed)
        if twice:
            verdict = play_twice(tape, profile, ablate=ablate)
        else:
            verdict = run_trial(tape, profile, ablate=ablate)
        if verdict.signature is None:
            verdict.choices = {}  # nobody will shrink it
        verdicts.append(verdict)
        if number % COLLECT_EVERY == 0:
            gc.collect()
    gc.unfreeze()
    if was_enabled:
        gc.enable()
    return verdicts


def catch_canary(
    profile: Profile = CANARY_WORLDS, switch: str = CANARY, seeds: int = CANARY_SEEDS
) -> bool:
    """True if a cluster without a safeguard is caught within some seeds."""
    for seed in range(seeds):
        verdict = run_trial(Tape(seed), profile, ablate=(switch,))
        if verdict.signature is not None and run_trial(Tape(seed), profile).signature is None:
            return True
    return False


# ---------------------------------------------------------------------------------- one failure


class Reduced(msgspec.Struct, frozen=True):
    """A failing seed made small: the shrunk tape and its story."""

    signature: Signature
    shrunk: Shrunk
    story: str


def reduce_seed(
    seed: int,
    profile: Profile = SMALL,
    *,
    ablate: tuple[str, ...] = (),
    runs_max: int = RUNS_MAX,
    seconds_max: float = SECONDS_MAX,
) -> Reduced | None:
    """Shrink a failing seed; None if it does not fail."""
    play = play_twice if _is_fickle(seed, profile, ablate) else run_trial
    verdict = play(Tape(seed), profile, ablate=ablate)
    signature = verdict.signature
    if signature is None:
        return None

    def fails(choices: Choices) -> Choices | None:
        other = play(Tape(seed, choices), profile, ablate=ablate)
        return other.choices if other.signature == signature else None

    shrunk = shrink(verdict.choices, fails, runs_max=runs_max, seconds_max=seconds_max)
    return Reduced(signature, shrunk, tell(shrunk.choices, profile, seed=seed, ablate=ablate))


def _is_fickle(seed: int, profile: Profile, ablate: tuple[str, ...]) -> bool:
    """True if a single run is well, so that only a second one can show what is wrong."""
    return run_trial(Tape(seed), profile, ablate=ablate).signature is None


def totals(reports: Sequence[SwarmReport]) -> Counter[str]:
    """Failures of several swarms by signature."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update({found.signature: found.count for found in report.failures})
    return counts
