"""Answers of `detray-sim whatif` in words, tables and points of a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detray_sim.report.scaling import Point, knee
from detray_sim.report.text import format_bytes, format_count, format_seconds
from detray_sim.whatif import WORK, Row
from detray_sim.whatif_script import Recording
from detray_sim.workload import SECOND_NS

DOUBT = 0.1
"""A recording that is reproduced worse than this is one to be careful with."""


GAP = 1.5
"""A makespan that is so many times its largest bound is not explained by it."""


def answer(rows: Sequence[Row], recorded_s: float) -> str:
    """What the sweep says: the largest cluster, against what was recorded, and what stops it."""
    last = best_line(rows)
    most = last[-1]
    what = f"{format_count(most.nodes, 'node')} of {format_count(most.cpus, 'CPU')}"
    text = f"{what} would take {format_seconds(most.makespan_s)}"
    text += f" instead of {format_seconds(recorded_s)}"
    best = min(last, key=lambda row: (row.makespan_s, row.nodes))
    if best.makespan_s < most.makespan_s:
        less = format_seconds(best.makespan_s)
        text += f" ({format_count(best.nodes, 'node')} would take less, {less})"
    if most.makespan_s > GAP * most.bound.s:
        return (
            f"{text}; the largest limit is {most.bound.text}, the rest is waiting: for cores while"
            " others idle, for workers that start, for messages"
        )
    if most.bound.kind == WORK:
        return f"{text}; {most.bound.text}, is what stops it: more cores would help"
    since = next(
        at for at in range(len(last)) if all(row.bound.kind == most.bound.kind for row in last[at:])
    )
    first = last[since]
    if since == 0 or first.nodes == most.nodes:
        return f"{text}; {most.bound.text} is what stops it"
    return f"{text}; from {first.nodes} nodes on {most.bound.text} is what stops it"


def best_line(rows: Sequence[Row]) -> list[Row]:
    """Of the clusters that differ in nodes only, those with the shortest makespan, by nodes."""
    lines = lines_of(rows)
    return min(lines.values(), key=lambda line: min(row.makespan_s for row in line))


def lines_of(rows: Sequence[Row]) -> dict[tuple[int, str, str], list[Row]]:
    """Rows by (cpus, network, policy), each by nodes."""
    lines: dict[tuple[int, str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.cpus, row.network, row.policy), []).append(row)
    for line in lines.values():
        line.sort(key=lambda row: row.nodes)
    return lines


def knee_of(line: Sequence[Row]) -> int:
    """The number of nodes with the most speedup per cost."""
    return knee({row.nodes: row.makespan_s for row in line})


def knees(rows: Sequence[Row]) -> list[dict[str, int | str]]:
    """The knee of each line of at least three numbers of nodes."""
    return [
        {"cpus": cpus, "network": network, "policy": policy, "nodes": knee_of(line)}
        for (cpus, network, policy), line in lines_of(rows).items()
        if len(line) > 2
    ]


# ---------------------------------------------------------------------------- in words

TABLE = (
    "nodes",
    "cpus",
    "network",
    "policy",
    "makespan s",
    "speedup",
    "efficiency",
    "utilisation",
    "moved",
    "bound s",
    "what stops it",
)


def cells(row: Row) -> tuple[object, ...]:
    """The row for a table for people."""
    spread = f" ± {(row.highest_s - row.lowest_s) / 2:.2g}" if row.seeds > 1 else ""
    return (
        row.nodes,
        row.cpus,
        row.network,
        row.policy,
        f"{row.makespan_s:.4g}{spread}",
        f"{row.speedup:.3g}",
        f"{row.efficiency:.0%}",
        f"{row.utilisation:.0%}",
        format_bytes(row.bytes_moved),
        f"{row.bound.s:.4g}",
        row.bound.short,
    )


def opening(recording: Recording, own: Row) -> Iterator[str]:
    """What was recorded, how well it is reproduced, and what is left out."""
    recorded_s = recording.makespan_ns / SECOND_NS
    nodes = format_count(len(recording.nodes), "node")
    cpus = sorted({shape.cpus for shape in recording.nodes})
    least = f"{cpus[0]} to " if len(cpus) > 1 else ""
    tasks = format_count(len(recording.tasks), "task")
    yield f"{recording.name}: {tasks} on {nodes} of {least}{format_count(cpus[-1], 'CPU')}"
    off = f" ({own.makespan_s / recorded_s - 1:+.1%})" if recorded_s else ""
    yield (
        f"the recorded cluster itself: {format_seconds(own.makespan_s)} simulated, "
        f"{format_seconds(recorded_s)} recorded{off}"
    )
    if abs(own.makespan_s - recorded_s) > DOUBT * recorded_s:
        yield (
            "the rest is no better than that: the runtime itself, waits for what is left out, or"
            " other programs took that time"
        )
    for what in recording.left_out:
        yield f"left out: {what}"


def points(rows: Sequence[Row]) -> tuple[str, dict[str, list[Point]]]:
    """The name of the axis along which most happens, and the lines of the plot by their label."""
    many_nodes = len({row.nodes for row in rows}) > 1
    axis = "nodes" if many_nodes or len({row.cpus for row in rows}) == 1 else "CPUs of each node"
    told = {
        "cpus": len({row.cpus for row in rows}) > 1 and axis == "nodes",
        "network": len({row.network for row in rows}) > 1,
        "policy": len({row.policy for row in rows}) > 1,
    }
    lines: dict[str, list[Point]] = {}
    for row in rows:
        parts = [
            *([f"{row.cpus} CPUs"] if told["cpus"] else []),
            *([row.network] if told["network"] else []),
            *([row.policy] if told["policy"] else []),
        ]
        x = row.nodes if axis == "nodes" else row.cpus
        point = Point(x, row.makespan_s, row.bound.s, row.bound.short)
        lines.setdefault(", ".join(parts) or "predicted", []).append(point)
    for line in lines.values():
        line.sort()
    return axis, lines
