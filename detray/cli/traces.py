"""The commands that read traces: replay, graph, timeline, story."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from detray.core import invariants
from detray.core.config import CORE_REVISION
from detray.core.local import LocalScheduler
from detray.trace.difference import as_data, render
from detray.trace.drawing import draw
from detray.trace.format import CORES, TraceError
from detray.trace.graph import build
from detray.trace.reading import Trace, open_trace
from detray.trace.replaying import CORE_NAMES, ReplayReport, replay
from detray.trace.story import find_subject, story
from detray.trace.timeline import chrome_events

Options = argparse.Namespace


def _open(options: Options) -> Trace:
    trace = open_trace(options.trace, salvage=options.salvage)
    if not trace.complete:
        print(f"detray: {trace.name}: {trace.note}", file=sys.stderr)
    return trace


# ------------------------------------------------------------------ replay


def run_replay(options: Options) -> int:
    """`detray replay`: 0 if all effects are identical, 1 if not."""
    trace = _open(options)
    report = replay(trace, check=_check if options.check else None)
    if not any(report.steps):
        raise TraceError(_why_not(trace))
    if options.json:
        print(json.dumps(_as_json(trace, report), indent=1))
    else:
        print(_as_text(trace, report))
    return 0 if report.is_same else 1


def _check(core: object) -> None:
    if isinstance(core, LocalScheduler):
        invariants.check(core.tables)


def _why_not(trace: Trace) -> str:
    if not trace.step_count:
        return f"{trace.name} holds no steps: there is nothing to replay"
    notes = {start.note for start in trace.starts if start.note}
    why = "; ".join(sorted(notes)) or "it does not begin with the first step"
    return (
        f"{trace.name} cannot be replayed ({why}), only told: detray story, graph and timeline "
        "work on it"
    )


def _as_json(trace: Trace, report: ReplayReport) -> dict[str, Any]:  # Any: JSON
    return {
        "trace": trace.name,
        "complete": trace.complete,
        "note": trace.note,
        "core_revision": report.revision,
        "replayed_by_core_revision": CORE_REVISION,
        "identical": report.is_same,
        "cores": [
            {
                "name": CORE_NAMES[core],
                "steps": report.steps[core],
                "stimuli": report.stimuli[core],
                "effects": report.effects[core],
            }
            for core in range(CORES)
        ],
        "skipped_steps": report.skipped,
        "snapshots": report.snapshots,
        "link_messages": report.link_messages,
        "differing_steps": report.differing,
        "difference": as_data(report.difference) if report.difference else None,
        "raised": report.raised,
    }


def _as_text(trace: Trace, report: ReplayReport) -> str:
    verdict = "identical" if report.is_same else "replayed"
    lines = []
    if not report.is_same_revision:
        lines.append(
            f"{trace.name} was recorded by core revision {report.revision}, this is "
            f"{CORE_REVISION}: decisions may differ, and equality is not promised"
        )
    if report.skipped:
        lines.append(f"{report.skipped:,} steps precede the first state in the trace: not replayed")
    for core in range(CORES):
        lines.append(
            f"{CORE_NAMES[core]:17} {report.steps[core]:>9,} steps   "
            f"{report.stimuli[core]:>9,} stimuli   {report.effects[core]:>9,} effects   {verdict}"
        )
    lines.append(
        f"{report.link_messages:,} messages between the cores arrived as they were sent"
        if report.difference is None
        else f"{report.differing:,} {'step differs' if report.differing == 1 else 'steps differ'}"
    )
    if report.raised:
        lines.append(f"the core raises in the last step, as it did:\n{report.raised}")
    if report.difference is not None:
        lines.append(render(report.difference, trace))
    return "\n".join(lines)


# ------------------------------------------------------------------ pictures and stories


def run_graph(options: Options) -> int:
    """`detray graph`: write the computation graph."""
    trace = _open(options)
    output = options.output or f"{os.path.splitext(options.trace)[0]}.svg"
    graph = build(trace)
    path = draw(graph, output)
    tasks = sum(1 for _, kind in graph.nodes(data="kind") if kind == "task")
    print(f"{path}: {tasks:,} tasks, {len(graph) - tasks:,} objects")
    return 0


def run_timeline(options: Options) -> int:
    """`detray timeline`: write Chrome trace events."""
    events = chrome_events(_open(options))
    output = options.output or f"{options.trace}.timeline.json"
    if output == "-":
        json.dump(events, sys.stdout)
        return 0
    with open(output, "w", encoding="utf-8") as file:
        json.dump(events, file)
    print(f"{output}: {len(events):,} events; open it at https://ui.perfetto.dev")
    return 0


def run_story(options: Options) -> int:
    """`detray story`: tell the life of one thing."""
    trace = _open(options)
    subject = find_subject(trace, options.about)
    lines = story(trace, subject)
    if options.json:
        print(json.dumps([line._asdict() for line in lines], indent=1))
        return 0
    is_known = False
    for line in lines:
        is_known = True
        print(line)
    if not is_known:
        raise TraceError(f"{trace.name} knows nothing of {subject}")
    return 0
