"""What a link between two processes does, beside plain sockets: `python -m detray.bench.links`.

Two processes of this machine, loopback between them. A block goes from the memory of one into the
memory of the other: with `socket.send` and `recv_into` alone, and over a link, which adds frames,
digests and the loop. A round trip is a message of a core each way, handled and acknowledged.
"""

from __future__ import annotations

import mmap
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from detray import __version__
from detray.core.peer_messages import CopiesFreed, PeerMessage
from detray.ids import NodeID
from detray.runtime.net.address import Address
from detray.runtime.net.hub import Hub, Link
from detray.runtime.net.identity import Hello, Refusal
from detray.runtime.net.security import Security
from detray.runtime.wakeups import Wakeups

_CHUNK_BYTES = 1 << 20
_ROUNDS = 4
_TRIPS = 5_000
_SECURITY = Security(b"a token for measuring links")
_DONE = NodeID(0)


class Side:
    """One process's end of the link: implements `LinkOwner`."""

    def __init__(self, kind: str) -> None:
        self.loop = Wakeups()
        self.kind = kind
        self.life = os.urandom(16).hex()
        self.hub = Hub(self.loop, self, _SECURITY, note=self._note)
        self.link = self.hub.new_link(PeerMessage, "the other side")
        self.on_message: Callable[[], None] = lambda: None
        self.on_block: Callable[[], None] = lambda: None

    def say(self) -> None:
        """Send a small message."""
        self.link.send([(CopiesFreed(1, _DONE, ()), ())])

    def hello(self) -> Hello:
        """Who we are."""
        return Hello(self.kind, "", __version__, self.life)

    def on_hello(self, hello: Hello) -> Link | Refusal:
        """There is one link."""
        return self.link

    def on_up(self, link: Link) -> None:
        """The connection is there."""

    def on_messages(
        self, link: Link, messages: list[Any], metas: bytes, payloads: list[list[bytes]]
    ) -> None:
        """A message of the other side (Any: of PeerMessage)."""
        for _ in messages:
            self.on_message()
        self.hub.settle()

    def on_aside(self, link: Link, body: list[Any]) -> None:
        """The other side has prepared for the next block (Any: plain data)."""
        self.on_block()

    def on_silent(self, link: Link) -> None:
        """Never, here."""

    def on_heard(self, link: Link) -> None:
        """Never, here."""

    def on_refused(self, link: Link, refusal: Refusal) -> None:
        """Never, here."""
        raise SystemExit(refusal.reason)

    def _note(self, level: str, text: str) -> None:
        if level != "info":
            print(f"{level}: {text}", file=sys.stderr)


def measure_raw(size_bytes: int) -> list[float]:
    """Bytes a second of each round, with plain sockets."""
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if not child:
        with socket.create_connection(listener.getsockname()) as sock:
            view = _memory(size_bytes, b"\1")
            for _ in range(_ROUNDS):
                sock.recv(1)
                for start in range(0, size_bytes, _CHUNK_BYTES):
                    sock.sendall(view[start : start + _CHUNK_BYTES])
        os._exit(0)
    rates = []
    with listener, listener.accept()[0] as sock:
        view = _memory(size_bytes, b"\0")
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            sock.send(b"!")
            filled = 0
            while filled < size_bytes:
                filled += sock.recv_into(view[filled : filled + _CHUNK_BYTES])
            rates.append(size_bytes / (time.perf_counter() - began))
    os.waitpid(child, 0)
    return rates


def measure_blocks(size_bytes: int) -> list[float]:
    """Bytes a second of each round, over a link."""
    return _with_other_side(
        lambda side: _send_blocks(side, size_bytes), lambda side: _take_blocks(side, size_bytes)
    )


def measure_trips() -> list[float]:
    """Seconds of each round trip of a small message."""
    return _with_other_side(_send_back, _time_trips)


def _send_blocks(side: Side, size_bytes: int) -> None:
    view = _memory(size_bytes, b"\1")
    side.on_block = lambda: side.link.send_block(b"block", view, lambda: None)
    _run_for_ever(side)


def _take_blocks(side: Side, size_bytes: int) -> list[float]:
    view = _memory(size_bytes, b"\0")
    rates = []
    for _ in range(_ROUNDS):
        ends: list[str] = []
        began = time.perf_counter()
        side.link.expect_block(b"block", view, ends.append)
        side.link.aside(["go"])
        while not ends:
            side.loop.dispatch(None)
        assert ends == [""], ends
        rates.append(size_bytes / (time.perf_counter() - began))
    return rates


def _send_back(side: Side) -> None:
    side.on_message = side.say
    _run_for_ever(side)


def _time_trips(side: Side) -> list[float]:
    times = []
    came = 0

    def count() -> None:
        nonlocal came
        came += 1

    side.on_message = count
    for trip in range(1, _TRIPS + 1):
        began = time.perf_counter()
        side.say()
        while came < trip:
            side.loop.dispatch(None)
        times.append(time.perf_counter() - began)
    return times


def _with_other_side(
    child: Callable[[Side], None], parent: Callable[[Side], list[float]]
) -> list[float]:
    """Run both ends of a link, each in a process; what the parent's measured."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        side = Side("node")
        os.write(writer, str(side.hub.listen("127.0.0.1", 0).port).encode())
        child(side)
        os._exit(0)
    side = Side("node")
    side.hub.dial(side.link, Address("127.0.0.1", int(os.read(reader, 8))))
    while not side.link.is_up:
        side.loop.dispatch(None)
    measured = parent(side)
    side.hub.close()
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    return measured


def _run_for_ever(side: Side) -> None:
    """Until the other side is gone."""
    was_up = False
    while not was_up or side.link.is_up:
        was_up = was_up or side.link.is_up
        side.loop.dispatch(None)


def _memory(size_bytes: int, byte: bytes) -> memoryview:
    """Shared memory, as objects lie in it, touched."""
    view = memoryview(mmap.mmap(-1, size_bytes))
    for start in range(0, size_bytes, _CHUNK_BYTES):
        part = view[start : start + _CHUNK_BYTES]
        part[:] = byte * len(part)
    return view


def main() -> None:
    """Print the table."""
    for size_bytes in (100_000_000, 1_000_000_000):
        plain_rates, link_rates = [], []
        for _ in range(3):  # in turns: what else runs here disturbs both alike
            plain_rates += measure_raw(size_bytes)
            link_rates += measure_blocks(size_bytes)
        raw, link = statistics.median(plain_rates), statistics.median(link_rates)
        print(
            f"{size_bytes / 1e6:5.0f} MB   plain {raw / 1e9:5.2f} GB/s"
            f"   link {link / 1e9:5.2f} GB/s   {100 * link / raw:3.0f} %"
        )
    trips = sorted(measure_trips())
    print(f"round trip   median {trips[_TRIPS // 2] * 1e6:.1f} us   "
          f"99 % {trips[_TRIPS * 99 // 100] * 1e6:.1f} us")  # fmt: skip


if __name__ == "__main__":
    main()
