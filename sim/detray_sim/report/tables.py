"""One run in numbers: a row per task, and a summary.

Tables of tasks are in integer nanoseconds and can be read back without loss; summaries are in
seconds, for people and for charts.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from detray_sim.report.rows import has_run
from detray_sim.report.text import format_bytes, format_time, text_table
from detray_sim.result import RunResult, TaskRecord
from detray_sim.theory import bounds, critical_path_ns, graph_of
from detray_sim.theory.bounds import cpu_units
from detray_sim.workload import SECOND_NS, UNIT, Workload

Value = int | float | str | None | list[float]
Summary = dict[str, Value]
"""One run: name to number; None where it cannot be known (no workload, no task that ran)."""

_FIELDS = TaskRecord.__struct_fields__
_DERIVED = ("queued_ns", "ran_ns")
TASK_COLUMNS = (*_FIELDS, *_DERIVED)
"""The record's fields, then how long the task was ready but not begun, and how long it ran."""


# ------------------------------------------------------------------------------- tasks


def task_table(result: RunResult) -> list[dict[str, int | str]]:
    """One row per task, in the order of the workload. Times in nanoseconds, -1: never."""
    return [
        msgspec.structs.asdict(task) | {"queued_ns": queued_ns(task), "ran_ns": ran_ns(task)}
        for task in result.tasks
    ]


def queued_ns(task: TaskRecord) -> int:
    """How long the task was ready but not begun; -1 if either never happened."""
    return task.started_ns - task.ready_ns if min(task.started_ns, task.ready_ns) >= 0 else -1


def ran_ns(task: TaskRecord) -> int:
    """How long the task ran; -1 if it did not."""
    return task.finished_ns - task.started_ns if has_run(task) else -1


def tasks_csv(result: RunResult) -> str:
    """The table of tasks as CSV with a header, lines ended by a newline alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TASK_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(task_table(result))
    return text.getvalue()


def tasks_json(result: RunResult) -> bytes:
    """The table of tasks as a JSON list of objects, one a line."""
    rows = b",\n".join(map(msgspec.json.encode, task_table(result)))
    return b"[\n" + rows + b"\n]\n" if rows else b"[]\n"


def read_tasks_csv(text: str) -> tuple[TaskRecord, ...]:
    """The records that `tasks_csv` wrote. Raises msgspec.ValidationError on another table."""
    rows = [{name: row.get(name) for name in _FIELDS} for row in csv.DictReader(io.StringIO(text))]
    return msgspec.convert(rows, tuple[TaskRecord, ...], strict=False)


def read_tasks_json(data: bytes) -> tuple[TaskRecord, ...]:
    """The records that `tasks_json` wrote. Raises msgspec.ValidationError on another table."""
    return msgspec.json.decode(data, type=tuple[TaskRecord, ...])


def result_json(result: RunResult) -> bytes:
    """A whole result as JSON, to be kept and read back by `read_result`."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def read_result(data: bytes) -> RunResult:
    """The result that `result_json` wrote. Raises msgspec.ValidationError on something else."""
    return msgspec.json.decode(data, type=RunResult)


# ----------------------------------------------------------------------------- summary


def summary(result: RunResult, workload: Workload | None = None) -> Summary:
    """The run in numbers: seconds, bytes, shares between 0 and 1.

    Queue time is from ready to begun, over the tasks that were begun; percentiles are values that
    occurred (nearest rank). `work_s` is core-seconds at speed 1. Utilisation is of cores, over the
    makespan, by the last attempt of each task: work that was lost to a failure does not count.
    Without the workload each task counts as one core, and bounds are None.
    """
    cores = core_demand(result, workload)
    per_node = node_utilisation(result, workload)
    capacity = [node.cpus for node in result.nodes]
    waits = sorted(wait for wait in map(queued_ns, result.tasks) if wait >= 0)
    weighted = math.fsum(share * cpus for share, cpus in zip(per_node, capacity, strict=True))
    return {
        "workload": result.workload,
        "policy": result.policy,
        "seed": result.seed,
        "cluster": cluster_label(result),
        "network": result.network,
        "tasks": len(result.tasks),
        "failed": sum(bool(task.failed) for task in result.tasks),
        "never_ran": sum(not has_run(task) for task in result.tasks),
        "makespan_s": result.makespan_ns / SECOND_NS,
        **_theory(result, workload),
        "work_s": _work_s(result, workload, cores),
        "utilisation": weighted / sum(capacity) if sum(capacity) else 0.0,
        "node_utilisation": per_node,
        "queue_mean_s": math.fsum(waits) / len(waits) / SECOND_NS if waits else None,
        "queue_p50_s": _percentile_s(waits, 50),
        "queue_p95_s": _percentile_s(waits, 95),
        "bytes_moved": sum(moved.size_bytes for moved in result.transfers),
        "transfers": len(result.transfers),
        "core_steps": result.core_steps,
        "messages": result.messages,
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "digest": result.digest,
    }


