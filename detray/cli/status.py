"""`detray status`: the cluster of this machine, and what the sessions of this user are doing."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from detray.cli.asking.heads import HeadAt, add_cluster, find_head
from detray.cli.asking.observer import NoAnswer, Observer, with_amounts
from detray.cli.terminal import cluster_page
from detray.cli.terminal.tables import counts_text, table
from detray.core.resources import UNIT
from detray.errors import EngineError
from detray.runtime.session import INFO_NAME, LiveSession, live_sessions
from detray.trace.documents import document, in_house_units
from detray.trace.quantities import size_text

WATCH_S = 1.0
_EXAMPLES = """\
examples:
  detray status                                the cluster here, or the sessions
  detray status --watch
  detray status --address=192.168.1.5:6379     from a machine that has the token
  detray status --json | python -m json.tool   "nodes" is a list of dicts
"""

Report = dict[str, Any]  # Any: what a service tells about itself
Discover = Callable[[], list[LiveSession]]
FindHead = Callable[[argparse.Namespace], HeadAt | None]


def add_status(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray status` to the parser."""
    parser = commands.add_parser(
        "status",
        help="what the cluster and the sessions of this user are doing",
        description="Show nodes, resources, tasks, objects, transfers and failures of the cluster "
        "of this machine, and the sessions that belong to none. Exit code 1 if there is neither.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("session", nargs="?", help="pid of a driver: only its session")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(
    options: argparse.Namespace,
    discover: Discover = live_sessions,
    find: FindHead = find_head,
) -> int:
    """The command; 1 if there is neither cluster nor session, or none that answers."""
    if options.watch and not options.json:
        return _watch(lambda: _look(options, discover, find))
    while True:
        text, status = _look(options, discover, find)
        print(text, flush=True)
        if not options.watch:
            return status
        time.sleep(WATCH_S)


def _look(options: argparse.Namespace, discover: Discover, find: FindHead) -> tuple[str, int]:
    """What there is to print, and the exit code."""
    sessions = _chosen(_private(discover()), options.session)
    reports = [(session, _report(session)) for session in sessions]
    cluster: Report = {}
    head = None if options.session else find(options)
    if head is not None:
        cluster = _ask(head)
    is_known = any("problem" not in report for _, report in reports)
    is_known |= "nodes" in cluster
    text = _as_json(cluster, reports) if options.json else _page_of_all(cluster, reports, options)
    return text, 0 if is_known else 1


def _ask(head: HeadAt) -> Report:
    """The head's report; {"problem"} if it does not answer."""
    try:
        return dict(head.ask("status"))
    except EngineError as problem:
        return {"head": {"address": head.address}, "problem": str(problem)}


def _page_of_all(
    cluster: Report,
    reports: Sequence[tuple[LiveSession, Report]],
    options: argparse.Namespace,
) -> str:
    if not cluster:
        return _as_text(reports, options.session)
    page = str(cluster["problem"]) if "problem" in cluster else cluster_page.render(cluster)
    lines = [_line(session, report) for session, report in reports]
    if lines:
        lines = ["", "sessions that belong to no cluster (detray status PID):", *lines]
    return "\n".join([page, *lines])


def _watch(look: Callable[[], tuple[str, int]]) -> int:
    """Again every second until Ctrl-C: in place on a terminal, one page after the other else."""
    live = None
    if sys.stdout.isatty():
        try:
            from rich.live import Live
            from rich.text import Text

            live = Live(screen=True, auto_refresh=False)
        except ModuleNotFoundError:
            pass
    if live is None:
        while True:
            print(look()[0], flush=True)
            time.sleep(WATCH_S)
    with live:
        while True:
            live.update(Text.from_ansi(look()[0]), refresh=True)
            time.sleep(WATCH_S)


def _private(sessions: list[LiveSession]) -> list[LiveSession]:
    """Those that are no process of a cluster."""
    return [s for s in sessions if not os.path.exists(os.path.join(s.directory, INFO_NAME))]


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


def _as_json(cluster: Report, reports: Sequence[tuple[LiveSession, Report]]) -> str:
    """The cluster's report (`runtime/head/overview.py`), "nodes" in any case, and "sessions"."""
    sessions = [
        {"directory": session.directory, "driver_pid": session.driver_pid, **report}
        for session, report in reports
    ]
    data = {"nodes": [], **cluster, "sessions": [with_amounts(session) for session in sessions]}
    return document("detray status", in_house_units(data))


def _as_text(reports: Sequence[tuple[LiveSession, Report]], wanted: str | None) -> str:
    if not reports:
        return "no cluster and no detray session of yours is running"
    if len(reports) > 1 and wanted is None:
        lines = [_line(session, report) for session, report in reports]
        return "\n".join([*lines, "", "detray status PID shows one of them"])
    return "\n\n".join(_page(session, report) for session, report in reports)


def _line(session: LiveSession, report: Report) -> str:
    head = f"driver {session.driver_pid:<8}"
    if "problem" in report:
        return f"{head} {report['problem']}"
    programs = ", ".join(str(driver["entrypoint"]) for driver in report.get("drivers", []))
    return f"{head} {counts_text(report.get('tasks', {})) or 'no unfinished tasks'}   {programs}"


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
        ("tasks", counts_text(report.get("tasks", {})) or "none unfinished"),
        ("so far", counts_text(report.get("totals", {})) or "nothing"),
        ("objects", counts_text(report.get("objects", {})) or "none"),
        ("store", used),
        ("inline", size_text(store.get("inline_bytes", 0))),
        ("on disk", f"{size_text(store.get('segment_bytes', 0))} in {store.get('segments', 0)}"),
    ]
    lines = [f"{name:8} {text}" for name, text in rows]
    return "\n".join([*lines, "", _resources(report), "", _workers(report)])


def _resources(report: Report) -> str:
    total, available = report.get("total", {}), report.get("available", {})
    rows = [
        (name, _amount(name, total[name] - available.get(name, 0)), _amount(name, total[name]))
        for name in total
    ]
    return table(("resource", "in use", "total"), rows)


def _amount(name: str, units: int) -> str:
    return size_text(units // UNIT) if name == "memory" else f"{units / UNIT:g}"


def _workers(report: Report) -> str:
    rows = [
        (str(w["id"]), str(w["pid"]), str(w["state"]), str(w["task"]), str(w["runs"]))
        for w in report.get("workers", [])
    ]
    return table(("worker", "pid", "state", "task", "runs"), rows) if rows else "no workers"
