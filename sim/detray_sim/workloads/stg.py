"""The Standard Task Graph set (Kasahara laboratory, Waseda University), and its optimal makespans.

A file says how many tasks there are, then for each its number, processing time and predecessors;
what follows a `#` is a comment. The first and the last task are dummies of time 0 that everything
follows or precedes. One unit of time becomes one second; nothing has a size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from detray_sim.workload import SECOND_NS, Workload, WorkloadError
from detray_sim.workloads.assembly import TIME_LIMIT_NS, Draft, assemble

_Path = str | os.PathLike[str]
_Row = tuple[int, int, list[int], str]
"""Number, time, predecessors, and where that stood."""


def load_stg(path: _Path, dummies: bool = False) -> Workload:
    """The task graph in a file, without its two dummies unless wanted; ids are the numbers there.

    Raises OSError, WorkloadError.
    """
    rows = _rows(str(path), Path(path).read_bytes())
    if not dummies:
        rows = _without_dummies(rows)
    places = {number: place for place, (number, _, _, _) in enumerate(rows)}
    drafts = []
    for number, time, predecessors, where in rows:
        for predecessor in predecessors:
            if predecessor not in places:
                raise WorkloadError(
                    f"{where}: task {number} follows {predecessor}, not in the file"
                )
        inputs = [(places[predecessor], 0) for predecessor in predecessors]
        drafts.append(Draft(str(number), "task", time * SECOND_NS, inputs=inputs, outputs=[0]))
    return assemble(_name(Path(path)), drafts, source=str(path))


def _rows(path: str, content: bytes) -> list[_Row]:
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise WorkloadError(f"{path}: no STG file: it holds more than ASCII text") from None
    table = [(at, line.partition("#")[0].split()) for at, line in enumerate(lines, 1)]
    numbers = [(f"{path}: line {at}", _numbers(f"{path}: line {at}", r)) for at, r in table if r]
    if not numbers or len(numbers[0][1]) != 1:
        raise WorkloadError(f"{path}: no STG file: it does not begin with its number of tasks")
    count, rows = numbers[0][1][0], [_row(where, row) for where, row in numbers[1:]]
    # Some files of the set count their dummies, others do not.
    if len(rows) not in (count, count + 2):
        raise WorkloadError(f"{path}: {len(rows)} tasks instead of {count} and two dummies")
    seen: dict[int, None] = {}
    for number, _, _, where in rows:
        if number in seen:
            raise WorkloadError(f"{where}: task {number} is there twice")
        seen[number] = None
    return rows


def _numbers(where: str, words: Sequence[str]) -> list[int]:
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        raise WorkloadError(f"{where}: not only whole numbers: {' '.join(words)[:60]!r}") from None
    if any(not 0 <= number <= TIME_LIMIT_NS // SECOND_NS for number in numbers):
        raise WorkloadError(f"{where}: a negative or senseless number in {' '.join(words)[:60]!r}")
    return numbers


def _row(where: str, numbers: Sequence[int]) -> _Row:
    if len(numbers) < 3 or len(numbers) != 3 + numbers[2]:
        raise WorkloadError(
            f"{where}: a task is its number, its time, how many predecessors it has, and these"
        )
    return numbers[0], numbers[1], list(numbers[3:]), where


def _without_dummies(rows: Sequence[_Row]) -> list[_Row]:
    """Leave out tasks at either end that take no time and only tie the graph together."""
    begin, end = rows[0], rows[-1]
    dropped: list[int] = []
    if begin[1] == 0 and not begin[2]:
        dropped.append(begin[0])
    if end[1] == 0 and not any(end[0] in predecessors for _, _, predecessors, _ in rows):
        dropped.append(end[0])
    return [
        (number, time, [p for p in predecessors if p not in dropped], where)
        for number, time, predecessors, where in rows
        if number not in dropped
    ]


class Optimum(msgspec.Struct, frozen=True):
    """What is known of the shortest makespan of a graph, in units of time."""

    lower: int
    """Nothing shorter is possible."""
    best: int
    """The best that was found; the optimum if it equals `lower`."""

    @property
    def is_proven(self) -> bool:
        """Whether `best` is the optimum."""
        return self.lower == self.best


def load_optima(paths: Sequence[_Path]) -> dict[tuple[str, int], Optimum]:
    """What is known of optimal makespans, by (workload name, processors).

    The CSV files have lines `50/rand0000.stg,4,66`, and `50/rand0009.stg,4,132,134` for a graph
    that is not solved: a bound, and the best schedule that their author found. Others may have
    found a better one. Raises OSError, WorkloadError.
    """
    optima: dict[tuple[str, int], Optimum] = {}
    for path in paths:
        for at, line in enumerate(Path(path).read_text(errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            where = f"{path}: line {at}"
            name, *words = line.split(",")
            if len(words) not in (2, 3):
                raise WorkloadError(f"{where}: not file,processors,makespan: {line[:60]!r}")
            processors, *known = _numbers(where, words)
            optima[_name(Path(name.strip())), processors] = Optimum(known[0], known[-1])
    return optima


def _name(path: Path) -> str:
    """ "50-rand0000" for 50/rand0000.stg: the set has one of that name for each size."""
    folder = path.parent.name
    return f"{folder}-{path.stem}" if folder.isdigit() else path.stem
