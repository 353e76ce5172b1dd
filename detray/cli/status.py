"""`detray status`: what the sessions of this user are doing."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from detray.cli.observer import NoAnswer, Observer
from detray.runtime.session import LiveSession, live_sessions
from detray.trace.graph import size_text

UNITS = 10_000
WATCH_S = 1.0
_CLEAR = "\033[2J\033[H"

Report = dict[str, Any]  # Any: what a service tells about itself
Discover = Callable[[], list[LiveSession]]


def run(options: argparse.Namespace, discover: Discover = live_sessions) -> int:
    """The command; 1 if there is no session, or none that answers."""
    while True:
        sessions = _chosen(discover(), options.session)
        reports = [(session, _report(session)) for session in sessions]
        text = _as_json(reports) if options.json else _as_text(reports, options.session)
        if options.watch and not options.json and sys.stdout.isatty():
            text = _CLEAR + text
        print(text, flush=True)
        if not options.watch:
            return 0 if any("problem" not in report for _, report in reports) else 1
        time.sleep(WATCH_S)


def _chosen(sessions: list[LiveSession], wanted: str | None) -> list[LiveSession]:
    if wanted is None:
        return sessions
    found = [
        session
        for session in sessions
        if wanted in (str(session.driver_pid), os.path.basename(session.directory))
    ]
    if not found:
        raise ValueError(f"no session of driver {wanted}: `detray status` lists those there are")
    return found


def _report(session: LiveSession) -> Report:
    try:
        observer = Observer(session.socket_path)
        try:
            return dict(observer.ask("summary"))
        finally:
            observer.close()
    except NoAnswer as problem:
        return {"problem": str(problem)}


def _as_json(reports: Sequence[tuple[LiveSession, Report]]) -> str:
    sessions = [
        {"directory": session.directory, "driver_pid": session.driver_pid, **report}
        for session, report in reports
    ]
    return json.dumps({"sessions": sessions}, indent=1)


def _as_text(reports: Sequence[tuple[LiveSession, Report]], wanted: str | None) -> str:
    if not reports:
        return "no detray session of yours is running"
    if len(reports) > 1 and wanted is None:
        lines = [_line(session, report) for session, report in reports]
        return "\n".join([*lines, "", "detray status PID shows one of them"])
    return "\n\n".join(_page(session, report) for session, report in reports)


def _line(session: LiveSession, report: Report) -> str:
    head = f"driver {session.driver_pid:<8}"
    if "problem" in report:
        return f"{head} {report['problem']}"
    programs = ", ".join(str(driver["entrypoint"]) for driver in report.get("drivers", []))
    return f"{head} {_counts(report.get('tasks', {})) or 'no unfinished tasks'}   {programs}"


def _page(session: LiveSession, report: Report) -> str:
    if "problem" in report:
        return f"session {session.directory}: {report['problem']}"
    store = report.get("store", {})
    used = f"{size_text(store.get('used_bytes', 0))} of {size_text(store.get('size_bytes', 0))}"
    rows = [
        ("session", session.directory),
        *(
            ("driver", f"job {d['job']}, pid {d['pid']}, {d['entrypoint']}")
            for d in report.get("drivers", [])
        ),
        ("node", f"{report.get('node', '?')} ({report.get('name', '')})"),
        ("tasks", _counts(report.get("tasks", {})) or "none unfinished"),
        ("so far", _counts(report.get("totals", {})) or "nothing"),
        ("objects", _counts(report.get("objects", {})) or "none"),
        ("store", used),
        ("inline", size_text(store.get("inline_bytes", 0))),
        ("on disk", f"{size_text(store.get('segment_bytes', 0))} in {store.get('segments', 0)}"),
    ]
    lines = [f"{name:8} {text}" for name, text in rows]
    return "\n".join([*lines, "", _resources(report), "", _workers(report)])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if count)


def _resources(report: Report) -> str:
    total, available = report.get("total", {}), report.get("available", {})
    rows = [
        (name, _amount(name, total[name] - available.get(name, 0)), _amount(name, total[name]))
        for name in total
    ]
    return _table(("resource", "in use", "total"), rows)


def _amount(name: str, units: int) -> str:
    return size_text(units // UNITS) if name == "memory" else f"{units / UNITS:g}"


def _workers(report: Report) -> str:
    rows = [
        (str(w["id"]), str(w["pid"]), str(w["state"]), str(w["task"]), str(w["runs"]))
        for w in report.get("workers", [])
    ]
    return _table(("worker", "pid", "state", "task", "runs"), rows) if rows else "no workers"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """With rich on a terminal, plain otherwise."""
    if sys.stdout.isatty():
        try:
            return _rich_table(columns, rows)
        except ModuleNotFoundError:
            pass
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()
