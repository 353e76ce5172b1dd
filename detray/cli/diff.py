"""`detray diff`: two runs side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from detray.cli.arguments.trace import rarely_collecting
from detray.trace.documents import document
from detray.trace.plain_text import one_line

if TYPE_CHECKING:
    from detray.trace.comparing.diffing import Departure, RunDiff, RunFacts
    from detray.trace.comparing.times import TaskTimes, Times

_EXAMPLES = """\
examples:
  detray diff good.trace bad.trace            what differs, and where that began
  detray diff good.trace bad.trace --top 30   more of everything
  detray diff a.trace b.trace --json | python -m json.tool
  detray diff a.trace b.trace --placement     also fail if tasks ran on other nodes

Tasks are matched by their ids, which say who submitted them and as which child. Exit code 0 if
both runs submitted the same, with the same results and failures; 1 if not; 2 for bad traces.
"""


def add_diff(commands: Any) -> None:  # Any: argparse has no public name for it
    """Add `detray diff` to the commands."""
    parser = commands.add_parser(
        "diff",
        help="two runs of a program: what differs, where it began, what took longer",
        description="Match the tasks of two runs by their ids and compare what was submitted, "
        "where it ran, what came of it, what failed, and how long it took.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="a trace file, the run to compare with")
    parser.add_argument("b", metavar="B", help="a trace file")
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="how much of each list (default: 5)"
    )
    parser.add_argument(
        "--placement", action="store_true", help="other nodes are a difference, too"
    )
    parser.add_argument("--salvage", action="store_true", help="read damaged traces to the damage")
    parser.add_argument("--json", action="store_true", help="for programs: everything")
    parser.set_defaults(run=run_diff)


@rarely_collecting()
def run_diff(options: argparse.Namespace) -> int:
    """`detray diff`: 0 the same, 1 not; errors of traces are raised."""
    import msgspec

    from detray.trace.comparing.diffing import diff
    from detray.trace.reading import open_trace

    if options.top < 1:
        raise ValueError(f"--top {options.top}: show at least one of each")
    a, b = (open_trace(path, salvage=options.salvage) for path in (options.a, options.b))
    found = diff(a, b, top=options.top)
    if options.json:
        data = msgspec.to_builtins(found)
        for run in (data["a"], data["b"]):
            run["trace"] = run.pop("path")
        print(document("detray diff", data))
    else:
        print(as_text(found, options.top))
    is_same = found.is_same and (found.is_placed_alike or not options.placement)
    return 0 if is_same else 1


def as_text(found: RunDiff, top: int) -> str:
    """What was found, for people."""
    lines = [*_runs(found), "", *_summary(found)]
    if found.first:
        lines += ["", "where it began (what follows from nothing else):"]
        lines += _grouped(found.first, top)
    followers = [
        item for item in found.departures if not item.is_first and item.kind != "placement"
    ]
    if followers:
        lines += ["", f"what else differs ({len(followers):,}):"]
        lines += _grouped(followers, top, brief=True)
    lines += _placement(found, top)
    lines += ["", *_times(found.times, top)]
    return "\n".join(map(one_line, lines))


# ------------------------------------------------------------------ above


def _runs(found: RunDiff) -> Iterator[str]:
    for letter, run in (("A", found.a), ("B", found.b)):
        yield f"{letter}  {_run(run)}"
    for note in found.notes:
        yield f"note: {note}"


def _run(run: RunFacts) -> str:
    nodes = f" on {run.nodes} nodes" if run.nodes > 1 else ""
    length = f", {_length(run.makespan_ns)}" if run.makespan_ns >= 0 else ""
    note = f" ({run.note})" if run.note else ""
    return f"{run.path}: {run.tasks:,} tasks{nodes}{length}{note}"


def _summary(found: RunDiff) -> Iterator[str]:
    counts = found.counts
    only = [
        f"{count:,} only in {letter}"
        for letter, count in (("A", counts.only_a), ("B", counts.only_b))
        if count
    ]
    yield f"tasks        {counts.common:,} in both" + "".join(f", {text}" for text in only)
    by_kind = counts.by_kind
    yield f"submissions  {_count(by_kind['submission'], 'the same')}"
    yield f"results      {_count(by_kind['result'], 'the same')}{_results(found)}"
    yield f"failures     {_count(by_kind['failure'], 'the same')}{_unended(found)}"
    nodes = f"{counts.other_nodes:,} of {counts.common:,} tasks ran on another node"
    workers = f"{counts.other_workers:,} in another worker"
    yield f"placement    {nodes if counts.other_nodes else 'the same nodes'}; {workers}"


def _count(count: int, none: str) -> str:
    return none if not count else f"{count:,} difference{'s' if count != 1 else ''}"


def _results(found: RunDiff) -> str:
    counts = found.counts
    text = f", of {counts.compared:,} compared" if counts.compared else ", none to compare"
    if counts.by_size_only and counts.compared:
        text += f" ({counts.by_size_only:,} by size only)"
    return text


def _unended(found: RunDiff) -> str:
    counts = found.counts
    return "".join(
        f"; {count:,} had not ended in {letter}"
        for letter, count in (("A", counts.not_ended_a), ("B", counts.not_ended_b))
        if count
    )


# ------------------------------------------------------------------ differences


def _grouped(items: Sequence[Departure], top: int, *, brief: bool = False) -> Iterator[str]:
    """One of each kind and function in full, and how many are like it."""
    groups: dict[tuple[str, str, str], list[Departure]] = {}
    for item in items:
        groups.setdefault((item.kind, item.what, item.name), []).append(item)
    for group in list(groups.values())[:top]:
        yield from _brief(group) if brief else _full(group)
    rest = sum(len(group) for group in list(groups.values())[top:])
    if rest:
        yield f"  and {rest:,} more (--top {len(groups)} shows one of each kind)"


def _full(group: list[Departure]) -> Iterator[str]:
    item = group[0]
    yield f"  {_head(item)}{_more(group)}"
    yield f"    A  {item.a}"
    yield from _indented(item.traceback_a)
    yield f"    B  {item.b}"
    yield from _indented(item.traceback_b)
    if item.why:
        yield f"    {item.why}"
    if not item.is_firm:
        yield "    its name depends on which thread came first: it may be matched wrongly"


def _brief(group: list[Departure]) -> Iterator[str]:
    item = group[0]
    yield f"  {_head(item)}: {item.a or 'nothing'} | {item.b or 'nothing'}{_more(group)}"


def _head(item: Departure) -> str:
    what = {"task": "", "end": "how it ended of ", "put": ""}.get(item.what, f"{item.what} of ")
    return f"{what}{item.name} ({item.short})"


def _more(group: list[Departure]) -> str:
    return f"; {len(group) - 1:,} more like it" if len(group) > 1 else ""


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"       {line}"


def _placement(found: RunDiff, top: int) -> Iterator[str]:
    moved = [item for item in found.departures if item.kind == "placement"]
    if moved:
        yield ""
        yield f"ran elsewhere, the first of {len(moved):,}:"
        for item in moved[:top]:
            yield f"  {item.name} ({item.short}): {item.a} | {item.b}"


# ------------------------------------------------------------------ times


def _times(times: Times, top: int) -> Iterator[str]:
    yield f"makespan     {_change(times.makespan_a_ns, times.makespan_b_ns)}"
    yield f"running      {_change(times.ran_a_ns, times.ran_b_ns)}, all tasks together"
    yield f"waiting      {_change(times.waited_a_ns, times.waited_b_ns)}, all tasks together"
    if times.functions:
        yield ""
        yield "functions that changed most      calls  ran                            waited"
        for item in times.functions[:top]:
            ran, waited = (
                _change(item.ran_a_ns, item.ran_b_ns),
                _change(item.waited_a_ns, item.waited_b_ns),
            )
            yield f"  {item.name:<30} {item.calls:>5}  {ran:<30} {waited}"
    if times.tasks:
        yield ""
        yield "tasks that changed most                 ran                            waited"
        yield from map(_task, times.tasks[:top])
    slower = [item for item in times.ratios if item not in times.tasks[:top]]
    if slower:
        yield ""
        yield "of the others, those whose running time changed by the greatest factor"
        yield from map(_task, slower[:top])


def _task(item: TaskTimes) -> str:
    name = f"{item.name} ({item.short})"
    ran = _change(item.ran_a_ns, item.ran_b_ns)
    return f"  {name:<37} {ran:<30} {_change(item.waited_a_ns, item.waited_b_ns)}"


def _change(a_ns: int, b_ns: int) -> str:
    if a_ns < 0 or b_ns < 0:
        return f"{_length(a_ns)} -> {_length(b_ns)}"
    if a_ns == b_ns:
        return f"{_length(a_ns)}, the same"
    ratio = f" ({(b_ns - a_ns) / a_ns:+.0%})" if a_ns else ""
    if a_ns and b_ns >= 10 * a_ns:
        ratio = f" (x {b_ns / a_ns:.0f})"
    return f"{_length(a_ns)} -> {_length(b_ns)}{ratio}"


def _length(ns: int) -> str:
    from detray.trace.quantities import time_text

    return time_text(ns) if ns >= 0 else "?"
