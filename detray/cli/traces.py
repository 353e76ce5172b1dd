"""The commands that read traces: timeline, story, trace collect."""

from __future__ import annotations

import argparse
import json
import os
import sys

import msgspec

from detray.cli.heads import HeadAt, find_head
from detray.cli.opening import open_named
from detray.trace.collecting import Collected, collect
from detray.trace.format import TraceError
from detray.trace.payloads.collecting import collect_payloads
from detray.trace.payloads.format import payloads_path
from detray.trace.payloads.reading import open_payloads
from detray.trace.reading import Trace, open_trace
from detray.trace.telling.story import find_subject, story
from detray.trace.timeline import chrome_events

Options = argparse.Namespace
_PIECE_BYTES = 1 << 18


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
    events = chrome_events(open_named(options))
    output = options.output or f"{os.path.splitext(options.trace)[0]}.timeline.json"
    if output == "-":
        json.dump(events, sys.stdout)
        return 0
    with open(output, "w", encoding="utf-8") as file:
        json.dump(events, file)
    print(f"{output}: {len(events):,} events; open it at https://ui.perfetto.dev")
    return 0


def run_story(options: Options) -> int:
    """`detray story`: tell the life of one thing."""
    trace = open_named(options)
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
