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
    Row("local_one", "remote", "task at the driver's node, one at a time", "us", False),
    Row("remote_one", "remote", "task at another node, one at a time", "us", False),
    Row("local_batch", "remote", "batches of 1,000 at the driver's node", "/s", True),
    Row("remote_batch", "remote", "batches of 1,000 at another node", "/s", True),
    Row("cpu_local_one", "remote", "CPU a task, at the driver's node, one at a time", "us", False),
    Row("cpu_remote_one", "remote", "CPU a task, at another node, one at a time", "us", False),
    Row("cpu_local_batch", "remote", "CPU a task, at the driver's node, in batches", "us", False),
    Row("cpu_remote_batch", "remote", "CPU a task, at another node, in batches", "us", False),
    Row("fetch_100mb_cold", "transfer", "get 100 MB of another node, first time", "GB/s", True),
    Row("fetch_100mb", "transfer", "get 100 MB of another node", "GB/s", True),
    Row("plain_100mb", "transfer", "(100 MB over plain sockets)", "GB/s", True),
    Row("fetch_1gb_cold", "transfer", "get 1 GB of another node, first time", "GB/s", True),
    Row("fetch_1gb", "transfer", "get 1 GB of another node", "GB/s", True),
    Row("plain_1gb", "transfer", "(1 GB over plain sockets)", "GB/s", True),
    Row("broadcast", "broadcast", "100 MB to 8 nodes at once", "ms", False),
    Row("pulls", "broadcast", "100 MB each to 8 nodes, one by one", "ms", False),
    Row("empty_1", "nodes", "10,000 empty tasks, 1 node of 4 slots", "/s", True),
    Row("empty_4", "nodes", "10,000 empty tasks, 4 nodes of 1 slot", "/s", True),
    Row("busy_1", "nodes", "10,000 tasks of 1 ms, 1 node of 4 slots", "/s", True),
    Row("busy_4", "nodes", "10,000 tasks of 1 ms, 4 nodes of 1 slot", "/s", True),
)
BY_NAME = {row.name: row for row in ROWS}
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))
CLUSTER_GROUPS = ("remote", "transfer", "broadcast", "nodes")
"""Groups of `--cluster`."""
ON_REQUEST = frozenset({"million", *CLUSTER_GROUPS})
"""Groups that are measured only if they are asked for: they take minutes, or need a cluster."""
YARDSTICKS = ("memcpy", "plain")
"""How the names of rows begin that measure the machine, not an engine."""


def chosen_groups(names: str, *, cluster: bool = False) -> tuple[str, ...]:
    """The groups that a `--rows` argument asks for: names, or "all" (also of what takes minutes).

    Empty means the default, with or without `--cluster`. Raises ValueError for a name that is no
    group.
    """
    if not names and cluster:
        return CLUSTER_GROUPS
    if not names:
        return tuple(group for group in GROUPS if group not in ON_REQUEST)
    if names == "all":
        return GROUPS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in GROUPS]
    if unknown:
        raise ValueError(f"no such rows: {', '.join(unknown)}; there are {', '.join(GROUPS)}, all")
    return tuple(group for group in GROUPS if group in wanted)
