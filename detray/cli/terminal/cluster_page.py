"""What `detray status` shows of a cluster: the head's report, as a page of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detray.cli.terminal.tables import counts_text, table
from detray.trace.quantities import size_text

FAILURES_SHOWN = 8
UNPLACED_SHOWN = 5
_MANY_S = 120

Page = dict[str, Any]  # Any: JSON, `runtime/head/overview.py` says of what shape


def render(report: Page) -> str:
    """The page."""
    nodes = report.get("nodes", [])
    living = [node for node in nodes if node["alive"]]
    parts = [
        _summary(report["head"], living, len(nodes) - len(living)),
        _nodes(nodes),
        _resources(living),
        _jobs(report.get("jobs", [])),
        _unplaced(report["head"]),
        _failures(report.get("failures", [])),
    ]
    return "\n\n".join(part for part in parts if part)


def _summary(head: Page, living: Sequence[Page], dead: int) -> str:
    store = head.get("store", {})
    rows = [
        ("head", f"{head['address']}, pid {head['pid']}, up {duration_text(head['up_s'])}"),
        ("cluster", f"{head['cluster']}, epoch {head['epoch']}, detray {head['version']}"),
        ("nodes", f"{len(living)} alive" + (f", {dead} dead" if dead else "")),
        ("tasks", counts_text(_tasks(living)) or "none unfinished"),
        ("so far", counts_text(_sum(living, "totals")) or "nothing"),
        ("objects", counts_text(_sum(living, "objects")) or "none"),
        ("store", _store_text(_sum(living, "store"))),
        ("transfers", _transfers_text(_sum(living, "transfers"))),
        ("log", _log_text(store)),
    ]
    if head.get("web"):
        rows.append(("page", head["web"]))
    return "\n".join(f"{name:9} {text}" for name, text in rows)


def _tasks(nodes: Sequence[Page]) -> dict[str, int]:
    """By state, each once: what its owner has delivered is counted where it is."""
    counts = _sum(nodes, "tasks")
    counts.pop("delivered", None)
    return counts


def _nodes(nodes: Sequence[Page]) -> str:
    columns = ["node", "address", "state", "CPU", "GPU", "store", "tasks", "workers", "heard"]
    rows: list[list[str]] = []
    for node in nodes:
        total, free = node["resources"]["total"], node["resources"]["available"]
        rows.append(
            [
                f"{node['number']}{' *' if node['head'] else ''}",
                node["address"],
                "alive" if node["alive"] else f"dead: {node['reason']}"[:40],
                _used(total, free, "CPU"),
                _used(total, free, "GPU"),
                _space(node["store"]) if node["alive"] else "",
                counts_text(node["tasks"]),
                counts_text(node["workers"]),
                "never" if node["age_s"] is None else f"{duration_text(node['age_s'])} ago",
            ]
        )
    if not any(row[4] for row in rows):
        columns = columns[:4] + columns[5:]
        rows = [row[:4] + row[5:] for row in rows]
    text = table(columns, rows) if rows else "no nodes"
    return text + ("\n* started with the head" if any(node["head"] for node in nodes) else "")


def _resources(nodes: Sequence[Page]) -> str:
    """In use and in all, over the nodes that live; those that name single nodes are left out."""
    total: dict[str, float] = {}
    free: dict[str, float] = {}
    for node in nodes:
        for amounts, found in ((total, "total"), (free, "available")):
            for name, amount in node["resources"][found].items():
                amounts[name] = amounts.get(name, 0.0) + amount
    rows = [
        (name, _amount(name, total[name] - free.get(name, 0.0)), _amount(name, total[name]))
        for name in sorted(total)
        if not name.startswith("node:")
    ]
    return table(("resource", "in use", "total"), rows) if rows else ""


def _jobs(jobs: Sequence[Page]) -> str:
    rows = [
        (str(job["number"]), str(job["node"]), str(job["pid"]), job["entrypoint"][:60])
        for job in jobs
    ]
    return table(("job", "node", "pid", "program"), rows) if rows else ""


def _unplaced(head: Page) -> str:
    if not head.get("unplaceable"):
        return ""
    count = head["unplaceable"]
    lines = [f"{count:,} tasks ask" if count > 1 else "1 task asks"]
    lines[0] += " for what no node has:"
    for task in head.get("unplaced", [])[:UNPLACED_SHOWN]:
        demand = ", ".join(f"{amount:g} {name}" for name, amount in task["demand"].items())
        lines.append(f"  {task['name']} of node {task['node']}: {demand}")
    return "\n".join(lines)


def _failures(failures: Sequence[Page]) -> str:
    if not failures:
        return ""
    lines = ["what went wrong, the newest first:"]
    for failure in failures[:FAILURES_SHOWN]:
        where = f" (node {failure['node']})" if failure["node"] >= 0 else ""
        often = f"{failure['count']} " if failure["count"] > 1 else ""
        text = f": {failure['text']}" if failure["text"] else ""
        ago = duration_text(failure["age_s"])
        lines.append(f"  {ago:>7} ago  {often}{failure['kind']}{text}{where}")
    if len(failures) > FAILURES_SHOWN:
        lines.append(f"  and {len(failures) - FAILURES_SHOWN} more: detray status --json")
    return "\n".join(lines)


def duration_text(seconds: float) -> str:
    """3.2 s, 14 min, 5 h."""
    if seconds < _MANY_S:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < _MANY_S * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _sum(nodes: Sequence[Page], key: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for node in nodes:
        for name, count in node[key].items():
            total[name] = total.get(name, 0) + count
    return total


def _store_text(store: dict[str, int]) -> str:
    text = _space(store)
    disk = store.get("segment_bytes", 0)
    return f"{text}, {size_text(disk)} on disk" if disk else text


def _space(store: dict[str, int]) -> str:
    return f"{size_text(store.get('used_bytes', 0))} of {size_text(store.get('size_bytes', 0))}"


def _transfers_text(transfers: dict[str, int]) -> str:
    now = transfers.get("incoming", 0)
    brought = transfers.get("received", 0)
    text = f"{now} under way" if now else "none under way"
    return f"{text}, {brought:,} so far ({size_text(transfers.get('received_bytes', 0))})"


def _log_text(store: Page) -> str:
    text = str(store.get("url", ""))
    if store.get("problem"):
        text += f": {store['problem']}"
    if store.get("lag_records"):
        text += f", {store['lag_records']:,} records ({store['lag_s']:g} s) behind"
    return text


def _used(total: dict[str, float], free: dict[str, float], name: str) -> str:
    if name not in total:
        return ""
    return f"{total[name] - free.get(name, 0.0):g} of {total[name]:g}"


def _amount(name: str, amount: float) -> str:
    return size_text(int(amount)) if name == "memory" else f"{amount:g}"
