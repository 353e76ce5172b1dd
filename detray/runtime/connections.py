"""Streams to clients: what they say becomes stimuli, what they are told never blocks the loop.

Rules
-----
- A client that sends garbage, a lie about who it is, or more than it may, is cut off (`Garbage`);
  nothing of the frame in question has any effect.
- Nothing is unpickled here.
- A peer that does not read costs memory up to `UNREAD_BYTES_MAX`, then its connection.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from detray.core.payloads import INCOMING
from detray.core.stimuli import ClientStimulus, LocalStimulus, StatusRequested
from detray.ids import ClientID
from detray.runtime.frames import UNDECODABLE, FrameError, FrameReader, joined
from detray.runtime.tokens import TokenPipe
from detray.runtime.wakeups import READ, WRITE, Wakeups

FRAME_BYTES_MAX = 1 << 30
UNREAD_BYTES_MAX = 1 << 30
_DRAIN_READS_MAX = 1 << 13
"""A bound for reading a dead peer's socket to its end; the kernel holds far less."""

_COPIED_BYTES_MAX = 1 << 16

_decode = msgspec.msgpack.Decoder(list[ClientStimulus]).decode

Tap = Callable[[bytes, list[Any], bytes | memoryview], None]
"""Sees an array of messages, the same decoded (Any: of clients or nodes), and their payload."""


class Garbage(Exception):
    """What the peer sent cannot be meant for us; the argument says why, in one line."""


class Inbox:
    """What arrived since the last step: client messages first, then facts of our own."""

    __slots__ = ("facts", "metas", "said", "tap")

    def __init__(self) -> None:
        self.tap: Tap | None = None
        """Is shown all that arrives: the recorder of payloads."""
        self.metas: list[bytes] = []
        """The encoded arrays of messages, for the recorder."""
        self.said: list[ClientStimulus] = []
        """The same messages, decoded."""
        self.facts: list[LocalStimulus] = []

    @property
    def is_empty(self) -> bool:
        """True if a step would only look at its deadlines."""
        return not self.said and not self.facts

    def take(self) -> tuple[list[bytes], list[ClientStimulus], list[LocalStimulus]]:
        """All of it; the inbox is empty afterwards."""
        taken = self.metas, self.said, self.facts
        self.metas, self.said, self.facts = [], [], []
        return taken


class _Unsent:
    """A frame, or what is left of one, and how many runs wait for it to be out in full."""

    __slots__ = ("data", "generation", "runs")

    def __init__(self, data: memoryview, runs: int, generation: int) -> None:
        self.data = data
        self.runs = runs
        self.generation = generation


class SendQueue:
    """Frames on their way to one peer.

    With `tokens` (workers) the token of a run is granted when its frame was written in full, not
    before: until then the run is `withheld` and can be taken back without asking the kernel.
    """

    __slots__ = ("_lost_runs", "_sock", "_tokens", "_unsent", "_wakeups", "is_broken", "size_bytes")

    def __init__(
        self, sock: socket.socket, wakeups: Wakeups, tokens: TokenPipe | None = None
    ) -> None:
        self._sock = sock
        self._wakeups = wakeups
        self._tokens = tokens
        self._unsent: deque[_Unsent] = deque()
        self._lost_runs = 0
        self.size_bytes = 0
        """Bytes accepted and not yet taken by the kernel."""
        self.is_broken = False
        """True once the peer cannot be reached any more; what is sent then goes nowhere."""

    @property
    def withheld(self) -> int:
        """Runs whose tokens were never granted."""
        return self._lost_runs + sum(item.runs for item in self._unsent)

    def send(self, data: bytes, runs: int = 0) -> None:
        """Send a frame that carries `runs` runs, now or when the peer reads."""
        sent = 0
        if not self._unsent and not self.is_broken:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.give_up()
        if sent == len(data):
            if runs:
                tokens = self._granter
                tokens.grant(runs, tokens.generation)
        elif self.is_broken:
            self._lost_runs += runs
        else:
            self._keep(memoryview(data)[sent:], runs)

    def flush(self) -> None:
        """Go on sending; to be called when the socket takes bytes again."""
        unsent = self._unsent
        while unsent:
            item = unsent[0]
            try:
                sent = self._sock.send(item.data)
            except BlockingIOError:
                return
            except OSError:
                self.give_up()
                return
            self.size_bytes -= sent
            if sent < len(item.data):
                item.data = item.data[sent:]
                return
            unsent.popleft()
            if item.runs:
                self._granter.grant(item.runs, item.generation)
        self._wakeups.change(self._sock.fileno(), READ)

    def take_back(self, count: int) -> int:
        """Take back up to `count` withheld runs, from the last; how many these were."""
        taken = 0
        for item in reversed(self._unsent):
            part = min(item.runs, count - taken)
            item.runs -= part
            taken += part
        return taken

    @property
    def _granter(self) -> TokenPipe:
        assert self._tokens is not None, "only workers are sent runs"
        return self._tokens

    def _keep(self, data: memoryview, runs: int) -> None:
        if not self._unsent:
            self._wakeups.change(self._sock.fileno(), READ | WRITE)
        generation = self._tokens.generation if self._tokens else 0
        self._unsent.append(_Unsent(data, runs, generation))
        self.size_bytes += len(data)

    def give_up(self) -> None:
        """The peer hung up. Its end shows when its socket is read; until then we only swallow."""
        self._lost_runs = self.withheld
        self._unsent.clear()
        self.size_bytes = 0
        self.is_broken = True


