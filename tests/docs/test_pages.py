"""The programs on the pages themselves run, and their commands do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.programs import (
    DOCS,
    ROOT,
    assert_keeps_promises,
    console_lines,
    python_blocks,
    run_program,
)
from tests.docs.readme import ten_lines


def test_the_program_of_the_readme_has_ten_lines_and_runs(tmp_path: Path) -> None:
    """What the README promises first."""
    program = ten_lines()
    assert len([line for line in program.splitlines() if line.strip()]) == 10
    assert_keeps_promises(program, run_program(program, tmp_path))


def test_getting_started_works_line_by_line(tmp_path: Path) -> None:
    """All its programs as one, then the commands on what they left."""
    pytest.importorskip("numpy")
    pytest.importorskip("networkx")
    page = DOCS / "getting-started.md"
    program = "\n".join(python_blocks(page))
    assert_keeps_promises(program, run_program(program, tmp_path))
    commands = [line for line in console_lines(page) if line.startswith("detray ")]
    assert commands
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "detray.cli", *command.split()[1:]],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in _EXPECTED_EXIT.get(command, (0,)), f"{command}\n{done.stderr}"


_EXPECTED_EXIT = {"detray status": (0, 1)}
"""No session runs any more when the test asks."""


@pytest.mark.slow
def test_the_programs_of_the_page_of_clusters_run(tmp_path: Path) -> None:
    """One makes a cluster of its own; one joins the cluster that runs here."""
    from detray.cluster_utils import Cluster

    joining, making = python_blocks(DOCS / "cluster.md")
    assert run_program(making, tmp_path).splitlines() == ["True"]
    with Cluster(initialize_head=True, head_node_args={"num_cpus": 1}) as cluster:
        source = joining.replace('address="auto"', f'address="{cluster.address}"')
        assert "100 answers from" in run_program(source, tmp_path)
