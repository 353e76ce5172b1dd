"""Bulk bytes: straight from memory to memory, in turns, resumed, checked."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from itertools import count

import pytest

from detray.core.session import NEVER
from detray.runtime.net import blocks, channel, dialling, link
from detray.runtime.net.address import Address
from detray.runtime.net.blocks import CHUNK_BYTES
from detray.runtime.net.identity import Refusal
from tests.net.peers import End, Loop, connect
from tests.net.proxy import Proxy

Ends = Callable[..., End]
Proxies = Callable[[Address], Proxy]
MB = 1 << 20


class Transfer:
    """A block on its way from `source` to `target`, in memory that can be unmapped afterwards."""

    def __init__(self, size_bytes: int, number: int = 1, key: bytes = b"") -> None:
        self.key = key or b"block %d" % number
        self.source = bytearray(os.urandom(size_bytes))
        self.target = mmap.mmap(-1, max(size_bytes, 1))
        self.size_bytes = size_bytes
        self.sent = 0
        self.ends: list[str] = []

    def expect(self, at: End, node: int) -> None:
        """Call before `send`."""
        view = memoryview(self.target)[: self.size_bytes]
        at.link(node).expect_block(self.key, view, self._on_end)

    def send(self, at: End, node: int) -> None:
        """The other side's part."""
        at.link(node).send_block(self.key, memoryview(self.source), self._on_sent)

    @property
    def is_over(self) -> bool:
        """Both ends were told."""
        return bool(self.sent and self.ends)

    def check(self) -> None:
        """It has arrived, and both ends let go of their memory (else mmap.close raises)."""
        assert self.ends == [""] and self.sent == 1
        assert self.target[: self.size_bytes] == self.source
        self.close()

    def close(self) -> None:
        """Nobody holds a view any more: neither would work otherwise."""
        self.source.append(0)
        self.target.close()

    def _on_sent(self) -> None:
        self.sent += 1

    def _on_end(self, problem: str) -> None:
        self.ends.append(problem)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 5 * CHUNK_BYTES + 7])
def test_a_block_arrives_whole(size: int, loop: Loop, end: Ends) -> None:
    """Of any size; afterwards neither side holds a view of the memory."""
    a, b = end(1), end(2)
    connect(loop, a, b)
    transfer = Transfer(size)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.is_over)
    transfer.check()


def test_several_at_once_take_turns_in_both_directions(loop: Loop, end: Ends) -> None:
    """A small one that begins late does not wait for the large ones to end."""
    a, b = end(1), end(2)
    connect(loop, a, b)
    large = [Transfer(24 * MB, number) for number in (1, 2, 3)]
    back = Transfer(8 * MB, 4)
    for transfer in large:
        transfer.expect(b, 1)
        transfer.send(a, 2)
    back.expect(a, 2)
    back.send(b, 1)
    loop.run_until(lambda: large[0].target[: 4 * MB] == large[0].source[: 4 * MB])
    small = Transfer(100_000, 5)
    small.expect(b, 1)
    small.send(a, 2)
    loop.run_until(lambda: small.is_over)
    assert not any(transfer.is_over for transfer in large)
    loop.run_until(lambda: back.is_over and all(transfer.is_over for transfer in large))
    for transfer in [*large, back, small]:
        transfer.check()


def test_messages_overtake_bulk(loop: Loop, end: Ends, proxy: Proxies) -> None:
    """What is said in the middle of a transfer arrives long before its end."""
    a, b = end(1), end(2)
    connector = connect(loop, a, b)
    transfer = Transfer(64 * MB)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.target[:MB] == transfer.source[:MB])
    a.say(connector, range(1, 101), 1000)
    connector.aside(["hello"])
    loop.run_until(lambda: len(b.said) == 100 and b.asides)
    assert not transfer.is_over
    loop.run_until(lambda: transfer.is_over)
    transfer.check()


