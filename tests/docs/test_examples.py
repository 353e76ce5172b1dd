"""The programs that detray was created to run print what their texts promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.programs import EXAMPLES, assert_keeps_promises, promises, run_program

SERIAL_S = 20.0


def _run(name: str, directory: Path) -> str:
    source = (EXAMPLES / name).read_text()
    output = run_program(source, directory)
    assert_keeps_promises(source, output)
    return output


def test_every_example_is_run() -> None:
    """A new file in docs/examples needs a test in this folder."""
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here] == []


def test_a_result_is_there_after_other_work_was_done(tmp_path: Path) -> None:
    """The driver works on while the task runs, then gets 10."""
    lines = _run("slow_computation.py", tmp_path).splitlines()
    assert re.fullmatch(r"Task launched, got future: ObjectRef\([0-9a-f]+\)", lines[0])
    assert lines[1:] == ["Doing other work...", "Finished other work.", "Result: 10"]


def test_a_task_waits_for_the_references_it_takes(tmp_path: Path) -> None:
    """Three stages of dependent tasks give the composed result, their output prefixed."""
    output = _run("dependencies.py", tmp_path)
    want = "final_result(processed(data_from_source_A,data_from_source_B))"
    assert f"Final Result: {want}" in output.splitlines()


def test_put_and_get_give_back_equal_values(tmp_path: Path) -> None:
    """One value, a list of references: the values come back in order."""
    assert len(promises((EXAMPLES / "put_and_get.py").read_text())) == 3
    _run("put_and_get.py", tmp_path)


def test_values_and_references_mix_as_arguments(tmp_path: Path) -> None:
    """add(1, 2) is 3 whichever of the two is a reference."""
    assert _run("remote_functions.py", tmp_path).split() == ["3"] * 4


def test_a_function_returns_three_objects(tmp_path: Path) -> None:
    """num_returns=3 gives three references."""
    assert _run("return_multiple.py", tmp_path) == "[0, 0.0, 'zero']\n"


def test_a_season_is_forecast_in_spite_of_a_station_and_a_worker(tmp_path: Path) -> None:
    """docs/report.md looks at what it records."""
    lines = _run("season.py", tmp_path).splitlines()
    assert re.fullmatch("left out: ValueError: station 13: .*", lines[0])
    assert lines[1:] == ["highest forecast: 12000276"]
    assert sorted(path.name for path in tmp_path.glob("season.*")) == ["season.trace"]


def test_ten_sleeps_in_a_row(tmp_path: Path) -> None:
    """The program without detray still runs; shorter sleeps show it as well."""
    source = (EXAMPLES / "sleep_serial.py").read_text()
    assert source.count("time.sleep(2)") == 1
    short = source.replace("time.sleep(2)", "time.sleep(0.02)")
    assert run_program(short, tmp_path) == "slept 20 seconds\n"


def test_ten_sleeps_at_the_same_time(tmp_path: Path) -> None:
    """Ten two-second sleeps on ten workers overlap: far from the twenty seconds of a serial run."""
    output = _run("sleep_parallel.py", tmp_path)
    assert float(output.split()[-2]) < 0.4 * SERIAL_S


def test_a_product_waits_for_both_its_factors(tmp_path: Path) -> None:
    """zeros, zeros, dot: arrays go through the store."""
    pytest.importorskip("numpy")
    _run("zeros_and_dot.py", tmp_path)


def test_the_graph_of_ten_sleeps_has_ten_boxes_and_ten_ovals(tmp_path: Path) -> None:
    """The drawing shows the script, its ten tasks and their ten results."""
    pytest.importorskip("networkx")
    _run("graph.py", tmp_path)


def test_experiments_run_sub_experiments(tmp_path: Path) -> None:
    """Tasks that submit tasks and get their results."""
    assert _run("experiments.py", tmp_path) == "[45, 55, 65, 75, 85]\n"
