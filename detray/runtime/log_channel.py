"""The drivers' log channels: lines of workers and notes of the service out, requests in.

Frames to a driver: `["log", worker, pid, name, stream, [lines...], ip]` (`ip` of the other node
that the worker is on, "" for this one), `["notify", level, kind, text]`, `["trace", request]` with
the trace as payload, `["answer", request, body]` and `["no", request, reason]`. From the driver:
`["trace", request]`, `["ask", request, topic, arguments...]` and `["shutdown"]`.
Nothing here is recorded: no core hears of it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from detray.ids import ClientID, JobNumber
from detray.runtime.connections import SendQueue
from detray.runtime.frames import UNDECODABLE, FrameError, FrameReader, frame
from detray.runtime.wakeups import WRITE, Wakeups

_CONGESTED_BYTES = 4 << 20
_UNHEARD_MAX = 10
_REQUEST_BYTES_MAX = 1 << 16

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode

Answer = Callable[[Any, str], None]
"""Takes a body and ""; or anything, and why there is no answer. (Any: plain data.)"""


class Requests(Protocol):
    """Who answers what drivers ask on their log channels."""

    def read_trace(self) -> bytes:
        """The recording so far, as the bytes of a trace file."""

    def shut_down(self, client: ClientID) -> None:
        """The driver says good-bye."""

    def ask(self, topic: str, arguments: list[Any], answer: Answer) -> None:
        """A question about the cluster; `answer` is called once. (Any: plain data.)"""


class LogChannel:
    """The service's end of one driver's. Once that has closed its own, all is swallowed."""

    def __init__(
        self,
        client: ClientID,
        sock: socket.socket,
        wakeups: Wakeups,
        *,
        wants_lines: bool,
        requests: Requests,
        on_end: Callable[[ClientID], None] = lambda client: None,
        reader: FrameReader | None = None,
    ) -> None:
        """`reader` holds what the driver has sent already; `answer_first` answers it."""
        sock.setblocking(False)
        self.client = client
        self._sock = sock
        self._wakeups = wakeups
        self._queue = SendQueue(sock, wakeups)
        self._reader = reader or FrameReader(_REQUEST_BYTES_MAX)
        self._wants_lines = wants_lines
        self._requests = requests
        self._on_end = on_end
        self._on_relief: Callable[[], None] | None = None
        wakeups.watch(sock.fileno(), self._on_ready)

    def answer_first(self) -> None:
        """Answer what had been asked before this channel was made."""
        if not self._read_requests():
            self.close()
            self._on_end(self.client)

    def lines(
        self, worker: int, pid: int, name: str, stream: str, lines: list[str], ip: str = ""
    ) -> None:
        """Pass on what a worker printed."""
        if self._wants_lines:
            self._queue.send(frame(_encode([["log", worker, pid, name, stream, lines, ip]])))

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

    def close(self) -> None:
        """The driver has gone."""
        self._queue.give_up()
        self._wakeups.forget(self._sock.fileno())
        self._sock.close()

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
            self.close()
            self._on_end(self.client)
        if self._on_relief is not None and not self.is_congested:
            action, self._on_relief = self._on_relief, None
            action()

    def _receive(self) -> bool:
        try:
            if not self._reader.receive(self._sock):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        return self._read_requests()

    def _read_requests(self) -> bool:
        """False if what came is garbage."""
        try:
            while (parts := self._reader.next()) is not None:
                for request in _decode(parts[0]):
                    self._answer(request)
        except (FrameError, *UNDECODABLE):
            return False
        return True

    def _answer(self, request: list[Any]) -> None:
        match request:
            case ["trace", number]:
                self._queue.send(frame(_encode([["trace", number]]), [self._requests.read_trace()]))
            case ["ask", int() as number, str() as topic, *arguments]:
                self._requests.ask(topic, arguments, self._answerer(number))
            case ["shutdown"]:
                self._requests.shut_down(self.client)

    def _answerer(self, number: int) -> Answer:
        def answer(body: Any, problem: str) -> None:
            reply = ["no", number, problem] if problem else ["answer", number, body]
            self._queue.send(frame(_encode([reply])))

        return answer


class DriverChannels:
    """The log channels of the drivers here, by client, and which job is whose."""

    def __init__(self, forward: Callable[[JobNumber, list[Any]], None] | None = None) -> None:
        """`forward` takes lines of jobs whose drivers are at other nodes (None: there are none)."""
        self._channels: dict[ClientID, LogChannel] = {}
        self._clients: dict[JobNumber, ClientID] = {}
        self._forward = forward
        self._unheard: list[tuple[str, str, str]] = []
        """What there was to tell before a driver had opened its channel."""

    def add(self, channel: LogChannel) -> None:
        """A driver has opened its channel."""
        self._channels[channel.client] = channel
        for level, kind, text in self._unheard:
            channel.notify(level, kind, text)
        self._unheard.clear()

    def remove(self, client: ClientID) -> None:
        """A driver has gone."""
        self._channels.pop(client, None)
        self._clients = {job: c for job, c in self._clients.items() if c != client}

    def note_job(self, client: ClientID, job: JobNumber) -> None:
        """A driver was welcomed to its job."""
        self._clients[job] = client

    def lines(
        self, job: JobNumber, worker: int, pid: int, name: str, stream: str, lines: list[str]
    ) -> None:
        """Pass on what a worker of a job printed here."""
        channel = self._channels.get(self._clients.get(job, ClientID(0)))
        if channel is not None:
            channel.lines(worker, pid, name, stream, lines)
        elif self._forward is not None:
            self._forward(job, [worker, pid, name, stream, lines])

    def lines_from(self, ip: str, job: JobNumber, facts: list[Any]) -> None:
        """Pass on what a worker printed at another node. (Any: as `forward` was given it.)"""
        channel = self._channels.get(self._clients.get(job, ClientID(0)))
        if channel is not None:
            worker, pid, name, stream, lines = facts
            channel.lines(worker, pid, name, stream, lines, ip)

    def notify(self, level: str, kind: str, text: str, client: ClientID | None = None) -> None:
        """Tell one driver something, or all of them."""
        for channel in list(self._channels.values()):
            if client is None or channel.client == client:
                channel.notify(level, kind, text)
        if self._forward is not None:
            print(f"{level}: {kind}: {text}", file=sys.stderr, flush=True)
        elif not self._channels and client is None and len(self._unheard) < _UNHEARD_MAX:
            self._unheard.append((level, kind, text))

    @property
    def is_congested(self) -> bool:
        """True if a driver is far behind with reading: no further lines for now, please."""
        return any(channel.is_congested for channel in self._channels.values())

    def call_when_relieved(self, action: Callable[[], None]) -> None:
        """Call `action` once, as soon as a driver has caught up."""
        for channel in self._channels.values():
            if channel.is_congested:
                channel.call_when_relieved(action)
                return
        action()

    def flush_to_end(self, timeout_s: float) -> None:
        """Send what is left, blocking, as long as the drivers read."""
        for channel in self._channels.values():
            channel.flush_to_end(timeout_s)
