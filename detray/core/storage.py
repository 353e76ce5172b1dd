"""Room for large values: the arena, then spilling, then files; only a full disk refuses.

Rules (PROTOCOL N12, D 15 to 18)
--------------------------------
- A block belongs to its writer from the grant until it is sealed, abandoned, or the kernel says
  that the writer is gone.
- When the arena has no room: copies that other nodes have as well go first, then sealed, unpinned
  objects move to disk, oldest first, enough of them for the requests that wait. If none can move,
  the request gets a file of its own at once, so waiting for memory can never deadlock.
- What is larger than the arena goes to a file directly.
- A spilled object is a block in a file segment: readers map it like any other, so there is nothing
  to restore. A copy that comes back while somebody reads the arena block is thrown away.
"""

from __future__ import annotations

from detray.core import arena, objects, places
from detray.core.effects import ARENA, INLINE, GrantBlock, MoveObject, OpenSegment, RefuseBlock
from detray.core.lifecycle import move_object
from detray.core.states import PENDING, Elsewhere, Inline, Stored
from detray.core.step import Step
from detray.core.stimuli import (
    BlockAbandoned,
    BlockRequested,
    BlockSealed,
    ObjectCorrupted,
    ObjectMoved,
    ObjectMoveFailed,
    SegmentFailed,
    SegmentOpened,
)
from detray.core.tables import HERE, Block, Client, Move, Object, Segment
from detray.errors import Failure
from detray.ids import NO_CLIENT, ClientID, ObjectID

SPILL_SEGMENT_BYTES = 256 << 20
"""Spilled objects share files of this size."""


def on_block_requested(s: Step, m: BlockRequested) -> None:
    """Grant a block now, or queue the request until there is room."""
    client = s.t.clients[m.client]
    if m.object in client.blocks or m.size_bytes <= 0:
        text = "asked for twice, or without a size"
        s.out.append(RefuseBlock(m.client, m.object, Failure.STORE_FULL, text))
        return
    request_block(s, client, m.object, m.size_bytes)


def request_block(s: Step, client: Client, item: ObjectID, size_bytes: int) -> None:
    """Queue a request for room; it is served before the step ends, or when there is some."""
    client.blocks[item] = Block(size_bytes)
    s.t.block_queue.append((client.id, item))


def _granted(s: Step, client: ClientID, item: ObjectID, block: Block) -> None:
    """Tell whoever asked where to write."""
    if client == NO_CLIENT:
        s.rooms.append(item)
    else:
        s.out.append(GrantBlock(client, item, block.segment, block.offset))


def on_block_sealed(s: Step, m: BlockSealed) -> None:
    """A put is complete: its object exists from now on."""
    block = s.t.clients[m.client].blocks.pop(m.object, None)
    if block is None or block.segment < 0 or m.object in s.t.objects:
        s.count("stale")
        if block is not None and block.segment >= 0:
            places.free_block(s, block.segment, block.offset, block.size_bytes)
        return
    row = objects.create(s, m.object, m.client)
    objects.seal(s, row, Stored(block.segment, block.offset, block.size_bytes), m.refs)


def on_block_abandoned(s: Step, m: BlockAbandoned) -> None:
    """The writer gave up; its bytes are nobody's."""
    block = s.t.clients[m.client].blocks.pop(m.object, None)
    if block is None:
        s.count("stale")
    elif block.segment >= 0:
        places.free_block(s, block.segment, block.offset, block.size_bytes)
    # A request still waiting is dropped when its turn comes: its client has no such block.


# ------------------------------------------------------------------ finding room


def serve_blocks(s: Step) -> None:
    """Grant what fits, oldest request first; spill for the rest, or fall back to files."""
    t = s.t
    if not t.block_queue:
        return
    waiting: list[tuple[ClientID, ObjectID]] = []
    missing_bytes = 0
    for key in t.block_queue:
        client, item = key
        row = t.clients.get(client)
        block = row.blocks.get(item) if row else None
        if block is None or block.segment >= 0:
            continue
        offset = None
        if not waiting and block.size_bytes <= t.arena.size_bytes:
            offset = arena.allocate(t.arena, block.size_bytes)
            while offset is None and _evict_oldest(s):
                offset = arena.allocate(t.arena, block.size_bytes)
        if offset is not None:
            block.segment, block.offset = ARENA, offset
            _granted(s, client, item, block)
        elif block.size_bytes > t.arena.size_bytes:
            _grant_file(s, client, item, block)
        else:
            waiting.append(key)
            missing_bytes += arena.rounded(block.size_bytes)
    t.block_queue = waiting
    if waiting and not _spill(s, missing_bytes):
        for client, item in waiting:
            _grant_file(s, client, item, t.clients[client].blocks[item])
        t.block_queue = []


