"""Connections that end, stand still or lie: nothing is lost, nothing comes twice, order is kept."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable

import msgspec
import pytest

from detray.core.peer_messages import PeerMessage
from detray.core.session import NEVER
from detray.runtime.net import dialling, hub, link
from detray.runtime.net.address import Address
from detray.runtime.net.hub import Hub
from detray.runtime.net.identity import Refusal
from tests.net.peers import End, Loop, connect
from tests.net.proxy import Proxy

Ends = Callable[..., End]
Proxies = Callable[[Address], Proxy]


@pytest.mark.parametrize("seed", range(8))
def test_random_cuts_lose_nothing(
    seed: int, loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after a random number of bytes, again and again, in the middle of frames."""
    monkeypatch.setattr(dialling, "_PAUSE_MAX_NS", 50_000_000)
    # What is said does not depend on when it is cut: 4 MB and more, of which 5 cuts need 2.
    rng, cutter = random.Random(seed), random.Random(~seed)
    a, b = end(1), end(2)
    between = proxy(b.listen())

    def cut_again() -> None:
        if between.cuts < 25:
            between.cut_after = cutter.choice([1, 30, 60, 200, 3_000, 100_000, 500_000])

    between.on_cut = cut_again
    between.cut_after = 10
    connector = a.link(2)
    a.hub.dial(connector, between.address)
    total_a = total_b = 0
    for _ in range(30):
        more = rng.randint(1, 100)
        a.say(connector, range(total_a + 1, total_a + more + 1), rng.choice([0, 10, 20_000]))
        total_a += more
        more = rng.randint(1, 50)
        b.say(b.link(1), range(total_b + 1, total_b + more + 1), rng.choice([0, 100]))
        total_b += more
        loop.run_for(rng.randint(0, 30))
    loop.run_until(lambda: len(b.said) >= total_a and len(a.said) >= total_b)
    loop.run_until(lambda: not connector.is_owing and not b.link(1).is_owing)
    assert b.numbers == list(range(1, total_a + 1))
    assert a.numbers == list(range(1, total_b + 1))
    assert between.cuts >= 5


