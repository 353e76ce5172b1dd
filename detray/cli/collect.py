"""`detray trace collect`: the recordings of a cluster as one trace."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from detray.cli.arguments.amounts import size
from detray.cli.arguments.trace import check_output
from detray.cli.asking.fetching import FetchedPayloads, RunningCluster, check_sizes, directory_of
from detray.cli.asking.heads import add_cluster, find_head
from detray.cli.terminal.progress import ProgressLine
from detray.trace.documents import document
from detray.trace.format import TraceError
from detray.trace.quantities import size_text

if TYPE_CHECKING:
    from detray.trace.collecting import Collected
    from detray.trace.payloads.reading import Payloads

_EXAMPLES = """\
examples:
  detray trace collect -o night.trace          of the cluster that runs: what it recorded so far
  detray trace collect node0.trace node0.trace.head node1.trace
                                               files that were copied together; writes cluster.trace
  detray trace collect --payloads              arguments and values, too: beside cluster.trace
  detray rerun cluster.trace TASK --trust      for this: a task of any node, here
  detray why cluster.trace                     all that reads traces reads it

Nodes record if they were started so: detray start --head --record node0.trace --record-payloads
"""


def add_collect(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray trace` to the parser, and `collect`, the one thing that it does."""
    parser = commands.add_parser(
        "trace", help="bring the recordings of a cluster together (detray trace collect --help)"
    )
    inner = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    parser = inner.add_parser(
        "collect",
        help="the recordings of all processes of a cluster as one trace",
        description="Bring the recordings of the processes of one cluster together into one trace "
        "that replays as a whole, and check that what one says it sent is what the other received. "
        "Exit code 1 if some message is not.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="recordings (default: those of a running cluster)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="cluster.trace", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--payloads",
        action="store_true",
        help="of a running cluster: bring what its nodes keep of arguments and values, too "
        "(beside files that are named they are found by themselves)",
    )
    parser.add_argument(
        "--payloads-limit",
        metavar="SIZE",
        type=size,
        default="1G",
        help="more payloads than this are not fetched (default: %(default)s)",
    )
    add_cluster(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_collect)


def run_collect(options: argparse.Namespace) -> int:
    """`detray trace collect`: 0 if all messages arrived as they were sent, 1 if not."""
    check_output(options.output, *options.paths)
    collected, written = _collect_files(options) if options.paths else _collect_running(options)
    if options.json:
        data = msgspec.to_builtins(collected)
        print(document("detray trace collect", {"output": data.pop("path"), **data}))
    else:
        print(_collected_text(collected))
        if written:
            print(written)
    return 1 if collected.differences else 0


def _collect_files(options: argparse.Namespace) -> tuple[Collected, str]:
    """The named recordings, and the payloads that lie beside them."""
    from detray.trace.collecting import collect
    from detray.trace.payloads.format import payloads_path
    from detray.trace.payloads.reading import open_payloads
    from detray.trace.reading import open_trace

    traces = [open_trace(path, salvage=True) for path in options.paths]
    collected = collect(traces, options.output)
    beside = [path for path in map(payloads_path, options.paths) if os.path.exists(path)]
    files = [open_payloads(path, salvage=True) for path in beside]
    return collected, _write_payloads(files, collected)


def _collect_running(options: argparse.Namespace) -> tuple[Collected, str]:
    """Those of a running cluster. Nothing is written before all has come."""
    from detray.trace.collecting import collect
    from detray.trace.reading import Trace

    with (
        _running(options) as cluster,
        ExitStack() as files,
        ProgressLine(is_quiet=options.json) as line,
    ):
        traces = cluster.traces()
        payloads: list[Payloads] = []
        if options.payloads:
            sizes = cluster.payload_sizes()
            told = check_sizes(sizes, options.payloads_limit)
            if not options.json:
                print(told, flush=True)
            fetched = cluster.payloads(
                list(sizes), directory_of(options.output), options.payloads_limit, line.show
            )
            for each in fetched:
                files.callback(each.file.close)
            payloads = _read_fetched(fetched, cluster.notes)
        line.clear()
        read = [Trace(data, name, salvage=True) for name, data in traces]
        collected = collect(read, options.output)
        collected.notes += cluster.notes
        return collected, _write_payloads(payloads, collected)


def _read_fetched(fetched: Sequence[FetchedPayloads], notes: list[str]) -> list[Payloads]:
    """What can be read of them; what cannot is noted."""
    from detray.trace.payloads.reading import read_payloads

    readable = []
    for node, file, _ in fetched:
        try:
            readable.append(read_payloads(file, f"payloads of node {node}", salvage=True))
        except TraceError as problem:
            notes.append(f"left out: {problem}")
    return readable


def fetch_recordings(options: argparse.Namespace) -> list[tuple[str, bytes]]:
    """What every process of a running cluster has recorded so far, as (name, bytes of a trace).

    `options` are those of `add_cluster`. Raises EngineError if the head cannot be asked, TraceError
    if there is no cluster.
    """
    with _running(options) as cluster:
        return cluster.traces()


def _running(options: argparse.Namespace) -> RunningCluster:
    head = find_head(options)
    if head is None:
        raise TraceError(
            "no cluster of yours runs on this machine: name its head with --address, or the "
            "recordings' files"
        )
    return RunningCluster(head)


def _write_payloads(files: list[Payloads], collected: Collected) -> str:
    """Bring payload files together beside the whole; what was written, "" if nothing was."""
    from detray.trace.payloads.collecting import collect_payloads
    from detray.trace.payloads.format import payloads_path
    from detray.trace.reading import open_trace

    target = payloads_path(collected.path)
    before = _file_number(target)
    if files:
        collected.notes += collect_payloads(files, open_trace(collected.path).header, target)
    if _file_number(target) != before:
        return f"{target}: {size_text(os.path.getsize(target))}"
    if before:
        collected.notes.append(f"{target} was there before and is left as it was: of other tasks")
    return ""


def _file_number(path: str) -> int:
    """By what a file is told from the one that replaced it; 0 if there is none."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _collected_text(collected: Collected) -> str:
    names = collected.cores
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    lines = [
        f"{collected.path}: {sum(collected.steps):,} steps of {shown}",
        f"{collected.matched:,} messages between them arrived as they were sent",
        *collected.notes,
    ]
    lines += [f"differs: {difference}" for difference in collected.differences]
    return "\n".join(lines)
