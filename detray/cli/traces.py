"""The commands that read traces: timeline, story, trace collect."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from detray.cli.fetching import FetchedPayloads, RunningCluster, check_sizes, directory_of
from detray.cli.heads import find_head
from detray.cli.opening import check_output, open_named
from detray.cli.progress import ProgressLine
from detray.trace.collecting import Collected, collect
from detray.trace.documents import document
from detray.trace.format import TraceError
from detray.trace.payloads.collecting import collect_payloads
from detray.trace.payloads.format import payloads_path
from detray.trace.payloads.reading import Payloads, open_payloads, read_payloads
from detray.trace.quantities import size_text
from detray.trace.reading import Trace, open_trace
from detray.trace.telling.story import find_subject, story
from detray.trace.timeline import chrome_events

Options = argparse.Namespace


# ------------------------------------------------------------------ collecting


def fetch_recordings(options: Options) -> list[tuple[str, bytes]]:
    """What every process of a running cluster has recorded so far, as (name, bytes of a trace).

    `options` are those of `add_cluster`. Raises EngineError if the head cannot be asked, TraceError
    if there is no cluster.
    """
    with _running(options) as cluster:
        return cluster.traces()


def run_collect(options: Options) -> int:
    """`detray trace collect`: 0 if all messages arrived as they were sent, 1 if not."""
    check_output(options.output, *options.paths)
    if options.paths:
        traces = [open_trace(path, salvage=True) for path in options.paths]
        collected = collect(traces, options.output)
        beside = [path for path in map(payloads_path, options.paths) if os.path.exists(path)]
        files = [open_payloads(path, salvage=True) for path in beside]
        written = _write_payloads(files, collected)
    else:
        collected, written = _collect_running(options)
    if options.json:
        data = msgspec.to_builtins(collected)
        print(document("detray trace collect", {"output": data.pop("path"), **data}))
    else:
        print(_collected_text(collected))
        if written:
            print(written)
    return 1 if collected.differences else 0


def _collect_running(options: Options) -> tuple[Collected, str]:
    """Of a running cluster. Nothing is written before all has come."""
    with (
        _running(options) as cluster,
        ExitStack() as files,
        ProgressLine(is_quiet=options.json) as line,
    ):
        traces = cluster.traces()
        payloads: list[Payloads] = []
        if options.payloads:
            sizes = cluster.payload_sizes()
            told = check_sizes(sizes, options.payloads_limit)
            if not options.json:
                print(told, flush=True)
            fetched = cluster.payloads(
                list(sizes), directory_of(options.output), options.payloads_limit, line.show
            )
            for each in fetched:
                files.callback(each.file.close)
            payloads = _read_fetched(fetched, cluster.notes)
        line.clear()
        read = [Trace(data, name, salvage=True) for name, data in traces]
        collected = collect(read, options.output)
        collected.notes += cluster.notes
        return collected, _write_payloads(payloads, collected)


def _read_fetched(fetched: Sequence[FetchedPayloads], notes: list[str]) -> list[Payloads]:
    """What can be read of them; what cannot is noted."""
    readable = []
    for node, file, _ in fetched:
        try:
            readable.append(read_payloads(file, f"payloads of node {node}", salvage=True))
        except TraceError as problem:
            notes.append(f"left out: {problem}")
    return readable


def _running(options: Options) -> RunningCluster:
    head = find_head(options)
    if head is None:
        raise TraceError(
            "no cluster of yours runs on this machine: name its head with --address, or the "
            "recordings' files"
        )
    return RunningCluster(head)


def _write_payloads(files: list[Payloads], collected: Collected) -> str:
    """Bring payload files together beside the whole; what was written, "" if nothing was."""
    target = payloads_path(collected.path)
    before = _file_number(target)
    if files:
        collected.notes += collect_payloads(files, open_trace(collected.path).header, target)
    if _file_number(target) != before:
        return f"{target}: {size_text(os.path.getsize(target))}"
    if before:
        collected.notes.append(f"{target} was there before and is left as it was: of other tasks")
    return ""


def _file_number(path: str) -> int:
    """By what a file is told from the one that replaced it; 0 if there is none."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


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
    output = options.output or f"{os.path.splitext(options.trace)[0]}.timeline.json"
    if output != "-":
        check_output(output, options.trace)
    events = chrome_events(open_named(options))
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
