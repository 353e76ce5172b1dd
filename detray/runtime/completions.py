"""Callbacks for objects that become available: futures and `await`.

One thread, started with the first callback, waits on behalf of all of them. It reads the socket
when nobody else does, like any other thread that waits, and calls the callbacks.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from detray.ids import ObjectID

if TYPE_CHECKING:
    from detray.runtime.client import Client

Callback = Callable[..., object]


class Completions:
    """Calls back when objects are done."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = allocate_lock()
        self._new: deque[tuple[ObjectID, Callback]] = deque()
        self._running = False

    def add(self, item: ObjectID, callback: Callback) -> None:
        """Call `callback(value)`, or `callback(None, error)`, once `item` is done."""
        with self._lock:
            self._new.append((item, callback))
            if not self._running:
                self._running = True
                start_new_thread(self._run, ())

    def _run(self) -> None:
        waiting: dict[ObjectID, list[Callback]] = {}
        while True:
            with self._lock:
                while self._new:
                    item, callback = self._new.popleft()
                    waiting.setdefault(item, []).append(callback)
                if not waiting:
                    self._running = False
                    return
            for item in self._done_of(list(waiting)):
                self._deliver(item, waiting.pop(item))

    def _done_of(self, items: list[ObjectID]) -> list[ObjectID]:
        # A short wait, so that what was added meanwhile joins in.
        try:
            ready = self._client.wait(items, 1, 0.02, True)
        except Exception:
            return items  # The service is gone: reading each says so to its callback.
        return [item for item in items if item in ready]

    def _deliver(self, item: ObjectID, callbacks: list[Callback]) -> None:
        value, error = None, None
        try:
            value = self._client.get_one(item)
        except Exception as problem:
            error = problem
        for callback in callbacks:
            try:
                if error is None:
                    callback(value)
                else:
                    callback(None, error)
            except Exception:
                import traceback

                traceback.print_exc()
