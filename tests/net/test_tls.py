"""TLS, of the standard library: the same links, and nobody without a certificate."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from detray.runtime.boot import TlsFiles
from detray.runtime.net.address import Address
from detray.runtime.net.security import Security, TlsContexts, make_tls
from detray.runtime.net.tool import connect_tool
from tests.net.peers import CLUSTER, TOKEN, End, Loop, connect
from tests.net.proxy import Proxy
from tests.net.test_blocks import MB, Transfer

Ends = Callable[..., End]
_FOLDER = Path(__file__).parent / "certificates"


def contexts(who: str) -> TlsContexts:
    """Of one of the two authorities."""
    paths = [str(_FOLDER / f"{who}-{name}") for name in ("node.pem", "node.key", "authority.pem")]
    return make_tls(TlsFiles(*paths))


def test_messages_and_blocks_as_without_it(loop: Loop, end: Ends) -> None:
    """Both ways at once."""
    a, b = end(1, tls=contexts("ours")), end(2, tls=contexts("ours"))
    connector = connect(loop, a, b)
    to, fro = Transfer(24 * MB, 1), Transfer(24 * MB, 2)
    to.expect(b, 1)
    fro.expect(a, 2)
    to.send(a, 2)
    fro.send(b, 1)
    a.say(connector, range(1, 1001), 2000)
    b.say(b.link(1), range(1, 1001), 20)
    loop.run_until(lambda: to.is_over and fro.is_over and len(a.said) == len(b.said) == 1000)
    assert a.numbers == b.numbers == list(range(1, 1001))
    to.check()
    fro.check()


def test_cuts_are_healed(loop: Loop, end: Ends, proxy: Callable[[Address], Proxy]) -> None:
    """In the middle of records."""
    rng = random.Random(1)
    a, b = end(1, tls=contexts("ours")), end(2, tls=contexts("ours"))
    between = proxy(b.listen())
    connector = connect(loop, a, b, between.address)

    def cut_again() -> None:
        if between.cuts < 6:
            between.cut_after = rng.choice([1000, 100_000, 2_000_000])

    between.on_cut = cut_again
    between.cut_after = 3 * MB
    transfer = Transfer(16 * MB)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    a.say(connector, range(1, 1001), 2000)
    loop.run_until(lambda: transfer.is_over and len(b.said) == 1000)
    assert b.numbers == list(range(1, 1001))
    transfer.check()


@pytest.mark.parametrize("who", ["theirs", ""])
def test_without_a_certificate_of_the_authority_nobody_comes_in(
    who: str, loop: Loop, end: Ends
) -> None:
    """Though he has the token; one line of notes."""
    a = end(1, tls=contexts("ours"))
    b = end(2, tls=contexts(who) if who else None)
    address = a.listen()
    b.hub.dial(b.link(1), address)
    loop.run_until(lambda: a.notes and b.notes)
    loop.run_for(200)
    assert not a.ups and not b.ups and len(a.notes) == len(b.notes) == 1
    friend = end(3, tls=contexts("ours"))
    connect(loop, friend, a, address)


def test_a_dialler_with_tls_does_not_talk_to_one_without(loop: Loop, end: Ends) -> None:
    """Nor is anything said in the clear."""
    a, b = end(1), end(2, tls=contexts("ours"))
    b.hub.dial(b.link(1), a.listen())
    loop.run_until(lambda: a.notes and b.notes)
    assert not a.ups and "what came is not detray" in a.notes[0]


def test_tools_too(loop: Loop, end: Ends) -> None:
    """A blocking connection with the same files."""
    head = end(0, kind="head", tls=contexts("ours"))
    head.on_aside = lambda link, body: link.aside(["answer", body[1], "x" * 100_000])  # type: ignore[method-assign]
    address = head.listen()
    answers: list[str] = []

    def ask() -> None:
        with connect_tool(address, Security(TOKEN, contexts("ours")), CLUSTER) as tool:
            answers.append(tool.ask("status"))

    thread = threading.Thread(target=ask)
    thread.start()
    loop.run_until(lambda: answers)
    thread.join()
    assert answers == ["x" * 100_000]
