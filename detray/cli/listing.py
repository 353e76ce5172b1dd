"""`detray list` and `detray get`: rows about tasks, objects, nodes, workers, jobs and transfers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from detray.cli.asking.heads import add_cluster, find_head
from detray.cli.asking.observer import Observer, with_amounts
from detray.cli.terminal.saying import say
from detray.cli.terminal.tables import counts_text, table
from detray.core.resources import UNIT
from detray.runtime.rows import Row, join, read_filters, select
from detray.runtime.session import live_sessions
from detray.trace.documents import document, in_house_units

KINDS = ("tasks", "objects", "nodes", "workers", "jobs", "transfers")
_TOLD_BY_NODES = ("tasks", "objects", "workers", "transfers")
"""Tables of the nodes' own; an id, or its beginning, may be asked for (`core/status.py`)."""
LIMIT = 100
_ASKED_MAX = 10_000
"""Filters are applied here: so many rows are asked for, whatever the limit is."""
_COLUMNS = {
    "tasks": ("id", "name", "state", "at", "pid", "attempt", "why"),
    "objects": ("id", "state", "size_bytes", "owner", "copies", "clients", "tasks", "borrowers"),
    "nodes": ("id", "number", "name", "address", "pid", "head", "alive", "reason"),
    "workers": ("id", "node", "pid", "state", "task", "runs"),
    "jobs": ("number", "node", "pid", "namespace", "entrypoint"),
    "transfers": ("id", "direction", "state", "size_bytes", "from", "to", "urgency"),
}
"""What the tables show; --json has all there is."""
_WHERE = {"tasks": ": those that have ended are in recordings only (record=, --record)"}
"""Where to look for what a table does not show."""
_CELL_CHARS = 60

EXAMPLES = """\
examples:
  detray list nodes
  detray list tasks --filter state=running --filter name~train
  detray list objects --filter 'size>10MB' --filter 'copies~2' --limit 1000 --json
  detray get tasks 1f0a3c                 all about those whose id begins so
"""


def add_list(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray list` to the parser."""
    parser = _add(commands, "list", "rows about tasks, objects, nodes, workers or jobs")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="FILTER",
        help="rows of which this is true: a column, then = != < <= > >= or ~ (contains), then a "
        "value. Several: all of them",
    )
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"rows shown ({LIMIT})")
    parser.set_defaults(run=run_list)


def add_get(commands: Any) -> None:  # Any: as above
    """Describe `detray get` to the parser."""
    parser = _add(commands, "get", "everything about one task, object, node, worker or job")
    parser.add_argument("id", metavar="ID", help="its id or number, or the beginning of its id")
    parser.set_defaults(run=run_get)


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:  # Any: as above
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"Show {text}: of the cluster, or, if there is none, of this user's newest "
        "session. Exit code 1 if there is nothing to ask.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--json", action="store_true", help="for programs")
    add_cluster(parser)
    return parser


def run_list(options: argparse.Namespace) -> int:
    """`detray list`: 0, also if no row is left; 1 if there is nobody to ask."""
    filters = read_filters(options.filter)
    rows = _rows(options)
    if rows is None:
        return _nobody(options)
    found = select(rows, filters)
    shown = found[: max(0, options.limit)]
    if options.json:
        return _print_rows("detray list", options.kind, shown)
    columns = _COLUMNS[options.kind]
    if not shown:
        print(
            f"no {options.kind}"
            + (" like that" if options.filter else _WHERE.get(options.kind, ""))
        )
        return 0
    print(table(columns, [[_cell(row.get(name)) for name in columns] for row in shown]))
    if len(found) > len(shown):
        print(f"{len(found) - len(shown):,} more: --limit shows them, --filter picks some")
    return 0


def run_get(options: argparse.Namespace) -> int:
    """`detray get`: 1 if there is no such thing."""
    rows = _rows(options, options.id)
    if rows is None:
        return _nobody(options)
    found = [row for row in rows if _is_called(row, options.id)]
    if options.json:
        _print_rows("detray get", options.kind, found)
        return 0 if found else 1
    if not found:
        print(f"no {options.kind} called {options.id}")
        return 1
    print("\n\n".join(_everything(row) for row in found))
    return 0


def _rows(options: argparse.Namespace, name: str = "") -> list[Row] | None:
    """All rows of the kind, or those that may be called so; None if nobody is there to ask.

    Raises EngineError, NoAnswer.
    """
    topic = f"{options.kind}/{name}" if name and options.kind in _TOLD_BY_NODES else options.kind
    head = find_head(options)
    if head is not None:
        answer = head.ask("list", topic, _ASKED_MAX)
        if isinstance(answer, list):
            return answer
        for node, reason in answer.get("missing", {}).items():
            say(f"node {node} is missing: {reason}")
        return join(options.kind, answer["rows"])
    sessions = live_sessions()
    if not sessions:
        return None
    return _rows_of_session(sessions[0].socket_path, options.kind, topic)


def _rows_of_session(socket_path: str, kind: str, topic: str) -> list[Row]:
    observer = Observer(socket_path)
    try:
        if kind in _TOLD_BY_NODES:
            return [{"node": 0, **row} for row in observer.ask(topic, _ASKED_MAX)]
        summary = dict(observer.ask("summary"))
    finally:
        observer.close()
    if kind == "jobs":
        return [
            {"number": d["job"], "node": summary["node"], "namespace": "", **d}
            for d in summary["drivers"]
        ]
    return [{"id": str(summary["node"]), "number": summary["node"], "alive": True, **summary}]


def _nobody(options: argparse.Namespace) -> int:
    tell = say if options.json else print
    tell("no cluster and no detray session of yours is running")
    return 1


def _print_rows(command: str, kind: str, rows: list[Row]) -> int:
    shown = in_house_units([with_amounts(row) for row in rows])
    print(document(command, {"kind": kind, "rows": shown}))
    return 0


def _is_called(row: Row, name: str) -> bool:
    return str(row.get("id", "")).startswith(name) or str(row.get("number", "")) == name


def _everything(row: Row) -> str:
    width = max(map(len, row))
    return "\n".join(f"{key:{width}}  {_value(key, value)}" for key, value in row.items())


def _value(key: str, value: Any) -> str:  # Any: JSON
    if key.endswith("_ns") and isinstance(value, int):
        return f"{value / 1e9:.3f} s"
    if key == "demand" and isinstance(value, Mapping):
        return ", ".join(f"{amount / UNIT:g} {name}" for name, amount in value.items()) or "-"
    if isinstance(value, Mapping):
        if all(isinstance(count, int) for count in value.values()):
            return counts_text(dict(value)) or "-"
        return json.dumps(value)
    return json.dumps(value) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:  # Any: JSON
    """As it is shown."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _cell(value: Any) -> str:  # Any: JSON
    text = _text(value)
    return text if len(text) <= _CELL_CHARS else f"{text[: _CELL_CHARS - 1]}…"
