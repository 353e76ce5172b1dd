"""Interrupts in a worker: which attempt a SIGINT is for, and whether it may be raised now.

The service writes task (16 bytes) and attempt (4 bytes, big endian) into the worker's pipe and
sends SIGINT. The handler runs on the main thread, between any two bytecodes; see `execution.py` for
what it may hit.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from detray.core.run_queue import RunQueue
from detray.ids import TASK_ID_BYTES, TaskID
from detray.runtime.shield import Shield

_ENTRY_BYTES = TASK_ID_BYTES + 4

Key = tuple[TaskID, int]


class TaskInterrupted(KeyboardInterrupt):
    """detray.cancel() asked this run to stop. User code may catch it, as it may Ctrl-C."""


class Interrupts:
    """Raises `TaskInterrupted` in the attempt that is meant, or remembers it until it begins."""

    def __init__(self, pipe_fd: int, queue: RunQueue, shield: Shield) -> None:
        os.set_blocking(pipe_fd, False)
        self._pipe_fd = pipe_fd
        self._queue = queue
        self._shield = shield
        self.exposed: Key | None = None
        """The attempt whose user code is on the stack: from just before it is called. Whoever sets
        it looks into the queue's `interrupts` next; raising takes it back."""
        self._rest = b""
        signal.signal(signal.SIGINT, self._on_signal)

    def raise_if_meant(self) -> None:
        """Raise TaskInterrupted if the exposed attempt is to be cancelled."""
        key = self.exposed
        if key is not None and self._queue.forget_interrupt(*key):
            self.exposed = None
            raise TaskInterrupted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._drain()
        if self.exposed not in self._queue.interrupts:
            return
        if self._shield.holds_back:
            self._shield.note(self.raise_if_meant)
        else:
            self.raise_if_meant()

    def _drain(self) -> None:
        """Note every attempt named in the pipe."""
        try:
            data = self._rest + os.read(self._pipe_fd, 1 << 16)
        except BlockingIOError:
            return
        while len(data) >= _ENTRY_BYTES:
            entry, data = data[:_ENTRY_BYTES], data[_ENTRY_BYTES:]
            attempt = int.from_bytes(entry[TASK_ID_BYTES:], "big")
            self._queue.interrupt(TaskID(entry[:TASK_ID_BYTES]), attempt)
        self._rest = data
