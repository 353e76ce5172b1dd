"""Dask's LocalCluster: a node is a worker process, and the driver's process has none."""

from __future__ import annotations

from typing import Any

from detray.bench import work
from detray.bench.clusters.subject import ClusterSubject, Handle


class DaskCluster(ClusterSubject):
    """Workers with one thread for each slot; the scheduler runs in the driver's process."""

    def start(self, nodes: int, *, slots: int = 1, store_bytes: int = 1 << 28) -> None:
        from distributed import Client, LocalCluster

        self.cluster: Any = LocalCluster(
            n_workers=nodes, threads_per_worker=slots, processes=True, dashboard_address=None,
            memory_limit=0,
        )  # fmt: skip
        self.client: Any = Client(self.cluster)
        self.client.wait_for_workers(nodes)
        self.workers = sorted(self.client.scheduler_info(n_workers=-1)["workers"])

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()

    def batch(self, count: int, node: int | None = None) -> None:
        submit = self.client.submit
        where = None if node is None else [self.workers[node]]
        self.client.gather([submit(work.nothing, pure=False, workers=where) for _ in range(count)])

    def batch_busy(self, count: int) -> None:
        submit = self.client.submit
        self.client.gather([submit(work.busy, pure=False) for _ in range(count)])

    def make_at(self, node: int, size_bytes: int) -> Handle:
        from distributed import wait

        handle = self.client.submit(
            work.array_of, size_bytes, pure=False, workers=[self.workers[node]]
        )
        wait([handle])
        return handle

    def get(self, handle: Handle) -> Any:
        return handle.result()

    def send_to(self, nodes: list[int], handle: Handle) -> None:
        submit = self.client.submit
        self.client.gather(
            [submit(work.size_of, handle, pure=False, workers=[self.workers[n]]) for n in nodes]
        )
