"""Links between cores: packets that take time, get lost, come twice or late; sessions over them.

Theory of operation
-------------------
`Transport.carry` brings one packet from one server to another, with whatever is wrong with that
direction at the moment. Each server has a `Wire` to each other one it talks to. Without sessions
the packets are the messages themselves, and the transport is reliable: what a cut stops waits for
the healing. With sessions (`detray.core.session`, the real ones) packets are frames, and the
transport may do to them what it likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from detray.core.session import NEVER, Frame, Goodbye, LinkSession
from detray.core.stimuli import PeerHeard, PeerSilent
from detray_sim.clock import Timer
from detray_sim.draws import draw

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster
    from detray_sim.server import CoreServer

Sent = tuple[Any, tuple[Any, ...]]
"""A message to another core and the values of its payload. (Any: of all kinds.)"""


class Hail(NamedTuple):
    """A head is at the end of a node's link: the greeting that every connection begins with."""

    epoch: int


Packet = list[Sent] | Frame[Sent] | Goodbye | Hail


class Wire:
    """One server's end of a link, without a session: messages as they are."""

    def __init__(self, transport: Transport, server: CoreServer, remote: CoreServer) -> None:
        self.transport = transport
        self.server = server
        self.remote = remote

    def send(self, messages: list[Sent]) -> None:
        """Bring messages to the other end, in order."""
        self.transport.carry(self.server, self.remote, messages)

    def receive(self, packet: Packet) -> None:
        """A packet came from the other end."""
        server, remote = self.server, self.remote
        assert type(packet) is list
        for message, values in packet:
            server.deliver(remote, message, values)
        server.wake()

    def take_count(self) -> int:
        """How many messages the step that begins has from here."""
        return 0

    def settle(self, count: int) -> None:
        """That step is over: they count as received (PROTOCOL T5)."""

    def close(self) -> None:
        """Nothing goes through any more."""


class SessionWire(Wire):
    """One end of a link with a session: exactly once, in order, over what the transport leaves."""

    def __init__(self, transport: Transport, server: CoreServer, remote: CoreServer) -> None:
        super().__init__(transport, server, remote)
        self.session: LinkSession[Sent, Sent] = LinkSession(transport.cluster.config.session)
        self.is_silent = False
        self._delivered = 0
        self._clock = server.clock
        self._timer = Timer(self._clock, self._on_deadline)

    def send(self, messages: list[Sent]) -> None:
        """Take messages into the session; what its window lets through goes."""
        self._carry(self.session.send(messages, self._clock.now_ns))
        self._arm()

    def receive(self, packet: Packet) -> None:
        """A frame: hand over what its turn is."""
        assert type(packet) is Frame
        now_ns = self._clock.now_ns
        server = self.server
        messages = self.session.receive(packet, now_ns)
        if self.is_silent:
            self.is_silent = False
            if self.remote.node_id is not None and server.node_id is not None:
                server.inbox.append(PeerHeard(self.remote.node_id))
        if messages:
            if not self._delivered:
                server.owing.append(self)
            self._delivered += len(messages)
            for message, values in messages:
                server.deliver(self.remote, message, values)
        self._carry(self.session.due(now_ns))
        self._arm()
        if server.inbox:
            server.wake()

    def take_count(self) -> int:
        """How many messages the step that begins has from here."""
        count, self._delivered = self._delivered, 0
        return count

    def settle(self, count: int) -> None:
        """They may be acknowledged."""
        now_ns = self._clock.now_ns
        self.session.handled(count, now_ns)
        self._carry(self.session.due(now_ns))
        self._arm()

    def close(self) -> None:
        """End this end."""
        self.session.close()
        self._timer.set(NEVER)

    def _carry(self, frames: list[Frame[Sent]]) -> None:
        for frame in frames:
            self.transport.carry(self.server, self.remote, frame)

    def _arm(self) -> None:
        session = self.session
        at_ns = session.next_deadline_ns
        due_ns = NEVER if at_ns is None else max(at_ns, self._clock.now_ns)
        if session.outgoing and not self.is_silent:
            limit_ns = session.silent_since_ns + self.transport.cluster.costs.silence_ns
            due_ns = min(due_ns, max(limit_ns, self._clock.now_ns))
        self._timer.set(due_ns)

    def _on_deadline(self) -> None:
        server = self.server
        if not server.is_alive or self.session.is_closed:
            return
        now_ns = self._clock.now_ns
        if server.is_paused:  # it looks when it goes on
            self._timer.set(now_ns + self.session.policy.resend_ns)
            return
        self._carry(self.session.due(now_ns))
        limit_ns = self.transport.cluster.costs.silence_ns
        if not self.is_silent and self.session.silent_ns(now_ns) >= limit_ns:
            self.is_silent = True
            if self.remote.node_id is not None and server.node_id is not None:
                server.tell(PeerSilent(self.remote.node_id))
        self._arm()


