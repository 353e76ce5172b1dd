"""Critical path, span, slack, width and the numbers of functions."""

from __future__ import annotations

from itertools import pairwise

import pytest

from detray.trace.graphs.computation import computation
from detray.trace.graphs.critical import PathPart, critical_path
from detray.trace.graphs.graph import build
from detray.trace.graphs.measures import (
    functions,
    levels,
    mean_width,
    parallelism_profile,
    quantile,
    width,
)
from detray.trace.graphs.span import chain, slack_ns, span_ns, work_ns
from tests.trace.graphs import MS, ROOT, Sketch
from tests.trace.programs import dots, experiments, many, recorded, ten_sleeps, troubles


def told(parts: tuple[PathPart, ...]) -> list[tuple[str, str, int, int, str]]:
    return [(p.name, p.kind, p.started_ns // MS, p.ended_ns // MS, p.after) for p in parts]


# ------------------------------------------------------------------ the critical path


def test_a_path_follows_the_argument_that_was_made_last():
    """The product waited for b, not for a; before b there was only the program."""
    sketch = Sketch()
    sketch.task("a", 0, 1, 2, 5, worker=1)
    sketch.task("b", 1, 2, 3, 9, worker=2)
    sketch.task("c", 2, 10, 11, 15, ["a", "b"], worker=1)
    assert told(critical_path(sketch.graph).parts) == [
        ("program.py", "program", 0, 1, ""),
        ("b", "place", 1, 2, "submit"),
        ("b", "start", 2, 3, ""),
        ("b", "run", 3, 9, ""),
        ("c", "place", 9, 10, "arguments"),
        ("c", "start", 10, 11, ""),
        ("c", "run", 11, 15, ""),
    ]


def test_a_path_follows_the_worker_that_was_busy():
    """One worker for two tasks: the second one began when the first was through."""
    sketch = Sketch()
    sketch.task("a", 0, 1, 2, 8)
    sketch.task("b", 0, 1, 9, 12)
    assert told(critical_path(sketch.graph).parts) == [
        ("a", "place", 0, 1, ""),
        ("a", "start", 1, 2, ""),
        ("a", "run", 2, 8, ""),
        ("b", "queue", 8, 9, "worker"),
        ("b", "run", 9, 12, ""),
    ]


def test_a_path_follows_the_cpu_that_was_busy():
    """b was sent to an idle worker when the end of a gave a CPU back."""
    sketch = Sketch()
    sketch.task("a", 0, 1, 2, 8, worker=1)
    sketch.task("b", 0, 9, 10, 12, worker=2)
    assert told(critical_path(sketch.graph).parts)[3:] == [
        ("b", "place", 8, 9, "worker"),
        ("b", "start", 9, 10, ""),
        ("b", "run", 10, 12, ""),
    ]


def test_a_path_goes_through_blocking_gets():
    """A parent that waits for its child, and a program that waits for the parent."""
    sketch = Sketch()
    sketch.task("parent", 0, 0, 1, 10)
    sketch.task("child", 3, 3, 4, 7, parent="parent", worker=2)
    sketch.get("parent", 3, 8, "child")
    sketch.get(ROOT, 1, 11, "parent")
    sketch.task("after", 12, 12, 13, 14)
    assert told(critical_path(sketch.graph).parts) == [
        ("parent", "start", 0, 1, ""),
        ("parent", "run", 1, 3, ""),
        ("child", "start", 3, 4, "submit"),
        ("child", "run", 4, 7, ""),
        ("parent", "get", 7, 8, "get"),
        ("parent", "run", 8, 10, ""),
        ("program.py", "get", 10, 11, "get"),
        ("program.py", "program", 11, 12, ""),
        ("after", "start", 12, 13, "submit"),
        ("after", "run", 13, 14, ""),
    ]


def test_a_path_goes_through_attempts_that_came_to_nothing():
    """A worker that was killed has cost what it had computed."""
    sketch = Sketch()
    lost = f"lost {1 * MS} {2 * MS} {6 * MS} 1 here"
    sketch.task("a", 0, 7, 8, 12, worker=2, earlier=lost)
    assert told(critical_path(sketch.graph).parts) == [
        ("a", "place", 0, 1, ""),
        ("a", "start", 1, 2, ""),
        ("a", "lost", 2, 6, ""),
        ("a", "place", 6, 7, "retry"),
        ("a", "start", 7, 8, ""),
        ("a", "run", 8, 12, ""),
    ]


def test_a_get_that_timed_out_is_a_wait_for_nobody():
    """Nothing made it end: it is all of the task's own."""
    sketch = Sketch()
    sketch.task("a", 0, 0, 1, 9)
    sketch.get("a", 2, 6)
    assert told(critical_path(sketch.graph).parts)[1:] == [
        ("a", "run", 1, 2, ""),
        ("a", "get", 2, 6, ""),
        ("a", "run", 6, 9, ""),
    ]


def test_clocks_that_differ_leave_a_path_whole():
    """b seems to have begun before its argument was made: the path has no gap and goes on."""
    sketch = Sketch()
    sketch.task("a", 0, 1, 2, 9, worker=1)
    sketch.task("b", 0, 4, 5, 12, ["a"], worker=2)
    path = critical_path(sketch.graph)
    assert path.length_ns == 12 * MS
    assert_whole(path.parts)
    assert path.tasks[-1] == "b" and "a" in path.tasks


def test_nothing_that_ran_has_an_empty_path():
    """Neither an empty graph nor one of tasks that wait has an end."""
    sketch = Sketch()
    assert critical_path(sketch.graph).parts == ()
    sketch.task("a", 0, -1, -1, -1, state="waiting")
    path = critical_path(sketch.graph)
    assert (path.parts, path.length_ns, path.tasks) == ((), 0, ())


@pytest.mark.parametrize("program", [ten_sleeps, dots, experiments, troubles, many])
def test_paths_of_recorded_runs_have_no_gaps(tmp_path, program):
    """From the first submission to the last end, whatever happened between."""
    rows = computation(build(recorded(tmp_path / "run.trace", program)))
    path = critical_path(rows)
    assert_whole(path.parts)
    ends = [run.ended_ns for task in rows.tasks for run in task.runs]
    submitted = [task.submitted_ns for task in rows.tasks if not task.is_root]
    assert path.parts[0].started_ns == min(submitted)
    assert path.parts[-1].ended_ns == max(ends)
    assert sum(path.by_kind().values()) == path.length_ns == sum(path.by_name().values())
    assert span_ns(rows) <= path.length_ns


def assert_whole(parts: tuple[PathPart, ...]) -> None:
    assert parts
    assert all(part.length_ns > 0 for part in parts)
    assert all(one.ended_ns == other.started_ns for one, other in pairwise(parts))


# ------------------------------------------------------------------ span and slack


def test_the_span_is_the_longest_chain_whatever_the_workers_did():
    """Four tasks, two of which depend: the wait for a worker does not count."""
    sketch = Sketch()
    sketch.task("a", 0, 0, 0, 3)
    sketch.task("b", 0, 3, 3, 5)
    sketch.task("c", 0, 5, 5, 9, ["a"])
    sketch.task("d", 0, 9, 9, 10, ["b", "a"])
    assert work_ns(sketch.graph) == 10 * MS
    assert span_ns(sketch.graph) == 7 * MS
    assert slack_ns(sketch.graph) == {"a": 0, "b": 4 * MS, "c": 0, "d": 3 * MS}
    assert chain(sketch.graph) == ["a", "c"]


def test_who_submits_late_makes_the_span_long():
    """The second task is submitted after 4 ms of the program's own."""
    sketch = Sketch()
    sketch.task("a", 0, 0, 0, 3)
    sketch.task("b", 4, 4, 4, 6)
    assert span_ns(sketch.graph) == 6 * MS
    assert slack_ns(sketch.graph) == {"a": 3 * MS, "b": 0}


def test_a_task_that_waits_in_get_is_two_pieces():
    """2 ms before and 2 ms after the wait are its own, 3 ms between are its child's."""
    sketch = Sketch()
    sketch.task("parent", 0, 0, 1, 10)
    sketch.task("child", 2, 3, 4, 7, parent="parent", worker=2)
    sketch.task("idle", 2, 3, 4, 5, parent="parent", worker=3)
    sketch.get("parent", 3, 8, "idle", "child")
    assert work_ns(sketch.graph) == 8 * MS
    # The child comes 1 ms after its parent began, which goes on when it has it: 1 + 3 + 2.
    assert span_ns(sketch.graph) == 6 * MS
    assert slack_ns(sketch.graph) == {"parent": 0, "child": 0, "idle": 2 * MS}


def test_a_program_that_gets_one_after_the_other_is_a_chain():
    """Infinitely many machines do not help who waits for each result before the next call."""
    sketch = Sketch()
    for number in range(5):
        begin = number * 10
        sketch.task(f"t{number}", begin, begin, begin + 1, begin + 4)
        sketch.get(ROOT, begin, begin + 9, f"t{number}")
    # Four times 3 ms and the 1 ms between the get's end and the next call, and 3 ms.
    assert span_ns(sketch.graph) == (4 * (3 + 1) + 3) * MS
    assert set(slack_ns(sketch.graph).values()) == {0}
    assert chain(sketch.graph) == [f"t{number}" for number in range(5)]


def test_what_was_put_does_not_wait_for_the_end_of_who_put_it():
    """A program's value is there while the program goes on, and gets what was made of it."""
    sketch = Sketch()
    sketch.task("a", 1, 1, 2, 5)
    sketch.graph.add_node("put", kind="object", is_put=True, size_bytes=7, awaited_by="")
    sketch.graph.add_edge(ROOT, "put", key="produces", kind="produces", size_bytes=7)
    sketch.graph.add_edge("put", "a", key="consumes", kind="consumes", size_bytes=7)
    sketch.get(ROOT, 2, 6, "a")
    assert span_ns(sketch.graph) == 3 * MS
    assert critical_path(sketch.graph).tasks == ("a",)
    assert levels(sketch.graph) == {ROOT: 0, "a": 0}


def test_a_timeout_takes_the_time_it_took():
    """No machine makes it shorter."""
    sketch = Sketch()
    sketch.task("a", 0, 0, 1, 9)
    sketch.get("a", 2, 6)
    assert span_ns(sketch.graph) == 8 * MS
    assert work_ns(sketch.graph) == 4 * MS


# ------------------------------------------------------------------ width, levels, functions


def test_width_counts_who_computes_and_who_stands():
    """A parent in `get` is not at work; the steps end with nobody."""
    sketch = Sketch()
    sketch.task("parent", 0, 0, 1, 10)
    sketch.task("child", 3, 3, 4, 7, parent="parent", worker=2)
    sketch.get("parent", 3, 8, "child")
    steps = width(sketch.graph)
    assert [(step.time_ns // MS, step.running, step.blocked) for step in steps] == [
        (1, 1, 0),
        (3, 0, 1),
        (4, 1, 1),
        (7, 0, 1),
        (8, 1, 0),
        (10, 0, 0),
    ]
    assert parallelism_profile(steps) == {0: 2 * MS, 1: 7 * MS}
    assert mean_width(steps) == pytest.approx(7 / 9)
    assert (mean_width([]), width(Sketch().graph)) == (0.0, [])


def test_waits_of_threads_count_once():
    """Two at once, one within the other: the task stood from 2 to 8."""
    sketch = Sketch()
    sketch.task("a", 0, 0, 1, 10)
    sketch.get("a", 4, 5)
    sketch.get("a", 2, 7)
    sketch.get("a", 6, 8)
    assert work_ns(sketch.graph) == 3 * MS
    assert parallelism_profile(width(sketch.graph)) == {0: 6 * MS, 1: 3 * MS}


def test_an_attempt_of_a_dead_worker_is_not_work():
    """It is known when it was sent, not whether it began: lost on the path, nothing elsewhere."""
    sketch = Sketch()
    sketch.task("a", 0, 1, -1, 9, state="failed")
    assert (work_ns(sketch.graph), span_ns(sketch.graph), width(sketch.graph)) == (0, 0, [])
    assert [stats.total_ns for stats in functions(sketch.graph)] == [0]
    path = critical_path(sketch.graph)
    assert path.length_ns == 9 * MS and set(path.by_kind()) == {"place", "lost"}


def test_width_has_one_step_where_one_ends_and_another_begins():
    """At one moment there is one number."""
    sketch = Sketch()
    sketch.task("a", 0, 0, 0, 3)
    sketch.task("b", 0, 0, 3, 5)
    steps = width(sketch.graph)
    assert [(step.time_ns // MS, step.running) for step in steps] == [(0, 1), (5, 0)]


def test_levels_follow_arguments_and_submitters(tmp_path):
    """Five experiments at level 0 and what they launch at level 1; dot is after its zeros."""
    graph = build(recorded(tmp_path / "run.trace", dots, experiments))
    by_name: dict[str, set[int]] = {}
    for node, level in levels(graph).items():
        by_name.setdefault(graph.nodes[node]["label"], set()).add(level)
    del by_name["root\nprogram.py"]
    assert by_name == {"zeros": {0}, "dot": {1}, "run_experiment": {0}, "sub_experiment": {1}}


def test_functions_are_counted_with_their_troubles(tmp_path):
    """Retries, failures and what depends on them."""
    found = {stats.name: stats for stats in functions(build(recorded(tmp_path / "t", troubles)))}
    shaky, wrong, fine = found["shaky"], found["wrong"], found["fine"]
    assert (shaky.calls, shaky.finished, shaky.retries) == (1, 1, 1)
    assert (wrong.calls, wrong.failed) == (1, 1)
    assert (fine.calls, fine.finished, fine.failed) == (2, 1, 1)
    assert fine.total_ns == fine.max_ns == fine.mean_ns == 5 * MS - 1000


def test_quantiles_are_values_that_occurred():
    """The nearest rank: half of four are at most the second."""
    assert [quantile([1, 2, 3, 4], percent) for percent in (1, 50, 51, 95, 100)] == [1, 2, 3, 4, 4]
    assert quantile([], 50) == 0