@pytest.mark.parametrize("seed", range(6))
def test_broken_bytes_lose_nothing(
    seed: int, loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame with a wrong byte ends the connection; what it carried comes again."""
    monkeypatch.setattr(dialling, "_PAUSE_MAX_NS", 50_000_000)
    rng = random.Random(seed)
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connector = connect(loop, a, b, between.address)
    between.flips = {between.carried + rng.randint(1, 400_000) for _ in range(10)}
    for start in range(1, 3001, 300):
        a.say(connector, range(start, start + 300), 150)
        loop.run_for(2)
    loop.run_until(lambda: len(b.said) >= 3000)
    assert b.numbers == list(range(1, 3001))
    assert b.values == [bytes((n % 251,)) * 150 for n in range(1, 3001)]
    assert between.flips == set() or len(b.ups) >= 1


def test_a_delay_is_only_a_delay(
    loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers that expire meanwhile send nothing twice over one connection."""
    monkeypatch.setattr(link, "_STUCK_NS", NEVER)  # there is one, however late we are
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connector = connect(loop, a, b, between.address)
    between.delay_ms = 500
    before = between.carried
    a.say(connector, range(1, 101), 1000)
    loop.run_until(lambda: len(b.said) == 100)
    assert between.carried - before < 150_000
    assert b.link(1).session.stats.duplicates == 0


def test_a_frozen_connection_is_noticed_and_replaced(
    loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes, nothing ends: the owner hears of it, and in time there is a new connection."""
    monkeypatch.setattr(link, "_STUCK_NS", NEVER)
    a, b = end(1), end(2)
    address = b.listen()
    between = proxy(address)
    connector = connect(loop, a, b, between.address)
    between.freeze()
    a.say(connector, [1])
    loop.run_until(lambda: a.silences == ["silent"])
    a.hub.dial(connector, address)  # another way, as it were
    assert connector.is_up and len(a.ups) == 1
    monkeypatch.setattr(link, "_STUCK_NS", 1_500_000_000)
    loop.run_until(lambda: b.numbers == [1])
    loop.run_until(lambda: a.silences[:2] == ["silent", "heard"])
    assert len(a.ups) >= 2


def test_the_newest_connection_counts(loop: Loop, end: Ends, proxy: Proxies) -> None:
    """The peer came back before we noticed that it was gone."""
    a, b = end(1), end(2)
    address = b.listen()
    between = proxy(address)
    connector = connect(loop, a, b, between.address)
    between.freeze()
    b.say(b.link(1), [1])
    connector.drop_connection()  # a knows that it is gone, b does not
    a.hub.dial(connector, address)
    loop.run_until(lambda: a.numbers == [1])
    assert len(b.ups) == 2 and b.link(1).is_up
    between.thaw()
    a.say(connector, [1])
    loop.run_until(lambda: b.numbers == [1])


@pytest.mark.parametrize("seed", range(5))
def test_two_that_dial_each_other_agree_on_one_connection(seed: int, loop: Loop, end: Ends) -> None:
    """At the same time, and again after each cut."""
    random.seed(seed)
    a, b = end(1), end(2)
    address_a, address_b = a.listen(), b.listen()
    a.hub.dial(a.link(2), address_b)
    b.hub.dial(b.link(1), address_a)
    for start in range(1, 101, 20):
        a.say(a.link(2), range(start, start + 20))
        b.say(b.link(1), range(start, start + 20))
        loop.run_until(lambda: len(a.said) == len(b.said) == start + 19)  # noqa: B023
        a.link(2).drop_connection()
        a.link(2).dialler.retry()
        b.link(1).dialler.retry()
    assert a.numbers == b.numbers == list(range(1, 101))


@pytest.mark.parametrize("is_dialler_first", [False, True])
def test_either_may_be_there_first(
    is_dialler_first: bool, loop: Loop, end: Ends, taken: Address
) -> None:
    """A dialler waits for its peer as long as it takes."""
    a, b = end(1), end(2)
    if not is_dialler_first:
        b.listen(port=taken.port)
    a.hub.dial(a.link(2), taken)
    if is_dialler_first:
        loop.run_until(lambda: a.notes)
        b.listen(port=taken.port)
    a.say(a.link(2), [1])
    loop.run_until(lambda: b.numbers == [1])
    assert sum("cannot reach" in note for note in a.notes) == is_dialler_first


def test_a_head_that_starts_again_gets_a_new_session(loop: Loop, end: Ends, taken: Address) -> None:
    """Of a later epoch; what the old one had not acknowledged is forgotten (the core says it
    again)."""
    node = end(1)
    head = end(0, kind="head", epoch=1)
    connector = connect(loop, node, head, head.listen(port=taken.port))
    node.say(connector, [1, 2, 3])
    loop.run_until(lambda: not connector.is_owing)
    head.hub.close()
    node.say(connector, [4])
    head = end(0, kind="head", epoch=2)
    head.listen(port=taken.port)
    loop.run_until(lambda: len(node.ups) == 2)
    assert connector.peer is not None and connector.peer.epoch == 2
    connector.restart()
    loop.run_until(lambda: connector.is_up)
    node.say(connector, [1])
    loop.run_until(lambda: head.numbers == [1])


def test_restart_in_on_up_keeps_the_connection(loop: Loop, end: Ends, taken: Address) -> None:
    """A node's driver restarts the link of a head with a new epoch when it hears of it."""
    node = end(1)
    heads = [end(0, kind="head", epoch=1)]
    connector = connect(loop, node, heads[0], heads[0].listen(port=taken.port))
    node.say(connector, [1])
    loop.run_until(lambda: not connector.is_owing)
    node.on_up = lambda link: (node.ups.append(link), link.restart())  # type: ignore[method-assign]
    heads[0].hub.close()
    heads.append(end(0, kind="head", epoch=2))
    heads[1].listen(port=taken.port)
    loop.run_until(lambda: len(node.ups) == 2)
    assert connector.is_up
    node.say(connector, [1])
    loop.run_until(lambda: heads[1].numbers == [1])


def test_another_life_is_let_in_only_if_the_owner_says_so(loop: Loop, end: Ends) -> None:
    """A node that is another process than before is a stranger to the session."""
    a, b = end(1), end(2)
    address = b.listen()
    connector = connect(loop, a, b, address)
    a.say(connector, [1, 2])
    loop.run_until(lambda: not connector.is_owing)
    a.hub.close()
    other = end(1)
    other.say(other.link(2), [1, 2, 3])
    other.hub.dial(other.link(2), address)
    loop.run_until(lambda: other.refusals)
    assert "another process" in other.refusals[0].reason
    b.restarts_others = True
    loop.run_until(lambda: b.numbers == [1, 2, 1, 2, 3])


def test_what_comes_again_is_delivered_once(
    loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Received, not acknowledged, cut: it is sent again, and only what is new is handed over."""
    monkeypatch.setattr(link, "_STUCK_NS", NEVER)  # it is cut once
    a, b = end(1), end(2, is_settling=False)
    between = proxy(b.listen())
    connector = connect(loop, a, b, between.address)
    a.say(connector, range(1, 6), 10)
    loop.run_until(lambda: len(b.said) == 5)
    between.is_refusing = True
    between.cut()
    loop.run_until(lambda: not connector.is_up)
    a.say(connector, range(6, 11), 10)
    between.is_refusing = False
    loop.run_until(lambda: len(b.said) == 10)
    assert b.numbers == list(range(1, 11)) and len(b.values) == 10
    decode = msgspec.msgpack.Decoder(list[PeerMessage]).decode
    assert [message for meta in b.metas for message in decode(meta)] == b.said
    assert b.link(1).session.stats.duplicates == 5
    b.hub.settle()
    loop.run_until(lambda: not connector.is_owing)


def test_without_descriptors_nobody_comes_and_the_loop_rests(
    loop: Loop, end: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMFILE: one line, and a try again later."""
    monkeypatch.setattr(hub, "_REST_NS", 200_000_000)
    a, b = end(1), end(2)
    address = b.listen()
    calls = []

    class Full:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def fileno(self) -> int:
            return self.sock.fileno()

        def accept(self) -> tuple[socket.socket, tuple[str, int]]:
            calls.append(1)
            if len(calls) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

    full = Full(b.hub._listeners[0])
    loop.forget(full.fileno())
    loop.watch(full.fileno(), lambda mask: b.hub._accept(full))  # type: ignore[arg-type]
    connect(loop, a, b, address)
    assert 3 <= len(calls) <= 5
    assert [note for note in b.notes if "Too many open files" in note] == b.notes[:1]


def test_a_link_that_was_closed_does_not_go_on(loop: Loop, end: Ends) -> None:
    """The peer forgot the session: ours cannot go on as if nothing had been."""
    a, b = end(1), end(2)
    address = b.listen()
    connector = connect(loop, a, b, address)
    a.say(connector, [1, 2])
    loop.run_until(lambda: not connector.is_owing)
    b.links.pop(1).close()
    loop.run_until(lambda: any("another" in note for note in a.notes))
    a.say(connector, [3])
    loop.run_for(200)
    assert b.numbers == [1, 2]
    connector.close(Refusal(False, "over"))


def test_a_peer_that_does_not_read_costs_the_session_and_no_more(
    loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages wait as themselves, not encoded a second time; asides are dropped."""
    monkeypatch.setattr(link, "_STUCK_NS", NEVER)  # saying it all may take as long
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connector = connect(loop, a, b, between.address)
    between.freeze()
    for number in range(1, 3001):
        a.say(connector, [number], 10_000)
    for _ in range(3000):
        connector.aside(["x" * 10_000])
    loop.run_for(300)  # resend timers expire meanwhile
    outlet = connector._channel.outlet
    waiting = [item for item in outlet._queue if isinstance(item, bytes)]
    assert sum(map(len, waiting)) < 20_000_000
    assert len(outlet._queue) < 3000 + 3000
    assert sum("does not read" in note for note in a.notes) == 1
    between.thaw()
    loop.run_until(lambda: len(b.said) == 3000)
    assert b.numbers == list(range(1, 3001))


def test_dialling_pauses_grow_and_end_at_a_second(
    loop: Loop, end: Ends, taken: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 ms, doubling; each a little off, so that two do not stay in step."""
    pauses = []
    kept = dialling.Dialler._next_pause_ns

    def look(self: dialling.Dialler) -> int:
        pause_ns = kept(self)
        pauses.append(pause_ns // 1_000_000)
        return 1

    monkeypatch.setattr(dialling.Dialler, "_next_pause_ns", look)
    a = end(1)
    a.hub.dial(a.link(2), taken)
    loop.run_until(lambda: len(pauses) >= 8)
    for pause, base in zip(pauses, [50, 100, 200, 400, 800, 1000, 1000, 1000], strict=False):
        assert 0.75 * base - 1 <= pause <= 1.25 * base


def test_closing_a_hub_ends_what_hangs_on_it(loop: Loop, end: Ends) -> None:
    """Dialling, half-open connections, names being asked for: no descriptor is left (fixture)."""
    a, b = end(1), end(2)
    address = b.listen()
    a.hub.dial(a.link(2), address)
    a.hub.dial(a.link(3), Address("no-such-host.invalid", 1))
    a.hub.dial(a.link(4), Address("192.0.2.1", 1))
    loop.run_for(1)
    a.hub.close()
    b.hub.close()
    assert isinstance(a.hub, Hub)
    assert all(not each.is_up for each in a.links.values())