def core_demand(result: RunResult, workload: Workload | None) -> list[float]:
    """Cores that each task holds while it runs; 1 if the workload is not given."""
    if workload is None:
        return [1.0] * len(result.tasks)
    return [cpu_units(workload.tasks[task.number]) / UNIT for task in result.tasks]


def node_utilisation(result: RunResult, workload: Workload | None = None) -> list[float]:
    """Of each node, the share of its cores' time that tasks held, over the makespan."""
    busy: dict[int, float] = defaultdict(float)
    for task, cores in zip(result.tasks, core_demand(result, workload), strict=True):
        if has_run(task):
            busy[task.node] += ran_ns(task) * cores
    return [
        busy[node] / (shape.cpus * result.makespan_ns) if shape.cpus and result.makespan_ns else 0.0
        for node, shape in enumerate(result.nodes)
    ]


def cluster_label(result: RunResult) -> str:
    """`8x4` for eight nodes of four cores; mixed clusters name each kind, in order: `2x4+1x16`."""
    kinds: dict[str, int] = {}
    for node in result.nodes:
        speed = f"@{node.speed_permille / 1000:g}" if node.speed_permille != 1000 else ""
        kind = f"{node.cpus}{speed}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return "+".join(f"{count}x{kind}" for kind, count in kinds.items()) or "no nodes"


def _theory(result: RunResult, workload: Workload | None) -> Summary:
    if workload is None or not result.nodes:
        return {"critical_path_s": None, "lower_bound_s": None}
    return {
        "critical_path_s": critical_path_ns(graph_of(workload)) / SECOND_NS,
        "lower_bound_s": bounds(workload, result.nodes).lower_bound_ns / SECOND_NS,
    }


def _work_s(result: RunResult, workload: Workload | None, cores: Sequence[float]) -> float:
    if workload is not None:
        area = sum(task.duration_ns * cpu_units(task) for task in workload.tasks)
        return area / UNIT / SECOND_NS
    speeds = [node.speed_permille / 1000 for node in result.nodes]
    done = (
        ran_ns(task) * held * speeds[task.node]
        for task, held in zip(result.tasks, cores, strict=True)
        if has_run(task)
    )
    return math.fsum(done) / SECOND_NS


def _percentile_s(ascending: Sequence[int], percent: int) -> float | None:
    if not ascending:
        return None
    return ascending[-(-len(ascending) * percent // 100) - 1] / SECOND_NS


# -------------------------------------------------------------------------- for people


def summary_json(numbers: Summary) -> bytes:
    """A summary as JSON, a line per number."""
    return msgspec.json.format(msgspec.json.encode(numbers), indent=1) + b"\n"


def summary_rows(numbers: Summary) -> list[tuple[str, str]]:
    """A summary as (name, text with its unit) for `text_table` and `rich_table`."""
    return [(_title(name), _spell(name, value)) for name, value in numbers.items()]


def summary_text(numbers: Summary) -> str:
    """A summary as a plain table."""
    return text_table(("what", "value"), summary_rows(numbers))


def _title(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def _spell(name: str, value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return _spread(value)
    if isinstance(value, float) and name.endswith("_s"):
        return format_time(value * SECOND_NS)
    if isinstance(value, float):
        return f"{value:.1%}"
    if name == "bytes_moved" and isinstance(value, int):
        return format_bytes(value)
    # A seed is a name, not an amount: no separators.
    return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)


def _spread(shares: list[float]) -> str:
    """Few nodes are listed; of many, the smallest, the mean and the largest."""
    if len(shares) <= 8:
        return " ".join(f"{share:.1%}" for share in shares)
    mean = math.fsum(shares) / len(shares)
    return f"{min(shares):.1%} to {max(shares):.1%}, mean {mean:.1%} of {len(shares)} nodes"


def name_table(result: RunResult) -> list[tuple[str, int, float, float, float, float | None]]:
    """Tasks by name, the longest total first: how many, and how long they ran and waited (s)."""
    groups: dict[str, list[TaskRecord]] = defaultdict(list)
    for task in result.tasks:
        if has_run(task):
            groups[task.name].append(task)
    rows = []
    for name, tasks in groups.items():
        ran = [ran_ns(task) / SECOND_NS for task in tasks]
        waits = [wait / SECOND_NS for wait in map(queued_ns, tasks) if wait >= 0]
        mean_wait = math.fsum(waits) / len(waits) if waits else None
        total = math.fsum(ran)
        rows.append((name, len(tasks), total, total / len(tasks), max(ran), mean_wait))
    return sorted(rows, key=lambda row: (-row[2], row[0]))
