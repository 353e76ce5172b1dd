"""`detray logs`: what the workers and services of a cluster wrote, wherever they run."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple

from detray.cli.asking.heads import HeadAt, add_cluster, find_head
from detray.cli.terminal.saying import say
from detray.errors import EngineError

TAIL = 100
_PIECE_BYTES = 1 << 18
_LINE_BYTES = 200
"""About so long is a line: how far back a tail is looked for at first."""
_FOLLOW_S = 0.5

EXAMPLES = """\
examples:
  detray logs                          the last lines of every process, node by node
  detray logs --node 2 --worker 7      of one worker (detray list workers)
  detray logs --follow --tail 0        what is written from now on, until Ctrl-C
"""


class _Source(NamedTuple):
    """One log file of one node."""

    node: int
    name: str


def add_logs(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray logs` to the parser."""
    parser = commands.add_parser(
        "logs",
        help="what workers and services wrote, on any machine of the cluster",
        description="Print the logs of the cluster's nodes. A worker's log ends with its node's "
        "life. Exit code 1 if there is no cluster, or if a node does not answer (those of the "
        "others are shown).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--node", type=int, metavar="N", help="only of this node")
    parser.add_argument("--worker", type=int, metavar="N", help="only of workers of this number")
    parser.add_argument("--follow", "-f", action="store_true", help="go on, until Ctrl-C")
    parser.add_argument(
        "--tail", type=int, default=TAIL, metavar="N", help=f"lines of each log ({TAIL}; -1: all)"
    )
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """The command; 1 if there is no cluster, no such log, or a node that does not answer."""
    head = find_head(options)
    if head is None:
        print("no cluster of yours runs on this machine: name its head with --address")
        return 1
    nodes = _Nodes(head)
    sizes = _sources(nodes, options)
    if not sizes and not nodes.away and not options.follow:
        print("no such log" if options.worker is not None else "no process has written anything")
        return 1
    seen: dict[_Source, int] = {}
    for source, size in sizes.items():
        seen[source] = size
        _print(source, _tail(nodes, source, size, options.tail))
    while options.follow:
        time.sleep(_FOLLOW_S)
        for source, size in _sources(nodes, options).items():
            start = seen.get(source, 0)
            # Smaller than before: it was full and began anew.
            data = _read(nodes, source, start if size >= start else 0, size)
            whole = data.rfind(b"\n") + 1
            _print(source, data[:whole].decode(errors="replace").splitlines())
            seen[source] = (start if size >= start else 0) + whole
    return 1 if nodes.away else 0


class _Nodes:
    """The nodes of a cluster. One that does not answer is said once, until it answers again."""

    def __init__(self, head: HeadAt) -> None:
        self.head = head
        self.away: set[int] = set()
        """Those that did not answer when they were last asked."""

    def numbers(self, only: int | None) -> list[int]:
        """The living nodes, or that one of them. Raises EngineError."""
        alive = [row["number"] for row in self.head.ask("list", "nodes", 0) if row["alive"]]
        if only is None:
            return alive
        if only not in alive:
            raise EngineError(f"no node {only} lives: {', '.join(map(str, alive)) or 'none'} do")
        return [only]

    def ask(self, node: int, *arguments: Any) -> Any:  # Any: plain data
        """Its answer, None if it gives none."""
        try:
            answer = self.head.ask("logs", node, *arguments)
        except EngineError as problem:
            if node not in self.away:
                say(f"node {node} does not answer, its logs are not shown: {problem}")
            self.away.add(node)
            return None
        self.away.discard(node)
        return answer


def _sources(nodes: _Nodes, options: argparse.Namespace) -> dict[_Source, int]:
    """The logs that are wanted, and their sizes."""
    wanted = None if options.worker is None else f"worker-{options.worker}.log"
    found: dict[_Source, int] = {}
    for node in nodes.numbers(options.node):
        for row in nodes.ask(node) or ():
            if wanted is None or row["name"].startswith(wanted):
                found[_Source(node, row["name"])] = row["size_bytes"]
    return found


def _tail(nodes: _Nodes, source: _Source, size: int, count: int) -> list[str]:
    """The last `count` lines; all for -1."""
    reach = size if count < 0 else min(size, max(1, count) * _LINE_BYTES)
    while True:
        data = _read(nodes, source, size - reach, size)
        lines = data.decode(errors="replace").splitlines()
        if reach < size:
            lines = lines[1:]  # it began before
        if reach >= size or len(lines) >= count >= 0:
            return lines if count < 0 else lines[len(lines) - min(count, len(lines)) :]
        reach = min(size, reach * 4)


def _read(nodes: _Nodes, source: _Source, start: int, end: int) -> bytes:
    parts: list[bytes] = []
    while start < end and source.node not in nodes.away:
        piece = nodes.ask(source.node, source.name, start, min(_PIECE_BYTES, end - start))
        if not piece:
            break
        parts.append(piece)
        start += len(piece)
    return b"".join(parts)


def _print(source: _Source, lines: list[str]) -> None:
    label = f"node {source.node} {source.name.removesuffix('.log')}"
    sys.stdout.write("".join(f"[{label}] {line}\n" for line in lines))
    sys.stdout.flush()
