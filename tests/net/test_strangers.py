"""Peers that are not ours, or pretend: each costs one line of notes at most, and nothing else.

After each of them a peer of ours must still get in, which `_is_open_to_friends` checks.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import msgspec
import pytest

from detray.core.peer_messages import TemplateShipped
from detray.ids import FunctionID, NodeID
from detray.runtime.net import greeting, handshake, hub
from detray.runtime.net.address import Address
from detray.runtime.net.framing import ASIDE, BLOCKS, CHUNK, HEADER, MESSAGES, encode_frame
from detray.runtime.net.handshake import Handshake, pack_greeting
from detray.runtime.net.identity import Acceptance, Hello, Introduction, encode_greeting
from tests.net.peers import CLUSTER, TOKEN, End, Loop, connect

Ends = Callable[..., End]


def _is_open_to_friends(loop: Loop, end: Ends, acceptor: End, address: Address) -> bool:
    friend = end(77)
    link = connect(loop, friend, acceptor, address)
    friend.say(link, [1])
    loop.run_until(lambda: acceptor.numbers[-1:] == [1])
    return True


def _knock(address: Address) -> socket.socket:
    sock = socket.create_connection(address)
    sock.setblocking(False)
    return sock


def _is_turned_away(loop: Loop, sock: socket.socket) -> bytes:
    """What came until the other end closed."""
    came = b""

    def has_ended() -> bool:
        nonlocal came
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        came += data
        return not data

    loop.run_until(has_ended)
    sock.close()
    return came


class _Insider:
    """Somebody who has the token, by hand: what it sends need not make sense."""

    def __init__(self, loop: Loop, address: Address, token: bytes = TOKEN) -> None:
        self.loop = loop
        self.sock = _knock(address)
        self.handshake = Handshake(token, is_dialler=True)
        self.sock.send(self.handshake.begin())

    def read(self) -> bool:
        """Take what came, if anything."""
        try:
            data = self.sock.recv(1 << 12)
        except BlockingIOError:
            return False
        if data:
            self.sock.send(self.handshake.receive(data))
        return bool(data)

    def prove(self) -> None:
        self.loop.run_until(lambda: self.read() and self.handshake.is_proven)

    def greet(self, hello: Hello) -> bytes:
        self.sock.send(pack_greeting(encode_greeting(Introduction(hello))))
        answer: list[bytes] = []

        def has_answer() -> bool:
            self.read()
            body = self.handshake.next_greeting()
            if body is not None:
                answer.append(body)
            return bool(answer)

        self.loop.run_until(has_answer)
        return answer[0]

    def enter(self) -> None:
        self.prove()
        assert msgspec.msgpack.decode(self.greet(_hello(50)))[0] == "welcome"
        self.sock.send(pack_greeting(encode_greeting(Acceptance(1, 0))))


def _hello(node: int, **how: str) -> Hello:
    facts = {"kind": "node", "cluster": CLUSTER, "version": hub.__version__, "life": "e" * 32}
    facts.update(how)
    return Hello(**facts, node=node)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        b"\0" * 4096,
        b"detray" + struct.pack(">H", handshake.PROTOCOL) + bytes(32) + bytes(32),
        b"\xff" * (1 << 20),
    ],
    ids=["http", "tls", "zeros", "no proof", "a megabyte"],
)
def test_who_cannot_prove_the_token_is_turned_away(said: bytes, loop: Loop, end: Ends) -> None:
    """Whatever it says; and nothing of it is decoded."""
    a = end(1)
    address = a.listen()
    sock = _knock(address)
    try:
        sock.send(said)
    except ConnectionError:
        pass
    came = _is_turned_away(loop, sock)
    assert len(came) <= 40 + 32
    assert len(a.notes) == 1 and a.notes[0].startswith("warning: a connection from 127.0.0.1")
    assert _is_open_to_friends(loop, end, a, address)


def test_a_stranger_knocks_a_hundred_times_for_one_line(loop: Loop, end: Ends) -> None:
    """Notes are limited for each address."""
    a = end(1)
    address = a.listen()
    for _ in range(100):
        sock = _knock(address)
        sock.send(b"let me in")
        _is_turned_away(loop, sock)
    assert len(a.notes) == 1


def test_a_wrong_token_is_refused_and_its_owner_told(loop: Loop, end: Ends) -> None:
    """The dialler learns why, once."""
    a, b = end(1), end(2, token=b"another token of some length")
    address = a.listen()
    b.hub.dial(b.link(1), address)
    loop.run_until(lambda: b.refusals)
    loop.run_for(300)
    assert [refusal.reason for refusal in b.refusals] == ["it does not accept our token"]
    assert len(a.notes) == 1 and "does not know this cluster's token" in a.notes[0]
    assert not a.ups and not b.ups
    assert _is_open_to_friends(loop, end, a, address)


def test_an_impostor_who_has_no_token_is_found_out_by_the_dialler(loop: Loop, end: Ends) -> None:
    """The acceptor must prove itself, too: a wrong proof ends it before we say who we are."""
    b = end(2)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    b.hub.dial(b.link(1), Address("127.0.0.1", listener.getsockname()[1]))
    held: list[socket.socket] = []

    def is_here() -> bool:
        try:
            held.append(listener.accept()[0])
        except BlockingIOError:
            return False
        return True

    loop.run_until(is_here)
    sock = held[0]
    sock.setblocking(False)
    sock.send(b"detray" + struct.pack(">H", handshake.PROTOCOL) + b"n" * 32 + b"p" * 32)
    came = _is_turned_away(loop, sock)
    assert len(came) <= 40 + 32  # its opening and its proof, and no word more
    assert any("does not know this cluster's token" in note for note in b.notes)
    listener.close()


def test_another_version_of_the_protocol(
    loop: Loop, end: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends say what they speak."""
    a = end(1)
    address = a.listen()
    sock = _knock(address)
    sock.send(b"detray" + struct.pack(">H", 999) + bytes(32))
    came = _is_turned_away(loop, sock)
    assert came[:8] == b"detray" + struct.pack(">H", handshake.PROTOCOL)
    assert "version 999" in a.notes[0]


