"""Callbacks for objects that become available: futures and `await`.

While callbacks are pending, one thread waits on behalf of all of them. It reads the socket when
nobody else does, like any other thread that waits. It ends when none is left: a thread that waited
for ever would be the leader for ever, and every `get` would pay for being handed its answer.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detray.core.tickets import Ticket, TicketGroup
from detray.ids import ObjectID

if TYPE_CHECKING:
    from detray.runtime.client import Client

Callback = Callable[..., object]


class Completions:
    """Calls back when objects are done."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._group = TicketGroup()
        self._lock = allocate_lock()
        self._pending: dict[Ticket, tuple[ObjectID, Callback]] = {}
        self._running = False

    def add(self, item: ObjectID, callback: Callback) -> None:
        """Call `callback(value)`, or `callback(None, error)`, once `item` is done."""
        with self._lock:
            ticket = self._client.getter.begin(item, self._group)
            self._pending[ticket] = (item, callback)
            if not self._running:
                self._running = True
                start_new_thread(self._run, ())

    def _run(self) -> None:
        client = self._client
        while True:
            client.connection.wait(self._group)
            with client.lock:
                finished = self._group.take()
            for ticket in finished:
                with self._lock:
                    item, callback = self._pending.pop(ticket)
                self._deliver(ticket, item, callback)
            with self._lock:
                if not self._pending:
                    self._running = False
                    return

    def _deliver(self, ticket: Ticket, item: ObjectID, callback: Callback) -> None:
        value: Any = None
        error: Exception | None = None
        try:
            value = self._client.getter.finish(ticket, item)
        except Exception as problem:
            error = problem
        try:
            if error is None:
                callback(value)
            else:
                callback(None, error)
        except Exception:
            import traceback

            traceback.print_exc()