class ClientConnection:
    """A driver's, worker's or observer's stream."""

    __slots__ = ("_payloads", "_reader", "client", "is_observer", "queue", "sock")

    def __init__(
        self,
        client: ClientID,
        sock: socket.socket,
        wakeups: Wakeups,
        payloads: dict[bytes, bytes],
        *,
        tokens: TokenPipe | None = None,
        is_observer: bool = False,
    ) -> None:
        self.client = client
        self.sock = sock
        self.queue = SendQueue(sock, wakeups, tokens)
        self._reader = FrameReader(FRAME_BYTES_MAX)
        self._payloads = payloads
        self.is_observer = is_observer

    def receive(self, inbox: Inbox) -> bool:
        """Read once; False at the end of the stream. Raises Garbage."""
        return self._read(inbox) != 0

    def drain(self, inbox: Inbox) -> bool:
        """Read all that is there; False at the end of the stream. Raises Garbage."""
        for _ in range(_DRAIN_READS_MAX):
            count = self._read(inbox)
            if not count:
                return count is None
        return True

    def _read(self, inbox: Inbox) -> int | None:
        """Bytes read, 0 at the end of the stream, None if there are none now."""
        reader = self._reader
        try:
            count = reader.receive(self.sock)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        try:
            metas, payloads = reader.take_all()
            if len(metas) == 1:
                self._take(bytes(metas[0]), payloads[0], inbox)
            elif metas:
                self._take_several(metas, payloads, inbox)
        except FrameError as error:
            raise Garbage(str(error)) from None
        return count

    def _take_several(
        self, metas: list[memoryview], payloads: list[memoryview], inbox: Inbox
    ) -> None:
        """Small frames that came together are decoded, checked and recorded as one."""
        try:
            self._take(joined(metas), b"".join(payloads), inbox)
        except (Garbage, FrameError):
            # One of them is at fault: those before it count.
            for meta, payload in zip(metas, payloads, strict=True):
                self._take(bytes(meta), payload, inbox)

    def _take(self, meta: bytes, payload: bytes | memoryview, inbox: Inbox) -> None:
        try:
            messages = _decode(meta)
        except UNDECODABLE as error:
            raise Garbage(f"undecodable message: {error}") from None
        wanted = self._check(messages, len(payload))
        if len(wanted) == 1:
            key = wanted[0][0]
            if key not in self._payloads:
                self._payloads[key] = bytes(payload)
        elif wanted:
            self._keep(wanted, payload)
        if inbox.tap is not None:
            inbox.tap(meta, messages, payload)
        inbox.metas.append(meta)
        inbox.said += messages

    def _check(self, messages: list[ClientStimulus], payload_bytes: int) -> list[tuple[bytes, int]]:
        """The keys and sizes of the payload's slices; raises Garbage before anything happened."""
        client = self.client
        wanted: list[tuple[bytes, int]] = []
        keys_of_type = INCOMING.get
        for message in messages:
            if message.client != client:
                raise Garbage(f"client {client} sent a message in the name of {message.client}")
            keys_of = keys_of_type(type(message))
            if keys_of is not None:
                try:
                    wanted += keys_of(message)
                except OverflowError:
                    raise Garbage(f"a number that none of ours has: {message!r:.200}") from None
        if self.is_observer and any(type(message) is not StatusRequested for message in messages):
            raise Garbage("an observer may only ask for status")
        if len(wanted) == 1 and wanted[0][1] == payload_bytes:
            return wanted
        announced = 0
        for _, size_bytes in wanted:
            if size_bytes < 0:
                raise Garbage("a message announces less than no payload")
            announced += size_bytes
        if announced != payload_bytes:
            raise Garbage(f"messages announce {announced} bytes of payload, {payload_bytes} came")
        return wanted

    def _keep(self, wanted: list[tuple[bytes, int]], payload: bytes | memoryview) -> None:
        """Store the slices under their keys; what is there already stays."""
        payloads = self._payloads
        # Cutting bytes is three times as fast as cutting a view; large ones are not copied twice.
        data = bytes(payload) if len(payload) <= _COPIED_BYTES_MAX else payload
        start = 0
        for key, size_bytes in wanted:
            end = start + size_bytes
            if key not in payloads:
                payloads[key] = bytes(data[start:end])
            start = end