def test_a_transfer_goes_on_after_a_cut(loop: Loop, end: Ends, proxy: Proxies) -> None:
    """64 MB, cut in the middle of a chunk: what had come does not travel again."""
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connect(loop, a, b, between.address)
    transfer = Transfer(64 * MB)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    between.cut_after = 40 * MB + 12_345
    loop.run_until(lambda: transfer.is_over)
    assert between.cuts == 1 and len(a.ups) == 2
    assert between.carried < (64 + 4) * MB
    transfer.check()


@pytest.mark.parametrize("seed", range(4))
def test_random_cuts_and_blocks(
    seed: int, loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several blocks both ways, with messages between them."""
    monkeypatch.setattr(dialling, "_PAUSE_MAX_NS", 50_000_000)
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 1 << 14)
    rng = random.Random(seed)
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connector = connect(loop, a, b, between.address)

    def cut_again() -> None:
        if between.cuts < 15:
            between.cut_after = rng.choice([400, 3_000, 100_000, 500_000])

    between.on_cut = cut_again
    between.cut_after = 1
    transfers = [Transfer(rng.choice([100, 40_000, 3_000_000]), number) for number in range(12)]
    for number, transfer in enumerate(transfers):
        here, there = (a, b) if number % 2 else (b, a)
        transfer.expect(there, here.node)
        transfer.send(here, there.node)
        a.say(connector, [number + 1], 500)
        loop.run_for(rng.randint(0, 20))
    loop.run_until(lambda: all(transfer.is_over for transfer in transfers) and len(b.said) == 12)
    assert b.numbers == list(range(1, 13))
    for transfer in transfers:
        transfer.check()


def test_a_wrong_chunk_is_asked_for_again(loop: Loop, end: Ends, proxy: Proxies) -> None:
    """Once; the rest of the block is not sent twice for it."""
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connect(loop, a, b, between.address)
    transfer = Transfer(16 * MB)
    transfer.expect(b, 1)
    between.flips = {between.carried + 5 * CHUNK_BYTES + 1000}
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.is_over)
    assert not between.flips and len(a.ups) == 1
    transfer.check()


def test_a_chunk_that_comes_wrong_twice_ends_the_transfer(
    loop: Loop, end: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a reason; both ends let go."""
    a, b = end(1), end(2)
    connect(loop, a, b)
    transfer = Transfer(4 * MB)
    digests = count()
    monkeypatch.setattr(blocks, "xxh3_64_intdigest", lambda data: next(digests))
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.is_over)
    assert transfer.ends == ["the chunk at 0 came wrong twice"]
    transfer.close()


def test_another_size_than_expected_ends_the_transfer(loop: Loop, end: Ends) -> None:
    """Nothing is written beyond the view, or at all."""
    a, b = end(1), end(2)
    connect(loop, a, b)
    transfer = Transfer(4 * MB)
    transfer.size_bytes -= 1
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.is_over)
    assert "4194304 bytes, 4194303 were expected" in transfer.ends[0]
    assert transfer.target[:] == bytes(4 * MB)
    transfer.close()


def test_nobody_expects_it(loop: Loop, end: Ends) -> None:
    """The sender is told to stop, long before the end; messages go on."""
    a, b = end(1), end(2)
    connector = connect(loop, a, b)
    transfer = Transfer(48 * MB)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.sent)
    assert a.link(2).blocks.is_empty
    a.say(connector, [1])
    loop.run_until(lambda: b.numbers == [1])
    transfer.source.append(0)


def test_an_aborted_block_is_let_go_of_at_once(loop: Loop, end: Ends) -> None:
    """In the middle of a chunk: the rest is read and forgotten; it may be asked for again."""
    a, b = end(1), end(2)
    connect(loop, a, b)
    transfer = Transfer(64 * MB)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.target[:MB] == transfer.source[:MB])
    b.link(1).abort_block(transfer.key)
    assert transfer.ends == ["aborted"]
    transfer.target.close()
    loop.run_until(lambda: transfer.sent)
    transfer.source.append(0)
    again = Transfer(3 * MB, key=transfer.key)
    again.expect(b, 1)
    again.send(a, 2)
    loop.run_until(lambda: again.is_over)
    again.check()
    b.link(1).abort_block(b"what nobody knows")


