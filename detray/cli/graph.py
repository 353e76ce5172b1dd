"""`detray graph`: a run in numbers, and its graph as a picture or in formats for programs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detray.cli.arguments.trace import add_trace, check_output, open_named, rarely_collecting
from detray.cli.terminal.tables import counts_text, table
from detray.trace.documents import document
from detray.trace.plain_text import one_line

if TYPE_CHECKING:
    from detray.trace.graphs.critical import CriticalPath
    from detray.trace.graphs.summary import RunSummary

PARTS_MAX = 25
"""Longer paths are shown by their longest parts."""
_EXAMPLES = """\
examples:
  detray graph run.trace                       numbers, and run.svg
  detray graph run.trace --critical            with the critical path, marked in run.svg
  detray graph run.trace --functions           a line for each function
  detray graph run.trace -o run.graphml        everything, for other programs
  detray graph run.trace -o run.wf.json        as WfFormat 1.5, for simulators of workflows
  detray graph run.trace --json | jq .span_ns
"""
Options = argparse.Namespace


def add_graph(commands: Any) -> None:  # Any: argparse's subparsers have no public name
    """Add the command's parser."""
    parser = commands.add_parser(
        "graph",
        help="the tasks and objects of a run: numbers, critical path, a picture",
        description="Say how much was computed, how long the critical path is and of what, and how "
        "many tasks ran at once; and draw the graph: boxes are tasks, ovals are objects, dotted "
        "lines say who launched whom, solid ones where data goes. Large graphs are drawn with "
        "equals as one.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help='.svg, .dot, .gv, .json, .graphml, .wf.json; "-": stdout (default: TRACE\'s name '
        "with .svg; with --json or --functions, none)",
    )
    parser.add_argument(
        "--format",
        choices=("svg", "dot", "json", "graphml", "wfformat"),
        help="of the file, whatever its name ends in",
    )
    parser.add_argument(
        "--critical", action="store_true", help="show the critical path, and mark it in the picture"
    )
    parser.add_argument("--functions", action="store_true", help="a table of functions")
    parser.add_argument("--json", action="store_true", help="the numbers, for programs")
    parser.set_defaults(run=run)


@rarely_collecting()
def run(options: Options) -> int:
    """`detray graph`: 0, or an error if the trace or the file makes no sense."""
    from detray.trace.drawings.drawing import draw, format_of, text_of
    from detray.trace.graphs.computation import computation
    from detray.trace.graphs.graph import tables_of
    from detray.trace.graphs.summary import summary_of

    trace = open_named(options)
    output = options.output
    if output is None and not (options.json or options.functions):
        ending = {"wfformat": "wf.json", None: "svg"}.get(options.format, options.format)
        output = f"{os.path.splitext(options.trace)[0]}.{ending}"
    if output == "-" and options.json:
        raise ValueError("--json and -o - both want standard output: name a file, or leave one out")
    if output == "-":
        form = options.format or "svg"
    elif output:
        form = options.format or format_of(Path(output))
    if output and output != "-":
        check_output(output, options.trace)
    graph = tables_of(trace)
    summary = summary_of(computation(graph))
    path = summary.path if options.critical else None
    if output == "-":
        sys.stdout.write(text_of(graph, form, path))
        return 0
    if output:
        drawn = draw(graph, output, form, path)
        if not options.json:
            print(drawn)
    if options.json:
        files = {"trace": trace.name, "output": output}
        print(document("detray graph", files | _as_data(summary)))
    elif options.functions:
        print(_functions_text(summary))
    else:
        print(_summary_text(summary))
    if options.critical and not options.json:
        print(_path_text(summary.path))
    return 0


