"""The driver's log channel: lines of workers and notes of the service out, requests in.

Frames to the driver: `["log", worker, pid, name, stream, [lines...]]`,
`["notify", level, kind, text]`, and `["trace", request]` with the trace as payload. From the
driver: `["trace", request]` and `["shutdown"]`.
Nothing here is recorded: no core hears of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import msgspec

from detray.runtime.connections import SendQueue
from detray.runtime.frames import FrameError, FrameReader, frame
from detray.runtime.wakeups import WRITE, Wakeups

_CONGESTED_BYTES = 4 << 20
_REQUEST_BYTES_MAX = 1 << 16

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode


class LogChannel:
    """The service's end. Once the driver has closed its own, everything is swallowed."""

    def __init__(
        self,
        sock: socket.socket,
        wakeups: Wakeups,
        *,
        wants_lines: bool,
        read_trace: Callable[[], bytes],
        shut_down: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._wakeups = wakeups
        self._queue = SendQueue(sock, wakeups)
        self._reader = FrameReader(_REQUEST_BYTES_MAX)
        self._wants_lines = wants_lines
        self._read_trace = read_trace
        self._shut_down = shut_down
        self._on_relief: Callable[[], None] | None = None
        wakeups.watch(sock.fileno(), self._on_ready)

    def lines(self, worker: int, pid: int, name: str, stream: str, lines: list[str]) -> None:
        """Pass on what a worker printed."""
        if self._wants_lines:
            self._queue.send(frame(_encode([["log", worker, pid, name, stream, lines]])))

    def notify(self, level: str, kind: str, text: str) -> None:
        """Tell the user something; `level` is "info", "warning" or "error"."""
        self._queue.send(frame(_encode([["notify", level, kind, text]])))

    @property
    def is_congested(self) -> bool:
        """True if the driver is far behind with reading: no further lines for now, please."""
        return self._queue.size_bytes > _CONGESTED_BYTES

    def call_when_relieved(self, action: Callable[[], None]) -> None:
        """Call `action` once, as soon as the driver has caught up."""
        self._on_relief = action

    def flush_to_end(self, timeout_s: float) -> None:
        """Send what is left, blocking, as long as the driver reads."""
        self._sock.settimeout(timeout_s)
        self._queue.flush()
        self._sock.close()

    def _on_ready(self, mask: int) -> None:
        if mask & WRITE:
            self._queue.flush()
        if mask & ~WRITE and not self._receive():
            # Its end: nobody reads any more either.
            self._queue.give_up()
            self._wakeups.forget(self._sock.fileno())
        if self._on_relief is not None and not self.is_congested:
            action, self._on_relief = self._on_relief, None
            action()

    def _receive(self) -> bool:
        try:
            if not self._reader.receive(self._sock):
                return False
            while (parts := self._reader.next()) is not None:
                for request in _decode(parts[0]):
                    self._answer(request)
        except BlockingIOError:
            return True
        except (OSError, FrameError, msgspec.MsgspecError):
            return False
        return True

    def _answer(self, request: list[Any]) -> None:
        if request[:1] == ["trace"]:
            self._queue.send(frame(_encode([request]), [self._read_trace()]))
        elif request == ["shutdown"]:
            self._shut_down()
