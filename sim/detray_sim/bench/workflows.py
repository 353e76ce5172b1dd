"""How near the calibrated model comes to workflows that were really executed: leave one out.

    python -m detray_sim.bench.workflows [FOLDER] [--json] [--out DIR]

FOLDER holds WfFormat files (WfInstances; default: $DETRAY_DATA/wfinstances). Each file in turn is
held out: the three parameters are fitted to the other files of its workflow system, then, with
that as the belief, to the other files of its family, if there are any; then a run of detray's
schedulers predicts it. Beside it stands the linear baseline `a + b * tasks + c * sim`, fitted to
the system's other files by the same measure; `sim` is a greedy schedule without overheads.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

import msgspec

from detray_sim.bench.scatter import Series, scatter_chart
from detray_sim.calibration import Calibration, Instance, estimate, fit, predict
from detray_sim.report.text import text_table
from detray_sim.workload import SECOND_NS
from detray_sim.workloads.wfformat import load_wfformat

NOTHING = Calibration(start_s=1e-9, dispatch_s=1e-9, bandwidth=1e30)
"""Of a system without overheads."""


class Recorded(msgspec.Struct, frozen=True):
    """A file, and what it is grouped by."""

    name: str
    system: str
    """The workflow system that ran it."""
    family: str
    """Its application; everything that Nextflow ran is one family, as in the published table."""
    instance: Instance
    measured_s: float
    simulated_s: float
    """Of a greedy schedule of the tasks alone."""


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was predicted without being looked at. Times in seconds."""

    name: str
    system: str
    family: str
    tasks: int
    trained_on: int
    """Files of the same system; `relatives` of them of the same family."""
    relatives: int
    calibration: Calibration
    measured_s: float
    predicted_s: float
    """By detray's schedulers."""
    estimated_s: float
    """By the model's own loop: how much the schedulers matter."""
    baseline_s: float

    @property
    def error(self) -> float:
        """Of the prediction, relative."""
        return abs(self.predicted_s / self.measured_s - 1)

    @property
    def baseline_error(self) -> float:
        """Of the baseline, relative."""
        return abs(self.baseline_s / self.measured_s - 1)


def load(folder: Path) -> list[Recorded]:
    """All files of a folder. Raises OSError, WorkloadError."""
    return [_recorded(path) for path in sorted(folder.glob("*.json"))]


class _System(msgspec.Struct):
    name: str = "unknown"


class _Head(msgspec.Struct, rename="camel"):
    runtime_system: _System = msgspec.field(default_factory=_System)


def _recorded(path: Path) -> Recorded:
    system = msgspec.json.decode(path.read_bytes(), type=_Head).runtime_system.name
    workload = load_wfformat(path)
    instance = Instance(workload)
    return Recorded(
        workload.name,
        system,
        "nextflow" if system == "Nextflow" else re.split("[-_]", workload.name)[0],
        instance,
        workload.recorded_makespan_ns / SECOND_NS,
        estimate(instance, NOTHING),
    )


def leave_one_out(files: Sequence[Recorded]) -> Iterator[HeldOut]:
    """Hold out each file of a system that has others."""
    for held in files:
        others = [f for f in files if f is not held and f.system == held.system]
        if others:
            yield _held_out(held, others)


def _held_out(held: Recorded, others: Sequence[Recorded]) -> HeldOut:
    relatives = [f for f in others if f.family == held.family]
    found = _fit(others)
    if relatives:
        found = _fit(relatives, found)
    return HeldOut(
        name=held.name,
        system=held.system,
        family=held.family,
        tasks=len(held.instance.workload.tasks),
        trained_on=len(others),
        relatives=len(relatives),
        calibration=found,
        measured_s=held.measured_s,
        predicted_s=predict(held.instance.workload, found),
        estimated_s=estimate(held.instance, found),
        baseline_s=_dot(baseline([(_terms(f), f.measured_s) for f in others]), _terms(held)),
    )


def _fit(files: Sequence[Recorded], belief: Calibration | None = None) -> Calibration:
    instances, measured = [f.instance for f in files], [f.measured_s for f in files]
    return fit(instances, measured, belief=belief) if belief else fit(instances, measured)


# --------------------------------------------------------------------------- the baseline

Terms = tuple[float, float, float]
"""1, tasks, sim: what the baseline weighs."""


