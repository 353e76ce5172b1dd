"""The Standard Task Graph set: format, levels and optima."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detray_sim.workload import SECOND_NS, WorkloadError
from detray_sim.workloads import b_levels, measure
from detray_sim.workloads.stg import Optimum, load_optima, load_stg
from tests.sim.data import data_files

TINY = """
    3
  0  0  0
  1  4  1  0
  2  2  1  0
  3  5  2  1  2   # both
  4  0  1  3
# a comment
"""


def written(folder: Path, text: str) -> Path:
    """A file with this text."""
    path = folder / "tiny.stg"
    path.write_text(text)
    return path


def test_a_graph_loses_its_dummies(tmp_path: Path) -> None:
    """Unless they are wanted; a unit is a second."""
    path = written(tmp_path, TINY)
    workload = load_stg(path)
    assert [task.id for task in workload.tasks] == ["1", "2", "3"]
    assert workload.tasks[2].inputs == ((0, 0), (1, 0))
    assert b_levels(workload) == [9 * SECOND_NS, 7 * SECOND_NS, 5 * SECOND_NS]
    assert [task.id for task in load_stg(path, dummies=True).tasks] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with its number of tasks"),
        ("3 4\n", "does not begin with its number of tasks"),
        (TINY.replace("2  2  1  0", "2  x  1  0"), "line 5: not only whole numbers: '2 x 1 0'"),
        (TINY.replace("2  2  1  0", "2 -2  1  0"), "line 5: a negative"),
        (TINY.replace("2  2  1  0", "2  2  2  0"), "line 5: a task is its number, its time"),
        (TINY.replace("2  2  1  0", "1  2  1  0"), "line 5: task 1 is there twice"),
        (TINY.replace("2  2  1  0", "2  2  1  9"), "line 5: task 2 follows 9, not in the file"),
        (TINY.replace("2  2  1  0", "2  2  1  3"), "wait for each other: '2' -> '3' -> '2'"),
        (TINY.replace("2  2  1  0\n", "\n"), "4 tasks instead of 3 and two dummies"),
        ("é", "more than ASCII"),
    ],
)
def test_bad_files_say_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    """One line, with the file."""
    with pytest.raises(WorkloadError) as raised:
        load_stg(written(tmp_path, text))
    assert "tiny" in str(raised.value) and message in str(raised.value)


def test_optima_are_bounds_where_nothing_is_proven(tmp_path: Path) -> None:
    """Three columns: solved. Four: a bound and the best that was found."""
    path = tmp_path / "optima.csv"
    path.write_text("50/rand0000.stg,4,66\n\n50/rand0009.stg,4,132,134\n")
    found = load_optima([path])
    assert found == {("50-rand0000", 4): Optimum(66, 66), ("50-rand0009", 4): Optimum(132, 134)}
    assert [optimum.is_proven for optimum in found.values()] == [True, False]
    path.write_text("50/rand0000.stg,4\n")
    with pytest.raises(WorkloadError, match="line 1: not file,processors,makespan"):
        load_optima([path])


def test_the_set_is_what_its_comments_say() -> None:
    """Tasks, edges, the longest path; the highest level is that path."""
    for path in data_files("stg/50", "*.stg"):
        text, workload = path.read_text(), load_stg(path)
        found = measure(workload)
        assert found.tasks == len(workload.tasks) == 50
        assert found.edges == _said(text, r"Edges\s*: (\d+)")
        assert found.critical_path_ns == _said(text, r"CP Length\s*: (\d+)") * SECOND_NS
        assert max(b_levels(workload)) == found.critical_path_ns
        assert measure(load_stg(path, dummies=True)).tasks == 52


def test_no_known_makespan_is_below_the_simple_bounds() -> None:
    """Longest path and work over processors; where an optimum is proven they mostly meet it."""
    optima = load_optima(data_files("stg/optima", "*.csv"))
    proven = [optimum for optimum in optima.values() if optimum.is_proven]
    assert (len(optima), len(proven)) == (720, 669)
    met = 0
    for path in data_files("stg/50", "*.stg"):
        workload = load_stg(path)
        found = measure(workload)
        for slots in (2, 4, 8, 16):
            optimum = optima[workload.name, slots]
            least = max(found.critical_path_ns, -(-found.work_ns // slots)) / SECOND_NS
            assert least <= optimum.best
            met += optimum.is_proven and optimum.best == -(-least // 1)
    assert met == 660


def _said(text: str, pattern: str) -> int:
    match = re.search(pattern, text)
    assert match is not None
    return int(match[1])
