"""`detray-sim compare`: policies beside each other, on several clusters, over several seeds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from typing import Any

import msgspec

from detray.trace.documents import document, in_house_units
from detray_sim.cli.output import Ticker, folder_for
from detray_sim.cli.refusal import Refused
from detray_sim.cli.scenarios import JOBS_MAX, add_changes, check_out, load, whole_numbers
from detray_sim.experiment import run as run_once
from detray_sim.report import (
    compare,
    comparison_text,
    scaling_chart,
    summary,
    write_comparison,
)
from detray_sim.result import RunResult

_EXAMPLES = """\
examples:
  detray-sim compare cholesky.toml --policies hybrid,blevel,heft
  detray-sim compare cholesky.toml mapreduce.toml --policies blevel,random --seeds 10 --jobs 2
  detray-sim compare cholesky.toml --nodes 1,2,4,8,16 --out scaling

Policies that are compared run with the same seeds, hence the same workloads: differences are also
given seed by seed. --out writes comparison.txt, .csv, .json, a chart, and with several numbers of
nodes a scaling chart with its knee."""


class Job(msgspec.Struct, frozen=True):
    """One run of a comparison, small enough to be sent to another process."""

    path: str
    changes: tuple[str, ...]
    policy: str
    seed: int


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = commands.add_parser(
        "compare",
        help="policies beside each other, over seeds and numbers of nodes",
        description="Run scenarios under several policies and compare their makespans.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", metavar="SCENARIO.toml", nargs="+")
    parser.add_argument("--policies", default="", help="names with commas (default: the file's)")
    parser.add_argument(
        "--nodes", default="", help="numbers of nodes, as 1,2,4 (default: the file's)"
    )
    parser.add_argument(
        "--seeds", type=int, default=0, help="so many, from 1 on (default: the file's)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="so many processes (default: 1)")
    add_changes(parser)
    parser.add_argument("--out", metavar="DIR", help="a new folder for tables and charts")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    check_out(options.out)
    jobs = plan(options)
    results: list[RunResult] = []
    with Ticker(f"{len(jobs)} runs") as ticker:
        for result in _results(jobs, options.jobs):
            results.append(result)
            ticker.tell(len(results), len(jobs))
    comparison = compare(results)
    with folder_for(options.out) as folder:
        if folder is not None:
            write_comparison(folder, results)
            for name, group in _by_workload(results).items():
                if len({len(result.nodes) for result in group}) > 1:
                    scaling_chart(group).write(folder / f"scaling-{name}")
    if options.json:
        data = {"rows": msgspec.to_builtins(comparison.rows), "runs": len(results)}
        print(document("detray-sim compare", in_house_units(data)))
    else:
        print(comparison_text(comparison), end="")
    unfinished = sum(bool(summary(result)["never_ran"]) for result in results)
    if unfinished:
        print(f"detray-sim: in {unfinished} runs some tasks never ran", file=sys.stderr)
    return 1 if unfinished else 0


def plan(options: argparse.Namespace) -> list[Job]:
    """All runs; every scenario is read, and every workload made, before the first begins."""
    if options.seeds < 0 or not 1 <= options.jobs <= JOBS_MAX:
        raise Refused(f"--seeds is from 1 on, --jobs from 1 to {JOBS_MAX}")
    nodes = whole_numbers(options.nodes, "--nodes") if options.nodes else [0]
    policies = [name for name in options.policies.split(",") if name] or [""]
    jobs = []
    for path in options.scenarios:
        for count in nodes:
            more = (f"cluster.nodes={count}",) if count else ()
            changes = (*options.changes, *more)
            for policy in policies:
                scenario = load(path, changes, policy)
                seeds = range(1, options.seeds + 1) if options.seeds else scenario.seeds
                jobs += [Job(path, changes, policy, seed) for seed in seeds]
        scenario.workload.load(jobs[-1].seed)
    return jobs


def _results(jobs: list[Job], processes: int) -> Iterator[RunResult]:
    if processes == 1:
        yield from map(_one, jobs)
        return
    with get_context("fork").Pool(processes) as pool:
        yield from _decoded(pool.imap(_encoded_one, jobs))


def _decoded(stream: Iterable[bytes]) -> Iterator[RunResult]:
    decode: Any = msgspec.msgpack.Decoder(RunResult).decode  # Any: overloaded
    for data in stream:
        yield decode(data)


def _encoded_one(job: Job) -> bytes:
    return msgspec.msgpack.encode(_one(job))


def _one(job: Job) -> RunResult:
    """Without the records of transfers: a comparison has no use for them."""
    result = run_once(load(job.path, job.changes, job.policy), job.seed)
    return msgspec.structs.replace(result, transfers=())


def _by_workload(results: list[RunResult]) -> dict[str, list[RunResult]]:
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.workload, []).append(result)
    return groups
