"""Two processes that mean each other well: messages, asides, addresses, ends."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NoReturn

import msgspec
import pytest

from detray.core.peer_messages import PeerMessage
from detray.runtime.net.address import Address
from detray.runtime.net.identity import Refusal
from tests.net.peers import End, Loop, connect, numbered

Ends = Callable[..., End]
decode = msgspec.msgpack.Decoder(list[PeerMessage]).decode


def test_messages_arrive_in_order_with_their_payload(loop: Loop, end: Ends) -> None:
    """In both directions, and are acknowledged once they are handled."""
    a, b = end(1), end(2)
    link = connect(loop, a, b)
    assert link.peer is not None and link.peer.node == 2
    a.say(link, range(1, 1001), 300)
    b.say(b.link(1), range(1, 501))
    loop.run_until(lambda: len(b.said) == 1000 and len(a.said) == 500)
    loop.run_until(lambda: not link.is_owing and not b.link(1).is_owing)
    assert b.numbers == list(range(1, 1001))
    assert b.values == [bytes((n % 251,)) * 300 for n in range(1, 1001)]
    assert a.numbers == list(range(1, 501))


def test_what_was_said_before_the_connection_is_not_lost(loop: Loop, end: Ends) -> None:
    """A link takes messages from the moment it exists."""
    a, b = end(1), end(2)
    a.say(a.link(2), range(1, 6000))
    connect(loop, a, b)
    loop.run_until(lambda: len(b.said) == 5999)
    assert b.numbers == list(range(1, 6000))


def test_metas_are_the_messages_as_they_travelled(loop: Loop, end: Ends) -> None:
    """A recorder keeps the bytes that it is given."""
    a, b = end(1), end(2)
    link = connect(loop, a, b)
    a.say(link, range(1, 40))
    loop.run_until(lambda: len(b.said) == 39)
    again = [message for meta in b.metas for message in decode(meta)]
    assert again == b.said == [numbered(1, n)[0] for n in range(1, 40)]


def test_nothing_is_acknowledged_before_it_is_handled(loop: Loop, end: Ends) -> None:
    """PROTOCOL T5: whoever dies between receiving and handling has not acknowledged."""
    a, b = end(1), end(2, is_settling=False)
    link = connect(loop, a, b)
    a.say(link, [1, 2, 3])
    loop.run_until(lambda: len(b.said) == 3)
    loop.run_for(50)
    assert link.is_owing
    b.hub.settle()
    loop.run_until(lambda: not link.is_owing)


def test_asides_travel_beside_the_session(loop: Loop, end: Ends) -> None:
    """Plain data, and nothing if the link is down."""
    a, b = end(1), end(2)
    a.link(2).aside(["into", "the", "void"])
    link = connect(loop, a, b)
    link.aside(["ask", 1, "status", {"x": [1, b"2", None]}])
    b.link(1).aside(["answer", 1, "fine"])
    loop.run_until(lambda: a.asides and b.asides)
    assert b.asides == [["ask", 1, "status", {"x": [1, b"2", None]}]]
    assert a.asides == [["answer", 1, "fine"]]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_addresses_of_all_kinds(host: str, loop: Loop, end: Ends) -> None:
    """Numbers of both families, and names."""
    a, b = end(1), end(2)
    address = b.listen("127.0.0.1" if host == "localhost" else host)
    link = connect(loop, a, b, Address(host, address.port))
    a.say(link, [1])
    loop.run_until(lambda: b.numbers == [1])


def test_a_name_that_nobody_has_is_a_note_and_a_retry(
    loop: Loop, end: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never an exception."""

    def ask(*_: object, **how: object) -> NoReturn:
        # A name server that is out of reach takes half a minute to say so.
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    a = end(1)
    a.hub.dial(a.link(2), Address("no-such-host.invalid", 4))
    loop.run_until(lambda: a.notes)
    assert "no-such-host.invalid" in a.notes[0] and "trying again" in a.notes[0]


def test_a_goodbye_reaches_the_peer(loop: Loop, end: Ends) -> None:
    """With its reason, behind what was said before."""
    a, b = end(1), end(2)
    link = connect(loop, a, b)
    b.say(b.link(1), [1, 2])
    b.link(1).close(Refusal(True, "node 1 was declared dead"))
    loop.run_until(lambda: a.refusals)
    assert a.numbers == [1, 2]
    assert a.refusals == [Refusal(True, "node 1 was declared dead")]
    link.close()
    assert not link.is_up and not link.is_owing


def test_a_refusal_reaches_the_dialler_once(loop: Loop, end: Ends) -> None:
    """It goes on dialling, and hears the same reason no second time."""
    a, b = end(1), end(2)
    b.refuses = Refusal(True, "buried")
    a.hub.dial(a.link(2), b.listen())
    loop.run_until(lambda: a.refusals)
    loop.run_for(400)
    assert a.refusals == [Refusal(True, "buried")]
    assert len(b.notes) == 1
    b.refuses = None
    loop.run_until(lambda: a.link(2).is_up)


def test_the_owner_hears_of_silence_and_of_its_end(loop: Loop, end: Ends) -> None:
    """Silence is something owed and nothing heard, whatever the reason."""
    a, b = end(1), end(2)
    address = b.listen()
    a.say(a.link(2), [1])
    loop.run_until(lambda: a.silences == ["silent"])
    connect(loop, a, b, address)
    loop.run_until(lambda: a.silences[:2] == ["silent", "heard"])
