"""The programs that detray was created to run, in simulated clusters."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import detray
from detray import startup
from tests.docs.programs import EXAMPLES, assert_keeps_promises

PROGRAMS = (
    "dependencies",
    "experiments",
    "put_and_get",
    "remote_functions",
    "return_multiple",
    "sleep_parallel",
    "slow_computation",
    "zeros_and_dot",
)


def run(name: str, capsys: pytest.CaptureFixture[str], **given: Any) -> str:
    """What a program of docs/examples prints under the simulator."""
    detray.shutdown()
    capsys.readouterr()
    with startup.imposing(engine="sim", patch_time=True, **given):
        try:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        finally:
            detray.shutdown()
    return capsys.readouterr().out


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_the_same_everywhere(
    name: str, nodes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the seed; and with equal seeds, to the letter."""
    source = (EXAMPLES / f"{name}.py").read_text()
    for seed in range(4):
        output = run(name, capsys, nodes=nodes, seed=seed)
        assert_keeps_promises(source, output)
        assert run(name, capsys, nodes=nodes, seed=seed) == output


@pytest.mark.parametrize("seed", range(5))
def test_a_program_survives_what_its_retries_cover(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers die and hang; the default of three retries is enough for what is planned."""
    faults = ["worker_killed", "worker_hangs", "node_slow", "link_delays"]
    output = run("experiments", capsys, nodes=3, seed=seed, faults=faults, fault_span_ns=10**8)
    assert output == "[45, 55, 65, 75, 85]\n"


def test_ten_sleeps_overlap_in_virtual_time(capsys: pytest.CaptureFixture[str]) -> None:
    """The program asks for ten CPUs: two seconds."""
    output = run("sleep_parallel", capsys)
    assert 2.0 <= float(output.split()[-2]) < 2.2


def test_a_graph_can_be_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one node."""
    pytest.importorskip("networkx")
    monkeypatch.chdir(tmp_path)
    assert run("graph", capsys) == "11 tasks, 10 objects\n"
    assert (tmp_path / "sleep.svg").exists()
