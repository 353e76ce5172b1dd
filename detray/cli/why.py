"""`detray why`: the causes of what a trace shows."""

from __future__ import annotations

import argparse
from typing import Any

from detray.cli.arguments.trace import add_trace, open_named, rarely_collecting
from detray.cli.terminal.causes import why_text
from detray.trace.documents import document

_EXAMPLES = """\
examples:
  detray why run.trace                       the first failure; if none, why it took so long
  detray why run.trace 1.9f3a12.3            why it took so long, or failed, or never ended
  detray why run.trace train                 the same, of a function that was called once
  detray why run.trace 1.9f3a12.3/0          why that object is not there, or when it came
  detray why run.trace "worker 3"            why it died, and what was lost with it
  detray why cluster.trace "node 2"
  detray why run.trace train --json --depth 9 | python -m json.tool

Lengths side by side add up to the whole; what is below a wait says where that time went.
"""


def add_why(commands: Any) -> None:  # Any: argparse has no public name for it
    """Add `detray why` to the commands."""
    parser = commands.add_parser(
        "why",
        help="why a task was slow, failed or never ended; why an object or a node is gone",
        description="Walk back the causes: where the time of a task went, and why what it waited "
        "for was late; the chain of failures back to the first; what waits for what.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument(
        "about",
        metavar="ID",
        nargs="?",
        default="",
        help="an id in hexadecimal or its beginning, a short name such as 1.9f3a12.3, "
        '"worker 3", "node 2", "head", or a function that was called once, '
        "or failed once (default: the first task that failed; if none did, the last to end)",
    )
    parser.add_argument(
        "--depth", type=int, metavar="N", help="how far causes are followed (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_why, late="about")


@rarely_collecting()
def run_why(options: argparse.Namespace) -> int:
    """`detray why`: 0; errors of traces and unknown ids are raised."""
    import msgspec

    from detray.trace.explaining.answering import why
    from detray.trace.explaining.tree import DEPTH

    depth = DEPTH if options.depth is None else options.depth
    trace = open_named(options)
    answer = why(trace, options.about, depth=depth)
    if options.json:
        data = {"trace": trace.name, **msgspec.to_builtins(answer)}
        print(document("detray why", data))
    else:
        print(why_text(answer))
    return 0
