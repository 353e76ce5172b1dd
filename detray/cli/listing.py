"""`detray list` and `detray get`: rows about tasks, objects, nodes, workers and jobs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from detray.cli.heads import add_cluster, find_head
from detray.cli.observer import Observer
from detray.cli.tables import counts_text, table
from detray.runtime.session import live_sessions

KINDS = ("tasks", "objects", "nodes", "workers", "jobs")
LIMIT = 100
_ASKED_MAX = 10_000
"""Filters are applied here: so many rows are asked for, whatever the limit is."""
_COLUMNS = {
    "tasks": ("id", "name", "state", "node", "worker", "attempt", "missing_arguments"),
    "objects": ("id", "state", "size_bytes", "node", "grants", "tasks", "pins"),
    "nodes": ("id", "number", "name", "address", "pid", "head", "alive", "reason"),
    "workers": ("id", "node", "pid", "state", "task", "runs"),
    "jobs": ("number", "node", "pid", "namespace", "entrypoint"),
}
"""What the tables show; --json has all there is."""
_CELL_CHARS = 60

EXAMPLES = """\
examples:
  detray list nodes
  detray list tasks --filter state=running --filter name=train
  detray list objects --filter state!=inline --limit 1000 --json
  detray get tasks 1f0a3c                 all about those whose id begins so
"""

Row = dict[str, Any]  # Any: JSON


def add_list(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray list` to the parser."""
    parser = _add(commands, "list", "rows about tasks, objects, nodes, workers or jobs")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="rows of which this is true; KEY!=VALUE: false. Several: all of them",
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
    rows = _rows(options)
    if rows is None:
        return _nobody()
    found = select(rows, options.filter)
    shown = found[: max(0, options.limit)]
    if options.json:
        print(json.dumps(shown, indent=1))
        return 0
    columns = _COLUMNS[options.kind]
    if not shown:
        print(f"no {options.kind}" + (" like that" if options.filter else ""))
        return 0
    print(table(columns, [[_cell(row.get(name)) for name in columns] for row in shown]))
    if len(found) > len(shown):
        print(f"{len(found) - len(shown):,} more: --limit shows them, --filter picks some")
    return 0


def run_get(options: argparse.Namespace) -> int:
    """`detray get`: 1 if there is no such thing."""
    rows = _rows(options)
    if rows is None:
        return _nobody()
    found = [row for row in rows if _is_called(row, options.id)]
    if options.json:
        print(json.dumps(found, indent=1))
        return 0 if found else 1
    if not found:
        print(f"no {options.kind} called {options.id}")
        return 1
    print("\n\n".join(_everything(row) for row in found))
    return 0


def select(rows: Sequence[Row], filters: Sequence[str]) -> list[Row]:
    """The rows of which all `filters` (KEY=VALUE, KEY!=VALUE) are true. Raises ValueError."""
    wanted = [_condition(text) for text in filters]
    return [
        row
        for row in rows
        if all((_text(row.get(key)) == value) is is_equal for key, is_equal, value in wanted)
    ]


def _condition(text: str) -> tuple[str, bool, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--filter {text!r}: say KEY=VALUE or KEY!=VALUE, such as state=running")
    if key.endswith("!"):
        return key[:-1], False, value
    return key, True, value


def _rows(options: argparse.Namespace) -> list[Row] | None:
    """All rows of the kind; None if nobody is there to ask. Raises EngineError, NoAnswer."""
    head = find_head(options)
    if head is not None:
        answer = head.ask("list", options.kind, _ASKED_MAX)
        if isinstance(answer, list):
            return answer
        for node, reason in answer.get("missing", {}).items():
            print(f"detray: node {node} is missing: {reason}", file=sys.stderr)
        return list(answer["rows"])
    sessions = live_sessions()
    if not sessions:
        return None
    return _rows_of_session(sessions[0].socket_path, options.kind)


def _rows_of_session(socket_path: str, kind: str) -> list[Row]:
    observer = Observer(socket_path)
    try:
        if kind in ("tasks", "objects", "workers"):
            return list(observer.ask(kind, _ASKED_MAX))
        summary = dict(observer.ask("summary"))
    finally:
        observer.close()
    if kind == "jobs":
        return [
            {"number": d["job"], "node": summary["node"], "namespace": "", **d}
            for d in summary["drivers"]
        ]
    return [{"id": str(summary["node"]), "number": summary["node"], "alive": True, **summary}]


def _nobody() -> int:
    print("no cluster and no detray session of yours is running")
    return 1


def _is_called(row: Row, name: str) -> bool:
    return str(row.get("id", "")).startswith(name) or str(row.get("number", "")) == name


def _everything(row: Row) -> str:
    width = max(map(len, row))
    return "\n".join(f"{key:{width}}  {_value(value)}" for key, value in row.items())


def _value(value: Any) -> str:  # Any: JSON
    if isinstance(value, dict):
        if all(isinstance(count, int) for count in value.values()):
            return counts_text(value) or "-"
        return json.dumps(value)
    return json.dumps(value) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:  # Any: JSON
    """As it is shown, and as filters compare it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _cell(value: Any) -> str:  # Any: JSON
    text = _text(value)
    return text if len(text) <= _CELL_CHARS else f"{text[: _CELL_CHARS - 1]}…"
