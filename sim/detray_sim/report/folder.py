"""A whole report as files in a folder: the same names for every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detray_sim.report.compare import (
    Comparison,
    compare,
    comparison_csv,
    comparison_json,
    comparison_text,
)
from detray_sim.report.gantt import gantt
from detray_sim.report.perfetto import perfetto_json
from detray_sim.report.plots import bytes_chart, comparison_chart, utilisation_chart
from detray_sim.report.tables import (
    Summary,
    result_json,
    summary,
    summary_json,
    tasks_csv,
    tasks_json,
)
from detray_sim.result import RunResult
from detray_sim.workload import Workload


def write_run(folder: Path, result: RunResult, workload: Workload | None = None) -> Summary:
    """Everything about one run: result, summary, tasks, trace, and three charts twice.

    Raises ReportError if matplotlib is not installed, before anything is written.
    """
    charts = {
        "gantt": gantt(result, workload),
        "utilisation": utilisation_chart(result, workload),
        "bytes": bytes_chart(result),
    }
    numbers = summary(result, workload)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_bytes(result_json(result))
    (folder / "summary.json").write_bytes(summary_json(numbers))
    (folder / "tasks.csv").write_text(tasks_csv(result), encoding="utf-8", newline="")
    (folder / "tasks.json").write_bytes(tasks_json(result))
    (folder / "trace.json").write_bytes(perfetto_json(result, workload))
    for name, chart in charts.items():
        chart.write(folder / name)
    return numbers


def write_comparison(folder: Path, results: Sequence[RunResult]) -> Comparison:
    """Text, CSV, JSON and the chart of a comparison. Raises ReportError, see `compare`."""
    comparison = compare(results)
    chart = comparison_chart(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.txt").write_text(comparison_text(comparison), encoding="utf-8")
    (folder / "comparison.csv").write_text(comparison_csv(comparison), encoding="utf-8", newline="")
    (folder / "comparison.json").write_bytes(comparison_json(comparison))
    chart.write(folder / "comparison")
    return comparison
