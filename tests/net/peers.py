"""Two ends of a link in one loop, as a test sees them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from detray import __version__
from detray.core.peer_messages import CopiesFreed, PeerMessage, ValueSent
from detray.core.session import SessionPolicy
from detray.ids import NodeID, ObjectID
from detray.runtime.net.address import Address
from detray.runtime.net.hub import Hub, Link
from detray.runtime.net.identity import Hello, Refusal
from detray.runtime.net.security import Security
from detray.runtime.wakeups import Wakeups

TOKEN = b"0123456789abcdef0123456789abcdef"
CLUSTER = "c" * 32
_PATIENCE_NS = 20_000_000_000


class Loop(Wakeups):
    """A loop that runs until something is true."""

    def run_until(self, is_true: Callable[[], Any], patience_ns: int = _PATIENCE_NS) -> None:
        """Fails if it is not true in time."""
        deadline_ns = monotonic_ns() + patience_ns
        while not is_true():
            assert monotonic_ns() < deadline_ns, "it did not come true"
            self.dispatch(min(monotonic_ns() + 50_000_000, deadline_ns))

    def run_for(self, ms: int) -> None:
        """Have handled what happens in the meantime: only for things that must NOT happen."""
        deadline_ns = monotonic_ns() + ms * 1_000_000
        while monotonic_ns() < deadline_ns:
            self.dispatch(deadline_ns)


class End:
    """A process's end of things: implements `LinkOwner` and remembers."""

    def __init__(
        self,
        loop: Wakeups,
        node: int,
        *,
        token: bytes = TOKEN,
        tls: Any = None,
        cluster: str = CLUSTER,
        kind: str = "node",
        epoch: int = 0,
        policy: SessionPolicy | None = None,
        accepts: Any = PeerMessage,
        is_settling: bool = True,
    ) -> None:
        self.loop = loop
        self.node = node
        self.kind = kind
        self.epoch = epoch
        self.cluster = cluster
        self.version = __version__
        self.life = os.urandom(16).hex()
        self.accepts = accepts
        self.is_settling = is_settling
        self.said: list[Any] = []
        """Messages, in the order in which they came."""
        self.values: list[bytes] = []
        self.metas: list[bytes] = []
        self.asides: list[list[Any]] = []
        self.ups: list[Link] = []
        self.refusals: list[Refusal] = []
        self.silences: list[str] = []
        self.notes: list[str] = []
        self.links: dict[int, Link] = {}
        self.refuses: Refusal | None = None
        self.restarts_others = False
        self.hub = Hub(
            loop, self, Security(token, tls), note=self._note, policy=policy or SessionPolicy()
        )

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> Address:
        return self.hub.listen(host, port)

    def link(self, node: int) -> Link:
        if node not in self.links:
            self.links[node] = self.hub.new_link(self.accepts, f"node {node}")
        return self.links[node]

    def say(self, link: Link, numbers: Sequence[int], size_bytes: int = 0) -> None:
        """Send messages that carry their number, with so much payload each."""
        link.send([numbered(self.node, number, size_bytes) for number in numbers])

    @property
    def numbers(self) -> list[int]:
        """The numbers of the messages that came."""
        return [message.link_seq for message in self.said]

    # LinkOwner

    def hello(self) -> Hello:
        return Hello(
            self.kind, self.cluster, self.version, self.life, self.node, self.epoch, "", self.kind
        )

    def on_hello(self, hello: Hello) -> Link | Refusal:
        if self.refuses is not None:
            return self.refuses
        if hello.kind == "tool":
            return self.hub.new_link(None, "a tool")
        link = self.link(hello.node)
        if self.restarts_others and link.peer is not None and link.peer.life != hello.life:
            link.restart()
        return link

    def on_up(self, link: Link) -> None:
        self.ups.append(link)

    def on_messages(
        self, link: Link, messages: list[Any], metas: bytes, payloads: list[list[bytes]]
    ) -> None:
        self.said += messages
        self.metas.append(metas)
        self.values += [value for slices in payloads for value in slices]
        if self.is_settling:
            self.hub.settle()

    def on_aside(self, link: Link, body: list[Any]) -> None:
        self.asides.append(body)

    def on_silent(self, link: Link) -> None:
        self.silences.append("silent")

    def on_heard(self, link: Link) -> None:
        self.silences.append("heard")

    def on_refused(self, link: Link, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def _note(self, level: str, text: str) -> None:
        self.notes.append(f"{level}: {text}")


def numbered(node: int, number: int, size_bytes: int = 0) -> tuple[Any, list[bytes]]:
    """A message that carries its number, with payload."""
    item = ObjectID(number.to_bytes(20, "big"))
    if not size_bytes:
        return CopiesFreed(number, NodeID(node), (item,)), []
    return ValueSent(number, NodeID(node), item, 0, size_bytes), [
        bytes((number % 251,)) * size_bytes
    ]


def connect(loop: Loop, dialler: End, acceptor: End, address: Address | None = None) -> Link:
    """Have `dialler` connect to `acceptor`; its link, up."""
    link = dialler.link(acceptor.node)
    dialler.hub.dial(link, address or acceptor.listen())
    loop.run_until(lambda: link.is_up and acceptor.ups)
    return link
