"""The table and the JSON of a run."""

from __future__ import annotations

import statistics
from typing import Any

from detray.bench.goals import Medians, goals_of
from detray.bench.rows import BY_NAME, ROWS, YARDSTICKS, Row

Samples = dict[str, dict[str, list[float]]]
"""Engine name to row name to the values of all rounds."""


def medians_of(samples: Samples) -> Medians:
    """The middle of the rounds, by engine and row."""
    return {
        engine: {row: statistics.median(values) for row, values in rows.items() if values}
        for engine, rows in samples.items()
    }


def ratio(row: Row, ours: float, theirs: float) -> float:
    """How many times better detray is: above 1 is better, whichever way the row points."""
    if not ours or not theirs:
        return float("nan")
    return ours / theirs if row.more_is_better else theirs / ours


def as_text(samples: Samples, engines: tuple[str, ...]) -> str:
    """The table: a row a line; under a peer's value, how many times better detray is."""
    medians = medians_of(samples)
    header = ["", *engines, "goal", "verdict"]
    lines = [header]
    for row in ROWS:
        if not any(row.name in medians.get(engine, {}) for engine in engines):
            continue
        lines.append(_line(row, medians, engines))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for index, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:-2], widths[1:-2], strict=True)]
        cells += [cell.ljust(width) for cell, width in zip(line[-2:], widths[-2:], strict=True)]
        text.append("  ".join(cells).rstrip())
        if index == 0:
            text.append("-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(text)


def _line(row: Row, medians: Medians, engines: tuple[str, ...]) -> list[str]:
    ours = medians.get("detray", {}).get(row.name)
    cells = [row.title]
    for engine in engines:
        value = medians.get(engine, {}).get(row.name)
        if value is None:
            cells.append("-")
            continue
        cell = f"{number(value)} {row.unit}"
        if engine != "detray" and ours is not None and not row.name.startswith(YARDSTICKS):
            cell += f" ({ratio(row, ours, value):.3g}x)"
        cells.append(cell)
    goals = goals_of(row.name)
    cells.append(", ".join(goal.text for goal in goals))
    cells.append(", ".join(goal.verdict(medians) for goal in goals))
    return cells


def number(value: float) -> str:
    """Three or four digits that a person reads at a glance: 12,300, 4.57."""
    if abs(value) >= 1000:
        digits = 10 ** (len(str(int(abs(value)))) - 3)
        return f"{round(value / digits) * digits:,}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def as_json(samples: Samples, engines: tuple[str, ...], about: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, and how it was judged."""
    medians = medians_of(samples)
    rows = []
    for name, row in BY_NAME.items():
        entry = {
            engine: {"median": medians[engine][name], "samples": samples[engine][name]}
            for engine in engines
            if name in medians.get(engine, {})
        }
        if entry:
            goals = [
                {"goal": goal.text, "verdict": goal.verdict(medians)} for goal in goals_of(name)
            ]
            rows.append(row._asdict() | {"engines": entry, "goals": goals})
    return {"about": about, "rows": rows}
