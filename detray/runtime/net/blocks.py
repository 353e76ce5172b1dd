"""Blocks: bulk bytes from one process's memory into another's, in chunks, several at once.

Theory of operation
-------------------
Sender and receiver of a block know its key and its size beforehand, since cores agreed on the
transfer; the receiver expects it before the first chunk comes. A chunk is a frame that says which
transfer, which key, which offset, which digest; its data follows, sent from the sender's view and
received into the receiver's, without a copy here. The transfers of a link take turns.

- The receiver takes only the chunk that comes next. A chunk with a wrong digest is dropped, and
  with it all behind it; the sender is asked to go on from there (`BlockAgain`). Twice at the same
  place is the end of the transfer.
- Chunks that nobody expects are read and forgotten; their sender is told to stop (`BlockStopped`).
- The sender's end is the receiver's word: all is there (`BlockTaken`), or it is not wanted.
- On a new connection each end first says what it expects and from where (`BlocksExpected`); a
  sender goes on from there, and is done with what is not named.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from detray.runtime.frames import UNDECODABLE
from detray.runtime.net.framing import BLOCKS, CHUNK, LinkGarbage, encode_frame

CHUNK_BYTES = 1 << 19
"""Small enough for a message not to wait long behind one, and to be in the cache for its digest."""
_CHUNK_BYTES_MAX = 1 << 22
KEY_BYTES_MAX = 256
_HEAD = struct.Struct("<QQQQI")
"""transfer, offset, total, digest, size; the key follows."""
_STOPPED_MAX = 1024
_EMPTY = memoryview(b"")


class BlocksExpected(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first word of a new connection: keys, and up to where each has come."""

    blocks: tuple[tuple[bytes, int], ...] = ()


