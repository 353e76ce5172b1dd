"""The Estee study again: `python -m detray_sim.bench.estee FOLDER [--out docs/images]`.

Beránek, Böhm and Cima measured schedulers of task graphs in a simulator (Estee). Here their graphs
run through detray's whole protocol. Three things are other than in the published study: the
interval between decisions is in force, the time a core becomes free counts queued tasks, and equal
seeds give equal makespans. FOLDER is `estee`: the graphs as that project ships them (`irw.zip`,
`elementary.zip`) and `estee_published.json`. Draws makespans beside the published ones, and what
the interval costs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from detray_sim.experiment import run
from detray_sim.scenario import parse_scenario
from detray_sim.workload import SECOND_NS, Workload
from detray_sim.workloads.estee import load_estee

BANDWIDTHS = (32, 128, 512, 2048, 8192)
"""MiB a second, of each network card in each direction."""
GRAPHS = {"crossv": "irw", "gridcat": "irw", "bigmerge": "elementary", "splitters": "elementary"}
CLUSTERS = {"8x4": (8, 4), "32x16": (32, 16)}
POLICIES = {"blevel": "blevel-gt", "random-static": "random", "stealing": "ws"}
"""Ours, and the one of theirs that is nearest. `stealing` does not look at bytes; `ws` does."""
INTERVALS_S = (0.0, 0.1, 0.4, 1.6, 6.4)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One makespan; `published_s` is -1 where the study has none."""

    graph: str
    cluster: str
    policy: str
    bandwidth_mib: int
    interval_s: float
    makespan_s: float
    published_s: float = -1.0


def main(argv: list[str]) -> int:
    """Run both parts, print them, draw them."""
    parser = argparse.ArgumentParser(prog="python -m detray_sim.bench.estee", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="a folder for the charts")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args(argv)
    graphs = {
        name: load_estee(options.folder / f"{file}.zip", name) for name, file in GRAPHS.items()
    }
    published = json.loads((options.folder / "estee_published.json").read_text())
    cells = list(makespans(graphs, published))
    intervals = list(costs_of_intervals(graphs["gridcat"]))
    if options.json:
        print(msgspec.json.format(msgspec.json.encode([*cells, *intervals])).decode())
    else:
        for cell in (*cells, *intervals):
            print(
                f"{cell.graph:10} {cell.cluster:6} {cell.policy:14} {cell.bandwidth_mib:5} MiB/s"
                f" every {cell.interval_s:3} s {cell.makespan_s:10.2f} s {cell.published_s:10.2f} s"
            )
    if options.out is not None:
        draw(options.out, cells, intervals)
    return 0


def makespans(graphs: dict[str, Workload], published: dict[str, list[float]]) -> Iterator[Cell]:
    """Every graph on every cluster with every policy and bandwidth, beside the published value."""
    for graph, workload in graphs.items():
        for cluster in CLUSTERS:
            for policy, theirs in POLICIES.items():
                known = published.get(f"{graph}|{cluster}|{theirs}", [-1.0] * len(BANDWIDTHS))
                for bandwidth, value in zip(BANDWIDTHS, known, strict=True):
                    made = measure(workload, cluster, policy, bandwidth, 0.0)
                    yield Cell(
                        graph=graph,
                        cluster=cluster,
                        policy=policy,
                        bandwidth_mib=bandwidth,
                        interval_s=0.0,
                        makespan_s=made,
                        published_s=value,
                    )


def costs_of_intervals(workload: Workload) -> Iterator[Cell]:
    """One graph of short tasks, decided at most every so often."""
    for policy in ("blevel", "etf", "random-static"):
        for interval_s in INTERVALS_S:
            made = measure(workload, "32x16", policy, 8192, interval_s)
            yield Cell(
                graph=workload.name,
                cluster="32x16",
                policy=policy,
                bandwidth_mib=8192,
                interval_s=interval_s,
                makespan_s=made,
            )


def measure(
    workload: Workload, cluster: str, policy: str, bandwidth: int, interval_s: float
) -> float:
    """The makespan of one cell, in seconds."""
    nodes, cpus = CLUSTERS[cluster]
    scenario = parse_scenario(
        {
            "workload": {"generator": "bag", "tasks": 1},
            "cluster": {"nodes": nodes, "cpus": cpus, "store": "1024TiB"},
            "network": {"model": "maxmin", "bandwidth": f"{bandwidth}MiB/s"},
            "policy": {"name": policy, "decision_interval": interval_s},
        },
        "estee",
    )
    return run(scenario, 1, workload).makespan_ns / SECOND_NS


def draw(folder: Path, cells: list[Cell], intervals: list[Cell]) -> None:
    """Two charts, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "detray"
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    colours = dict(zip(POLICIES, ("#0072b2", "#d55e00", "#009e73"), strict=True))
    figure, axes = pyplot.subplots(len(CLUSTERS), len(GRAPHS), figsize=(13, 6), sharex=True)
    for row, cluster in enumerate(CLUSTERS):
        for column, graph in enumerate(GRAPHS):
            axis = axes[row][column]
            for policy, theirs in POLICIES.items():
                mine = [
                    c for c in cells if (c.graph, c.cluster, c.policy) == (graph, cluster, policy)
                ]
                made = [c.makespan_s for c in mine]
                axis.plot(BANDWIDTHS, made, "o-", color=colours[policy], label=policy)
                if mine[0].published_s > 0:
                    known = [c.published_s for c in mine]
                    label = f"{theirs} (published)"
                    axis.plot(BANDWIDTHS, known, "x--", color=colours[policy], label=label)
            axis.set(xscale="log", yscale="log", title=f"{graph} on {cluster}")
            if row == len(CLUSTERS) - 1:
                axis.set_xlabel("bandwidth, MiB/s")
            if not column:
                axis.set_ylabel("makespan, s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=6, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(folder / "estee-makespans.svg", metadata={"Date": None})
    pyplot.close(figure)
    figure, axis = pyplot.subplots(figsize=(6, 4))
    for policy, colour in zip(("blevel", "etf", "random-static"), colours.values(), strict=True):
        made = [c.makespan_s for c in intervals if c.policy == policy]
        axis.plot(range(len(INTERVALS_S)), [m / made[0] for m in made], "o-", color=colour)
        axis.annotate(policy, (len(INTERVALS_S) - 1, made[-1] / made[0]), xytext=(4, 0),
                      textcoords="offset points", color=colour, va="center")  # fmt: skip
    axis.set_xticks(range(len(INTERVALS_S)), [str(interval) for interval in INTERVALS_S])
    axis.set(
        xlabel="least time between decisions, s",
        ylabel="makespan / makespan without",
        title="gridcat on 32x16, 8192 MiB/s",
    )
    axis.margins(x=0.18)
    figure.tight_layout()
    figure.savefig(folder / "estee-interval.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
