"""`detray shrink`: the smallest part of a trace that violates an expectation, as a transcript."""

from __future__ import annotations

import argparse
import os
from typing import Any

from detray.cli.arguments.amounts import positive
from detray.cli.arguments.expectations import add_expect, all_sentences, read_expectations
from detray.cli.arguments.trace import add_trace, check_output, open_named
from detray.cli.terminal.progress import ProgressLine
from detray.trace.documents import document
from detray.trace.format import TraceError
from detray.trace.replacing import SHARED, write_whole

_EXAMPLES = """\
examples:
  detray shrink run.trace --expect "no task waits more than 5 s while a CPU is idle"
  detray shrink run.trace --expect "no task fails" --expect "no worker dies" -o story.txt
  detray shrink node0.flight.trace              an invariant that broke, or a core that raised
  detray shrink run.trace --expect help         what can be expected
"""


def add_shrink(commands: Any) -> None:  # Any: argparse has no public name for it
    """The parser of the command."""
    parser = commands.add_parser(
        "shrink",
        help="the smallest part of a trace that violates an expectation, as a golden transcript",
        description="Play the trace until an expectation is violated, leave out what it does not\n"
        "take to violate it in the same way, and write the rest as a transcript that can be\n"
        "read, edited and played (tests/golden). Exit code 1 if nothing is violated.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    add_expect(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help='"-" for stdout (default: TRACE\'s name with .txt)'
    )
    parser.add_argument(
        "--runs", type=positive, default=5_000, metavar="N", help="try at most so many parts"
    )
    parser.add_argument(
        "--seconds", type=positive, default=300, metavar="N", help="and for at most so long"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_shrink)


def run_shrink(options: argparse.Namespace) -> int:
    """Shrink and write; 0 if something was violated, 1 if nothing was."""
    from detray.trace.reducing.expecting import DEFAULT
    from detray.trace.reducing.shrinking import NothingViolated, shrink
    from detray.trace.transcript.writing import shrunk_transcript

    if "help" in options.expect:
        print(all_sentences())
        return 0
    expectations = read_expectations(options.expect, DEFAULT)
    output = options.output or f"{os.path.splitext(options.trace)[0]}.txt"
    if output != "-":
        check_output(output, options.trace)
        if not os.path.isdir(os.path.dirname(output) or "."):
            raise TraceError(f"{output}: there is no such directory to write it to")
    if output == "-" and options.json:
        raise ValueError("--json and -o - both want standard output: name a file, or leave one out")
    trace = open_named(options)
    try:
        with ProgressLine(is_quiet=options.json) as line:
            shrunk = shrink(
                trace, expectations, runs_max=options.runs, seconds_max=options.seconds,
                report=line.show,
            )  # fmt: skip
    except NothingViolated as nothing:
        data = {"trace": trace.name, "violated": None}
        print(document("detray shrink", data) if options.json else str(nothing))
        return 1
    text = shrunk_transcript(shrunk, os.path.basename(options.trace))
    if output != "-":
        write_whole(output, [text.encode()], mode=SHARED)
    if options.json:
        data = {"trace": trace.name, "output": output, **_as_data(shrunk)}
        print(document("detray shrink", data))
    elif output == "-":
        print(text, end="")
    else:
        print(_as_text(shrunk, output))
    return 0


# ------------------------------------------------------------------ what is shown


def _as_text(shrunk: Any, output: str) -> str:  # Any: a Shrunk
    found = shrunk.found
    where = f"step {found.step:,}" if found.step >= 0 else "the end"
    smallest = (
        "none of them can be left out"
        if shrunk.is_minimal
        else "the budget is spent: more might be left out (--runs, --seconds)"
    )
    lines = [
        f'"{shrunk.sentence}" is violated at {where}, {found.since_ns / 1e9:.6f} s after the '
        f"beginning: {found.text()}",
        f"{shrunk.told_before:,} stimuli up to there, {shrunk.told:,} are enough: {smallest} "
        f"({shrunk.runs:,} runs, {shrunk.seconds:.1f} s)",
        f"{output}: what {_cores(shrunk)} told, and what came out",
    ]
    if shrunk.told_anew:
        lines.insert(
            1,
            "the recording begins in the middle: what was there then is told anew, in "
            f"{shrunk.told_anew:,} stimuli more",
        )
    return "\n".join(lines)


def _cores(shrunk: Any) -> str:  # Any: a Shrunk
    names = [info.name for info in shrunk.cores]
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names)} are"


def _as_data(shrunk: Any) -> dict[str, Any]:  # Any: a Shrunk, JSON
    return {
        "violated": shrunk.sentence,
        "step": shrunk.found.step,
        "since_ns": shrunk.found.since_ns,
        "what": shrunk.found.text(),
        "stimuli_before": shrunk.told_before,
        "stimuli_told_anew": shrunk.told_anew,
        "stimuli": shrunk.told,
        "cores": [info.name for info in shrunk.cores],
        "runs": shrunk.runs,
        "duration_ns": round(shrunk.seconds * 1e9),
        "is_minimal": shrunk.is_minimal,
        "passes": [list(entry) for entry in shrunk.trail],
    }
