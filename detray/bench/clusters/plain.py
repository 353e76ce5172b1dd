"""What the machine itself does between two processes: plain sockets over loopback, `recv_into`.

`PlainLink` is the receiving end. The other is a process of its own, `python -m
detray.bench.clusters.plain PORT SIZE`, that sends what it has whenever it is asked.
"""

from __future__ import annotations

import mmap
import socket
import subprocess
import sys
import time
from types import TracebackType

CHUNK_BYTES = 1 << 20


class PlainLink:
    """Bytes from the memory of another process into memory here; both are touched beforehand."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            self._sender = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, port, str(size_bytes)]
            )
            self._sock, _ = listener.accept()
        self._view = _memory(size_bytes)
        self.seconds()

    def __enter__(self) -> PlainLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self._sock.close()
        self._sender.wait()

    def seconds(self) -> float:
        """How long all of it takes, from asking to the last byte."""
        began = time.perf_counter()
        self._sock.send(b"!")
        filled, view = 0, self._view
        while filled < self._size_bytes:
            count = self._sock.recv_into(view[filled : filled + CHUNK_BYTES])
            if not count:
                raise ConnectionError("the sender of plain bytes died")
            filled += count
        return time.perf_counter() - began


def _memory(size_bytes: int) -> memoryview:
    view = memoryview(mmap.mmap(-1, size_bytes))
    for start in range(0, size_bytes, CHUNK_BYTES):
        part = view[start : start + CHUNK_BYTES]
        part[:] = b"\1" * len(part)
    return view


def _send(port: int, size_bytes: int) -> None:
    view = _memory(size_bytes)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while sock.recv(1):
            for start in range(0, size_bytes, CHUNK_BYTES):
                sock.sendall(view[start : start + CHUNK_BYTES])


if __name__ == "__main__":
    _send(int(sys.argv[1]), int(sys.argv[2]))
