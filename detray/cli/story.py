"""`detray story`: all that a trace knows about one thing."""

from __future__ import annotations

import argparse
from typing import Any

from detray.cli.arguments.trace import add_trace, open_named
from detray.trace.documents import document
from detray.trace.format import TraceError

_EXAMPLES = """\
examples:
  detray story run.trace 1.9f3a12.3            a task, from its submission to its end
  detray story run.trace 1.9f3a12.3/0          what it returned
  detray story run.trace "worker 3"
  detray story cluster.trace "node 2"          how it joined, its workers, its end; or "head"
"""


def add_story(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray story` to the parser."""
    parser = commands.add_parser(
        "story",
        help="the life of one task, object, worker or node",
        description="Tell all that a trace knows about one thing, in order.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument(
        "about",
        metavar="ID",
        help="an id in hexadecimal or its beginning, a short name such as 1.9f3a12.3, "
        '"worker 3", "driver 1", "node 2", "head", or a function that was called once, '
        "or failed once",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_story)


def run_story(options: argparse.Namespace) -> int:
    """`detray story`: 0; errors of traces and unknown ids are raised."""
    from detray.trace.telling.story import find_subject, story

    trace = open_named(options)
    subject = find_subject(trace, options.about)
    lines = story(trace, subject)
    if options.json:
        told = [line._asdict() for line in lines]
        data = {"trace": trace.name, "subject": str(subject), "lines": told}
        print(document("detray story", data))
        return 0
    is_known = False
    for line in lines:
        is_known = True
        print(line)
    if not is_known:
        raise TraceError(f"{trace.name} knows nothing of {subject}")
    return 0