class BlockTaken(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """All of it is here and right."""

    transfer: int


class BlockAgain(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Go on from there: what came was wrong."""

    transfer: int
    offset: int


class BlockStopped(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Nobody wants it, or no more."""

    transfer: int


BlockNews = BlocksExpected | BlockTaken | BlockAgain | BlockStopped
_encode = msgspec.msgpack.Encoder().encode
_decode_news = msgspec.msgpack.Decoder(BlockNews).decode


class _Outgoing:
    """A block on its way out. `is_reading`: a chunk of it is being sent from the view just now."""

    __slots__ = ("done", "is_over", "is_reading", "is_waiting", "key", "offset", "total",
                 "transfer", "view")  # fmt: skip

    def __init__(
        self, transfer: int, key: bytes, view: memoryview, done: Callable[[], None]
    ) -> None:
        self.transfer = transfer
        self.key = key
        self.view = view
        self.done = done
        self.total = len(view)
        self.offset = 0
        self.is_waiting = False
        """Begun on an earlier connection: the receiver has not said from where to go on."""
        self.is_reading = False
        self.is_over = False

    def end(self) -> None:
        """Drop the view, then say so; at once, or when the chunk is out."""
        self.is_over = True
        if not self.is_reading:
            self.view = _EMPTY
            self.done()


class _Incoming:
    """A block on its way in."""

    __slots__ = ("done", "key", "offset", "retried_at", "transfer", "view")

    def __init__(self, key: bytes, view: memoryview, done: Callable[[str], None]) -> None:
        self.key = key
        self.view = view
        self.done = done
        self.offset = 0
        """So many bytes are there and right."""
        self.transfer = -1
        self.retried_at = -1


class _Filling(NamedTuple):
    """The chunk whose data is being received. Without `block` it is thrown away."""

    block: _Incoming | None
    target: memoryview
    digest: int


class OutgoingChunk(NamedTuple):
    """What to send: a frame, then so much data; afterwards `BlockTable.chunk_out`."""

    frame: bytes
    data: memoryview
    block: _Outgoing


class BlockTable:
    """The blocks of one link, through all its connections. No callback is called while it changes.

    `say` sends a frame that goes before all bulk; `begin` asks to be asked for chunks; `divert` has
    the rest of the chunk that is being received put there and forgotten.
    """

    def __init__(
        self,
        say: Callable[[bytes], None],
        begin: Callable[[], None],
        divert: Callable[[memoryview], None],
    ) -> None:
        self._say = say
        self._begin = begin
        self._divert = divert
        self._transfers = 0
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: dict[bytes, _Incoming] = {}
        self._turns: deque[_Outgoing] = deque()
        self._stopped: dict[int, None] = {}
        self._filling: _Filling | None = None
        self._scratch = _EMPTY

    @property
    def is_empty(self) -> bool:
        """True if no block is on its way."""
        return not self._outgoing and not self._incoming

    @property
    def has_chunks(self) -> bool:
        """True if `next_chunk` has one."""
        return bool(self._turns)

    # ------------------------------------------------------------------------- owner

    def send(self, key: bytes, view: memoryview, done: Callable[[], None]) -> None:
        """See `Link.send_block`."""
        for older in [block for block in self._outgoing.values() if block.key == key]:
            self._end_outgoing(older)
        self._transfers += 1
        block = _Outgoing(self._transfers, key, view, done)
        self._outgoing[block.transfer] = block
        self._turns.append(block)
        self._begin()

    def expect(self, key: bytes, view: memoryview, done: Callable[[str], None]) -> None:
        """See `Link.expect_block`."""
        if key in self._incoming:
            raise ValueError(f"block {key.hex()} is expected already: abort it first")
        self._incoming[key] = _Incoming(key, view, done)

    def abort(self, key: bytes, reason: str = "aborted") -> None:
        """See `Link.abort_block`."""
        block = self._incoming.get(key)
        if block is None:
            return
        if block.transfer >= 0:
            self._stop(block.transfer)
        self._end_incoming(block, reason)

    def end(self, reason: str) -> None:
        """All of them are over."""
        for outgoing in list(self._outgoing.values()):
            self._end_outgoing(outgoing)
        for incoming in list(self._incoming.values()):
            self._end_incoming(incoming, reason)

    # -------------------------------------------------------------------- connections

    def connected(self) -> bytes:
        """A new connection: the first frame to send on it."""
        self._stopped.clear()
        self._turns.clear()
        for block in self._outgoing.values():
            block.is_waiting = block.offset > 0 or block.is_reading
            block.is_reading = False
            if not block.is_waiting:
                self._turns.append(block)
        for expected in self._incoming.values():
            expected.transfer = -1
        named = tuple((block.key, block.offset) for block in self._incoming.values())
        return encode_frame(BLOCKS, _encode(BlocksExpected(named)))

    def disconnected(self, in_flight: _Outgoing | None) -> None:
        """The connection ended, in the middle of that block's chunk, if any."""
        self._filling = None
        self._turns.clear()
        if in_flight is not None:
            self.chunk_out(in_flight)

    # ------------------------------------------------------------------------ sending

    def next_chunk(self) -> OutgoingChunk | None:
        """The next chunk, of the block whose turn it is."""
        while self._turns:
            block = self._turns.popleft()
            if block.is_over or block.is_waiting:
                continue
            offset = block.offset
            data = block.view[offset : offset + CHUNK_BYTES]
            block.offset = end = offset + len(data)
            head = _HEAD.pack(
                block.transfer, offset, block.total, xxh3_64_intdigest(data), len(data)
            )
            block.is_reading = True
            if end < block.total:
                self._turns.append(block)
            return OutgoingChunk(encode_frame(CHUNK, head + block.key), data, block)
        return None

    def chunk_out(self, block: _Outgoing) -> None:
        """Nothing reads that block's view any more."""
        block.is_reading = False
        if block.is_over:
            block.end()

    def _end_outgoing(self, block: _Outgoing) -> None:
        del self._outgoing[block.transfer]
        block.end()

    # ---------------------------------------------------------------------- receiving

    def chunk_announced(self, body: memoryview) -> memoryview:
        """A chunk's frame: where its data goes. Raises LinkGarbage."""
        if len(body) < _HEAD.size:
            raise LinkGarbage("a chunk that says less than it must")
        transfer, offset, total, digest, size = _HEAD.unpack_from(body)
        if size > _CHUNK_BYTES_MAX or offset + size > total:
            raise LinkGarbage(f"a chunk of {size} bytes at {offset} in a block of {total}")
        block = self._incoming.get(bytes(body[_HEAD.size :]))
        if transfer in self._stopped:
            block = None  # its sender has not heard of it yet; the key may be expected anew
        elif block is not None and total != len(block.view):
            self._stop(transfer)
            wrong = f"the sender has {total} bytes, {len(block.view)} were expected"
            self._end_incoming(block, wrong)
            block = None
        elif block is None:
            self._stop(transfer)
        elif offset != block.offset:
            block = None  # behind a wrong chunk; it comes again
        else:
            block.transfer = transfer
        if block is None:
            target = self._scratch_of(size)
        else:
            target = block.view[offset : offset + size]
        self._filling = _Filling(block, target, digest)
        return target

    def chunk_filled(self) -> None:
        """All data of the announced chunk is there."""
        filling, self._filling = self._filling, None
        if filling is None or filling.block is None:
            return
        block = filling.block
        if xxh3_64_intdigest(filling.target) == filling.digest:
            block.offset += len(filling.target)
            if block.offset == len(block.view):
                self._say_news(BlockTaken(block.transfer))
                del filling
                self._end_incoming(block, "")
        elif block.retried_at == block.offset:
            self._stop(block.transfer)
            del filling
            self._end_incoming(block, f"the chunk at {block.offset} came wrong twice")
        else:
            block.retried_at = block.offset
            self._say_news(BlockAgain(block.transfer, block.offset))

    def news(self, body: memoryview) -> None:
        """What the receiver of our blocks says. Raises LinkGarbage."""
        try:
            said = _decode_news(body)
        except UNDECODABLE as error:
            raise LinkGarbage(f"news of a block that cannot be decoded: {error}") from None
        if type(said) is BlocksExpected:
            self._go_on(dict(said.blocks))
            return
        assert not isinstance(said, BlocksExpected)
        block = self._outgoing.get(said.transfer)
        if block is None:
            return
        if type(said) is BlockAgain:
            if not 0 <= said.offset <= block.total:
                raise LinkGarbage(f"a block of {block.total} bytes is wanted from {said.offset} on")
            self._rewind(block, said.offset)
        else:
            self._end_outgoing(block)

    def _go_on(self, wanted: dict[bytes, int]) -> None:
        for block in list(self._outgoing.values()):
            if not block.is_waiting:
                continue
            offset = wanted.get(block.key, -1)
            if not 0 <= offset <= block.total:
                self._end_outgoing(block)
                continue
            block.is_waiting = False
            self._rewind(block, offset)

    def _rewind(self, block: _Outgoing, offset: int) -> None:
        block.offset = offset
        if block not in self._turns:
            self._turns.append(block)
        self._begin()

    def _end_incoming(self, block: _Incoming, reason: str) -> None:
        del self._incoming[block.key]
        filling = self._filling
        if filling is not None and filling.block is block:
            self._filling = _Filling(None, _EMPTY, 0)
            self._divert(self._scratch_of(_CHUNK_BYTES_MAX))
        del filling
        block.view = _EMPTY
        block.done(reason)

    def _stop(self, transfer: int) -> None:
        """Tell a sender to stop, once."""
        if transfer in self._stopped:
            return
        if len(self._stopped) >= _STOPPED_MAX:
            del self._stopped[next(iter(self._stopped))]
        self._stopped[transfer] = None
        self._say_news(BlockStopped(transfer))

    def _say_news(self, news: BlockNews) -> None:
        self._say(encode_frame(BLOCKS, _encode(news)))

    def _scratch_of(self, size: int) -> memoryview:
        if len(self._scratch) < size:
            self._scratch = memoryview(bytearray(size))
        return self._scratch[:size]
