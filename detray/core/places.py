"""Where sealed bytes lie, and giving the place back."""

from __future__ import annotations

from detray.core import arena
from detray.core.effects import ARENA, CloseSegment, FreeBlock
from detray.core.states import Failed, Inline, Stored
from detray.core.step import Step
from detray.core.tables import Object

INLINE_TRACKED_BYTES = 4096
"""Smaller inline values are never worth a move to disk."""


def note_sealed(s: Step, item: Object) -> None:
    """Index a value by where it lies now."""
    state = item.state
    if type(state) is Inline:
        s.t.inline_bytes += state.size_bytes
        if state.size_bytes >= INLINE_TRACKED_BYTES:
            s.t.inline_order[item.id] = None
    elif type(state) is Stored and state.segment == ARENA:
        s.t.arena_order[item.id] = None


def release(s: Step, item: Object) -> None:
    """Nobody can reach the object any more: its bytes may go."""
    state = item.state
    if type(state) is Inline:
        forget_inline(s, item, state)
    elif type(state) is Stored:
        s.t.arena_order.pop(item.id, None)
        free_block(s, state.segment, state.offset, state.size_bytes)
    elif type(state) is Failed and state.size_bytes:
        s.drops.append(item.id)


def forget_inline(s: Step, item: Object, state: Inline) -> None:
    """The driver need not keep the payload of this object any more."""
    s.t.inline_bytes -= state.size_bytes
    s.t.inline_order.pop(item.id, None)
    s.drops.append(item.id)


def free_block(s: Step, segment: int, offset: int, size_bytes: int) -> None:
    """A block that nobody reads or writes goes back to its segment."""
    if segment == ARENA:
        arena.release(s.t.arena, offset, size_bytes)
        return
    row = s.t.segments[segment]
    row.live -= arena.rounded(size_bytes)
    s.out.append(FreeBlock(segment, offset, size_bytes))
    if row.live == 0 and s.t.filling != segment:
        close_segment(s, segment)


def close_segment(s: Step, segment: int) -> None:
    """A file segment without live blocks goes."""
    del s.t.segments[segment]
    if s.t.filling == segment:
        s.t.filling = 0
    s.out.append(CloseSegment(segment))
