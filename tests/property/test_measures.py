"""Measures of random runs, against what a slow and plain computation says."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from detray.trace.graphs.critical import critical_path
from detray.trace.graphs.measures import width
from detray.trace.graphs.span import chain, slack_ns, span_ns, work_ns
from tests.trace.graphs import MS, ROOT, Sketch


class Piece(NamedTuple):
    """A task of a random program; its arguments are numbers of earlier ones."""

    length: int
    args: tuple[int, ...]


@st.composite
def programs(draw: st.DrawFn) -> list[Piece]:
    count = draw(st.integers(1, 12))
    return [
        Piece(
            draw(st.integers(1, 9)),
            tuple(sorted(draw(st.sets(st.integers(0, number - 1), max_size=3)))) if number else (),
        )
        for number in range(count)
    ]


def ran(program: list[Piece], workers: int) -> Sketch:
    """The program on so many workers, first come first served, everything submitted at 0."""
    sketch = Sketch()
    free = [0] * workers
    ends: list[int] = []
    for number, piece in enumerate(program):
        ready = max((ends[arg] for arg in piece.args), default=0)
        worker = min(range(workers), key=lambda seat: (max(free[seat], ready), seat))
        begin = max(free[worker], ready)
        ends.append(begin + piece.length)
        free[worker] = ends[-1]
        args = [f"t{arg}" for arg in piece.args]
        sketch.task(f"t{number}", 0, begin, begin, ends[-1], args, worker=worker + 1)
    return sketch


def longest(program: list[Piece]) -> int:
    ends: list[int] = []
    for piece in program:
        ends.append(max((ends[arg] for arg in piece.args), default=0) + piece.length)
    return max(ends)


@given(programs(), st.integers(1, 3))
def test_the_span_is_the_longest_path_whatever_the_machine(
    program: list[Piece], workers: int
) -> None:
    """Order and places of the recording do not matter; one chain is as long as the span."""
    graph = ran(program, workers).graph
    assert span_ns(graph) == longest(program) * MS
    assert work_ns(graph) == sum(piece.length for piece in program) * MS
    numbers = [int(name[1:]) for name in chain(graph)]
    assert sum(program[number].length for number in numbers) * MS == span_ns(graph)
    assert all(one in program[other].args for one, other in pairwise(numbers))


@given(programs(), st.data())
def test_slack_is_what_a_task_may_take_longer(program: list[Piece], data: st.DataObject) -> None:
    """As much longer and the span is the same; a little more and it is not."""
    slack = slack_ns(ran(program, 2).graph)
    number = data.draw(st.integers(0, len(program) - 1))
    room = slack[f"t{number}"] // MS
    for more, is_same in ((room, True), (room + 1, False)):
        longer = list(program)
        longer[number] = Piece(program[number].length + more, program[number].args)
        assert (longest(longer) == longest(program)) == is_same


@given(programs(), st.integers(1, 3))
def test_the_critical_path_of_a_busy_machine_is_all_running(
    program: list[Piece], workers: int
) -> None:
    """Messages take no time here, so that something always ran: first come, no gap, no wait."""
    graph = ran(program, workers).graph
    path = critical_path(graph)
    ended_ns = max(data["ended_ns"] for _, data in graph.nodes(data=True) if "ended_ns" in data)
    assert path.length_ns == ended_ns
    assert set(path.by_kind()) == {"run"}
    assert all(one.ended_ns == other.started_ns for one, other in pairwise(path.parts))
    steps = width(graph)
    area = sum(step.running * (after.time_ns - step.time_ns) for step, after in pairwise(steps))
    assert area == work_ns(graph) and max(step.running for step in steps) <= workers


@settings(max_examples=200)
@given(programs(), st.data())
def test_nonsense_has_a_path_without_gaps(program: list[Piece], data: st.DataObject) -> None:
    """Clocks that differ, unknown times, gets of anything: from the beginning to the end."""
    sketch = Sketch()
    times = st.integers(-1, 12)
    for number, piece in enumerate(program):
        sketch.task(
            f"t{number}",
            *(data.draw(times) for _ in range(4)),
            [f"t{arg}" for arg in piece.args],
            parent=f"t{number - 1}" if number and data.draw(st.booleans()) else ROOT,
            worker=data.draw(st.integers(1, 2)),
        )
    for number in range(len(program)):
        begin = data.draw(st.integers(0, 9))
        items = [f"t{n}" for n in data.draw(st.sets(st.integers(0, len(program) - 1), max_size=3))]
        who = f"t{number}" if data.draw(st.booleans()) else ROOT
        sketch.get(who, begin, begin + data.draw(st.integers(0, 5)), *items)
    path = critical_path(sketch.graph)
    assert all(part.length_ns > 0 for part in path.parts)
    assert all(one.ended_ns == other.started_ns for one, other in pairwise(path.parts))
    assert span_ns(sketch.graph) >= 0 and all(
        isinstance(s, int) for s in slack_ns(sketch.graph).values()
    )
    assert len(width(sketch.graph)) >= 0
