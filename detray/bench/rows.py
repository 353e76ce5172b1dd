"""The rows of the table: what is measured, in which unit, and which way is better.

A *group* is what `--rows` names and what one measurement fills; it holds one or more rows.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table: `unit` follows the number, `more_is_better` directs the ratios."""

    name: str
    group: str
    title: str
    unit: str
    more_is_better: bool


ROWS = (
    Row("start", "start", "fresh interpreter to first result", "ms", False),
    Row("init", "start", "of it, init() to first result", "ms", False),
    Row("single", "single", "tasks one at a time", "/s", True),
    Row("batch", "batch", "batches of 1,000 tasks", "/s", True),
    Row("chain", "chain", "chain of 100 dependent tasks", "/s", True),
    Row("wait_all", "wait", "wait for all of 1,000", "/s", True),
    Row("wait_each", "wait", "wait for 1,000, one by one", "/s", True),
    Row("fan_in", "fan-in", "1,000 results into one task", "/s", True),
    Row("nested", "nested", "4 tasks start 250 each and get them", "/s", True),
    Row("get_cached", "get", "get a small object again", "/s", True),
    Row("get_fresh", "get", "get small results, each for the first time", "/s", True),
    Row("put_small", "put", "put a small object", "/s", True),
    Row("put_1mb_cold", "arrays", "put 1 MB, first time", "GB/s", True),
    Row("put_1mb", "arrays", "put 1 MB, again", "GB/s", True),
    Row("get_1mb", "arrays", "get 1 MB", "us", False),
    Row("memcpy_1mb", "arrays", "(memcpy of 1 MB, warm)", "GB/s", True),
    Row("put_100mb_cold", "arrays", "put 100 MB, first time", "GB/s", True),
    Row("put_100mb", "arrays", "put 100 MB, again", "GB/s", True),
    Row("get_100mb", "arrays", "get 100 MB", "us", False),
    Row("memcpy_100mb_cold", "arrays", "(memcpy of 100 MB into new memory)", "GB/s", True),
    Row("memcpy_100mb", "arrays", "(memcpy of 100 MB, warm)", "GB/s", True),
    Row("put_1gb_cold", "arrays", "put 1 GB, first time", "GB/s", True),
    Row("put_1gb", "arrays", "put 1 GB, again", "GB/s", True),
    Row("get_1gb", "arrays", "get 1 GB", "us", False),
    Row("memcpy_1gb", "arrays", "(memcpy of 1 GB, warm)", "GB/s", True),
    Row("single_hogs", "hogs", "one at a time beside two CPU hogs", "/s", True),
    Row("chain_hogs", "hogs", "chain of 100 beside two CPU hogs", "/s", True),
    Row("cpu_driver", "cpu", "CPU of the driver a task, in batches", "us", False),
    Row("cpu_service", "cpu", "CPU of the service a task, in batches", "us", False),
    Row("cpu_workers", "cpu", "CPU of the workers a task, in batches", "us", False),
    Row("cpu_all", "cpu", "CPU of all processes a task, in batches", "us", False),
    Row("record_cost", "recording", "recording to a file, of the CPU of all processes", "%", False),
    Row("flight_cost", "recording", "the flight recorder, of the CPU of all processes", "%", False),
    Row("record_added", "recording", "CPU added by record=PATH, end to end", "%", False),
    Row("record_bytes", "recording", "bytes in the trace a stimulus", "B", False),
    Row("core", "recording", "stimuli a second through the cores alone", "/s", True),
    Row("million", "million", "1,000,000 tasks, submitted and got", "/s", True),
    Row("pending_bytes", "million", "memory of the service a pending task", "B", False),
    Row("growth", "million", "CPU of the service a task, at 1,000,000 / at 1,000", "x", False),
)
BY_NAME = {row.name: row for row in ROWS}
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))
ON_REQUEST = frozenset({"million"})
"""Groups that are measured only if `--rows` names them: they take minutes."""


def chosen_groups(names: str) -> tuple[str, ...]:
    """The groups that a `--rows` argument asks for: names, or "all" (also of what takes minutes).

    Empty means the default. Raises ValueError for a name that is no group.
    """
    if not names:
        return tuple(group for group in GROUPS if group not in ON_REQUEST)
    if names == "all":
        return GROUPS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in GROUPS]
    if unknown:
        raise ValueError(f"no such rows: {', '.join(unknown)}; there are {', '.join(GROUPS)}, all")
    return tuple(group for group in GROUPS if group in wanted)
