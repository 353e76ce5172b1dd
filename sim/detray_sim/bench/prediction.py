"""The same programs, real and simulated: how near the simulator's makespans come.

    python -m detray_sim.bench.prediction [--rounds 5] [--dags 20] [--json] [--out DIR]

In each round every DAG runs on real processes with several numbers of workers and two orders of
submission, in an order drawn for the round; before and after, small programs measure the machine.
The simulator's costs are made from the medians of the small programs only. Two predictions:

- *before*: from the durations that the DAG asks for, and the machine;
- *knowing durations*: from those that each task of the run really took. What other programs of a
  shared machine took from its tasks is then no error of the simulator.

Ranked are pairs of runs of one DAG that differ by more than either varied over the rounds.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median

import msgspec

from detray_sim.bench.dags import ORDERS, Dag, study_dags
from detray_sim.bench.real_runs import Micro, RealRun, RealSession, measure_machine, session
from detray_sim.bench.scatter import Series, scatter_chart
from detray_sim.bench.simulated_runs import Machine, machine_of, simulate
from detray_sim.report.canvas import Chart
from detray_sim.report.text import text_table

Cell = tuple[int, int, str]
"""Number of a DAG, workers, order of submission."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One DAG with one number of workers and one order. Times in seconds."""

    dag: str
    kind: str
    tasks: int
    workers: int
    order: str
    measured_s: float
    """Median over the rounds."""
    lowest_s: float
    highest_s: float
    predicted_s: float
    """Before."""
    error: float
    """Of that, signed and relative."""
    error_knowing: float
    """Knowing the durations: the median over the rounds."""