def test_another_release_is_refused(loop: Loop, end: Ends) -> None:
    """All processes of a cluster have the same detray."""
    a, b = end(1), end(2)
    b.version = "0.0.1"
    b.hub.dial(b.link(1), a.listen())
    loop.run_until(lambda: b.refusals)
    assert "0.0.1" in b.refusals[0].reason and len(a.notes) == 1


def test_another_cluster_is_refused(loop: Loop, end: Ends) -> None:
    """Two clusters may have been given one token."""
    a, b = end(1), end(2, cluster="d" * 32)
    b.hub.dial(b.link(1), a.listen())
    loop.run_until(lambda: b.refusals)
    assert "cluster" in b.refusals[0].reason and not a.ups


def test_replayed_handshakes_prove_nothing(loop: Loop, end: Ends) -> None:
    """Both random parts are in each proof."""
    a = end(1)
    address = a.listen()
    insider = _Insider(loop, address)
    opening = insider.handshake._opening()
    insider.loop.run_until(insider.read)
    proof = insider.handshake._prove(handshake._DIALLER)
    insider.sock.close()
    again = _knock(address)
    again.send(opening)
    again.send(proof)
    came = _is_turned_away(loop, again)
    assert came[-32:] == bytes(32)
    assert not a.ups


def test_a_proof_cannot_be_sent_back_to_who_made_it(loop: Loop, end: Ends) -> None:
    """Whoever mirrors our bytes never proves anything: roles are in the proofs."""
    ours, mirror = Handshake(TOKEN, is_dialler=True), Handshake(b"x" * 32, is_dialler=False)
    opening = ours.begin()
    proof = ours.receive(mirror.receive(opening))
    with pytest.raises(handshake.HandshakeError):
        ours.receive(proof)