def _grant_file(s: Step, client: ClientID, item: ObjectID, block: Block) -> None:
    """Order a file for this block alone; `SegmentOpened` grants it."""
    size = arena.rounded(block.size_bytes)
    segment = _open_segment(s, size)
    segment.client, segment.object = client, item
    segment.top = segment.live = size


def _open_segment(s: Step, size_bytes: int) -> Segment:
    number = s.t.next_segment
    s.t.next_segment += 1
    segment = s.t.segments[number] = Segment(number, size_bytes)
    s.out.append(OpenSegment(number, size_bytes))
    return segment


def on_segment_opened(s: Step, m: SegmentOpened) -> None:
    """Grant the block it was made for, or begin the moves that wait for it."""
    segment = s.t.segments[m.segment]
    segment.is_open = True
    if not segment.object:
        _begin_moves(s, segment)
        return
    client = s.t.clients.get(segment.client)
    block = client.blocks.get(segment.object) if client else None
    if block is None or block.segment >= 0:
        places.close_segment(s, m.segment)
        return
    block.segment, block.offset = m.segment, 0
    _granted(s, segment.client, segment.object, block)


def on_segment_failed(s: Step, m: SegmentFailed) -> None:
    """The disk has no room: refuse the block, or give up spilling."""
    segment = s.t.segments.pop(m.segment)
    if s.t.filling == m.segment:
        s.t.filling = 0
    if segment.object:
        client = s.t.clients.get(segment.client)
        block = client.blocks.pop(segment.object, None) if client else None
        if block is not None:
            _refuse(s, segment.client, segment.object, block, m)
        return
    for item in [item for item, move in s.t.moves.items() if move.segment == m.segment]:
        _end_move(s, item)
    for client_id, item in s.t.block_queue:
        block = s.t.clients[client_id].blocks.pop(item, None)
        if block is not None:
            _refuse(s, client_id, item, block, m)
    s.t.block_queue = []


def _refuse(
    s: Step, client: ClientID, item: ObjectID, block: Block, failure: SegmentFailed
) -> None:
    if client == NO_CLIENT:
        s.rooms.append(item)
        return
    store = s.t.arena
    text = (
        f"no room for {block.size_bytes} bytes: the store has {store.size_bytes - store.used} of"
        f" {store.size_bytes} free, and the disk for spilling {failure.free_bytes}"
        f" ({failure.reason}). Drop references, or give init() a larger object_store_memory."
    )
    s.out.append(RefuseBlock(client, item, Failure.OUT_OF_DISK, text))


def _evict_oldest(s: Step) -> bool:
    """Drop the oldest copy that another node has as well; False if there is none (N14)."""
    t = s.t
    if not t.peers:
        return False
    for item in t.arena_order:
        row = t.objects[item]
        if not is_evictable(row):
            continue
        s.evicted.append(item)
        places.release(s, row)
        shared = row.shared
        assert shared is not None, "only shared objects are evicted"
        size_bytes = row.state.size_bytes  # type: ignore[union-attr]  # Stored
        move_object(row, Elsewhere(size_bytes) if shared.home == HERE else PENDING)
        s.suspects.append(item)
        s.count("evicted bytes", size_bytes)
        return True
    return False


def is_evictable(row: Object) -> bool:
    """True for a secondary copy that nothing here depends on."""
    shared = row.shared
    if shared is None or row.pins or row.moving or shared.needed or shared.is_primary:
        return False
    return not (shared.home == HERE and shared.keeper == HERE) and not row.takers


# ------------------------------------------------------------------ moving objects to disk


