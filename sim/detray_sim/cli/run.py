"""`detray-sim run`: one scenario, a run for each of its seeds or for one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detray.trace.documents import document, in_house_units
from detray_sim.cli.output import Ticker, folder_for
from detray_sim.cli.refusal import Refused
from detray_sim.cli.scenarios import add_changes, check_out, load
from detray_sim.experiment import Experiment
from detray_sim.report import Summary, summary, summary_text, write_run
from detray_sim.result import RunResult
from detray_sim.scenario import Scenario
from detray_sim.traces import write_trace
from detray_sim.workload import Workload

_EXAMPLES = """\
examples:
  detray-sim run cholesky.toml
  detray-sim run cholesky.toml --seed 3 --policy heft --out out
  detray-sim run cholesky.toml --set cluster.nodes=16 --set workload.tiles=20 --json

--out writes tasks.csv, tasks.json, summary.json, result.json, gantt.svg and .png, utilisation.svg,
bytes.svg, timeline.json (open it at https://ui.perfetto.dev), and run.trace, every step of every
core (detray replay, story, graph, timeline). Exit status 1: a task failed or never ran."""


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """The command's options."""
    parser = commands.add_parser(
        "run",
        help="run a scenario",
        description="Run one scenario and print what came of it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", metavar="SCENARIO.toml")
    parser.add_argument("--seed", type=int, default=-1, help="instead of those of the file")
    parser.add_argument("--policy", default="", help="instead of the file's (detray-sim list)")
    add_changes(parser)
    parser.add_argument("--out", metavar="DIR", help="a new folder for tables and charts")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    check_out(options.out)
    if options.seed < -1:
        raise Refused(f"--seed: it is from 0 on, not {options.seed}")
    scenario = load(options.scenario, options.changes, options.policy, options.seed)
    status = 0
    told: list[Summary] = []
    with folder_for(options.out) as folder:
        for seed in scenario.seeds:
            inner = folder / f"seed{seed}" if folder and len(scenario.seeds) > 1 else folder
            numbers = _one(scenario, seed, inner)
            if not options.json:
                print(summary_text(numbers))
            told.append(in_house_units(numbers))
            if numbers["failed"] or numbers["never_ran"]:
                status = 1
    if options.json:
        print(document("detray-sim run", {"scenario": options.scenario, "runs": told}))
    return status


def _one(scenario: Scenario, seed: int, folder: Path | None) -> Summary:
    workload = scenario.workload.load(seed)
    with Ticker(f"{scenario.name} seed {seed}") as ticker:
        experiment = Experiment(
            scenario, workload, seed, ticker.tell if sys.stderr.isatty() else None,
            record=folder is not None,
        )  # fmt: skip
        result = experiment.run()
    numbers = summary(result, workload)
    if folder is not None:
        _write(folder, experiment, result, workload)
    return numbers


def _write(folder: Path, experiment: Experiment, result: RunResult, workload: Workload) -> None:
    write_run(folder, result, workload)
    (folder / "trace.json").rename(folder / "timeline.json")
    write_trace(experiment.cluster, folder / "run.trace")
