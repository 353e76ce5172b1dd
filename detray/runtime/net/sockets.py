"""Non-blocking sockets, plain or with TLS, behind the four calls that a connection needs."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from detray.runtime.net.security import TlsContexts

_IDLE_S = 5
_USER_TIMEOUT_MS = 5_000
"""The kernel gives a connection up when the peer's kernel was silent for so long. Its own patience
is 15 minutes, with waits that grow to minutes: a healed cut would not be noticed."""
_TCP_RTO_MAX_MS = 44
"""The number of the option: Python has no name for it. Linux knows it since 6.15."""
_RESEND_MAX_MS = 1_000
"""The kernel tries again at least so often. Its own waits double without end: after a cut of 3 s it
is silent for up to 3 more."""
_NOT_SENT_BYTES = 1 << 18
"""What the kernel takes beyond what it may send at once: messages cannot overtake bytes that are in
the kernel."""


def tune(sock: socket.socket) -> None:
    """Set what every connection of a link has."""
    sock.setblocking(False)
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS),
        (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES),
    ):
        sock.setsockopt(level, option, value)
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _RESEND_MAX_MS)


class PlainSocket:
    """TCP as it is."""

    __slots__ = ("_sock",)
    hides_bytes = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._sock.fileno()

    def shake(self) -> bool:
        """True once bytes may be sent and received. Raises OSError."""
        return True

    def send(self, data: memoryview | bytes, *, is_more: bool = False) -> int:
        """Bytes taken by the kernel, 0 if it takes none now. Raises OSError."""
        try:
            return self._sock.send(data, socket.MSG_MORE if is_more else 0)
        except BlockingIOError:
            return 0

    def receive_into(self, room: memoryview) -> int | None:
        """Bytes received, 0 at the end, None if there are none now. Raises OSError."""
        try:
            return self._sock.recv_into(room)
        except BlockingIOError:
            return None

    def finish_sending(self) -> None:
        """The peer sees the end once it has read what was sent."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Close; what the kernel has taken is still sent."""
        self._sock.close()


class TlsSocket(PlainSocket):
    """TCP with stdlib TLS. It reads ahead: readable is what `receive_into` gives, not the epoll."""

    __slots__ = ("_is_shaken", "_tls", "wants_write")
    hides_bytes = True

    def __init__(self, sock: socket.socket, tls: TlsContexts, *, is_dialler: bool) -> None:
        context = tls.client if is_dialler else tls.server
        self._tls: ssl.SSLSocket = context.wrap_socket(
            sock, server_side=not is_dialler, do_handshake_on_connect=False
        )
        super().__init__(self._tls)
        self._is_shaken = False
        self.wants_write = False
        """True if the handshake waits for room to send, not for bytes."""

    def shake(self) -> bool:
        """Go on with the TLS handshake."""
        import ssl

        if not self._is_shaken:
            self.wants_write = False
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLWantWriteError:
                self.wants_write = True
                return False
            self._is_shaken = True
        return True

    def send(self, data: memoryview | bytes, *, is_more: bool = False) -> int:
        """As of a plain one; after 0 the same bytes must be sent again."""
        import ssl

        try:
            return self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def receive_into(self, room: memoryview) -> int | None:
        """As of a plain one. An end without TLS's own goodbye is an end, too."""
        import ssl

        try:
            return self._tls.recv_into(room)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return 0


def wrap(sock: socket.socket, tls: TlsContexts | None, *, is_dialler: bool) -> PlainSocket:
    """A connected socket, tuned, with TLS if there is any. Raises OSError."""
    tune(sock)
    if tls is None:
        return PlainSocket(sock)
    return TlsSocket(sock, tls, is_dialler=is_dialler)