def _terms(held: Recorded) -> Terms:
    return 1.0, float(len(held.instance.workload.tasks)), held.simulated_s


def baseline(pairs: Sequence[tuple[Terms, float]]) -> Terms:
    """The weights >= 0 with the smallest sum of absolute relative errors, exactly.

    The best is among those that meet as many of the measured values as they have weights above 0:
    all of these are tried.
    """
    best, least = (0.0, 0.0, 0.0), float("inf")
    for count in (1, 2, 3):
        for chosen in combinations(range(3), count):
            for met in combinations(pairs, count):
                weights = _meeting(chosen, met)
                if weights is None:
                    continue
                cost = sum(abs(_dot(weights, terms) - value) / value for terms, value in pairs)
                if cost < least:
                    best, least = weights, cost
    return best


def _dot(weights: Terms, terms: Terms) -> float:
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


def _meeting(chosen: Sequence[int], met: Sequence[tuple[Terms, float]]) -> Terms | None:
    """Weights of the chosen terms that meet these values; None if there are none >= 0."""
    rows = [[terms[column] for column in chosen] + [value] for terms, value in met]
    size = len(rows)
    for pivot in range(size):
        largest = max(range(pivot, size), key=lambda row: abs(rows[row][pivot]))
        if abs(rows[largest][pivot]) < 1e-9:
            return None
        rows[pivot], rows[largest] = rows[largest], rows[pivot]
        rows[pivot] = [value / rows[pivot][pivot] for value in rows[pivot]]
        for row in range(size):
            if row != pivot:
                factor = rows[row][pivot]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[pivot], strict=True)]
    weights = [0.0, 0.0, 0.0]
    for column, solved in zip(chosen, rows, strict=True):
        if solved[-1] < 0:
            return None
        weights[column] = solved[-1]
    return weights[0], weights[1], weights[2]


# ------------------------------------------------------------------------------- the report


def report(rows: Sequence[HeldOut]) -> str:
    """Every file, then families and systems."""
    each = [
        [
            row.name,
            row.system,
            row.tasks,
            row.relatives,
            round(row.calibration.start_s, 1),
            round(row.calibration.dispatch_s, 2),
            round(row.calibration.bandwidth / 1e6, 1),
            round(row.measured_s),
            round(row.predicted_s),
            _percent(row.predicted_s / row.measured_s - 1),
            _percent(row.baseline_s / row.measured_s - 1),
        ]
        for row in rows
    ]
    columns = ["file", "system", "tasks", "relatives", "start s", "dispatch s", "MB/s"]
    columns += ["measured s", "predicted s", "error", "baseline's"]
    groups = [_group("all", rows)]
    for key in ("system", "family"):
        for name in dict.fromkeys(getattr(row, key) for row in rows):
            groups.append(_group(name, [row for row in rows if getattr(row, key) == name]))
    heads = ["group", "files", "median", "largest", "mean", "baseline's median", "largest", "mean"]
    return text_table(columns, each) + "\n" + text_table(heads, groups)


def _group(name: str, rows: Sequence[HeldOut]) -> list[object]:
    cells: list[object] = [name, len(rows)]
    ours, theirs = [row.error for row in rows], [row.baseline_error for row in rows]
    for errors in (ours, theirs):
        cells += [_percent(median(errors)), _percent(max(errors)), _percent(fmean(errors))]
    return cells


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m detray_sim.bench.workflows", description=(__doc__ or "").split("\n")[0]
    )
    default = Path(os.environ.get("DETRAY_DATA", ".")) / "wfinstances"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--json", action="store_true", help="one object for each file held out")
    parser.add_argument("--out", type=Path, help="a folder for the chart")
    options = parser.parse_args(arguments)
    files = load(options.folder)
    if not files:
        parser.error(f"{options.folder} holds no WfFormat files")
    rows = []
    for row in leave_one_out(files):
        rows.append(row)
        print(f"{len(rows)} of {len(files)}: {row.name}", file=sys.stderr)
    print(report(rows))
    if options.json:
        print(msgspec.json.encode(rows).decode())
    if options.out:
        series = [
            Series(system, [(r.measured_s, r.predicted_s) for r in rows if r.system == system])
            for system in dict.fromkeys(row.system for row in rows)
        ]
        scatter_chart("Held-out makespans of real workflows", "s", series).write(
            options.out / "workflows"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
