"""A proved connection of a link: frames in, frames out, until it ends."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import msgspec

from detray.core.payloads import INCOMING
from detray.core.session import Frame
from detray.runtime.frames import UNDECODABLE
from detray.runtime.net.framing import (
    ASIDE,
    BLOCKS,
    CHUNK,
    GOODBYE,
    MESSAGES,
    Intake,
    LinkGarbage,
    decode_aside,
)
from detray.runtime.net.identity import Refusal
from detray.runtime.net.outlet import SESSION_HEAD, Outlet
from detray.runtime.net.sockets import PlainSocket
from detray.runtime.wakeups import READ, WRITE, Wakeups

if TYPE_CHECKING:
    from detray.runtime.net.link import Link

InMessage = tuple[Any, list[bytes]]
"""A message and the slices of its payload. (Any: of the union that the link accepts.)"""
_READ_BYTES_MAX = 1 << 22
"""Read in one wake-up, so that others get their turn."""
_LINGER_NS = 1_000_000_000

_decode_refusal = msgspec.msgpack.Decoder(Refusal).decode


class Channel:
    """One connection of one link. The newest one counts; older ones are closed."""

    __slots__ = ("_intake", "_last", "_link", "_sock", "_wakeups", "began_ns", "heard_ns", "host",
                 "is_open", "outlet")  # fmt: skip

    def __init__(self, link: Link, sock: PlainSocket, wakeups: Wakeups, host: str) -> None:
        self._link = link
        self._sock = sock
        self._wakeups = wakeups
        self._intake = Intake()
        self.outlet = Outlet(sock, link.blocks, self._want_write)
        self.host = host
        """The peer's address, for notes."""
        self._last = memoryview(b"")
        self.is_open = True
        self.began_ns = self.heard_ns = monotonic_ns()
        """`heard_ns`: when bytes last came."""
        wakeups.watch(sock.fileno(), self._on_ready)

    def begin(self, rest: bytes) -> None:
        """Take what came with the last greeting, and what a TLS layer holds."""
        if rest:
            self._intake.feed(rest)
        self._guard(self._dispatch)
        if self.is_open and self._sock.hides_bytes:
            self._on_ready(READ)

    def divert(self, scratch: memoryview) -> None:
        """See `Intake.divert`."""
        self._intake.divert(scratch)

    def close(self) -> None:
        """End it, now and silently. What the kernel has taken is still sent."""
        if self.is_open:
            self.is_open = False
            self._wakeups.forget(self._sock.fileno())
            self._sock.close()
            self._intake.drop()
            self.outlet.end()

    def close_after(self, frame: bytes) -> None:
        """End it after one last frame, which has a second. Nothing else is sent or taken."""
        if not self.is_open:
            return
        self.is_open = False
        fd = self._sock.fileno()
        self._wakeups.forget(fd)
        self._intake.drop()
        self._last = memoryview(self.outlet.last_bytes(frame))
        self.outlet.end()
        self._wakeups.watch(fd, self._linger, READ | WRITE)
        self._wakeups.call_at(monotonic_ns() + _LINGER_NS, self.end_linger)

    # ----------------------------------------------------------------------------- events

    def _on_ready(self, mask: int) -> None:
        if mask & WRITE:
            self.outlet.flush()
        if mask & ~WRITE and self.is_open:
            self._guard(self._receive)
            if self._sock.hides_bytes and self.is_open and self.outlet.is_waiting:
                self.outlet.flush()  # TLS may have waited for bytes to send

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except LinkGarbage as error:
            self._link.on_garbage(self, str(error))

    def _lose(self, reason: str) -> None:
        if self.is_open:
            self._link.on_lost(self, reason)

    def _receive(self) -> None:
        intake, sock = self._intake, self._sock
        budget = _READ_BYTES_MAX
        while self.is_open and budget > 0:
            room = intake.room()
            size = len(room)
            try:
                count = sock.receive_into(room)
            except OSError as error:
                del room
                self._lose(error.strerror or str(error))
                return
            del room  # a view of somebody's memory must be gone when they are told
            if count is None:
                return
            if count == 0:
                self._lose("the peer closed it")
                return
            self.heard_ns = monotonic_ns()
            intake.took(count)
            self._dispatch()
            budget -= count
            if count < size and not sock.hides_bytes:
                return
        if self.is_open and sock.hides_bytes:
            # What TLS has read already makes no descriptor readable.
            self._wakeups.call_at(monotonic_ns(), self._read_on)

    def _read_on(self) -> None:
        if self.is_open:
            self._on_ready(READ)

    def _dispatch(self) -> None:
        intake, link = self._intake, self._link
        if intake.is_redirected:
            return
        link.blocks.chunk_filled()
        while self.is_open:
            item = intake.next()
            if item is None:
                return
            kind, body = item
            if kind == MESSAGES:
                self._on_messages(body)
            elif kind == CHUNK:
                if intake.redirect(link.blocks.chunk_announced(body)):
                    return
                link.blocks.chunk_filled()
            elif kind == ASIDE:
                link.on_aside(decode_aside(body))
            elif kind == BLOCKS:
                link.blocks.news(body)
            elif kind == GOODBYE:
                self._on_goodbye(body)

    def _on_messages(self, body: memoryview) -> None:
        if len(body) < SESSION_HEAD.size:
            raise LinkGarbage("a session frame that says less than it must")
        first, ack, meta_bytes = SESSION_HEAD.unpack_from(body)
        stop = SESSION_HEAD.size + meta_bytes
        if stop > len(body):
            raise LinkGarbage("a session frame that is shorter than it says")
        meta = bytes(body[SESSION_HEAD.size : stop])
        try:
            messages = self._link.decode(meta)
        except UNDECODABLE as error:
            raise LinkGarbage(f"a message that cannot be decoded: {error}") from None
        values = _cut_payload(messages, body[stop:])
        frame: Frame[InMessage] = Frame(first, ack, tuple(zip(messages, values, strict=True)))
        self._link.on_frame(frame, meta, values)

    def _on_goodbye(self, body: memoryview) -> None:
        try:
            refusal = _decode_refusal(body)
        except UNDECODABLE:
            raise LinkGarbage("a goodbye that cannot be decoded") from None
        self._link.on_goodbye(self, refusal)

    def _want_write(self, is_wanted: bool) -> None:
        self._wakeups.change(self._sock.fileno(), READ | WRITE if is_wanted else READ)

    # --------------------------------------------------------------------------- lingering

    def _linger(self, mask: int) -> None:
        """Send the rest, then read until the peer has it: an unread byte would turn the close into
        a reset, and the kernel would throw away what it has not sent.
        """
        scratch = memoryview(bytearray(1 << 16))
        try:
            if self._last:
                self._last = self._last[self._sock.send(self._last) :]
                if not self._last:
                    self._sock.finish_sending()
                    self._wakeups.change(self._sock.fileno(), READ)
            if self._sock.receive_into(scratch) != 0:
                return
        except OSError:
            pass
        self.end_linger()

    def end_linger(self) -> None:
        """Close what `close_after` left open."""
        fd = self._sock.fileno()
        if fd >= 0:
            self._wakeups.forget(fd)
            self._sock.close()
            self._link.on_linger_end(self)


def _cut_payload(messages: list[Any], payload: memoryview) -> list[list[bytes]]:
    """The slices that each message announces. Raises LinkGarbage. (Any: of the link's union.)"""
    start, size = 0, len(payload)
    values: list[list[bytes]] = []
    for message in messages:
        keys_of = INCOMING.get(type(message))
        slices: list[bytes] = []
        if keys_of is not None:
            try:
                keys = keys_of(message)
            except OverflowError:
                raise LinkGarbage(f"a number that none of ours has: {message!r:.200}") from None
            for _, size_bytes in keys:
                end = start + size_bytes
                if size_bytes < 0 or end > size:
                    raise LinkGarbage("messages announce more payload than came, or less than none")
                slices.append(bytes(payload[start:end]))
                start = end
        values.append(slices)
    if start != size:
        raise LinkGarbage(f"messages announce {start} bytes of payload, {size} came")
    return values
