"""`detray shrink`: the smallest part of a trace that violates an expectation, as a transcript."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from detray.cli.opening import add_trace, open_named
from detray.cli.progress import ProgressLine
from detray.trace.format import TraceError

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
        "--runs", type=_positive, default=5_000, metavar="N", help="try at most so many parts"
    )
    parser.add_argument(
        "--seconds", type=_positive, default=300, metavar="N", help="and for at most so long"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_shrink)


def add_expect(parser: argparse.ArgumentParser) -> None:
    """The option that says what is expected."""
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="SENTENCE",
        help='such as "no task waits more than 5 s"; "help" lists all; may be given several times',
    )


def read_expectations(sentences: list[str], default: str = "") -> list[Any]:
    """Expectations of sentences, or of the default one. Raises ValueError. (Any: Expectation.)"""
    from detray.trace.reducing.expecting import expect

    return [expect(sentence) for sentence in sentences or ([default] if default else [])]


def all_sentences() -> str:
    """What can be expected, a line each."""
    from detray.trace.reducing.expecting import RULES

    width = max(len(rule.form) for rule in RULES)
    return "\n".join(f"{rule.form:{width}}  {rule.meaning}" for rule in RULES)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def run_shrink(options: argparse.Namespace) -> int:
    """Shrink and write; 0 if something was violated, 1 if nothing was."""
    from detray.trace.reducing.expecting import DEFAULT
    from detray.trace.reducing.shrinking import NothingViolated, shrink
    from detray.trace.transcript.writing import shrunk_transcript

    if "help" in options.expect:
        print(all_sentences())
        return 0
    expectations = read_expectations(options.expect, DEFAULT)
    trace = open_named(options)
    try:
        with ProgressLine(is_quiet=options.json) as line:
            shrunk = shrink(
                trace, expectations, runs_max=options.runs, seconds_max=options.seconds,
                report=line.show,
            )  # fmt: skip
    except NothingViolated as nothing:
        print(json.dumps({"violated": None}) if options.json else str(nothing))
        return 1
    text = shrunk_transcript(shrunk, os.path.basename(options.trace))
    output = options.output or f"{os.path.splitext(options.trace)[0]}.txt"
    if output != "-":
        if os.path.abspath(output) == os.path.abspath(options.trace):
            raise TraceError(f"{output} is the trace itself: name another file with -o")
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    if options.json:
        print(json.dumps(_as_data(shrunk, output), indent=1))
    elif output == "-":
        print(text, end="")
    else:
        print(_as_text(shrunk, output))
    return 0


# ------------------------------------------------------------------ for `detray replay`


def violation_of(trace: Any, expectations: list[Any]) -> Any:  # Any: a Trace, a Violation
    """What of it a trace violates first, None if nothing. Raises TraceError."""
    from detray.trace.reducing.expecting import find_violation

    return find_violation(trace, expectations) if expectations else None


def violation_text(trace: Any, violation: Any) -> str:  # Any: as above
    """Where it is violated: the step, what is wrong, and the stories of what it is about."""
    from detray.ids import ClientID
    from detray.trace.links import nodes_of
    from detray.trace.names import core_names, describe
    from detray.trace.telling.story import StorySubject, story

    names = core_names(trace.header, nodes_of(trace))
    where = f"in step {violation.step}" if violation.step >= 0 else "at the end"
    step = next((step for step in trace.steps() if step.number == violation.step), None)
    lines = [
        f'"{violation.sentence}" is violated {where}, {violation.since_ns / 1e9:.6f} s after the '
        f"beginning: {violation.text()} ({names[violation.core]})"
    ]
    if step is not None:
        told = [f"      {describe(m)}" for m in step.stimuli()[:_LINES_MAX]]
        lines += [f"in that step the {names[step.core]} was told:", *(told or ["      (nothing)"])]
    for item in violation.subjects[:_STORIES_MAX]:
        subject = StorySubject(item, ClientID(0))
        told = [
            f"  {line}"
            for line in story(trace, subject)
            if violation.step < 0 or line.step <= violation.step
        ]
        lines += [f"the story of {subject} up to here:", *told[-_LINES_MAX:]]
    lines.append(f"what it takes, as a test: detray shrink {trace.name} --expect ...")
    return "\n".join(lines)


def violation_data(violation: Any) -> dict[str, Any] | None:  # Any: as above, JSON
    """The same for programs."""
    if violation is None:
        return None
    return {
        "expected": violation.sentence,
        "step": violation.step,
        "core": violation.core,
        "since_ns": violation.since_ns,
        "what": violation.text(),
        "subjects": [item.hex() for item in violation.subjects],
    }


_LINES_MAX, _STORIES_MAX = 12, 3


# ------------------------------------------------------------------ what is shown


def _as_text(shrunk: Any, output: str) -> str:  # Any: a Shrunk
    found = shrunk.found
    where = f"step {found.step:,}" if found.step >= 0 else "the end"
    smallest = (
        "none of them can be left out"
        if shrunk.is_minimal
        else "the budget is spent: more might be left out (--runs, --seconds)"
    )
    return "\n".join(
        [
            f'"{shrunk.sentence}" is violated at {where}, {found.since_ns / 1e9:.6f} s after the '
            f"beginning: {found.text()}",
            f"{shrunk.told_before:,} stimuli up to there, {shrunk.told:,} are enough: {smallest} "
            f"({shrunk.runs:,} runs, {shrunk.seconds:.1f} s)",
            f"{output}: what {_cores(shrunk)} told, and what came out",
        ]
    )


def _cores(shrunk: Any) -> str:  # Any: a Shrunk
    names = [info.name for info in shrunk.cores]
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names)} are"


def _as_data(shrunk: Any, output: str) -> dict[str, Any]:  # Any: a Shrunk, JSON
    return {
        "violated": shrunk.sentence,
        "step": shrunk.found.step,
        "since_ns": shrunk.found.since_ns,
        "what": shrunk.found.text(),
        "stimuli_before": shrunk.told_before,
        "stimuli": shrunk.told,
        "cores": [info.name for info in shrunk.cores],
        "runs": shrunk.runs,
        "seconds": round(shrunk.seconds, 3),
        "is_minimal": shrunk.is_minimal,
        "passes": [list(entry) for entry in shrunk.trail],
        "output": output,
    }
