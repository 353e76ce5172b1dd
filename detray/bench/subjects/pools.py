"""The pools of processes: no graph, no store, little overhead."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from typing import Any

from detray.bench import work
from detray.bench.subjects.subject import Subject


class StandardPool(Subject):
    """`multiprocessing.Pool.apply_async`."""

    name = "pool"

    def start(self, workers: int, **options: Any) -> None:
        self.pool = multiprocessing.Pool(workers)

    def stop(self) -> None:
        self.pool.terminate()
        self.pool.join()

    def one(self) -> None:
        self.pool.apply_async(work.nothing).get()

    def batch(self, count: int) -> None:
        submit = self.pool.apply_async
        for handle in [submit(work.nothing) for _ in range(count)]:
            handle.get()

    def wait_all(self, count: int) -> None:
        submit = self.pool.apply_async
        for handle in [submit(work.nothing) for _ in range(count)]:
            handle.wait()


class StandardExecutor(Subject):
    """`concurrent.futures.ProcessPoolExecutor`, and whatever has its interface."""

    name = "executor"

    def start(self, workers: int, **options: Any) -> None:
        self.pool: Any = self._make(workers)
        self.one()

    def _make(self, workers: int) -> Any:  # loky's class is not a subclass of the standard one
        return concurrent.futures.ProcessPoolExecutor(workers)

    def stop(self) -> None:
        self.pool.shutdown()

    def one(self) -> None:
        self.pool.submit(work.nothing).result()

    def batch(self, count: int) -> None:
        submit = self.pool.submit
        for handle in [submit(work.nothing) for _ in range(count)]:
            handle.result()

    def wait_all(self, count: int) -> None:
        submit = self.pool.submit
        concurrent.futures.wait([submit(work.nothing) for _ in range(count)])

    def wait_each(self, count: int) -> None:
        submit = self.pool.submit
        for _ in concurrent.futures.as_completed([submit(work.nothing) for _ in range(count)]):
            pass


class Loky(StandardExecutor):
    """joblib's executor, a task a call (joblib.Parallel would put many calls into one task)."""

    name = "loky"

    def _make(self, workers: int) -> Any:
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(max_workers=workers, timeout=None)
