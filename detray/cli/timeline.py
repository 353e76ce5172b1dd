"""`detray timeline`: who ran what when, for a program that shows timelines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from detray.cli.arguments.trace import add_trace, check_output, open_named

_EXAMPLES = """\
examples:
  detray timeline run.trace                    writes run.timeline.json
  detray timeline run.trace -o - | gzip > run.json.gz

`detray report run.trace` is a page that shows a timeline, too, and needs no other program.
"""


def add_timeline(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray timeline` to the parser."""
    parser = commands.add_parser(
        "timeline",
        help="who ran what when, for Perfetto",
        description="Write Chrome trace events; open them at https://ui.perfetto.dev.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help='"-" for stdout (default: TRACE\'s name with .timeline.json)',
    )
    parser.set_defaults(run=run_timeline)


def run_timeline(options: argparse.Namespace) -> int:
    """`detray timeline`: write Chrome trace events."""
    from detray.trace.timeline import chrome_events

    output = options.output or f"{os.path.splitext(options.trace)[0]}.timeline.json"
    if output != "-":
        check_output(output, options.trace)
    events = chrome_events(open_named(options))
    if output == "-":
        json.dump(events, sys.stdout)
        return 0
    with open(output, "w", encoding="utf-8") as file:
        json.dump(events, file)
    print(f"{output}: {len(events):,} events; open it at https://ui.perfetto.dev")
    return 0
