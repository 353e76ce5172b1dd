"""Expectations of commands: what is expected, and how a trace that violates it is shown."""

from __future__ import annotations

import argparse
from typing import Any

LINES_MAX, STORIES_MAX = 12, 3
"""Lines of a step or a story, and stories, of a violation."""


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
        told = [f"      {describe(m)}" for m in step.stimuli()[:LINES_MAX]]
        lines += [f"in that step the {names[step.core]} was told:", *(told or ["      (nothing)"])]
    for item in violation.subjects[:STORIES_MAX]:
        subject = StorySubject(item, ClientID(0))
        told = [
            f"  {line}"
            for line in story(trace, subject)
            if violation.step < 0 or line.step <= violation.step
        ]
        lines += [f"the story of {subject} up to here:", *told[-LINES_MAX:]]
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
