"""What a measurement asks of a cluster, and the clusters of detray and Ray.

Nodes are counted from 0, which is the driver's. Every node has one slot for a task.
"""

from __future__ import annotations

import importlib
from typing import Any

from detray.bench import measure, work

Handle = Any  # a reference or future of whichever engine is measured

CLUSTER_ENGINES = ("detray", "ray", "dask")
"""Engines that have a cluster on one machine, made of several nodes."""


class ClusterSubject:
    """An engine's cluster on this machine."""

    def start(self, nodes: int, *, slots: int = 1, store_bytes: int = 1 << 28) -> None:
        """Start so many nodes; each runs `slots` tasks at a time and stores so much."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it and every process of it."""
        raise NotImplementedError

    def batch(self, count: int, node: int | None = None) -> None:
        """Submit empty tasks, to one node or wherever there is room, and get all results."""
        raise NotImplementedError

    def batch_busy(self, count: int) -> None:
        """The same with tasks that compute for about a millisecond, wherever there is room."""
        raise NotImplementedError

    def make_at(self, node: int, size_bytes: int) -> Handle:
        """An array of bytes that lies in the store of that node, and in no other's."""
        raise NotImplementedError

    def get(self, handle: Handle) -> Any:  # Any: whatever the task returned
        """The value, here."""
        raise NotImplementedError

    def send_to(self, nodes: list[int], handle: Handle) -> None:
        """Run a task that takes the value at each of these nodes at once; wait for all."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Every process of it, the driver's too; empty if that is not known."""
        return []


class RayLikeCluster(ClusterSubject):
    """`cluster_utils.Cluster` of an engine with Ray's programming model."""

    name = ""
    driver_options: dict[str, Any] = {}  # noqa: RUF012  # keywords of two different functions

    def __init__(self) -> None:
        self.engine: Any = importlib.import_module(self.name)  # no stubs for either
        self.cluster: Any = None

    def start(self, nodes: int, *, slots: int = 1, store_bytes: int = 1 << 28) -> None:
        module = importlib.import_module(f"{self.name}.cluster_utils")
        options: dict[str, Any] = {"num_cpus": slots, "object_store_memory": store_bytes}
        self.cluster = module.Cluster(
            initialize_head=True, head_node_args=options | {"resources": {"node0": 1}}
        )
        for node in range(1, nodes):
            self.cluster.add_node(**options, resources={f"node{node}": 1})
        self.cluster.wait_for_nodes()
        engine = self.engine
        engine.init(address=self.cluster.address, **self.driver_options)
        empty, take = engine.remote(work.nothing), engine.remote(work.size_of)
        make = engine.remote(work.array_of)
        self.anywhere = empty
        self.busy = engine.remote(work.busy)
        at = [{"resources": {f"node{node}": 1}} for node in range(nodes)]
        self.empty_at = [empty.options(**place) for place in at]
        self.take_at = [take.options(**place) for place in at]
        self.make_here = [make.options(**place) for place in at]
        engine.get([task.remote() for task in self.empty_at])

    def stop(self) -> None:
        self.engine.shutdown()
        self.cluster.shutdown()

    def batch(self, count: int, node: int | None = None) -> None:
        submit = (self.anywhere if node is None else self.empty_at[node]).remote
        self.engine.get([submit() for _ in range(count)])

    def batch_busy(self, count: int) -> None:
        submit = self.busy.remote
        self.engine.get([submit() for _ in range(count)])

    def make_at(self, node: int, size_bytes: int) -> Handle:
        handle = self.make_here[node].remote(size_bytes)
        self.engine.wait([handle], fetch_local=False)
        return handle

    def get(self, handle: Handle) -> Any:
        return self.engine.get(handle)

    def send_to(self, nodes: list[int], handle: Handle) -> None:
        self.engine.get([self.take_at[node].remote(handle) for node in nodes])


class DetrayCluster(RayLikeCluster):
    """detray's."""

    name = "detray"

    def pids(self) -> list[int]:
        import os

        roots = [os.getpid(), self.cluster.head_pid]
        roots += [node.pid for node in self.cluster.list_all_nodes()]
        found = {pid for root in roots for pid in measure.descendants(root)}
        return sorted(found.union(roots))


class RayCluster(RayLikeCluster):
    """Ray's, without what only prints."""

    name = "ray"
    driver_options = {"logging_level": "ERROR", "log_to_driver": False}  # noqa: RUF012