def _spill(s: Step, missing_bytes: int) -> bool:
    """Move enough old objects out of the arena; False if nothing moves or will."""
    coming = sum(
        arena.rounded(move.size_bytes)
        for item, move in s.t.moves.items()
        if type(s.t.objects[item].state) is Stored
    )
    candidates = []
    for item in s.t.arena_order:
        if coming >= missing_bytes:
            break
        row = s.t.objects[item]
        if not row.pins and not row.moving:
            candidates.append(row)
            coming += arena.rounded(row.state.size_bytes)  # type: ignore[union-attr]  # Stored
    for row in candidates:
        _move(s, row)
    return coming > 0


def relieve_inline(s: Step) -> None:
    """Above its budget of inline bytes the service moves the oldest values to disk (T9)."""
    t = s.t
    excess = t.inline_bytes - t.config.policy.inline_total_bytes_max
    if excess <= 0:
        return
    for item, move in t.moves.items():
        if type(t.objects[item].state) is Inline:
            excess -= move.size_bytes
    for item in list(t.inline_order):
        row = t.objects[item]
        if excess <= 0:
            return
        if row.moving or type(row.state) is not Inline:
            continue
        excess -= row.state.size_bytes
        del t.inline_order[item]
        _move(s, row)


def _move(s: Step, row: Object) -> None:
    """Order the copy of one object into the segment that is being filled, or into a new one."""
    t = s.t
    state = row.state
    assert type(state) is Stored or type(state) is Inline, f"moving an object that is {state}"
    size = arena.rounded(state.size_bytes)
    segment = t.segments.get(t.filling)
    if segment is None or segment.top + size > segment.size_bytes:
        if segment is not None and not segment.live:
            places.close_segment(s, segment.number)
        segment = _open_segment(s, max(SPILL_SEGMENT_BYTES, size))
        t.filling = segment.number
    move = Move(state.size_bytes, segment.number)
    segment.live += size
    segment.top += size
    row.moving = True
    t.moves[row.id] = move
    move.offset = segment.top - size
    if segment.is_open:
        _order_move(s, row, move)


def _begin_moves(s: Step, segment: Segment) -> None:
    for item, move in s.t.moves.items():
        if move.segment == segment.number:
            _order_move(s, s.t.objects[item], move)


def _order_move(s: Step, row: Object, move: Move) -> None:
    state = row.state
    source, offset = INLINE, 0
    if type(state) is Stored:
        source, offset = state.segment, state.offset
    s.out.append(MoveObject(row.id, move.size_bytes, source, offset, move.segment, move.offset))


def on_object_moved(s: Step, m: ObjectMoved) -> None:
    """The copy is complete: it becomes the object's place, unless somebody looks at the old one."""
    row = s.t.objects[m.object]
    move = s.t.moves[m.object]
    state = row.state
    if row.pins or not (objects.is_held(row) or _is_kept(row)):
        _end_move(s, m.object)
        return
    del s.t.moves[m.object]
    row.moving = False
    places.release(s, row)
    move_object(row, Stored(move.segment, move.offset, move.size_bytes))
    if row.shared is not None:
        s.suspects.append(m.object)  # its last hold may have ended meanwhile
    s.count("spilled bytes", state.size_bytes)  # type: ignore[union-attr]  # Inline or Stored


def _is_kept(row: Object) -> bool:
    """True for a copy that is here for another node."""
    return row.shared is not None and row.shared.home != HERE and not row.shared.orphan


def on_object_corrupted(s: Step, m: ObjectCorrupted) -> None:
    """What a file gives back is not what was written: that copy does not exist."""
    row = s.t.objects.get(m.object)
    if row is None or type(row.state) is not Stored or row.state.segment == ARENA:
        s.count("stale")
        return
    s.count("corrupted")
    s.corrupted.append(m.object)


def on_object_move_failed(s: Step, m: ObjectMoveFailed) -> None:
    """The copy could not be written: the object stays where it is."""
    s.count("spills failed")
    _end_move(s, m.object)
    if not s.t.moves:
        # Nothing else will make room: the waiting requests try files, or hear why not.
        for client, item in s.t.block_queue:
            block = s.t.clients[client].blocks.get(item)
            if block is not None:
                _grant_file(s, client, item, block)
        s.t.block_queue = []


def _end_move(s: Step, item: ObjectID) -> None:
    """Give the target back; the object stays where it is."""
    move = s.t.moves.pop(item)
    row = s.t.objects[item]
    row.moving = False
    if move.segment in s.t.segments:
        places.free_block(s, move.segment, move.offset, move.size_bytes)
    s.suspects.append(item)
