"""`detray report`: a run as one page to look at."""

from __future__ import annotations

import argparse
import os
from typing import Any

from detray.cli.arguments.trace import add_trace, check_output, open_named, rarely_collecting
from detray.cli.terminal.progress import ProgressLine
from detray.cli.terminal.saying import say
from detray.trace.documents import document

_ABOUT = """\
Write one HTML file that shows a run: a timeline of workers that zooms, the critical path, the
graph, statistics by function, memory over time, what went wrong, and the story of whatever you
click on. The file needs no network and no server; it may be sent to somebody. A trace from a
stranger can be shown: nothing in it is run.
"""
_EXAMPLES = """\
examples:
  detray report run.trace                        writes run.html
  detray report run.trace -o report.html --open  and shows it
  detray report run.trace --title "Night of 3 May"
"""


def add_report(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray report` to the parser."""
    parser = commands.add_parser(
        "report",
        help="a page to look at: timeline, critical path, graph, failures, stories",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="(default: TRACE's name with .html)")
    parser.add_argument("--title", default="", help="(default: the program's name)")
    parser.add_argument("--open", action="store_true", help="show it in a browser")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_report)


@rarely_collecting()
def run_report(options: argparse.Namespace) -> int:
    """`detray report`: write the page."""
    from detray.trace.reporting.making import report

    trace = open_named(options)
    output = options.output or f"{os.path.splitext(options.trace)[0]}.html"
    check_output(output, options.trace)
    with ProgressLine() as line:
        path = report(trace, output, title=options.title, progress=line.show)
    size = path.stat().st_size
    if options.json:
        data = {"trace": trace.name, "output": str(path), "size_bytes": size}
        print(document("detray report", data))
    else:
        print(f"{path}: {size / 1e6:.1f} MB; open it with a browser")
    if options.open:
        _show(path.resolve().as_uri())
    return 0


def _show(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        say(f"no browser was found here; open {url}")