class Trouble:
    """What is wrong with one direction between two machines, besides its latency."""

    __slots__ = ("delay_ns", "duplicate_permille", "is_cut", "loss_permille", "reorder_permille")

    def __init__(self) -> None:
        self.is_cut = False
        self.delay_ns = 0
        self.loss_permille = 0
        self.duplicate_permille = 0
        self.reorder_permille = 0


class Transport:
    """Carries packets between servers. Machines are indexes; HEAD_MACHINE is the head's."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.packets = 0
        self.lost = 0
        self._clock = cluster.clock
        self._troubles: dict[tuple[int, int], Trouble] = {}
        self._last_ns: dict[tuple[int, int], int] = {}
        """When the last packet of a direction arrives: nothing overtakes it, unless told to."""
        self._waiting: dict[tuple[int, int], list[tuple[CoreServer, CoreServer, Packet]]] = {}
        self._wire = SessionWire if cluster.config.sessions else Wire

    def connect(self, server: CoreServer, remote: CoreServer) -> Wire:
        """A server's end of the link to another one."""
        return self._wire(self, server, remote)

    def trouble(self, source: int, target: int) -> Trouble:
        """What is wrong with a direction, to be changed."""
        return self._troubles.setdefault((source, target), Trouble())

    def carry(self, source: CoreServer, target: CoreServer, packet: Packet) -> None:
        """Bring a packet to the other server, some time, perhaps."""
        way = (source.machine, target.machine)
        delay_ns = self.cluster.latency_ns(*way)
        self.packets += 1
        trouble = self._troubles.get(way)
        if trouble is not None:
            if trouble.is_cut or delay_ns is None:
                self._stop(way, source, target, packet)
                return
            delay_ns += trouble.delay_ns
            if trouble.loss_permille and self._strikes(trouble.loss_permille, "loss"):
                self.lost += 1
                return
            if trouble.reorder_permille and self._strikes(trouble.reorder_permille, "reorder"):
                self._clock.after(3 * delay_ns, target.arrive, source, packet)
                return
            if trouble.duplicate_permille and self._strikes(trouble.duplicate_permille, "twice"):
                self._clock.after(2 * delay_ns, target.arrive, source, packet)
        elif delay_ns is None:
            self._stop(way, source, target, packet)
            return
        now_ns = self._clock.now_ns
        at_ns = max(now_ns + delay_ns, self._last_ns.get(way, 0))
        self._last_ns[way] = at_ns
        self._clock.after(at_ns - now_ns, target.arrive, source, packet)

    def heal(self, source: int, target: int) -> None:
        """A direction works again; without sessions, what it stopped goes on now."""
        self._troubles.pop((source, target), None)
        for server, remote, packet in self._waiting.pop((source, target), ()):
            self.carry(server, remote, packet)

    def _stop(
        self, way: tuple[int, int], source: CoreServer, target: CoreServer, packet: Packet
    ) -> None:
        if self.cluster.config.sessions:
            self.lost += 1
        else:
            self._waiting.setdefault(way, []).append((source, target, packet))

    def _strikes(self, permille: int, purpose: str) -> bool:
        word = draw(self.cluster.config.seed, "transport", purpose, self.packets)
        return word * 1000 >> 64 < permille