def test_a_new_transfer_of_a_key_replaces_the_old_one(loop: Loop, end: Ends) -> None:
    """The receiver gave up and asked again before the sender heard of it."""
    a, b = end(1), end(2)
    connect(loop, a, b)
    first = Transfer(32 * MB)
    first.expect(b, 1)
    first.send(a, 2)
    loop.run_until(lambda: first.target[:MB] == first.source[:MB])
    b.link(1).abort_block(first.key)
    again = Transfer(32 * MB)
    again.expect(b, 1)
    again.send(a, 2)
    loop.run_until(lambda: again.is_over and first.sent)
    again.check()
    first.close()


def test_closing_the_link_ends_its_blocks(loop: Loop, end: Ends) -> None:
    """On both sides; and what is asked of a closed link is over at once."""
    a, b = end(1), end(2)
    connect(loop, a, b)
    transfer = Transfer(64 * MB)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.target[:MB] == transfer.source[:MB])
    a.link(2).close()
    assert transfer.sent == 1
    b.link(1).close()
    assert transfer.ends == ["the link was closed"]
    transfer.close()
    late = Transfer(10)
    late.send(a, 2)
    late.expect(b, 1)
    assert late.sent == 1 and late.ends == ["the link was closed"]
    late.close()


def test_a_goodbye_in_the_middle_of_a_transfer_arrives(
    loop: Loop, end: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the chunk that was begun; the block's memory is free at once."""
    monkeypatch.setattr(channel, "_LINGER_NS", NEVER // 2)
    a, b = end(1), end(2)
    connector = connect(loop, a, b)
    transfer = Transfer(64 * MB)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.target[:MB] == transfer.source[:MB])
    a.say(connector, [1])
    connector.close(Refusal(True, "you were declared dead"))
    assert transfer.sent == 1
    transfer.source.append(0)
    loop.run_until(lambda: b.refusals)
    assert b.refusals == [Refusal(True, "you were declared dead")] and b.numbers == [1]
    b.link(1).close()
    assert transfer.ends == ["the link was closed"]
    loop.run_until(lambda: not a.hub.lingering)


def test_blocks_wait_for_a_link_that_is_down_only_so_long(
    loop: Loop, end: Ends, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then both ends are told."""
    monkeypatch.setattr(link, "BLOCKS_WAIT_NS", 300_000_000)
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connect(loop, a, b, between.address)
    transfer = Transfer(64 * MB)
    transfer.expect(b, 1)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.target[:MB] == transfer.source[:MB])
    between.is_refusing = True
    between.cut()
    loop.run_until(lambda: transfer.is_over)
    assert transfer.ends[0].endswith("was down for 5 s")
    transfer.close()


def test_a_sender_that_finished_hears_of_it_after_a_cut(
    loop: Loop, end: Ends, proxy: Proxies
) -> None:
    """The receiver's confirmation is lost; on the next connection it names nothing any more."""
    a, b = end(1), end(2)
    between = proxy(b.listen())
    connect(loop, a, b, between.address)
    transfer = Transfer(2 * MB)

    def on_end(problem: str) -> None:
        transfer.ends.append(problem)
        between.cut()

    b.link(1).expect_block(transfer.key, memoryview(transfer.target), on_end)
    transfer.send(a, 2)
    loop.run_until(lambda: transfer.is_over)
    transfer.check()


def test_the_same_key_twice_is_the_receivers_mistake(loop: Loop, end: Ends) -> None:
    """A ValueError, and nothing changed."""
    b = end(2)
    transfer = Transfer(10)
    transfer.expect(b, 1)
    with pytest.raises(ValueError, match="expected already"):
        transfer.expect(b, 1)
    b.link(1).abort_block(transfer.key)
    transfer.close()
