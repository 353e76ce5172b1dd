"""Programs on three nodes: what they compute, where, and what their driver sees."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import detray
from detray.cluster_utils import Cluster
from tests.cluster.conftest import ROOT, run_program


@detray.remote
def where() -> str:
    """The id of the node that this runs on."""
    return detray.get_runtime_context().get_node_id()


@detray.remote
def fibonacci(n: int) -> int:
    """Each call on the next node."""
    if n < 2:
        return n
    on = [fibonacci.options(resources={f"n{(n + i) % 3}": 1}) for i in (0, 1)]
    return sum(detray.get([on[0].remote(n - 1), on[1].remote(n - 2)]))


@detray.remote
def make(seed: int, count: int) -> np.ndarray:
    """Numbers that only this seed gives."""
    return np.random.default_rng(seed).integers(0, 1 << 40, count)


@detray.remote
def total(*arrays: np.ndarray) -> int:
    """Of everything."""
    return int(sum(int(array.sum()) for array in arrays))


def test_a_task_runs_where_its_resources_are(driver: Cluster) -> None:
    """And knows on which node it is; so does the driver."""
    refs = [where.options(resources={f"n{number}": 1}).remote() for number in range(3)]
    assert detray.get(refs) == [node.node_id for node in driver.list_all_nodes()]
    assert detray.get_runtime_context().get_node_id() == driver.head_node.node_id
    assert detray.get_runtime_context().gcs_address == driver.address


def test_tasks_start_tasks_on_other_nodes(driver: Cluster) -> None:
    """And wait for them, many levels deep, with fewer CPUs than callers."""
    assert detray.get(fibonacci.remote(9)) == 34


def test_large_values_travel_between_all_nodes(driver: Cluster) -> None:
    """Made on each, used on each, and read by the driver."""
    arrays = [make.options(resources={f"n{n}": 1}).remote(n, 500_000) for n in range(3)]
    sums = [total.options(resources={f"n{n}": 1}).remote(*arrays) for n in range(3)]
    here = [np.random.default_rng(n).integers(0, 1 << 40, 500_000) for n in range(3)]
    assert detray.get(sums) == [int(sum(int(array.sum()) for array in here))] * 3
    for found, wanted in zip(detray.get(arrays), here, strict=True):
        assert (found == wanted).all() and not found.flags.writeable


def test_a_value_of_the_driver_is_read_everywhere(driver: Cluster) -> None:
    """Put once."""
    whole = detray.put(np.arange(1_000_000))
    refs = [total.options(resources={f"n{n}": 1}).remote(whole) for n in range(3)]
    assert detray.get(refs) == [499_999_500_000] * 3


def test_spread_tasks_go_to_all_nodes(driver: Cluster) -> None:
    """One after the other, round and round."""
    refs = [where.options(scheduling_strategy="SPREAD").remote() for _ in range(12)]
    assert len(set(detray.get(refs))) == 3


def test_errors_come_back_with_their_class(driver: Cluster) -> None:
    """From another node, through another task."""

    @detray.remote(resources={"n1": 1})
    def fail() -> None:
        raise KeyError("far away")

    with pytest.raises(KeyError, match="far away"):
        detray.get(total.options(resources={"n2": 1}).remote(fail.remote()))


def test_the_nodes_are_listed_with_what_each_has(driver: Cluster) -> None:
    """By the driver and, the same, by a task; resources add up."""
    nodes = {node["NodeID"]: node for node in detray.nodes() if node["Alive"]}
    assert set(nodes) == {node.node_id for node in driver.list_all_nodes()}
    for number, member in enumerate(driver.list_all_nodes()):
        node = nodes[member.node_id]
        assert node["Resources"][f"n{number}"] == 100
        assert node["Labels"]["place"] == "ABC"[number]
        assert f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}" == member.address
    assert detray.cluster_resources()["CPU"] == 6
    seen = detray.remote(detray.cluster_resources).options(resources={"n2": 1}).remote()
    assert detray.get(seen) == detray.cluster_resources()


def test_lines_of_other_nodes_say_from_where_they_come(cluster: Cluster) -> None:
    """`ip=`, as in Ray; lines of this node do not."""
    status, out, err = run_program(
        f"""
        import detray as ray
        ray.init(address={cluster.address!r})
        @ray.remote
        def speak(n):
            print("line", n)
        ray.get([speak.options(resources={{f"n{{n}}": 1}}).remote(n) for n in range(3)])
        ray.shutdown()
        """
    )
    assert status == 0, err
    lines = {line.split(") ")[1]: line.split(") ")[0] for line in out.splitlines()}
    assert sorted(lines) == ["line 0", "line 1", "line 2"]
    assert "ip=" not in lines["line 0"]
    assert lines["line 1"].endswith(", ip=127.0.0.1")
    assert lines["line 2"].startswith("(speak pid=")


def test_what_lies_beside_the_program_is_found_on_all_nodes(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Modules of the script's directory, though no node was started there."""
    (tmp_path / "beside_the_program.py").write_text("def twice(x):\n    return 2 * x\n")
    script = tmp_path / "program.py"
    script.write_text(
        "import detray, beside_the_program\n"
        f"detray.init(address={cluster.address!r}, log_to_driver=False)\n"
        "@detray.remote\n"
        "def f(x):\n"
        "    return beside_the_program.twice(x)\n"
        "direct = detray.remote(beside_the_program.twice)\n"
        "refs = [t.options(resources={f'n{n}': 1}).remote(n) for t in (f, direct)"
        " for n in range(3)]\n"
        "print(detray.get(refs))\n"
    )
    status, out, err = run_program(
        f"import runpy, sys; sys.path[0] = {str(tmp_path)!r}; sys.argv = [{str(script)!r}]\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')",
        PYTHONPATH=str(ROOT),
    )
    assert (status, out) == (0, "[0, 2, 4, 0, 2, 4]\n"), err
    assert os.path.exists(script)
