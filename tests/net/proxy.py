"""A TCP proxy that does to a connection what networks do: cut, freeze, delay, break bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from time import monotonic_ns

from detray.runtime.net.address import Address
from detray.runtime.wakeups import READ, WRITE, Wakeups

_CHUNK_BYTES = 1 << 16
_HELD_BYTES_MAX = 1 << 18


class _Way:
    """One direction of one connection: what was read and not written yet."""

    def __init__(self, proxy: Proxy, source: socket.socket, target: socket.socket) -> None:
        self.proxy = proxy
        self.source = source
        self.target = target
        self.held = bytearray()
        self.due_ns = 0
        self.is_over = False

    def pump(self) -> None:
        """Carry on what can be carried now."""
        proxy = self.proxy
        if proxy.is_frozen or self.source.fileno() < 0 or self.target.fileno() < 0:
            return
        if not self.is_over and len(self.held) < _HELD_BYTES_MAX:
            try:
                data = self.source.recv(_CHUNK_BYTES)
            except BlockingIOError:
                data = None
            except OSError:
                proxy.drop(self)
                return
            if data == b"":
                self.is_over = True
            elif data is not None:
                self.held += proxy.damage(data)
                if not self.due_ns and proxy.delay_ms:
                    self.due_ns = monotonic_ns() + proxy.delay_ms * 1_000_000
                    proxy.loop.call_at(self.due_ns, self.pump)
        if proxy.is_dropped(self):
            return
        if monotonic_ns() >= self.due_ns:
            self.due_ns = 0
            self._write()

    def _write(self) -> None:
        while self.held:
            try:
                sent = self.target.send(self.held)
            except BlockingIOError:
                break
            except OSError:
                self.proxy.drop(self)
                return
            del self.held[:sent]
        if self.is_over and not self.held:
            try:
                self.target.shutdown(socket.SHUT_WR)
            except OSError:
                pass


class Proxy:
    """Listens, and carries each connection to `target`."""

    def __init__(self, loop: Wakeups, target: Address) -> None:
        self.loop = loop
        self.target = target
        self.is_frozen = False
        self.is_refusing = False
        self.delay_ms = 0
        self.flips: set[int] = set()
        """Numbers of bytes, counted over everything carried, that arrive broken."""
        self.cut_after = -1
        """Cut everything when so many more bytes came; -1: never."""
        self.carried = 0
        self.cuts = 0
        self.on_cut: Callable[[], None] = lambda: None
        self._pairs: list[tuple[_Way, _Way]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        loop.watch(self._listener.fileno(), self._accept)

    def damage(self, data: bytes) -> bytes:
        """Count bytes, and break those that are due."""
        start, self.carried = self.carried, self.carried + len(data)
        hit = [n for n in self.flips if start <= n < self.carried]
        if hit:
            broken = bytearray(data)
            for number in hit:
                broken[number - start] ^= 0x10
                self.flips.discard(number)
            data = bytes(broken)
        if self.cut_after >= 0:
            if len(data) >= self.cut_after:
                data = data[: self.cut_after]
                self.cut_after = 0
            else:
                self.cut_after -= len(data)
        return data

    def is_dropped(self, way: _Way) -> bool:
        """Carry out a cut that is due, in the middle of whatever it hits."""
        if self.cut_after != 0:
            return False
        self.cut_after = -1
        way._write()
        self.cut(is_reset=False)
        return True

    def cut(self, *, is_reset: bool = True) -> None:
        """End all connections, as a lost route or a dying machine does."""
        self.cuts += 1
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for way in pair:
                self._close(way.source, is_reset)
        self.on_cut()

    def freeze(self) -> None:
        """Carry nothing, and end nothing."""
        self.is_frozen = True
        for pair in self._pairs:
            for way in pair:
                self.loop.change(way.source.fileno(), 0)

    def thaw(self) -> None:
        """Go on."""
        self.is_frozen = False
        for pair in self._pairs:
            for way in pair:
                self.loop.change(way.source.fileno(), READ | WRITE)
                way.pump()

    def drop(self, way: _Way) -> None:
        """A connection ended badly: so does its other half."""
        for pair in [pair for pair in self._pairs if way in pair]:
            self._pairs.remove(pair)
            for each in pair:
                self._close(each.source, is_reset=True)

    def close(self) -> None:
        """End everything."""
        self.cut()
        self.loop.forget(self._listener.fileno())
        self._listener.close()

    def _accept(self, mask: int) -> None:
        sock, _ = self._listener.accept()
        if self.is_refusing:
            self._close(sock, is_reset=True)
            return
        sock.setblocking(False)
        try:
            other = socket.create_connection(self.target)
        except OSError:
            self._close(sock, is_reset=True)
            return
        other.setblocking(False)
        pair = (_Way(self, sock, other), _Way(self, other, sock))
        self._pairs.append(pair)
        for way in pair:
            self.loop.watch(way.source.fileno(), lambda mask, pair=pair: self._on_ready(pair))

    def _on_ready(self, pair: tuple[_Way, _Way]) -> None:
        for way in pair:
            way.pump()
        if all(way.is_over and not way.held for way in pair):
            self.drop(pair[0])
        for way, back in (pair, pair[::-1]):
            if way.source.fileno() >= 0 and not self.is_frozen:
                may_read = not way.is_over and len(way.held) < _HELD_BYTES_MAX
                must_write = bool(back.held) and not back.due_ns
                mask = (READ if may_read else 0) | (WRITE if must_write else 0)
                self.loop.change(way.source.fileno(), mask)

    def _close(self, sock: socket.socket, is_reset: bool) -> None:
        if sock.fileno() < 0:
            return
        if is_reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.loop.forget(sock.fileno())
        sock.close()