def test_who_says_nothing_is_turned_away_in_time(
    loop: Loop, end: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port scanner, and one that sends a byte now and then."""
    monkeypatch.setattr(greeting, "GREETING_NS", 300_000_000)
    a = end(1)
    address = a.listen()
    silent, slow = _knock(address), _knock(address)
    slow.send(b"de")
    loop.run_for(150)
    slow.send(b"t")
    assert _is_turned_away(loop, silent) == _is_turned_away(loop, slow) == b""
    assert len(a.notes) == 1
    assert _is_open_to_friends(loop, end, a, address)


def test_a_crowd_that_does_not_greet_does_not_keep_others_out(loop: Loop, end: Ends) -> None:
    """One more than the limit, and the oldest has to go."""
    a = end(1)
    address = a.listen()
    crowd = [_knock(address) for _ in range(hub.HALF_OPEN_MAX + 20)]
    assert _is_open_to_friends(loop, end, a, address)
    assert len(a.hub._half_open) <= hub.HALF_OPEN_MAX
    assert len(a.notes) == 1
    for sock in crowd:
        sock.close()


@pytest.mark.parametrize(
    "said",
    [
        struct.pack(">H", 5000) + bytes(5000),
        struct.pack(">H", 0),
        pack_greeting(b"\xc1"),
        pack_greeting(msgspec.msgpack.encode(["hello", ["node", "c", "v", "short", 1]])),
        pack_greeting(encode_greeting(Acceptance(1, 0))),
    ],
    ids=["oversize", "empty", "no msgpack", "no hello", "out of turn"],
)
def test_greetings_that_make_no_sense(said: bytes, loop: Loop, end: Ends) -> None:
    """From somebody who has the token."""
    a = end(1)
    address = a.listen()
    insider = _Insider(loop, address)
    insider.prove()
    insider.sock.send(said)
    _is_turned_away(loop, insider.sock)
    assert len(a.notes) == 1 and not a.ups
    assert _is_open_to_friends(loop, end, a, address)


def _head(kind: int, size: int) -> bytes:
    return HEADER.pack(size, kind ^ (size * 0x9E3779B1 & 0xFFFFFFFF), 0)


_SESSION = struct.Struct("<QQI")
_NUMBERLESS = msgspec.msgpack.encode(
    [TemplateShipped(1, NodeID(1), -1, FunctionID(bytes(16)), "f", 1, (), 0, False, 0)]
)
_CHUNK = struct.Struct("<QQQQI")


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 100,
        _head(MESSAGES, (1 << 31) + 1),
        _head(ASIDE, 1 << 30),
        _head(CHUNK, 1 << 20),
        encode_frame(MESSAGES, b"") + bytes(100),
        encode_frame(MESSAGES, _SESSION.pack(1, 0, 4_000_000_000) + bytes(100)),
        encode_frame(MESSAGES, _SESSION.pack(1, 0, 100) + bytes(100)),
        encode_frame(MESSAGES, _SESSION.pack(1, 0, 1) + b"\x90" + b"unannounced payload"),
        encode_frame(MESSAGES, _SESSION.pack(1, 0, 3) + msgspec.msgpack.encode([[9]])),
        encode_frame(MESSAGES, _SESSION.pack(1, 0, len(_NUMBERLESS)) + _NUMBERLESS),
        encode_frame(ASIDE, b"\xc1"),
        encode_frame(ASIDE, msgspec.msgpack.encode({"no": "array"})),
        encode_frame(ASIDE, b"\x91" * 100_000 + b"\x00"),
        encode_frame(BLOCKS, b"\x93\x01\x02\x03"),
        encode_frame(CHUNK, b"short"),
        encode_frame(CHUNK, _CHUNK.pack(1, 0, 10, 0, 1 << 30) + b"key"),
        encode_frame(CHUNK, _CHUNK.pack(1, 8, 10, 0, 5) + b"key"),
        encode_frame(ASIDE, b"\x91\x01")[:-1] + b"\x02",
    ],
    ids=[
        "noise", "oversize messages", "oversize aside", "oversize chunk head", "no session head",
        "false size", "zeros", "unannounced payload", "unknown message", "number below none",
        "undecodable aside", "aside that is no array", "deep aside", "undecodable news",
        "short chunk", "oversize chunk", "chunk beyond its block", "wrong digest",
    ],
)  # fmt: skip
def test_garbage_after_the_greeting_ends_the_connection(said: bytes, loop: Loop, end: Ends) -> None:
    """One note, no effect."""
    a = end(1)
    address = a.listen()
    insider = _Insider(loop, address)
    insider.enter()
    loop.run_until(lambda: a.ups)
    insider.sock.send(said)
    _is_turned_away(loop, insider.sock)
    assert len([note for note in a.notes if note.startswith("warning")]) == 1
    assert not a.said and not a.asides
    assert _is_open_to_friends(loop, end, a, address)


def test_memory_follows_what_came_not_what_was_announced(loop: Loop, end: Ends) -> None:
    """A frame that says it has 2 GB and brings little costs little."""
    a = end(1)
    insider = _Insider(loop, a.listen())
    insider.enter()
    loop.run_until(lambda: a.ups)
    insider.sock.send(_head(MESSAGES, 1 << 31) + bytes(50_000))
    loop.run_for(50)
    channel = a.link(50)._channel
    assert channel is not None and len(channel._intake._buffer) < 1 << 20
    insider.sock.close()
