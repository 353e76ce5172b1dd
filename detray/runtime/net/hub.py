"""The hub of a process: where its links begin, from listening and dialling to the end.

All of it runs in the thread of one loop and never blocks. The owner, a node's or a head's driver,
is told what came and decides who may come; nothing is decided here that a core should decide.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Protocol

from detray import __version__
from detray.core.session import SessionPolicy
from detray.runtime.net.address import Address
from detray.runtime.net.channel import Channel
from detray.runtime.net.dialling import Dialler
from detray.runtime.net.greeting import HalfOpen
from detray.runtime.net.identity import Hello, Refusal
from detray.runtime.net.link import Link
from detray.runtime.net.notes import PeerNotes
from detray.runtime.net.resolver import Resolver, resolve_now
from detray.runtime.net.security import Security
from detray.runtime.net.sockets import PlainSocket
from detray.runtime.wakeups import READ, Wakeups

__all__ = ["Hub", "Link", "LinkOwner"]

HALF_OPEN_MAX = 128
"""Incoming connections that have not greeted: one more, and the oldest is turned away."""
_BACKLOG = 256
_ACCEPTS_MAX = 16
"""Accepted in one wake-up."""
_REST_NS = 500_000_000
"""So long nobody is accepted when there is no descriptor for him."""

_ACK_DELAY_NS = 20_000_000
"""TCP loses nothing: an acknowledgement only says what need not be kept any more, so it can wait
for a message to ride on. Every one that travels alone costs a wake-up (docs/performance.md)."""


class LinkOwner(Protocol):
    """Whose links they are: the driver of a node or a head. All calls come from the loop."""

    def hello(self) -> Hello:
        """Who we are; asked anew for each connection."""

    def on_hello(self, hello: Hello) -> Link | Refusal:
        """Somebody with our token, cluster and version came: which link is it?

        If it is another life than that of the link's session, the owner calls `restart` on it
        first, or refuses.
        """

    def on_up(self, link: Link) -> None:
        """A connection is there, the first one or a new one; `link.peer` says of whom."""

    def on_messages(
        self, link: Link, messages: list[Any], metas: bytes, payloads: list[list[bytes]]
    ) -> None:
        """The next messages of the session, each exactly once: decoded, as one msgpack array, and
        the slices of each one's payload (Any: of the union that the link accepts).
        """

    def on_aside(self, link: Link, body: list[Any]) -> None:
        """Plain data beside the session (Any)."""

    def on_silent(self, link: Link) -> None:
        """For 1 s nothing came, though something that was sent is not acknowledged."""

    def on_heard(self, link: Link) -> None:
        """Something came again."""

    def on_refused(self, link: Link, refusal: Refusal) -> None:
        """The peer turned us away or ended the link; said once for each reason between connections.

        Unless the owner closes the link, its dialler goes on.
        """


class Hub:
    """All links of a process."""

    def __init__(
        self,
        wakeups: Wakeups,
        owner: LinkOwner,
        security: Security,
        *,
        note: Callable[[str, str], None],
        policy: SessionPolicy | None = None,
    ) -> None:
        """`note` takes a level ("info", "warning", "error") and a line of text."""
        self.wakeups = wakeups
        self.owner = owner
        self.security = security
        self.policy = policy or SessionPolicy(ack_delay_ns=_ACK_DELAY_NS)
        self.notes = PeerNotes(note)
        self.resolver = Resolver(wakeups)
        self.owing: dict[Link, None] = {}
        """Links that delivered something since the last `settle`."""
        self.lingering: dict[Channel, None] = {}
        """Connections that end after a last frame."""
        self._links: dict[Link, None] = {}
        self._sessions = 0
        self._listeners: list[socket.socket] = []
        self._half_open: dict[HalfOpen, None] = {}

    # ----------------------------------------------------------------------------- owner

    def listen(self, host: str, port: int) -> Address:
        """Accept connections at `host` ("0.0.0.0" or "::" for all), port 0 for any that is free.

        Returns the address that was bound. Raises OSError.
        """
        family, sockaddr = resolve_now(Address(host, port), socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # A head that starts again takes its old port, though old connections linger there.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and host == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(sockaddr)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        self._listeners.append(sock)
        self.wakeups.watch(sock.fileno(), lambda mask: self._accept(sock))
        bound = sock.getsockname()
        return Address(bound[0], bound[1])

    def new_link(self, accepts: Any, name: str) -> Link:
        """A link that is not connected yet. It accepts messages of the union `accepts` (Any: a type
        expression); None for no messages at all. `name` says for people whom it leads to.
        """
        link = Link(self, self.next_session(), accepts, name)
        self._links[link] = None
        return link

    def dial(self, link: Link, address: Address) -> None:
        """Connect, and again after each end, pausing 50 ms to 1 s, until the link is closed.

        Called again it changes the address.
        """
        if link.is_closed:
            return
        if link.dialler is None:
            link.dialler = Dialler(self, link, address)
            link.dialler.retry()
        else:
            link.dialler.redirect(address)

    def settle(self) -> None:
        """All that `on_messages` delivered so far was handled: acknowledge it (PROTOCOL T5)."""
        if self.owing:
            owing, self.owing = self.owing, {}
            for link in owing:
                link.settle()

    def close(self) -> None:
        """End everything, now. What the kernel has taken is still sent. Again: nothing."""
        for sock in self._listeners:
            self.wakeups.forget(sock.fileno())
            sock.close()
        self._listeners.clear()
        for half_open in list(self._half_open):
            half_open.close()
        self._half_open.clear()
        for link in list(self._links):
            link.close()
        for channel in list(self.lingering):
            channel.end_linger()
        self.resolver.close()

    # ----------------------------------------------------------------------- for the parts

    def next_session(self) -> int:
        """A number for a session, never given out before."""
        self._sessions += 1
        return self._sessions

    def forget(self, link: Link) -> None:
        """The link is closed."""
        self._links.pop(link, None)
        self.owing.pop(link, None)

    def find_mismatch(self, hello: Hello) -> str:
        """Why that peer cannot be one of ours; "" if it can."""
        ours = self.owner.hello()
        if hello.version != ours.version:
            return (
                f"it has detray {_line(hello.version)}, here is {__version__}: install the same one"
            )
        if hello.cluster and ours.cluster and hello.cluster != ours.cluster:
            return f"it belongs to cluster {_line(hello.cluster)}, here is {ours.cluster}"
        if hello.life == ours.life:
            return "it is this very process"
        return ""

    def receive(self, hello: Hello) -> Link | Refusal:
        """Which link a dialler belongs to."""
        problem = self.find_mismatch(hello)
        return Refusal(False, problem) if problem else self.owner.on_hello(hello)

    def begins_anew(self, link: Link, hello: Hello) -> bool:
        """True if a peer that we dialled may begin a new session: it is a head of a later epoch
        (PROTOCOL D 38). Its old session ends then.
        """
        known = link.peer
        if known is None or known.kind != "head" or hello.kind != "head":
            return False
        if hello.epoch <= known.epoch:
            return False
        link.begin_session()
        return True

    def establish(
        self, link: Link, sock: PlainSocket, host: str, hello: Hello, session: int, handled: int,
        rest: bytes,
    ) -> None:  # fmt: skip
        """A connection belongs to a link now."""
        if link.dialler is not None:
            link.dialler.succeed()
        channel = Channel(link, sock, self.wakeups, host)
        link.attach(channel, hello, session, handled)
        if channel.is_open:
            channel.begin(rest)

    # --------------------------------------------------------------------------- listening

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_MAX):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._make_room_for_descriptors(listener, error)
                return
            if len(self._half_open) >= HALF_OPEN_MAX:
                oldest = next(iter(self._half_open))
                oldest.close()
                self._half_open.pop(oldest, None)
                self.notes.trouble(
                    oldest.host,
                    "crowd",
                    f"too many connections that do not greet, {oldest.host} first",
                )
            try:
                half_open = HalfOpen(self, sock, str(address[0]), self._on_greeted)
            except OSError:
                sock.close()
                continue
            self._half_open[half_open] = None
            half_open.begin()

    def _make_room_for_descriptors(self, listener: socket.socket, error: OSError) -> None:
        """No descriptor is left: who has not greeted gives his back. A short rest, too: who waits
        to be accepted would wake the loop again and again.
        """
        self.notes.trouble("", "descriptors", f"no connection can be accepted: {error.strerror}")
        for half_open in list(self._half_open):
            half_open.close()
        self._half_open.clear()
        self.wakeups.change(listener.fileno(), 0)
        self.wakeups.call_at(monotonic_ns() + _REST_NS, lambda: self._accept_again(listener))

    def _accept_again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self.wakeups.change(listener.fileno(), READ)

    def _on_greeted(self, half_open: HalfOpen, problem: str) -> None:
        self._half_open.pop(half_open, None)
        if problem:
            self.notes.trouble(
                half_open.host,
                "stranger",
                f"a connection from {half_open.host} was ended: {problem}",
            )


def _line(text: str) -> str:
    """What a peer calls something, fit for a note."""
    return ascii(text[:40])[1:-1]
