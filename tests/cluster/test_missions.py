"""The programs that detray was created to run, on a cluster instead of one machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detray.cluster_utils import Cluster, ClusterNode
from tests.cluster.conftest import ROOT, until
from tests.docs.programs import EXAMPLES, assert_keeps_promises

RECORDED = ("filming.py", "night_job.py", "season.py")
"""They record their own session, which a cluster's node would have to do."""
PROGRAMS = sorted(
    path.name
    for path in EXAMPLES.glob("*.py")
    if "sleep" not in path.name and path.name not in RECORDED
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_on_a_cluster(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """Nothing in it is changed but how many CPUs it asks for: those of the cluster are there."""
    source = re.sub(r"init\(num_cpus=\d+\)", "init()", (EXAMPLES / name).read_text())
    if "engine=" in source:
        pytest.skip("it simulates its cluster")
    script = tmp_path / name
    script.write_text(source)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "DETRAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "connected to the cluster" in done.stderr
    assert_keeps_promises(source, done.stdout)


def test_the_index_is_right_though_a_node_is_killed(tmp_path: Path) -> None:
    """Map-reduce over three nodes; one of them is killed while it reads."""
    with Cluster(head_node_args={"num_cpus": 1}, initialize_head=True) as cluster:
        victim = cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        demo = subprocess.Popen(
            [
                sys.executable, "-m", "detray.demo", "--address", cluster.address,
                "--out", str(tmp_path), "--workers", "3", "--files", "300",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        until(lambda: _finished(cluster, victim) >= 3, "the node has read something")
        victim.kill_machine()
        out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, f"{out}\n{err}"
    assert "The index made by detray equals the one made serially." in out


def _finished(cluster: Cluster, node: ClusterNode) -> int:
    """How many runs have ended at a node."""
    for row in cluster.ask("status")["nodes"]:
        if row["number"] == node.number:
            return int(row["totals"].get("ran for others", 0))
    return 0
