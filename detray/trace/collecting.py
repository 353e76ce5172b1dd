"""Collecting: the recordings of the processes of one cluster, brought together into one trace.

Theory of operation
-------------------
Every process records its own steps in order; between processes nothing but their messages says what
came first (PROTOCOL T4, T15). So a step that handles message k of a link comes after the step that
sent it, and what the links leave open goes by date, for the reader's sake only: no promise rests on
clocks. On the way, every message that arrived is compared with what was sent (`matching.py`).

What a recording lacks is told: its process was killed, its file is damaged, a flight recorder let
the beginning go, or nobody gave it. Messages of which it should have had the other end are then
counted, not called wrong. The result does not depend on the order in which files are named.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import msgspec

from detray.ids import NodeID
from detray.trace.format import CoreInfo, HeadCore, Header, LocalCore, TraceError
from detray.trace.links import Directory, nodes_of
from detray.trace.matching import Ends, Place
from detray.trace.names import core_names
from detray.trace.numbering import number_the_unknown
from detray.trace.play import Makers, Opening, schedulers, tell
from detray.trace.reading import Trace
from detray.trace.writing import write_merged


class Collected(msgspec.Struct):
    """What came of it. `differences` are messages that did not arrive as they were sent.

    `notes` say what is missing, and what was left out or not believed. `cores` are names by number.
    """

    path: str
    cores: list[str]
    steps: list[int]
    matched: int
    unmatched: int
    """Messages of which one end is not recorded."""
    differences: list[str]
    notes: list[str]


class Source(NamedTuple):
    """A recording, the nodes of its cores, and the number of its first core in the whole."""

    trace: Trace
    nodes: list[NodeID]
    first_core: int = 0


def collect(
    traces: Sequence[Trace], path: str | os.PathLike[str], makers: Makers = schedulers
) -> Collected:
    """Bring `traces` together into one, at `path`, all of it or nothing.

    Raises OSError, TraceError: a trace cannot be read, or they are not of one cluster.
    """
    sources, notes = _choose(traces, makers)
    header, nodes = _join(sources)
    names = core_names(header, nodes)
    ends = Ends(Directory(header, nodes), names, _late(sources), _cut(sources))
    steps = [0] * len(header.cores)
    for number, source in enumerate(sources):
        _find_messages(number, source, ends, steps, makers)
    found = ends.compare()
    order, contradictions = _order(sources, ends.needs())
    differences = found.differences + contradictions
    header, missing = _with_missing(header, sources, names)
    notes = [*notes, *missing, *found.notes]
    header = msgspec.structs.replace(header, notes=(*notes, *differences))
    parts = [(source.trace, source.first_core) for source in sources]
    reason = f"collected from {len(sources)} recordings"
    write_merged(path, header, parts, order, reason)
    return Collected(
        os.fspath(path), names, steps, found.matched, found.unmatched, differences, notes
    )


# ------------------------------------------------------------------ which recordings


def _choose(traces: Sequence[Trace], makers: Makers) -> tuple[list[Source], list[str]]:
    """Those of one cluster, each process once, in an order of their own. Raises TraceError."""
    if not traces:
        raise TraceError("there is nothing to collect: name the recordings of a cluster")
    _check_cluster(traces)
    notes: list[str] = []
    chosen: list[Trace] = []
    known: dict[tuple[object, ...], Trace] = {}
    for trace in sorted(traces, key=_length, reverse=True):
        lives = _lives(trace)
        twin = next((known[life] for life in lives if life in known), None)
        if twin is not None:
            notes.append(f"{trace.name} is left out: {twin.name} holds the same process, longer")
            continue
        known.update(dict.fromkeys(lives, trace))
        chosen.append(trace)
    nodes = [nodes_of(trace) for trace in chosen]
    number_the_unknown(chosen, nodes, makers)
    sources = [Source(trace, known) for trace, known in zip(chosen, nodes, strict=True)]
    _check_numbers(sources)
    sources.sort(key=_rank)
    first = 0
    for place, source in enumerate(sources):
        sources[place] = source._replace(first_core=first)
        first += len(source.nodes)
    return sources, sorted(notes)


def _check_cluster(traces: Sequence[Trace]) -> None:
    first = traces[0]
    for trace in traces[1:]:
        ours, theirs = first.header.cluster, trace.header.cluster
        if ours != theirs:
            raise TraceError(
                f"{first.name} and {trace.name} are not of one cluster: the first is of "
                f"{ours or 'no cluster'}, the second of {theirs or 'no cluster'}"
            )
        if first.header.core_revision != trace.header.core_revision:
            raise TraceError(
                f"{first.name} and {trace.name} are of core revisions "
                f"{first.header.core_revision} and {trace.header.core_revision}: the processes of "
                "one cluster have the same"
            )


def _check_numbers(sources: Sequence[Source]) -> None:
    """A node's number, and a head's epoch, belong to one life of one process."""
    known: dict[tuple[str, int], str] = {}
    for source in sources:
        for core, node in zip(source.trace.header.cores, source.nodes, strict=True):
            if isinstance(core, HeadCore):
                key = ("head", core.epoch)
            elif node >= 0:
                key = ("node", node)
            else:
                continue
            if key in known:
                what = f"node {node}" if key[0] == "node" else f"the head of epoch {key[1]}"
                raise TraceError(
                    f"{known[key]} and {source.trace.name} both hold {what}, in two lives: these "
                    "are recordings of two runs"
                )
            known[key] = source.trace.name


def _lives(trace: Trace) -> list[tuple[object, ...]]:
    """By what its processes are known again."""
    names = tuple(core.name for core in trace.header.cores)
    return [
        (process.life,) if process.life else (process.wall_ns, process.monotonic_ns, *names)
        for process in trace.header.processes
    ]


def _length(trace: Trace) -> tuple[int, int, int, str]:
    """The most processes first, then what ends last, then what begins first."""
    return (len(trace.header.processes), trace.end_step, -trace.first_step, trace.name)


def _rank(source: Source) -> tuple[int, int, int, tuple[str, ...]]:
    """Heads first, as they followed each other; then nodes as they joined, those without last."""
    header = source.trace.header
    epochs = [core.epoch for _, core in header.head_cores()]
    numbers = [node for node in source.nodes if node >= 0]
    lives = tuple(f"{process.life} {process.wall_ns}" for process in header.processes)
    return (not epochs, min(epochs, default=0), min(numbers, default=1 << 62), lives)


# ------------------------------------------------------------------ the whole


def _join(sources: Sequence[Source]) -> tuple[Header, list[NodeID]]:
    """The header of the whole, and the nodes of its cores."""
    processes = [p for source in sources for p in source.trace.header.processes]
    cores: list[CoreInfo] = []
    nodes: list[NodeID] = []
    before = 0
    for source in sources:
        header = source.trace.header
        for core, node in zip(header.cores, source.nodes, strict=True):
            core = msgspec.structs.replace(core, process=before + core.process)
            if isinstance(core, LocalCore):
                core = msgspec.structs.replace(core, node=node)
            cores.append(core)
        nodes += source.nodes
        before += len(header.processes)
    first = sources[0].trace.header
    entrypoints = [source.trace.header.entrypoint for source in sources]
    return Header(
        core_revision=first.core_revision,
        detray_version=first.detray_version,
        entrypoint=next(filter(None, entrypoints), ""),
        processes=tuple(processes),
        cores=tuple(cores),
        cluster=first.cluster,
    ), nodes


def _with_missing(
    header: Header, sources: Sequence[Source], names: Sequence[str]
) -> tuple[Header, list[str]]:
    """The header whose processes say what their recordings lack, and all that in one list."""
    processes = list(header.processes)
    notes: list[str] = []
    process = 0
    for source in sources:
        trace = source.trace
        count = len(source.nodes)
        who = " and ".join(names[source.first_core : source.first_core + count])
        lacks = []
        if trace.first_step > 0:
            lacks.append(
                f"{who}'s recording begins in the middle, with its step {trace.first_step}"
            )
        if not trace.complete:
            lacks.append(f"{who}'s recording ends before its step {trace.end_step}: {trace.note}")
        elif trace.goes_on:
            lacks.append(f"{who} went on after its step {trace.end_step}: {trace.reason}")
        notes += lacks
        for _ in trace.header.processes:
            old = processes[process]
            parts = [old.note, *lacks] if old.note else lacks
            processes[process] = msgspec.structs.replace(old, note="; ".join(parts))
            process += 1
        notes += trace.header.notes
    return msgspec.structs.replace(header, processes=tuple(processes)), notes


def _late(sources: Sequence[Source]) -> set[int]:
    """Cores whose recording begins in the middle."""
    late: set[int] = set()
    for source in sources:
        begun: set[int] = set()
        starts = [start for start in source.trace.starts if not start.begins]
        last = max((start.first_step for start in starts), default=-1)
        for step in source.trace.steps():
            if step.number > last:
                break
            for start in starts:
                if start.first_step <= step.number:
                    late.update(source.first_core + c for c in start.cores if c not in begun)
            starts = [start for start in starts if start.first_step > step.number]
            begun.add(step.core)
        for start in starts:  # no step follows
            late.update(source.first_core + c for c in start.cores if c not in begun)
    return late


def _cut(sources: Sequence[Source]) -> set[int]:
    """Cores whose recording lacks its end."""
    return {
        source.first_core + core
        for source in sources
        for core in range(len(source.nodes))
        if _is_cut(source.trace) or source.trace.header.process_of(core).note
    }


def _is_cut(trace: Trace) -> bool:
    return not trace.complete or trace.goes_on


def _find_messages(
    number: int, source: Source, ends: Ends, steps: list[int], makers: Makers
) -> None:
    """Enter what the cores of a recording say to others and hear from them."""
    first = source.trace.first_step
    for item in tell(source.trace, makers):
        if isinstance(item, Opening):
            for core in item.fresh:
                ends.directory.begin(source.first_core + core, item.cores[core])
            continue
        core = source.first_core + item.step.core
        steps[core] += 1
        effects = () if item.step.error else item.effects
        ends.take((number, item.step.number - first), core, item.stimuli, effects)


# ------------------------------------------------------------------ the order


def _order(
    sources: Sequence[Source], needs: dict[Place, list[Place]]
) -> tuple[array[int], list[str]]:
    """Whose turn it is, step by step, and where recordings contradict each other."""
    dates = [_dates(source.trace) for source in sources]
    done = [0] * len(sources)
    ready: list[tuple[int, int]] = []
    waiting: dict[Place, list[int]] = {}
    stuck: dict[int, Place] = {}
    order = array("I")
    contradictions: list[str] = []

    def offer(number: int) -> None:
        """Let a recording's next step wait for what it needs, or for its date."""
        at = done[number]
        if at == len(dates[number]):
            return
        for other, place in needs.get((number, at), ()):
            if other != number and done[other] <= place:
                waiting.setdefault((other, place), []).append(number)
                stuck[number] = (other, place)
                return
        heappush(ready, (dates[number][at], number))

    for number in range(len(sources)):
        offer(number)
    while ready or stuck:
        if not ready:
            number = min(stuck, key=lambda number: (dates[number][done[number]], number))
            other, place = stuck.pop(number)
            waiting[other, place].remove(number)
            step = done[number] + sources[number].trace.first_step
            contradictions.append(
                f"the recordings contradict each other: step {step} of {sources[number].trace.name}"
                f" handles what {sources[other].trace.name} sends only after it"
            )
        else:
            _, number = heappop(ready)
        order.append(number)
        place_done = (number, done[number])
        done[number] += 1
        for waiter in waiting.pop(place_done, ()):
            del stuck[waiter]
            offer(waiter)
        offer(number)
    return order, contradictions


def _dates(trace: Trace) -> array[int]:
    """When each step was taken, as far as its machine knew; never earlier than the one before."""
    dates = array("q")
    last = 0
    for step in trace.steps():
        last = max(last, trace.header.date_ns(step.core, step.now_ns))
        dates.append(min(last, (1 << 63) - 1))
    return dates
