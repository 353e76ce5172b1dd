"""How many tasks a second of CPU time runs: `python -m detray_sim.bench.experiments`.

Whole experiments: the real cores of all nodes and of the head, their messages and digests, the
program, workers, transfers. Each row is measured in a process of its own; the time to make the
workload is not in it, the time to form the cluster is.
"""

from __future__ import annotations

import argparse
import resource
import sys
from multiprocessing import get_context
from typing import Any

import msgspec

from detray_sim.experiment import run
from detray_sim.scenario import parse_scenario

FLAT_SHARE = 0.6
"""A million tasks should run at least at this share of the rate of ten thousand."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured; `goal` in tasks per CPU-second, 0: none."""

    name: str
    workload: dict[str, Any]  # Any: a generator's parameters
    nodes: int
    policy: str = "hybrid"
    network: str = "instant"
    goal: int = 0


class ExperimentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    name: str
    tasks: int
    nodes: int
    policy: str
    network: str
    cpu_s: float
    tasks_per_cpu_s: int
    goal: int
    core_steps: int
    messages: int
    transfers: int
    makespan_s: float
    peak_bytes: int


BAG = {"generator": "bag", "duration": "100ms", "size": 0}
CASES = (
    Case(name="independent", workload={**BAG, "tasks": 10_000}, nodes=32, goal=10_000),
    Case(
        name="merge_neighbours",
        workload={"generator": "merge_neighbours", "count": 5_000, "duration": "100ms"},
        nodes=32,
        network="maxmin",
        goal=5_000,
    ),
    Case(
        name="merge_neighbours, blevel",
        workload={"generator": "merge_neighbours", "count": 5_000, "duration": "100ms"},
        nodes=32,
        network="maxmin",
        policy="blevel",
        goal=5_000,
    ),
    Case(name="independent", workload={**BAG, "tasks": 100_000}, nodes=1_000),
    Case(name="independent", workload={**BAG, "tasks": 1_000_000}, nodes=1_000),
)


def main(argv: list[str]) -> int:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(
        prog="python -m detray_sim.bench.experiments", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="without those of 100,000 and more")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args(argv)
    cases = [case for case in CASES if not options.quick or case.nodes < 1_000]
    rows = []
    if not options.json:
        print(
            f"{'case':28} {'tasks':>9} {'nodes':>5} {'tasks/CPU-s':>11} {'goal':>6} {'peak MiB':>8}"
        )
    for case in cases:
        with get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (case,))
        rows.append(row)
        if not options.json:
            print(
                f"{row.name:28} {row.tasks:9,} {row.nodes:5} {row.tasks_per_cpu_s:11,}"
                f" {row.goal or '-':>6} {row.peak_bytes >> 20:8,}",
                flush=True,
            )
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    elif not options.quick:
        share = rows[-1].tasks_per_cpu_s / rows[0].tasks_per_cpu_s
        print(f"a million tasks run at {share:.0%} of the rate of ten thousand ({FLAT_SHARE:.0%})")
    return 0


def measure(case: Case) -> ExperimentRow:
    """Run it once."""
    network: dict[str, object] = {"model": case.network}
    if case.network != "instant":
        network |= {"bandwidth": "10Gbit", "latency": "50us"}
    scenario = parse_scenario(
        {
            "workload": case.workload,
            "cluster": {"nodes": case.nodes, "cpus": 16},
            "network": network,
            "policy": {"name": case.policy},
        },
        case.name,
    )
    workload = scenario.workload.load(0)
    result = run(scenario, 0, workload)
    return ExperimentRow(
        name=case.name,
        tasks=len(workload.tasks),
        nodes=case.nodes,
        policy=case.policy,
        network=case.network,
        cpu_s=result.cpu_s,
        tasks_per_cpu_s=round(len(workload.tasks) / result.cpu_s),
        goal=case.goal,
        core_steps=result.core_steps,
        messages=result.messages,
        transfers=len(result.transfers),
        makespan_s=result.makespan_ns / 1e9,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