class Ranking(msgspec.Struct, frozen=True):
    """Pairs that differ by more than they vary, and how many the simulator orders alike."""

    pairs: int
    right: int


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found."""

    rounds: int
    cores: int
    loads: tuple[float, ...]
    """Of the machine, at the begin of each round: runnable processes."""
    micro: Micro
    """Medians over all looks at the machine, two a round."""
    machine: Machine
    rows: tuple[Row, ...]
    workers_ranking: Ranking
    """Numbers of workers, for the same order."""
    orders_ranking: Ranking
    """Orders, for the same number of workers."""


def study(dags: Sequence[Dag], rounds: int, cores: int, samples: int = 20) -> Study:
    """Measure, then predict. `samples`: tasks in each of the small programs that take long."""
    micros: list[Micro] = []
    loads: list[float] = []
    runs: dict[Cell, list[RealRun]] = {}
    for turn in range(rounds):
        loads.append(os.getloadavg()[0])
        micros.append(measure_machine(cores, samples))
        for cell, run in _round(dags, turn):
            runs.setdefault(cell, []).append(run)
        micros.append(measure_machine(cores, samples))
        print(f"round {turn + 1} of {rounds} done", file=sys.stderr)
    micro = _median_micro(micros)
    machine = machine_of(micro, cores)
    rows = tuple(_row(dags, cell, runs[cell], machine) for cell in sorted(runs))
    return Study(
        rounds=rounds,
        cores=cores,
        loads=tuple(loads),
        micro=micro,
        machine=machine,
        rows=rows,
        workers_ranking=ranking(rows, "order"),
        orders_ranking=ranking(rows, "workers"),
    )


def _round(dags: Sequence[Dag], turn: int) -> Iterator[tuple[Cell, RealRun]]:
    """Every cell once. Cells with equal numbers of workers share a session."""
    draws = random.Random(turn)
    counts = sorted({workers for dag in dags for workers in dag.workers})
    draws.shuffle(counts)
    for workers in counts:
        cells = [
            (number, workers, order)
            for number, dag in enumerate(dags)
            if workers in dag.workers
            for order in ORDERS
        ]
        draws.shuffle(cells)
        with session(workers) as real:
            for cell in cells:
                yield cell, _real(real, dags[cell[0]], cell[2])


def _real(real: RealSession, dag: Dag, order: str) -> RealRun:
    return real.run(dag.workload, dag.order(order))


def _median_micro(micros: Sequence[Micro]) -> Micro:
    names = Micro.__struct_fields__
    return Micro(**{name: median(getattr(micro, name) for micro in micros) for name in names})


def _row(dags: Sequence[Dag], cell: Cell, runs: Sequence[RealRun], machine: Machine) -> Row:
    dag, workers, name = dags[cell[0]], cell[1], cell[2]
    order = dag.order(name)
    measured = [run.makespan_s for run in runs]
    predicted_s = simulate(machine, dag.workload, order, workers)
    knowing = [
        simulate(machine, dag.workload, order, workers, run.spans_s) / run.makespan_s - 1
        for run in runs
    ]
    return Row(
        dag=dag.name,
        kind=dag.kind,
        tasks=len(dag.workload.tasks),
        workers=workers,
        order=name,
        measured_s=median(measured),
        lowest_s=min(measured),
        highest_s=max(measured),
        predicted_s=predicted_s,
        error=predicted_s / median(measured) - 1,
        error_knowing=median(knowing),
    )


def ranking(rows: Sequence[Row], alike: str) -> Ranking:
    """Of pairs of runs of one DAG that are alike in one field, how many are ordered right.

    Those count whose medians are further apart than either's lowest and highest.
    """
    pairs = right = 0
    for a, b in combinations(rows, 2):
        if a.dag != b.dag or getattr(a, alike) != getattr(b, alike):
            continue
        apart = abs(a.measured_s - b.measured_s)
        if apart > max(a.highest_s - a.lowest_s, b.highest_s - b.lowest_s):
            pairs += 1
            right += (a.measured_s < b.measured_s) == (a.predicted_s < b.predicted_s)
    return Ranking(pairs, right)


# ------------------------------------------------------------------------------- the report


def report(found: Study) -> str:
    """The table of DAGs (worst row of each beside the median), errors by kind, rankings."""
    names = dict.fromkeys(row.dag for row in found.rows)
    each = [_dag_line([row for row in found.rows if row.dag == name]) for name in names]
    columns = ["DAG", "tasks", "workers", "measured s", "predicted s", "vary"]
    columns += ["error before", "largest", "knowing", "largest"]
    kinds = [_kind_line("all", found.rows)]
    for kind in dict.fromkeys(row.kind for row in found.rows):
        kinds.append(_kind_line(kind, [row for row in found.rows if row.kind == kind]))
    heads = ["tasks that", "runs", "before: median", "p95", "largest"]
    heads += ["knowing: median", "p95", "largest"]
    by_workers, by_order = found.workers_ranking, found.orders_ranking
    return "\n".join(
        [
            text_table(columns, each),
            text_table(heads, kinds),
            f"numbers of workers ranked right: {by_workers.right} of {by_workers.pairs} pairs",
            f"orders of submission ranked right: {by_order.right} of {by_order.pairs} pairs",
            f"{found.rounds} rounds on {found.cores} cores, load"
            f" {min(found.loads):.1f} to {max(found.loads):.1f}",
        ]
    )


def _dag_line(rows: Sequence[Row]) -> list[object]:
    """Over all its runs: medians; of times, those of the first."""
    first = rows[0]
    vary = median((row.highest_s - row.lowest_s) / row.measured_s for row in rows)
    before, knowing = _errors(rows)
    return [
        first.dag,
        first.tasks,
        ",".join(str(workers) for workers in dict.fromkeys(row.workers for row in rows)),
        round(first.measured_s, 3),
        round(first.predicted_s, 3),
        _percent(vary),
        _percent(median(before)),
        _percent(max(before)),
        _percent(median(knowing)),
        _percent(max(knowing)),
    ]


def _kind_line(name: str, rows: Sequence[Row]) -> list[object]:
    cells: list[object] = [name, len(rows)]
    for errors in _errors(rows):
        cells += [_percent(median(errors)), _percent(percentile_95(errors)), _percent(max(errors))]
    return cells


def _errors(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [abs(row.error) for row in rows], [abs(row.error_knowing) for row in rows]


def percentile_95(values: Sequence[float]) -> float:
    """The smallest of the values that 95 % do not exceed."""
    return sorted(values)[-(-95 * len(values) // 100) - 1]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m detray_sim.bench.prediction", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dags", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the DAGs")
    parser.add_argument("--json", action="store_true", help="everything, as the last line")
    parser.add_argument("--out", type=Path, help="a folder for the chart")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.dags < 1:
        parser.error("--rounds and --dags are whole numbers from 1 on")
    cores = min(8, len(os.sched_getaffinity(0)))
    found = study(study_dags(options.dags, options.seed, cores), options.rounds, cores)
    print(report(found))
    if options.json:
        print(msgspec.json.encode(found).decode())
    if options.out:
        chart(found).write(options.out / "prediction")
    return 0


def chart(found: Study) -> Chart:
    """Predicted (before) against measured makespans."""
    series = [
        Series(kind, [(r.measured_s, r.predicted_s) for r in found.rows if r.kind == kind])
        for kind in dict.fromkeys(row.kind for row in found.rows)
    ]
    return scatter_chart("Makespans of real programs", "s", series)


if __name__ == "__main__":
    sys.exit(main())
