"""One configuration is recorded, others are predicted, and all are really run.

    python -m detray_sim.bench.whatif [--rounds 3] [--programs nested,index] [--json]

In each round every program runs in fresh processes on every configuration: one node with 1, 2, 4
and 8 CPUs, and clusters of nodes of 2 CPUs on this machine. One of these is recorded; from that
recording alone `detray-sim whatif` predicts the others. Compared are medians over the rounds of
what the driver measured, from its first submission to its last result. Tasks sleep, so that any
machine has as many CPUs as a node says; those of the index compute, and run where there are cores.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec

import detray
from detray.trace.reading import open_trace
from detray_sim.report.text import text_table
from detray_sim.whatif import Question
from detray_sim.whatif_script import read_recording

SETTLE_S = 1.5
"""After this the workers that a node starts with are there."""
TIMEOUT_S = 300.0


class Config(NamedTuple):
    """Equal nodes of this machine; one is a private cluster, as `detray.init()` starts it."""

    nodes: int
    cpus: int

    def __str__(self) -> str:
        return f"{self.nodes}x{self.cpus}"


class Program(NamedTuple):
    """A driver: recorded on one configuration, predicted on the others."""

    run: Callable[[], None]
    recorded: Config
    others: tuple[Config, ...]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One program on one configuration. Times in seconds."""

    program: str
    config: str
    is_recorded: bool
    measured_s: float
    lowest_s: float
    highest_s: float
    predicted_s: float
    error: float
    """Signed, relative to what was measured."""
    bound: str
    """What stops it, by the prediction."""


# ------------------------------------------------------------------------------ programs


def nap(seconds: float, *inputs: object) -> float:
    """A task."""
    time.sleep(seconds)
    return seconds


def parts(seconds: float, count: int) -> list[int]:
    """A task with many outcomes."""
    time.sleep(seconds)
    return list(range(count))


def tree(depth: int, seed: int) -> float:
    """A task that launches others, waits for them, and goes on."""
    draws = random.Random(seed)
    time.sleep(draws.uniform(0.03, 0.06))
    if depth:
        again: Any = detray.remote(tree)  # Any: the types of user functions are lost
        detray.get([again.remote(depth - 1, 10 * seed + n) for n in range(4)])
    else:
        time.sleep(draws.uniform(0.1, 0.2))
    return draws.uniform(0, 1)


def fork_join() -> None:
    """Three rounds of sixteen tasks and one that takes them all."""
    draws, work = random.Random(1), _remote(nap)
    last: list[Any] = []
    for _ in range(3):
        wide = [work.remote(draws.uniform(0.1, 0.3), *last) for _ in range(16)]
        last = [work.remote(0.1, *wide)]
    detray.get(last)


def layered() -> None:
    """Eight layers of eight tasks, each of which takes two of the layer before."""
    draws, work = random.Random(2), _remote(nap)
    layer = [work.remote(draws.uniform(0.05, 0.25)) for _ in range(8)]
    for _ in range(7):
        layer = [work.remote(draws.uniform(0.05, 0.25), *draws.sample(layer, 2)) for _ in range(8)]
    detray.get(layer)


def nested() -> None:
    """Tasks that launch tasks, three floors, and wait for them."""
    detray.get([_remote(tree).remote(2, seed) for seed in (1, 2, 3)])


def map_reduce() -> None:
    """Twenty-four maps with eight outcomes each, of which every reducer takes one of each."""
    draws, reduce = random.Random(3), _remote(nap)
    mapper: Any = detray.remote(num_returns=8)(parts)
    maps = [mapper.remote(draws.uniform(0.1, 0.4), 8) for _ in range(24)]
    detray.get(
        [reduce.remote(draws.uniform(0.2, 0.6), *[row[n] for row in maps]) for n in range(8)]
    )


def as_completed() -> None:
    """Whichever of thirty tasks ends first is followed by another, and so on."""
    draws, work = random.Random(4), _remote(nap)
    waiting = [work.remote(draws.uniform(0.1, 0.5)) for _ in range(30)]
    follow = []
    while waiting:
        ready, waiting = detray.wait(waiting, num_returns=1)
        follow.append(work.remote(0.1, ready[0]))
    detray.get(follow)


def index() -> None:
    """The inverted index of `make demo`, of half of its files."""
    job, command = import_module("detray.demo.index"), import_module("detray.demo.command")
    files = job.library_files(400)
    command.run_with_detray(job.cut(files, 16), 4)


def _remote(function: Callable[..., object]) -> Any:
    return detray.remote(function)


_ONE = tuple(Config(1, cpus) for cpus in (1, 2, 4, 8))
_MANY = (Config(2, 2), Config(3, 2), Config(4, 2))


def _others(recorded: Config) -> tuple[Config, ...]:
    return tuple(config for config in (*_ONE, *_MANY) if config != recorded)


_FOUR = Config(1, 4)
PROGRAMS = {
    "fork_join": Program(fork_join, _FOUR, _others(_FOUR)),
    "layered": Program(layered, _FOUR, _others(_FOUR)),
    "nested": Program(nested, _FOUR, _others(_FOUR)),
    "map_reduce": Program(map_reduce, Config(2, 2), _others(Config(2, 2))),
    "as_completed": Program(as_completed, Config(1, 2), _others(Config(1, 2))),
    "index": Program(index, Config(1, 1), (Config(1, 2), Config(2, 1))),
}