def _as_data(summary: RunSummary) -> dict[str, Any]:  # Any: JSON
    path = summary.path
    return {
        "tasks": summary.tasks,
        "states": summary.states,
        "retries": summary.retries,
        "objects": summary.objects,
        "made_bytes": summary.bytes_made,
        "taken_bytes": summary.bytes_taken,
        "levels": summary.levels,
        "work_ns": summary.work_ns,
        "span_ns": summary.span_ns,
        "blocked_ns": summary.blocked_ns,
        "critical_path": {
            "length_ns": path.length_ns,
            "kinds_ns": path.by_kind(),
            "functions_ns": path.by_name(),
            "parts": [part._asdict() for part in path.parts],
        },
        "mean_width": round(summary.mean_width, 3),
        "max_width": summary.max_width,
        "width_ns": {str(running): length for running, length in summary.profile.items()},
        "functions": [stats._asdict() for stats in summary.functions],
    }


def _summary_text(summary: RunSummary) -> str:
    from detray.trace.quantities import size_text, time_text

    states = counts_text(summary.states)
    retries = f"; {summary.retries:,} retried" if summary.retries else ""
    stood = (
        f"; {time_text(summary.blocked_ns)} more stood still in get" if summary.blocked_ns else ""
    )
    kinds = ", ".join(f"{time_text(ns)} {kind}" for kind, ns in summary.path.by_kind().items())
    rows = [
        ("tasks", f"{summary.tasks:,}" + (f": {states}{retries}" if states else "")),
        ("functions", f"{len(summary.functions):,}, {summary.levels:,} levels deep"),
        (
            "objects",
            f"{summary.objects:,}, {size_text(summary.bytes_made)}; "
            f"{size_text(summary.bytes_taken)} taken as arguments",
        ),
        ("work", f"{time_text(summary.work_ns)}{stood}"),
        (
            "span",
            f"{time_text(summary.span_ns)} with any number of machines; "
            f"work / span = {summary.parallelism:.1f}",
        ),
        ("critical path", f"{time_text(summary.path.length_ns)}" + (f": {kinds}" if kinds else "")),
        ("at work", f"{summary.mean_width:.1f} tasks on average, {summary.max_width:,} at most"),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def _functions_text(summary: RunSummary) -> str:
    from detray.trace.quantities import size_text, time_text

    columns = (
        "function", "calls", "failed", "retries", "total", "mean", "median", "p95", "max",
        "waiting", "in get", "returned",
    )  # fmt: skip
    rows = [
        [
            one_line(stats.name),
            f"{stats.calls:,}",
            f"{stats.failed + stats.cancelled:,}",
            f"{stats.retries:,}",
            *map(
                time_text,
                (
                    stats.total_ns,
                    stats.mean_ns,
                    stats.median_ns,
                    stats.p95_ns,
                    stats.max_ns,
                    stats.waiting_ns,
                    stats.blocked_ns,
                ),
            ),
            size_text(stats.returned_bytes),
        ]
        for stats in summary.functions
    ]
    return table(columns, rows)


def _path_text(path: CriticalPath) -> str:
    """The parts, or the longest of them, in order."""
    from detray.trace.names import short
    from detray.trace.quantities import time_text

    if not path.parts:
        return "no task ended: there is no critical path"
    longest = sorted(path.parts, key=lambda part: (-part.length_ns, part.started_ns))[:PARTS_MAX]
    begin_ns = path.parts[0].started_ns
    rows = [
        [
            time_text(part.started_ns - begin_ns),
            time_text(part.length_ns),
            part.kind,
            one_line(part.name),
            short(bytes.fromhex(part.task)),
            f"{part.node}, worker {part.worker}" if part.worker else part.node,
            part.after,
        ]
        for part in sorted(longest, key=lambda part: part.started_ns)
    ]
    shown = table(("at", "for", "what", "function", "task", "where", "because of"), rows)
    rest = len(path.parts) - len(rows)
    if not rest:
        return shown
    rest_ns = path.length_ns - sum(part.length_ns for part in longest)
    return f"{shown}\nand {rest:,} shorter parts, together {time_text(rest_ns)}"
