"""`detray replay`: take all decisions of a trace again and compare them."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from detray.cli.arguments.expectations import (
    add_expect,
    all_sentences,
    read_expectations,
    violation_data,
    violation_of,
    violation_text,
)
from detray.cli.arguments.trace import add_trace, open_named
from detray.cli.terminal.progress import SOON_S, ProgressLine
from detray.trace.documents import document
from detray.trace.plain_text import one_line

if TYPE_CHECKING:
    from detray.trace.reading import Trace
    from detray.trace.replaying import ReplayReport

_EXAMPLES = """\
examples:
  detray replay run.trace             the first difference is shown with the state that led to it
  detray replay run.trace --check     and every invariant is checked, after every step
  detray replay old.trace             of another core revision: what it would decide now
  detray replay run.trace --expect "no task waits more than 5 s while a CPU is idle"
  detray replay run.trace --json | python -m json.tool
  detray debug run.trace              walk through it, step by step
"""
STEPS_SHOWN = 10


def add_replay(commands: Any) -> None:  # Any: argparse has no public name for it
    """Add `detray replay` to the commands."""
    parser = commands.add_parser(
        "replay",
        help="take all decisions of a trace again and compare them",
        description="Feed a trace to fresh cores and compare every effect. Exit code 0 if all are "
        "identical, 1 at the first difference, which is shown with the state that led to it and "
        "its story. A trace of another core revision is played to its end, its invariants are "
        "checked, and the steps that decide otherwise are listed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument("--check", action="store_true", help="also check invariants, each step")
    add_expect(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_replay)


def run_replay(options: argparse.Namespace) -> int:
    """`detray replay`: 0 if all effects are identical, 1 if not."""
    from detray.trace.format import TraceError
    from detray.trace.replaying import check_invariants, replay
    from detray.trace.travel.seeking import why_not

    if "help" in options.expect:
        print(all_sentences())
        return 0
    expectations = read_expectations(options.expect)
    trace = open_named(options)
    check = check_invariants if options.check else None
    with ProgressLine(after_s=SOON_S) as line:
        report = replay(trace, check=check, progress=partial(line.show, "replaying steps"))
    if not any(report.steps):
        raise TraceError(why_not(trace))
    violation = violation_of(trace, expectations)
    if options.json:
        data = _as_json(trace, report) | {"violation": violation_data(violation)}
        print(document("detray replay", data))
    else:
        print(_as_text(trace, report))
        if violation is not None:
            print(violation_text(trace, violation))
        elif expectations:
            print(f"{trace.name} does as expected: {'; '.join(options.expect)}")
    return 0 if report.is_same and report.broken is None and violation is None else 1


def _as_json(trace: Trace, report: ReplayReport) -> dict[str, Any]:  # Any: JSON
    from detray.core.config import CORE_REVISION
    from detray.trace.difference import as_data

    return {
        "trace": trace.name,
        "complete": trace.complete,
        "note": trace.note,
        "core_revision": report.revision,
        "replayed_by_core_revision": CORE_REVISION,
        "identical": report.is_same,
        "cores": [
            {
                "name": name,
                "steps": report.steps[core],
                "stimuli": report.stimuli[core],
                "effects": report.effects[core],
            }
            for core, name in enumerate(report.names)
        ],
        "skipped_steps": report.skipped,
        "snapshots": report.snapshots,
        "link_messages": report.link_messages,
        "unmatched_messages": report.unmatched,
        "notes": list(trace.header.notes),
        "differing_steps": report.differing,
        "first_differing_steps": report.differing_steps,
        "difference": as_data(report.difference, trace) if report.difference else None,
        "checked_steps": report.checked,
        "broken_invariant": as_data(report.broken, trace) if report.broken else None,
        "raised": report.raised,
    }


def _as_text(trace: Trace, report: ReplayReport) -> str:
    from detray.trace.difference import render

    lines = _notes(trace, report)
    verdict = "identical" if report.is_same else "replayed"
    width = max(17, *map(len, report.names))
    for core, name in enumerate(report.names):
        lines.append(
            f"{name:{width}} {report.steps[core]:>9,} steps   "
            f"{report.stimuli[core]:>9,} stimuli   {report.effects[core]:>9,} effects   {verdict}"
        )
    if report.difference is None:
        lines.append(
            f"{report.link_messages:,} messages between the cores arrived as they were sent"
        )
    else:
        lines.append(_differing(report))
    if report.unmatched:
        lines.append(
            f"{report.unmatched:,} messages came from what is not in the trace: nothing to compare"
        )
    if report.checked and report.broken is None:
        lines.append(f"all invariants hold: checked after {report.checked:,} steps")
    if report.raised:
        lines.append(f"the core raises in the last step, as it did:\n{report.raised}")
    if report.difference is not None:
        lines.append(render(report.difference, trace))
    if report.broken is not None and report.broken is not report.difference:
        lines.append(render(report.broken, trace))
    return "\n".join(lines)


def _notes(trace: Trace, report: ReplayReport) -> list[str]:
    from detray.core.config import CORE_REVISION

    lines = []
    if not report.is_same_revision:
        lines.append(
            f"{trace.name} was recorded by core revision {report.revision}, this is "
            f"{CORE_REVISION}: decisions may differ, and equality is not promised"
        )
    lines += [f"collected: {one_line(note)}" for note in trace.header.notes]
    for info, name in zip(trace.header.cores, report.names, strict=True):
        if info.unplayable:
            lines.append(f"{name}: {one_line(info.unplayable)}: told, not replayed")
    if report.skipped:
        lines.append(
            f"{report.skipped:,} steps precede the first state of their core in the trace: not "
            "replayed"
        )
    return lines


def _differing(report: ReplayReport) -> str:
    if report.differing == 1:
        return "1 step differs"
    shown = ", ".join(map(str, report.differing_steps[:STEPS_SHOWN]))
    more = report.differing - len(report.differing_steps[:STEPS_SHOWN])
    rest = f" and {more:,} more" if more > 0 else ""
    return f"{report.differing:,} steps differ: {shown}{rest}"
