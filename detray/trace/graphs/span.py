"""Work, span and slack of a run: what no number of machines could have made shorter.

*Work* is what all tasks computed, together; the *span* is the longest chain of computing, so that
no number of machines makes the same run shorter; work divided by span is how many tasks could be
kept running on average (Brent 1974; the words are those of Blumofe and Leiserson 1999).

Each task, and the program that submits, is cut into *pieces* where it stood still in `get`. A piece
begins when the one before it has ended and, as it may be,

- all arguments were made (first pieces),
- its submitter had computed as long as it had in the recording (first pieces),
- all that the `get` needed was made (later pieces).

Waiting for workers, CPUs, transfers and messages takes no time here, nor do attempts that failed.
The *slack* of a task is how much later it could end, nothing else changed, without the last task of
all ending later than the span (the total float of the critical path method, Kelley 1961).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from detray.trace.graphs.computation import Computation, Source, TaskRow, computation


def work_ns(source: Source) -> int:
    """What the last attempts of all tasks computed, together."""
    return sum(task.computed_ns() for task in computation(source).tasks if not task.is_root)


def span_ns(source: Source) -> int:
    """The shortest time in which this run is possible, however many machines there are."""
    return _Pieces(computation(source)).span_ns


def slack_ns(source: Source) -> dict[str, int]:
    """By how much each task could end later without delaying the end, by the task's name.

    Of all tasks of which an attempt ended. Those with 0 are the chains that make the span.
    """
    rows = computation(source)
    latest = _Pieces(rows).slack()
    return {task.id: latest[place] for place, task in enumerate(rows.tasks) if place in latest}


def chain(source: Source) -> list[str]:
    """The tasks of one chain that makes the span, in order; programs are not named."""
    return _Pieces(computation(source)).chain()


class _Cut(NamedTuple):
    """How a task is cut."""

    first: int
    """The number of its first piece; the others follow."""
    begins: tuple[int, ...]
    """When its pieces began in the recording."""
    halts: tuple[int, ...]
    """Which of its waits are between them."""

    @property
    def last(self) -> int:
        """The number of its last piece."""
        return self.first + len(self.halts)


class _Pieces:
    """All pieces by number, who comes after whom, and when each could begin at the earliest.

    What depends on itself (a recording with holes can say so) is left out.
    """

    def __init__(self, rows: Computation) -> None:
        self._tasks = rows.tasks
        self._lengths: list[int] = []
        self._owners: list[int] = []
        submitted = [task.submitted_ns for task in rows.tasks if task.submitted_ns >= 0]
        self._begin_ns = min(submitted, default=0)
        self._cuts = [self._cut(place, task) for place, task in enumerate(rows.tasks)]
        self._after: list[list[tuple[int, int]]] = [[] for _ in self._lengths]
        """Pieces that come after the end, with how long after."""
        self._along: list[list[tuple[int, int]]] = [[] for _ in self._lengths]
        """Pieces that come after the beginning (submitted meanwhile), with how long after."""
        self._missing = [0] * len(self._lengths)
        for place, task in enumerate(rows.tasks):
            self._tie(place, task)
        self._order: list[int] = []
        self._starts = [0] * len(self._lengths)
        self._causes = [-1] * len(self._lengths)
        self._forward()
        ends = [self._end(piece) for piece in self._order if self._is_counted(piece)]
        self.span_ns = max(ends, default=0)

    def _cut(self, place: int, task: TaskRow) -> _Cut:
        run = task.last
        if task.is_root:
            begin_ns, end_ns = self._begin_ns, task.halts[-1].ended_ns if task.halts else 0
        else:
            begin_ns, end_ns = (run.started_ns, run.ended_ns) if run is not None else (0, 0)
        begins, halts, lengths = [begin_ns], [], []
        for number, halt in enumerate(task.halts):
            if begin_ns <= halt.started_ns and halt.ended_ns <= end_ns:
                lengths.append(max(0, halt.started_ns - begins[-1]))
                begins.append(halt.ended_ns)
                halts.append(number)
        lengths.append(max(0, end_ns - begins[-1]))
        cut = _Cut(len(self._lengths), tuple(begins), tuple(halts))
        self._lengths += lengths
        self._owners += [place] * len(lengths)
        return cut

    def _tie(self, place: int, task: TaskRow) -> None:
        cut = self._cuts[place]
        for producer in task.args:
            self._link(self._after, self._cuts[producer].last, cut.first, 0)
        if task.parent >= 0 and task.submitted_ns >= 0:
            above = self._cuts[task.parent]
            number = max(0, bisect_right(above.begins, task.submitted_ns) - 1)
            piece = above.first + number
            offset_ns = max(0, task.submitted_ns - above.begins[number])
            if not self._tasks[task.parent].is_root:
                offset_ns = min(offset_ns, self._lengths[piece])
            self._link(self._along, piece, cut.first, offset_ns)
        for piece, number in enumerate(cut.halts, cut.first):
            halt = task.halts[number]
            waited_ns = 0 if halt.is_ended else halt.ended_ns - halt.started_ns
            self._link(self._after, piece, piece + 1, waited_ns)
            for producer in task.needed[number]:
                if producer != place:
                    self._link(self._after, self._cuts[producer].last, piece + 1, 0)

    def _link(
        self, kind: list[list[tuple[int, int]]], before: int, after: int, lag_ns: int
    ) -> None:
        kind[before].append((after, lag_ns))
        self._missing[after] += 1

    def _forward(self) -> None:
        starts, missing, order = self._starts, self._missing, self._order
        order += [piece for piece, count in enumerate(missing) if not count]
        for piece in order:
            for base_ns, links in (
                (starts[piece], self._along[piece]),
                (self._end(piece), self._after[piece]),
            ):
                for following, lag_ns in links:
                    if base_ns + lag_ns > starts[following] or self._causes[following] < 0:
                        starts[following] = max(starts[following], base_ns + lag_ns)
                        self._causes[following] = piece
                    missing[following] -= 1
                    if not missing[following]:
                        order.append(following)

    def _end(self, piece: int) -> int:
        return self._starts[piece] + self._lengths[piece]

    def _is_counted(self, piece: int) -> bool:
        return not self._tasks[self._owners[piece]].is_root

    def slack(self) -> dict[int, int]:
        """By place of a task of which an attempt ended."""
        latest_end = [self.span_ns] * len(self._lengths)
        latest_start = [self.span_ns] * len(self._lengths)
        for piece in reversed(self._order):
            end_ns = min(
                (latest_start[after] - lag_ns for after, lag_ns in self._after[piece]),
                default=self.span_ns,
            )
            latest_end[piece] = end_ns
            along = (latest_start[after] - lag_ns for after, lag_ns in self._along[piece])
            latest_start[piece] = min(end_ns - self._lengths[piece], *along, self.span_ns)
        return {
            place: latest_end[cut.last] - self._end(cut.last)
            for place, cut in enumerate(self._cuts)
            if self._tasks[place].last is not None and not self._tasks[place].is_root
        }

    def chain(self) -> list[str]:
        """Tasks of a longest chain, in order."""
        counted = [piece for piece in self._order if self._is_counted(piece)]
        piece = max(counted, key=self._end, default=-1)
        found: dict[str, None] = {}
        while piece >= 0:
            if self._is_counted(piece):
                found[self._tasks[self._owners[piece]].id] = None
            piece = self._causes[piece]
        return list(found)[::-1]
