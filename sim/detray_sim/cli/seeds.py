"""`detray-sim swarm` and `detray-sim seed`: worlds made up from seeds, all checks on."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from detray.trace.documents import document, in_house_units
from detray.trace.names import describe
from detray_sim.cli.output import Ticker
from detray_sim.cli.refusal import Refused
from detray_sim.cli.scenarios import JOBS_MAX
from detray_sim.determinism import play_twice
from detray_sim.story import causal_slice, ids_of, tell
from detray_sim.swarm import SwarmReport, reduce_seed, swarm
from detray_sim.tape import Tape
from detray_sim.traces import write_trace
from detray_sim.trial import Watch, run_trial
from detray_sim.world import PROFILES, Profile, draw_world

CANARY_FROM = 1_000
"""Swarms of so many seeds must also find a planted bug."""
_SWARM_EXAMPLES = """\
examples:
  detray-sim swarm --seeds 1000
  detray-sim swarm --seeds 10000 --first 50000 --profile medium --jobs 2 --json

A seed draws a cluster, a program, costs, policies and faults, plays it twice and checks every
step. Equal seeds give the equal digest everywhere. Exit status 1: a seed failed; the report says
which command plays it again. From 1,000 seeds on, a planted bug must be found as well."""

_SEED_EXAMPLES = """\
examples:
  detray-sim seed 4711
  detray-sim seed 4711 --story 1.9f3a12.3
  detray-sim seed 4711 --shrink --record failure.txt
  detray-sim seed 4711 --trace seed.trace        (then: detray replay seed.trace)

