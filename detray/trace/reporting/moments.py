"""What a report tells of tasks and objects beside their runs: where time went, what moved where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detray.ids import ObjectID
from detray.trace.explaining.parts import ARGUMENT, FETCH, GET, KEPT, PARTS, RUN, Part, Timeline
from detray.trace.gathering.lives import (
    ARRIVED,
    CANCEL_ASKED,
    CORRUPT,
    EVICTED,
    INFEASIBLE,
    MADE_AGAIN,
    MISSING,
    PROMOTED,
    REFUSED,
    RETURNED,
    SPILLED,
    TAKEN_BACK,
    LifeMove,
)

if TYPE_CHECKING:
    from detray.trace.reporting.contents import ReportContents

TASK_MOVES_TOLD = (INFEASIBLE, REFUSED, RETURNED, TAKEN_BACK, CANCEL_ASKED)
"""Asking, placing and handing over are told by the attempts that follow."""
OBJECT_MOVES_TOLD = (ARRIVED, SPILLED, MADE_AGAIN, CORRUPT, EVICTED, MISSING, PROMOTED)
LOST_RUN = "lost"
PART_KINDS = (*PARTS, LOST_RUN)
_KIND = {kind: number for number, kind in enumerate(PART_KINDS)}
_DIGITS = 3


def write_moments(contents: ReportContents) -> None:
    """Add the columns of parts (`p.`), of tasks' moves (`m.`) and of objects' (`v.`)."""
    _write_parts(contents)
    history = contents.gathered.history
    numbers = contents.numbers
    tasks = ((numbers.task(life.id), life.moves) for life in numbers.lives if life.moves)
    _write_moves(contents, "m", tasks, TASK_MOVES_TOLD)
    known = history.objects
    objects = (
        (place, known[item].moves) for item, place in numbers.objects.items() if item in known
    )
    _write_moves(contents, "v", objects, OBJECT_MOVES_TOLD)


def _write_parts(contents: ReportContents) -> None:
    """For each task the sums by kind in microseconds, to three digits, and what it waited for."""
    timeline = Timeline(contents.gathered.history)
    kinds: list[list[int]] = []
    lengths: list[list[int]] = []
    awaited: list[int] = []
    for life in contents.numbers.lives:
        parts = timeline.parts(life)
        sums: dict[str, int] = {}
        for part in parts:
            kind = LOST_RUN if part.is_lost and part.kind == RUN else part.kind
            if kind != KEPT:
                sums[kind] = sums.get(kind, 0) + part.ended_ns - part.started_ns
        told = [(_KIND[kind], _coarse(ns // 1000)) for kind, ns in sums.items() if ns >= 500]
        kinds.append([kind for kind, _ in told])
        lengths.append([us for _, us in told])
        item = _awaited(parts)
        awaited.append(contents.numbers.object(item) + 1 if item else 0)
    contents.columns.add_lists("p.kind", kinds)
    contents.columns.add("p.took", [us for row in lengths for us in row])
    contents.columns.add("t.awaited", awaited, delta=True)


def _awaited(parts: Iterable[Part]) -> ObjectID | None:
    """The object for which a task waited longest."""
    waits = [part for part in parts if part.kind in (ARGUMENT, FETCH, GET) and part.item]
    return max(waits, key=lambda part: part.length_ns).item if waits else None


def _coarse(number: int) -> int:
    """To three digits: what is drawn, and said, in a bar needs no more."""
    if number < 10**_DIGITS:
        return number
    scale = int(10 ** (len(str(number)) - _DIGITS))
    return (number + scale // 2) // scale * scale


def _write_moves(
    contents: ReportContents,
    name: str,
    things: Iterable[tuple[int, Iterable[LifeMove]]],
    told: tuple[str, ...],
) -> None:
    """One row for each move of the kinds in `told`, by the place of the thing that moved."""
    rows = [(place, move) for place, moves in things for move in moves if move.kind in told]
    add, numbers = contents.columns.add, contents.numbers
    add(f"{name}.thing", [place for place, _ in rows], delta=True)
    add(f"{name}.kind", [told.index(move.kind) for _, move in rows])
    dates = [contents.coded(move.at_ns, move.core) for _, move in rows]
    add(f"{name}.at", dates, delta=True)
    add(f"{name}.core", [move.core + 1 for _, move in rows])
    add(f"{name}.node", [move.node + 1 for _, move in rows])
    add(f"{name}.client", [move.client for _, move in rows])
    add(f"{name}.text", [numbers.text(move.text) for _, move in rows])
