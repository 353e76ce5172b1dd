"""Dask distributed on one machine: its scheduler runs in the driver's process."""

from __future__ import annotations

from typing import Any

from detray.bench import work
from detray.bench.subjects.subject import Handle, Subject


def _parent(children: int) -> int:
    from distributed import worker_client

    with worker_client() as client:
        return len(
            client.gather([client.submit(work.nothing, pure=False) for _ in range(children)])
        )


class Dask(Subject):
    """A LocalCluster with one thread in each worker process."""

    name = "dask"

    def start(self, workers: int, **options: Any) -> None:
        from distributed import Client, LocalCluster

        self.cluster: Any = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self.client: Any = Client(self.cluster)

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()

    def one(self) -> None:
        self.client.submit(work.nothing, pure=False).result()

    def _submit(self, count: int) -> list[Handle]:
        submit = self.client.submit
        return [submit(work.nothing, pure=False) for _ in range(count)]

    def batch(self, count: int) -> None:
        self.client.gather(self._submit(count))

    def chain(self, length: int) -> None:
        link = self.client.submit(work.echo, 0, pure=False)
        for _ in range(length - 1):
            link = self.client.submit(work.echo, link, pure=False)
        link.result()

    def wait_all(self, count: int) -> None:
        from distributed import wait

        wait(self._submit(count))

    def wait_each(self, count: int) -> None:
        from distributed import as_completed

        for _ in as_completed(self._submit(count)):
            pass

    def fan_in(self, count: int) -> None:
        submit = self.client.submit
        handles = [submit(work.echo, index, pure=False) for index in range(count)]
        submit(work.count_list, handles, pure=False).result()

    def nested(self, parents: int, children: int) -> None:
        submit = self.client.submit
        self.client.gather([submit(_parent, children, pure=False) for _ in range(parents)])

    def results(self, count: int) -> list[Handle]:
        from distributed import wait

        handles = [self.client.submit(work.echo, index, pure=False) for index in range(count)]
        wait(handles)
        return handles

    def put(self, value: object) -> Handle:
        return self.client.scatter(value, hash=False)

    def get(self, handle: Handle) -> object:
        value: object = handle.result()
        return value
