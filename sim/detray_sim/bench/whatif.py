"""One configuration is recorded, others are predicted, and all are really run.

    python -m detray_sim.bench.whatif [--rounds 3] [--programs nested,index] [--json]

In each round every program runs in fresh processes on every configuration: one node with 1, 2, 4
and 8 CPUs, and clusters of nodes of 2 CPUs on this machine. From the recording of one of these
alone `detray-sim whatif` predicts the others. Compared are medians over the rounds of the makespan,
from the program's first submission to the end of its last task; before, `WARM` sleeping tasks see
to it that workers are there. Tasks sleep, so that any machine has as many CPUs as a node says;
those of the index compute, and run where there are cores.
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
from detray_sim.report.text import format_count, text_table
from detray_sim.whatif import Question
from detray_sim.whatif_play import play
from detray_sim.whatif_script import Recording, read_recording
from detray_sim.workload import SECOND_NS

WARM, WARM_S = 8, 0.3
"""So many tasks sleep so long before each program; the largest cluster has as many CPUs."""
SETTLE_S = 0.5
"""Before and after them."""
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


def warm() -> None:
    """A task that only makes its worker start."""
    time.sleep(WARM_S)


def parts(seconds: float, count: int) -> list[int]:
    """A task with many outcomes."""
    time.sleep(seconds)
    return list(range(count))


def tree(depth: int, seed: int) -> float:
    """A task that launches others, waits for them, and goes on."""
    draws = random.Random(seed)
    time.sleep(draws.uniform(0.1, 0.3))
    if depth:
        again: Any = detray.remote(tree)  # Any: the types of user functions are lost
        detray.get([again.remote(depth - 1, 10 * seed + n) for n in range(4)])
        time.sleep(draws.uniform(0.1, 0.3))
    else:
        time.sleep(draws.uniform(0.2, 0.6))
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
    """Tasks that launch four others, wait for them, and go on."""
    detray.get([_remote(tree).remote(1, seed) for seed in range(4)])


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


def run_here(name: str, config: Config, folder: Path) -> None:
    """Run and record a program in this process, which must have no session yet."""
    if config.nodes == 1:
        detray.init(num_cpus=config.cpus, log_to_driver=False, record=folder / "node0.trace")
        _run(name)
        return
    # By name: the simulator does not know real processes, this measurement does.
    cluster = import_module("detray.cluster_utils").Cluster()
    try:
        for number in range(config.nodes):
            cluster.add_node(num_cpus=config.cpus, record=str(folder / f"node{number}.trace"))
        detray.init(address=cluster.address, log_to_driver=False)
        _run(name)
    finally:
        cluster.shutdown()


def _run(name: str) -> None:
    try:
        time.sleep(SETTLE_S)
        spread: Any = detray.remote(scheduling_strategy="SPREAD")(warm)
        detray.get([spread.remote() for _ in range(WARM)])
        time.sleep(SETTLE_S)
        PROGRAMS[name].run()
    finally:
        detray.shutdown()


def run_apart(name: str, config: Config, folder: Path) -> Recording:
    """The same in a process of its own: what it recorded."""
    command = [sys.executable, "-m", "detray_sim.bench.whatif", "--one", name, str(config)]
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} on {config}: {done.stderr.strip()[-500:]}")
    return read_recording(open_trace(recording_of(folder)), name)


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
    question: Question | None = None
    configs = (program.recorded, *program.others)
    for config in configs:
        apart = folder / str(config)
        apart.mkdir()
        recording = run_apart(name, config, apart)
        measured.setdefault((name, config), []).append(_measured_s(recording))
        question = question or Question(recording)
    assert question is not None
    for config in configs:
        cluster = question.cluster(config.nodes, config.cpus)
        outcome = play(question.recording, cluster)
        begun_ns = min(ns for function, ns in outcome.first_ns.items() if function != "warm")
        bound = max(question.bounds(cluster, outcome), key=lambda each: each.s)
        seconds = (outcome.makespan_ns - begun_ns) / SECOND_NS
        predicted.setdefault((name, config), []).append((seconds, bound.short))


def _measured_s(recording: Recording) -> float:
    """From the first submission behind the warm tasks to the end of the last task."""
    known = recording.witness.history.tasks
    lives = [known[task.id] for task in recording.tasks]
    begun_ns = min(life.submitted_ns for life in lives if life.name != "warm")
    first_ns = min(life.submitted_ns for life in lives)
    return (recording.makespan_ns - (begun_ns - first_ns)) / SECOND_NS


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
        f"{text_table(heads, rows)}\n{format_count(len(errors), 'prediction')}: median error"
        f" {100 * median(errors):.1f} %, largest {100 * max(errors):.1f} %"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--one"]:
        name, config, folder = given[1:]
        nodes, _, cpus = config.partition("x")
        run_here(name, Config(int(nodes), int(cpus)), Path(folder))
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