# ------------------------------------------------------------------------------ real runs


def run_here(name: str, config: Config, folder: Path, *, record: bool) -> float:
    """Run a program in this process, which must have no session yet; seconds."""
    if config.nodes == 1:
        path = folder / "node0.trace" if record else None
        detray.init(num_cpus=config.cpus, log_to_driver=False, record=path)
        return _timed(name)
    # By name: the simulator does not know real processes, this measurement does.
    cluster = import_module("detray.cluster_utils").Cluster()
    try:
        for number in range(config.nodes):
            options = {"record": str(folder / f"node{number}.trace")} if record else {}
            cluster.add_node(num_cpus=config.cpus, **options)
        detray.init(address=cluster.address, log_to_driver=False)
        return _timed(name)
    finally:
        cluster.shutdown()


def _timed(name: str) -> float:
    try:
        time.sleep(SETTLE_S)
        began = time.perf_counter()
        PROGRAMS[name].run()
        return time.perf_counter() - began
    finally:
        detray.shutdown()


def run_apart(name: str, config: Config, folder: Path, *, record: bool) -> float:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "detray_sim.bench.whatif", "--one", name, str(config)]
    command += [str(folder), str(int(record))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} on {config}: {done.stderr.strip()[-500:]}")
    return float(done.stdout.split()[-1])


def recording_of(folder: Path) -> Path:
    """The recordings of one run as one trace."""
    recordings = sorted(str(path) for path in folder.glob("*.trace*"))
    if len(recordings) == 1:
        return Path(recordings[0])
    whole = folder / "whole.collected"
    command = [sys.executable, "-m", "detray.cli", "trace", "collect", *recordings]
    subprocess.run([*command, "-o", str(whole)], check=True, capture_output=True, timeout=60)
    return whole


# ------------------------------------------------------------------------------ the study


def study(names: Sequence[str], rounds: int) -> list[Cell]:
    """Measure and predict."""
    measured: dict[tuple[str, Config], list[float]] = {}
    predicted: dict[tuple[str, Config], list[tuple[float, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="whatif-") as base:
        for turn in range(rounds):
            for name in names:
                folder = Path(base, f"{name}-{turn}")
                folder.mkdir()
                _round(name, folder, measured, predicted)
            print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    cells = []
    for key, found in measured.items():
        name, config = key
        middle_s, _ = sorted(predicted[key])[len(predicted[key]) // 2]
        cells.append(
            Cell(
                program=name,
                config=str(config),
                is_recorded=config == PROGRAMS[name].recorded,
                measured_s=median(found),
                lowest_s=min(found),
                highest_s=max(found),
                predicted_s=middle_s,
                error=middle_s / median(found) - 1,
                bound=predicted[key][-1][1],
            )
        )
    return cells


def _round(
    name: str,
    folder: Path,
    measured: dict[tuple[str, Config], list[float]],
    predicted: dict[tuple[str, Config], list[tuple[float, str]]],
) -> None:
    program = PROGRAMS[name]
    for config in (program.recorded, *program.others):
        is_recorded = config == program.recorded
        seconds = run_apart(name, config, folder, record=is_recorded)
        measured.setdefault((name, config), []).append(seconds)
    trace = open_trace(recording_of(folder))
    question = Question(read_recording(trace, name))
    for config in (program.recorded, *program.others):
        row = question.predict(question.cluster(config.nodes, config.cpus))
        predicted.setdefault((name, config), []).append((row.makespan_s, row.bound.short))


def report(cells: Sequence[Cell]) -> str:
    """A line for each program and configuration, then the errors in all."""
    rows = [
        (
            cell.program,
            f"{cell.config}{' (recorded)' if cell.is_recorded else ''}",
            f"{cell.measured_s:.2f}",
            f"{100 * (cell.highest_s - cell.lowest_s) / cell.measured_s:.0f} %",
            f"{cell.predicted_s:.2f}",
            f"{100 * cell.error:+.1f} %",
            cell.bound,
        )
        for cell in cells
    ]
    errors = [abs(cell.error) for cell in cells if not cell.is_recorded]
    heads = ("program", "nodes x CPUs", "real s", "varies", "predicted s", "error", "stopped by")
    return (
        f"{text_table(heads, rows)}\n{len(errors)} predictions: median error"
        f" {100 * median(errors):.1f} %, largest {100 * max(errors):.1f} %"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--one"]:
        name, config, folder, record = given[1:]
        nodes, _, cpus = config.partition("x")
        print(run_here(name, Config(int(nodes), int(cpus)), Path(folder), record=record == "1"))
        return 0
    parser = argparse.ArgumentParser(
        prog="python -m detray_sim.bench.whatif", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--json", action="store_true", help="everything, as the last line")
    options = parser.parse_args(given)
    names = options.programs.split(",")
    if options.rounds < 1 or any(name not in PROGRAMS for name in names):
        parser.error(f"--rounds is from 1 on, --programs are of {', '.join(PROGRAMS)}")
    load = os.getloadavg()[0]
    cells = study(names, options.rounds)
    print(report(cells))
    print(f"{options.rounds} rounds, load {load:.1f} to {os.getloadavg()[0]:.1f}")
    if options.json:
        print(msgspec.json.encode(cells).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
