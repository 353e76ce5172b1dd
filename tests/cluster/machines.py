"""What the tests of deaths and cuts share: machines, tasks that leave marks, and waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detray
from detray import startup
from detray.cluster_utils import ClusterNode
from detray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.cluster.conftest import STORE_BYTES, until
from tests.support import begun
from tests.support.netns import Machines, why_not

WORDS = 200_000
"""Words in an array that is far too large to travel inline."""


class Field:
    """A cluster to break things in, and the directory where its tasks leave marks."""

    def __init__(self, machines: Machines, marks: Path) -> None:
        self.machines = machines
        self._marks = marks
        self._added: list[ClusterNode] = []

    def add(self, count: int, **options: Any) -> list[ClusterNode]:  # Any: as `add_nodes`
        """Further nodes for this test, each with the resource "far"."""
        given = {"num_cpus": 2, "object_store_memory": STORE_BYTES, "resources": {"far": 100}}
        nodes = self.machines.add_nodes(count, **{**given, **options})
        self._added += nodes
        return nodes

    def mark(self, name: str) -> str:
        """The path of a mark."""
        return str(self._marks / name)

    def begun(self, name: str) -> int:
        """How often the task with that mark began."""
        return begun.count(self.mark(name))

    def open(self, name: str) -> None:
        """Let those go on that wait for a gate."""
        Path(self.mark(name)).touch()

    def has_begun(self, name: str, times: int = 1) -> None:
        """Wait until it has."""
        until(lambda: self.begun(name) >= times, f"{name} began {times} times")

    def living(self) -> dict[str, int]:
        """The numbers of the nodes that the head counts as alive, by the host they are on."""
        nodes = self.machines.ask("status")["nodes"]
        return {node["address"].split(":")[0]: node["number"] for node in nodes if node["alive"]}

    def host(self, node: ClusterNode) -> str:
        """Where it is."""
        return self.machines.home_of(node).address

    def tear_down(self) -> None:
        """Heal and end what the test added, ready for the next one."""
        for node in self._added:
            if node in self.machines.list_all_nodes():
                node.thaw()
                self.machines.remove_node(node, allow_graceful=False)
        self.machines.wait_for_nodes()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """A head and one node, on machines of their own where that is possible; what is left behind, or
    crashed, fails the last test."""
    startup.shutdown()
    with Machines(is_apart=not why_not()) as made:
        made.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        yield made
        startup.shutdown()
        crashes = [f"{path}:\n{text}" for path, text in made.logs() if "Traceback" in text]
    assert not crashes, "\n".join(crashes)
    assert not made.left_behind, "left behind:\n" + "\n".join(made.left_behind)


@pytest.fixture
def field(machines: Machines, tmp_path: Path) -> Iterator[Field]:
    """This process is a driver of the cluster, by a node that no test kills."""
    startup.shutdown()
    machines.connect()
    made = Field(machines, tmp_path)
    yield made
    startup.shutdown()
    made.tear_down()


def on(node: ClusterNode, *, soft: bool = True, **options: Any) -> dict[str, Any]:
    """Options of a task that should run there; if it is soft, elsewhere once that node is gone."""
    return {
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node.node_id, soft=soft),
        **options,
    }


@detray.remote
def make(path: str, seed: int, *inputs: Any) -> np.ndarray[Any, Any]:
    """An array that only these arguments give."""
    begun.begin(path)
    total = sum(int(array.sum()) for array in inputs)
    return np.arange(WORDS, dtype=np.int64) * seed + total


@detray.remote
def hold(path: str, gate: str, value: int) -> int:
    """Wait for a gate, then give a value."""
    begun.begin(path)
    begun.wait_for(gate)
    return value


@detray.remote
def die_once(path: str, value: int) -> int:
    """End the worker like kill -9 the first time."""
    if begun.begin(path) == 0:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
    return value


@detray.remote
def put_there(value: int) -> list[Any]:
    """A reference to something that the task's own node owns."""
    return [detray.put(np.full(WORDS, value))]


@detray.remote
def total(*inputs: Any) -> int:
    """Of arrays and numbers."""
    return sum(int(np.sum(item)) for item in inputs)