--record writes the story: the steps in the past of a failure, and the tape that plays it again;
of a seed that does not fail, what its cores were told and ordered. Exit status 1: it failed."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of both commands."""
    parser = commands.add_parser(
        "swarm",
        help="play many made-up worlds with faults",
        description="Play many seeds and report what failed.",
        epilog=_SWARM_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="the first (default: 0)")
    _add_common(parser)
    parser.add_argument("--jobs", type=int, default=1, help="so many processes (0: all CPUs)")
    parser.set_defaults(run=run_swarm)
    parser = commands.add_parser(
        "seed",
        help="play one made-up world, tell its story, make it small",
        description="Play one seed.",
        epilog=_SEED_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("seed", type=int, metavar="K")
    _add_common(parser)
    parser.add_argument("--record", metavar="PATH", help="write the story to a file")
    parser.add_argument("--trace", metavar="PATH", help="write all steps of all cores as a trace")
    parser.add_argument("--story", metavar="ID", help="print the steps that touch this id (hex)")
    parser.add_argument("--shrink", action="store_true", help="find the smallest that fails alike")
    parser.set_defaults(run=run_seed)


def _add_common(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(PROFILES)
    parser.add_argument("--profile", default="small", metavar="P", help=f"{names} (default: small)")
    parser.add_argument("--json", action="store_true", help="for programs")


def _check(options: argparse.Namespace) -> None:
    if options.profile not in PROFILES:
        raise Refused(f"--profile: it is one of {', '.join(PROFILES)}, not {options.profile!r}")


def run_swarm(options: argparse.Namespace) -> int:
    """Play them."""
    _check(options)
    if options.seeds < 1 or options.first < 0 or not 0 <= options.jobs <= JOBS_MAX:
        raise Refused(f"--seeds is from 1 on, --first from 0 on, --jobs from 0 to {JOBS_MAX}")
    seeds = range(options.first, options.first + options.seeds)
    with Ticker(f"swarm {options.profile}") as ticker:
        report = swarm(
            seeds,
            PROFILES[options.profile],
            jobs=options.jobs,
            canary=options.seeds >= CANARY_FROM,
            progress=lambda done, total, _: ticker.tell(done, total),
        )
    if options.json:
        print(document("detray-sim swarm", in_house_units(msgspec.to_builtins(report))))
    else:
        _print_swarm(report)
    return 1 if report.failed or report.canary is False else 0


def _print_swarm(report: SwarmReport) -> None:
    struck = sum(report.faults.values())
    print(
        f"{report.seeds:,} seeds of profile {report.profile}: {report.failed:,} failed;"
        f" {report.stimuli:,} stimuli in {report.steps:,} steps, {report.virtual_s:,.1f} s of"
        f" virtual time, {struck:,} faults of {len(report.faults)} kinds,"
        f" {report.pairs:.1%} of all pairs of kinds; {report.wall_s:.1f} s; digest {report.digest}"
    )
    if report.canary is False:
        print("the canary lives: a planted bug was not found, so the checks are blind")
    for found in report.failures:
        print(f"\n{found.count} x {found.signature}\n  play again: {found.command}")


class SeedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one seed; times in nanoseconds of virtual time."""

    seed: int
    profile: str
    failed: bool
    signature: str
    text: str
    end: str
    program: str
    digest: str
    steps: int
    stimuli: int
    virtual_ns: int
    faults: dict[str, int]
    shrunk_runs: int = 0
    choices: int = 0
    """Choices other than the simplest that the shrunk tape is left with."""


def run_seed(options: argparse.Namespace) -> int:
    """Play it."""
    _check(options)
    if options.seed < 0:
        raise Refused(f"a seed is from 0 on, not {options.seed}")
    profile = PROFILES[options.profile]
    wanted = _prefix(options.story) if options.story else b""
    if options.record and not Path(options.record).resolve().parent.is_dir():
        raise Refused(f"--record {options.record}: there is no such folder")
    if options.trace:
        _write_trace(options.seed, profile, options.trace)
    verdict = play_twice(Tape(options.seed), profile)
    reduced = reduce_seed(options.seed, profile) if options.shrink else None
    report = SeedReport(
        seed=options.seed,
        profile=profile.name,
        failed=verdict.signature is not None,
        signature=str(verdict.signature or ""),
        text=verdict.text,
        end=verdict.end,
        program=verdict.program,
        digest=verdict.digest,
        steps=verdict.steps,
        stimuli=verdict.stimuli,
        virtual_ns=verdict.virtual_ns,
        faults=verdict.faults,
        shrunk_runs=reduced.shrunk.runs if reduced else 0,
        choices=sum(map(bool, reduced.shrunk.choices.values())) if reduced else 0,
    )
    if not options.json:
        for line in draw_world(Tape(options.seed), profile).describe():
            print(line)
        _print_seed(report)
        if wanted:
            print("\n".join(_touching(options.seed, profile, wanted)))
        if reduced is not None:
            print(reduced.story, end="")
    if options.record:
        story = reduced.story if reduced else tell(verdict.choices, profile, seed=options.seed)
        Path(options.record).write_text(story, encoding="utf-8")
    if options.json:
        told = list(_touching(options.seed, profile, wanted)) if wanted else []
        more = {"story": told, "shrunk_story": reduced.story if reduced else ""}
        print(document("detray-sim seed", msgspec.structs.asdict(report) | more))
    return 1 if report.failed else 0


def _write_trace(seed: int, profile: Profile, path: str) -> None:
    if not Path(path).resolve().parent.is_dir():
        raise Refused(f"--trace {path}: there is no such folder")
    watch = Watch(profile, checks=False, keeps=True)
    run_trial(Tape(seed), profile, watch=watch)
    if watch.cluster is not None:
        write_trace(watch.cluster, path)


def _print_seed(report: SeedReport) -> None:
    struck = " ".join(f"{name} {count}" for name, count in report.faults.items()) or "none"
    print(
        f"{report.end or 'did not end'} after {report.virtual_ns / 1e6:.3f} ms of virtual time:"
        f" {report.steps} steps, {report.stimuli} stimuli; faults that struck: {struck};"
        f" digest {report.digest}"
    )
    if report.failed:
        print(f"failed: {report.signature}\n{report.text}")


def _prefix(text: str) -> bytes:
    try:
        prefix = bytes.fromhex(text)
    except ValueError:
        prefix = b""
    if len(prefix) < 4:
        raise Refused(f"--story {text}: an id is hexadecimal, at least its first 8 digits")
    return prefix[:16]


def _touching(seed: int, profile: Profile, prefix: bytes) -> list[str]:
    """The steps that touch what is so called, and what it was made from, in order."""
    watch = Watch(profile, records=True)
    run_trial(Tape(seed), profile, watch=watch)
    records = watch.records or []
    names = {
        name
        for record in records
        for message in (*record[3], *record[4])
        for name in ids_of(message)
        if name.startswith(prefix)
    }
    lines = []
    for now_ns, _, core, stimuli, effects in causal_slice(records, sorted(names)):
        lines += ["", f"{now_ns / 1e6:.3f}ms {core}"]
        lines += [f"< {describe(message)}" for message in stimuli]
        lines += ["----", *[describe(effect) for effect in effects]]
    return lines or [f"nothing that begins with {prefix.hex()} occurs in seed {seed}"]
