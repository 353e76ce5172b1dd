"""The commands that read traces: replay, timeline, story, trace collect."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

import msgspec

from detray.cli.heads import HeadAt, find_head
from detray.cli.shrink import all_sentences, violation_data, violation_of, violation_text
from detray.core import invariants
from detray.core.config import CORE_REVISION
from detray.core.local import LocalScheduler
from detray.trace.collecting import Collected, collect
from detray.trace.difference import as_data, render
from detray.trace.format import TraceError
from detray.trace.payload_collecting import collect_payloads
from detray.trace.payload_format import payloads_path
from detray.trace.payload_reading import open_payloads
from detray.trace.reading import Trace, open_trace
from detray.trace.replaying import ReplayReport, replay
from detray.trace.story import find_subject, story
from detray.trace.timeline import chrome_events

Options = argparse.Namespace
_PIECE_BYTES = 1 << 18


def _open(options: Options) -> Trace:
    trace = open_trace(options.trace, salvage=options.salvage)
    if not trace.complete:
        print(f"detray: {trace.name}: {trace.note}", file=sys.stderr)
    return trace


# ------------------------------------------------------------------ replay


def run_replay(options: Options) -> int:
    """`detray replay`: 0 if all effects are identical, 1 if not."""
    if "help" in options.expect:
        print(all_sentences())
        return 0
    trace = _open(options)
    report = replay(trace, check=_check if options.check else None)
    if not any(report.steps):
        raise TraceError(_why_not(trace))
    violation = violation_of(options, trace)
    if options.json:
        data = _as_json(trace, report) | {"violation": violation_data(violation)}
        print(json.dumps(data, indent=1))
    else:
        print(_as_text(trace, report))
        if violation is not None:
            print(violation_text(trace, violation))
        elif options.expect:
            print(f"{trace.name} does as expected: {'; '.join(options.expect)}")
    return 0 if report.is_same and violation is None else 1


def _check(core: object) -> None:
    if isinstance(core, LocalScheduler):
        invariants.check(core.tables)


def _why_not(trace: Trace) -> str:
    if not trace.step_count:
        return f"{trace.name} holds no steps: there is nothing to replay"
    notes = {start.note for start in trace.starts if start.note}
    notes |= {core.unplayable for core in trace.header.cores if core.unplayable}
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
        "difference": as_data(report.difference, trace) if report.difference else None,
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
    lines += [f"collected: {note}" for note in trace.header.notes]
    for info, name in zip(trace.header.cores, report.names, strict=True):
        if info.unplayable:
            lines.append(f"{name}: {info.unplayable}: told, not replayed")
    if report.skipped:
        lines.append(
            f"{report.skipped:,} steps precede the first state of their core in the trace: not "
            "replayed"
        )
    width = max(17, *map(len, report.names))
    for core, name in enumerate(report.names):
        lines.append(
            f"{name:{width}} {report.steps[core]:>9,} steps   "
            f"{report.stimuli[core]:>9,} stimuli   {report.effects[core]:>9,} effects   {verdict}"
        )
    lines.append(
        f"{report.link_messages:,} messages between the cores arrived as they were sent"
        if report.difference is None
        else f"{report.differing:,} {'step differs' if report.differing == 1 else 'steps differ'}"
    )
    if report.unmatched:
        lines.append(
            f"{report.unmatched:,} messages came from what is not in the trace: nothing to compare"
        )
    if report.raised:
        lines.append(f"the core raises in the last step, as it did:\n{report.raised}")
    if report.difference is not None:
        lines.append(render(report.difference, trace))
    return "\n".join(lines)


# ------------------------------------------------------------------ collecting


def fetch_recordings(options: Options) -> list[tuple[str, bytes]]:
    """What every process of a running cluster has recorded so far, as (name, bytes of a trace).

    `options` are those of `add_cluster`. Raises EngineError if the head or a node cannot be asked,
    TraceError if there is no cluster.
    """
    head = find_head(options)
    if head is None:
        raise TraceError(
            "no cluster of yours runs on this machine: name its head with --address, or the "
            "recordings' files"
        )
    nodes = [row["number"] for row in head.ask("list", "nodes", 0) if row["alive"]]
    # The head last: what it was told and has answered is then in what the nodes recorded, mostly.
    return [(f"node {node}", _fetch(head, node)) for node in nodes] + [("head", _fetch(head, -1))]


def _fetch(head: HeadAt, node: int) -> bytes:
    """The recording of a node, -1 for the head, piece by piece."""
    parts: list[bytes] = []
    size = 0
    while piece := head.ask("trace", node, size, _PIECE_BYTES):
        parts.append(piece)
        size += len(piece)
    return b"".join(parts)


def run_collect(options: Options) -> int:
    """`detray trace collect`: 0 if all messages arrived as they were sent, 1 if not."""
    traces = [open_trace(path, salvage=True) for path in options.paths]
    if not traces:
        fetched = fetch_recordings(options)
        traces = [Trace(data, name, salvage=True) for name, data in fetched]
    collected = collect(traces, options.output)
    collected.notes += _collect_payloads(options)
    if options.json:
        print(json.dumps(msgspec.to_builtins(collected), indent=1))
    else:
        print(_collected_text(collected))
    return 1 if collected.differences else 0


def _collect_payloads(options: Options) -> list[str]:
    """Payload files that lie beside the recordings, brought together beside the whole; notes."""
    beside = [path for path in map(payloads_path, options.paths) if os.path.exists(path)]
    if not beside:
        return []
    files = [open_payloads(path, salvage=True) for path in beside]
    target = payloads_path(options.output)
    return collect_payloads(files, open_trace(options.output).header, target)


def _collected_text(collected: Collected) -> str:
    names = collected.cores
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    lines = [
        f"{collected.path}: {sum(collected.steps):,} steps of {shown}",
        f"{collected.matched:,} messages between them arrived as they were sent",
        *collected.notes,
    ]
    lines += [f"differs: {difference}" for difference in collected.differences]
    return "\n".join(lines)


# ------------------------------------------------------------------ pictures and stories


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
