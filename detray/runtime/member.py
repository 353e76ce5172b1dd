"""A node's service as a member of a cluster: its links, what travels on them, who may come.

Rules
-----
- Nothing is decided here. Which nodes are alive is what the core's tables say; links follow them.
- A node dials the head, and those nodes that are older than itself; younger ones dial it.
- What a peer says is acknowledged after the step that handled it (PROTOCOL T5).
- The head's goodbye is final: the core hears `Fenced`. Another node's goodbye only ends the link.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from itertools import chain
from time import monotonic_ns
from typing import Any

from detray import __version__
from detray.core.effects import AbortReceive, ReceiveObject, SendObject
from detray.core.head_messages import HeadMessage, NodeMessage
from detray.core.local import LocalScheduler
from detray.core.payloads import INCOMING
from detray.core.peer_messages import PeerMessage
from detray.core.stimuli import (
    Fenced,
    HeadRestarted,
    NodeStarted,
    ObjectArrivalFailed,
    ObjectArrived,
    ObjectSent,
    PeerHeard,
    PeerSilent,
)
from detray.ids import JobNumber, NodeID, ObjectID
from detray.runtime.boot import ClusterBoot
from detray.runtime.connections import Inbox
from detray.runtime.log_channel import Answer
from detray.runtime.net.address import Address, parse_address
from detray.runtime.net.hub import Hub, Link
from detray.runtime.net.identity import CLUSTER_STOPPED, Hello, Refusal
from detray.runtime.net.security import make_security
from detray.runtime.segments import Segments
from detray.runtime.wakeups import Wakeups

ASK_NS = 5_000_000_000
"""How long an answer of the head is waited for."""
_LAST_WORDS_NS = 500_000_000
_HEAD = NodeID(-1)


class Member:
    """Implements `LinkOwner` for a node, and what the core orders towards other processes."""

    def __init__(
        self,
        boot: ClusterBoot,
        *,
        name: str,
        inbox: Inbox,
        payloads: dict[bytes, bytes],
        wakeups: Wakeups,
        note: Callable[[str, str], None],
    ) -> None:
        """Bind the node's address. Raises OSError."""
        self._boot = boot
        self._name = name
        self._inbox = inbox
        self._payloads = payloads
        self._wakeups = wakeups
        self._note = note
        self.life = os.urandom(16).hex()
        """Names this life of this process."""
        self._epoch = 0
        self._hub = Hub(wakeups, self, make_security(boot), note=note)
        bound = self._hub.listen(boot.listen_host, boot.listen_port)
        self.address = Address(boot.advertise or find_host(boot, bound.host), bound.port)
        self._head = self._hub.new_link(HeadMessage, "the head")
        self._links: dict[NodeID, Link] = {}
        self._numbers: dict[Link, NodeID] = {self._head: _HEAD}
        self._dialled: set[NodeID] = set()
        self._to_head: list[NodeMessage] = []
        self._to_peers: dict[NodeID, list[tuple[PeerMessage, list[bytes]]]] = {}
        self._receiving: dict[bytes, Link] = {}
        """Which link an arrival comes by, by (object, attempt): where to abort it."""
        self._asked: dict[int, Answer] = {}
        """Questions to the head that are not answered, by number."""
        self._questions = 0
        self._traffic = _Traffic()
        self._heard_head = False
        self._core: LocalScheduler | None = None
        self._segments: Segments | None = None
        self.left = ""
        """Why this incarnation is over, if it is."""
        self.is_fenced = False
        """It was declared dead, and is not."""
        self.on_lines: Callable[[str, JobNumber, list[Any]], None] = lambda ip, job, facts: None
        self.on_question: Callable[[str, list[Any], Answer], None] = lambda t, a, answer: None

    @property
    def node(self) -> NodeID:
        """This node's number; -1 before the head has given it one."""
        return self._core.tables.node if self._core is not None else NodeID(-1)

    def begin(self, core: LocalScheduler, segments: Segments) -> None:
        """The core is there: join. Raises ValueError for an address that makes no sense."""
        self._core = core
        self._segments = segments
        self._inbox.facts.append(NodeStarted())
        self._hub.dial(self._head, parse_address(self._boot.head))

    # -------------------------------------------------------------- what the core orders

    def tell_head(self, message: NodeMessage) -> None:
        """Send on the ordered link to the head, with the next `flush`."""
        self._to_head.append(message)

    def tell_peer(self, node: NodeID, message: PeerMessage, payloads: list[bytes]) -> None:
        """Send on the ordered link to another node, with the next `flush`."""
        self._to_peers.setdefault(node, []).append((message, payloads))

    def flush(self) -> None:
        """Everything of this step is there: one frame for each link."""
        if self._to_head:
            said, self._to_head = self._to_head, []
            self._head.send([(message, ()) for message in said])
        if self._to_peers:
            queues, self._to_peers = self._to_peers, {}
            for node, queue in queues.items():
                self._link(node).send(queue)

    def send_object(self, order: SendObject) -> None:
        """Send a block's bytes; answered by `ObjectSent`."""
        assert self._segments is not None
        link = self._link(order.node)
        key = _block_key(order.object, order.attempt)
        fact = ObjectSent(order.object, order.node)
        try:
            view = self._segments.view(order.segment, order.offset, order.size_bytes)
        except OSError as error:
            self._note("error", f"object {order.object.hex()} cannot be read: {error}")
            link.aside(["unreadable", key])
            self._inbox.facts.append(fact)
            return

        def done() -> None:
            self._traffic.outgoing -= 1
            self._inbox.facts.append(fact)

        self._traffic.began_to_send(order.size_bytes)
        link.send_block(key, view, done)

    def receive_object(self, order: ReceiveObject) -> None:
        """Write what comes into a block; answered by `ObjectArrived` or its failure."""
        assert self._segments is not None
        item, attempt = order.object, order.attempt
        key = _block_key(item, attempt)
        link = self._link(order.node)

        def done(problem: str) -> None:
            self._receiving.pop(key, None)
            if not problem:
                self._traffic.received += 1
                self._traffic.received_bytes += order.size_bytes
            fact = (
                ObjectArrivalFailed(item, attempt, problem)
                if problem
                else ObjectArrived(item, attempt)
            )
            self._inbox.facts.append(fact)

        try:
            view = self._segments.view(order.segment, order.offset, order.size_bytes)
        except OSError as error:
            done(f"its block cannot be mapped: {error}")
            return
        self._receiving[key] = link
        link.expect_block(key, view, done)

    def abort_receive(self, order: AbortReceive) -> None:
        """Give an arrival up, if it has not come."""
        key = _block_key(order.object, order.attempt)
        link = self._receiving.get(key)
        if link is not None:
            link.abort_block(key)

    def leave(self, reason: str) -> None:
        """This incarnation was buried."""
        self.left = reason
        self.is_fenced = True

    # -------------------------------------------------------------- between steps

    def after_step(self) -> None:
        """Links follow the core's idea of who lives; what was handled is acknowledged."""
        if self._heard_head:
            self._heard_head = False
            self._follow_tables()
        self._hub.settle()

    def say_last_words(self) -> None:
        """Give what is still to be sent a moment to get through, then end all links."""
        until_ns = monotonic_ns() + _LAST_WORDS_NS
        while self._head.is_up and self._head.is_owing and monotonic_ns() < until_ns:
            self._wakeups.dispatch(until_ns)
        self._hub.close()

    def _follow_tables(self) -> None:
        assert self._core is not None
        t = self._core.tables
        for number, peer in t.peers.items():
            if number < t.node and peer.address and number not in self._dialled:
                self._dialled.add(number)
                self._hub.dial(self._link(number), parse_address(peer.address))
        for number, link in list(self._links.items()):
            if self._is_dead(number):
                del self._links[number], self._numbers[link]
                link.close(Refusal(True, f"node {number} was declared dead"))

    def _is_dead(self, number: NodeID) -> bool:
        assert self._core is not None
        t = self._core.tables
        return t.node >= 0 and number not in t.peers and number <= t.highest_node

    def _link(self, number: NodeID) -> Link:
        link = self._links.get(number)
        if link is None:
            link = self._links[number] = self._hub.new_link(PeerMessage, f"node {number}")
            self._numbers[link] = number
        return link

    # -------------------------------------------------------------- LinkOwner

    def hello(self) -> Hello:
        """Who we are, now."""
        return Hello(
            kind="node", cluster=self._boot.cluster, version=__version__, life=self.life,
            node=self.node, epoch=self._epoch, address=str(self.address), name=self._name,
        )  # fmt: skip

    def on_hello(self, hello: Hello) -> Link | Refusal:
        """Somebody who has the token connected."""
        if hello.kind != "node" or hello.node < 0:
            return Refusal(False, "this is a node: ask the head")
        if self.node < 0:
            # It means somebody who had this address before: younger nodes dial older ones.
            return Refusal(False, "this node has no number yet")
        number = NodeID(hello.node)
        if number == self.node or self._is_dead(number):
            return Refusal(True, f"node {number} was declared dead")
        link = self._link(number)
        if link.peer is not None and link.peer.life != hello.life:
            return Refusal(True, f"node {number} is another process")
        return link

    def on_up(self, link: Link) -> None:
        """A connection is there: of the head it may be a new one."""
        self._traffic.note_connection(link)
        peer = link.peer
        number = self._numbers.get(link)
        if peer is None or number is None:
            return
        if link is not self._head:
            if peer.node != number:
                self._note("warning", f"{link.name} is gone: node {peer.node} is at its address")
                link.close(Refusal(False, f"you are not node {number}"))
            return
        if self._epoch and peer.epoch != self._epoch:
            link.restart()
            self._inbox.facts.append(HeadRestarted(peer.epoch))
        self._epoch = peer.epoch

    def on_messages(
        self, link: Link, messages: list[Any], metas: bytes, payloads: list[list[bytes]]
    ) -> None:
        """The next messages of a link, in order. (Any: of its union.)"""
        number = self._numbers.get(link)
        if number is None:
            return
        if number == _HEAD:
            self._heard_head = True
        elif any(message.node != number for message in messages):
            self._note("error", f"node {number} spoke in another's name and is cut off")
            self._inbox.facts.append(PeerSilent(number))
            link.close(Refusal(False, "you spoke in another node's name"))
            return
        keep = self._payloads.setdefault
        for message, values in zip(messages, payloads, strict=True):
            if values:
                keys = INCOMING[type(message)](message)
                for (key, _), value in zip(keys, values, strict=True):
                    keep(key, value)
        if self._inbox.tap is not None and number != _HEAD:
            self._inbox.tap(metas, messages, b"".join(chain.from_iterable(payloads)))
        self._inbox.metas.append(metas)
        self._inbox.said += messages

    def on_silent(self, link: Link) -> None:
        """Nothing comes through, though something is owed."""
        number = self._numbers.get(link)
        if number == _HEAD:
            self._note("warning", "the head does not answer; local work goes on")
        elif number is not None:
            self._inbox.facts.append(PeerSilent(number))

    def on_heard(self, link: Link) -> None:
        """It comes through again."""
        number = self._numbers.get(link)
        if number == _HEAD:
            self._note("info", "the head answers again")
        elif number is not None:
            self._inbox.facts.append(PeerHeard(number))

    def on_refused(self, link: Link, refusal: Refusal) -> None:
        """The peer does not want us."""
        if link is self._head and refusal.is_buried:
            self._inbox.facts.append(Fenced(refusal.reason))
        elif link is self._head and (self.node < 0 or refusal.reason == CLUSTER_STOPPED):
            self.left = refusal.reason
        elif link is self._head:
            self._note("warning", f"a head turned us away: {refusal.reason}")
        else:
            self._note("info", f"{link.name} ended the link: {refusal.reason}")

    def on_aside(self, link: Link, body: list[Any]) -> None:
        """A small message beside the sessions: lines, questions, answers. (Any: plain data.)"""
        match body:
            case ["log", int() as job, str() as ip, list() as facts]:
                self.on_lines(ip, JobNumber(job), facts)
            case ["unreadable", bytes() as key]:
                if self._receiving.get(key) is link:
                    link.abort_block(key)
            case ["ask", int() as number, str() as topic, *arguments]:

                def answer(answered: Any, problem: str) -> None:
                    link.aside(["no", number, problem] if problem else ["answer", number, answered])

                self.on_question(topic, arguments, answer)
            case ["answer", int() as number, answered]:
                self._end_question(number, answered, "")
            case ["no", int() as number, str() as problem]:
                self._end_question(number, None, problem)

    # -------------------------------------------------------------- asides

    def forward_lines(self, job: JobNumber, facts: list[Any]) -> None:
        """Lines of a worker here whose driver is at another node. (Any: strings and numbers.)"""
        assert self._core is not None
        number = self._core.tables.jobs_elsewhere.get(job)
        if number is not None:
            self._link(number).aside(["log", job, self.address.host, facts])

    def ask_head(self, topic: str, arguments: list[Any], answer: Answer) -> None:
        """Pass a question on to the head. (Any: plain data.)"""
        if not self._head.is_up:
            answer(None, "the head cannot be reached now")
            return
        self._questions += 1
        number = self._questions
        self._asked[number] = answer
        self._head.aside(["ask", number, topic, *arguments])
        late = "the head did not answer in time"
        self._wakeups.call_at(
            monotonic_ns() + ASK_NS, lambda: self._end_question(number, None, late)
        )

    def _end_question(self, number: int, body: Any, problem: str) -> None:
        answer = self._asked.pop(number, None)
        if answer is not None:
            answer(body, problem)

    def info(self) -> dict[str, str | int]:
        """What others on this machine need to know."""
        return {
            "kind": "node",
            "head": self._boot.head,
            "address": str(self.address),
            "node": self.node,
            "web": "",
        }

    def facts(self) -> dict[str, Any]:
        """What this node tells about itself when it is asked for its status."""
        assert self._core is not None
        summary = self._core.describe("summary")
        assert isinstance(summary, dict)
        return {
            **summary,
            "address": str(self.address),
            "pid": os.getpid(),
            "head": self._boot.is_with_head,
            "links": {
                "up": sum(link.is_up for link in self._links.values()),
                "down": sum(not link.is_up for link in self._links.values()),
                "resent_messages": sum(
                    link.session.stats.resent for link in (self._head, *self._links.values())
                ),
                "reconnects": self._traffic.reconnects,
            },
            "transfers": self._traffic.facts(len(self._receiving)),
        }


class _Traffic:
    """What went over the links since this process began, for people."""

    def __init__(self) -> None:
        self.outgoing = self.sent = self.sent_bytes = 0
        self.received = self.received_bytes = self.reconnects = 0
        self._connected: set[Link] = set()

    def began_to_send(self, size_bytes: int) -> None:
        self.outgoing += 1
        self.sent += 1
        self.sent_bytes += size_bytes

    def note_connection(self, link: Link) -> None:
        self.reconnects += link in self._connected
        self._connected.add(link)

    def facts(self, incoming: int) -> dict[str, int]:
        return {
            "incoming": incoming,
            "outgoing": self.outgoing,
            "received": self.received,
            "sent": self.sent,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
        }


def _block_key(item: ObjectID, attempt: int) -> bytes:
    return item + attempt.to_bytes(4, "big")


def find_host(boot: ClusterBoot, bound: str) -> str:
    """Which of our addresses others can reach: the one that we would reach the head from.

    Only asked if all addresses are bound. Raises OSError if there is no way to the head.
    """
    if bound not in ("0.0.0.0", "::"):
        return bound
    if not boot.head:
        return socket.gethostname()
    head = parse_address(boot.head)
    for family, kind, protocol, _, address in socket.getaddrinfo(
        head.host, head.port, type=socket.SOCK_DGRAM
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    raise OSError(f"no address of this machine reaches {boot.head}")
