"""The frames of a file, in order, each compared with its checks (traces and payload files)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar
from zlib import crc32

import msgspec

from detray.trace.format import FRAME_HEAD, TraceError, head_check
from detray.trace.plain_text import one_line

T = TypeVar("T")
Frame = tuple[int, memoryview]
"""Kind and payload."""


class FrameCut(Exception):
    """The bytes end within a frame."""


class FrameDamage(Exception):
    """A frame is there and wrong."""


def frames_of(data: memoryview, start: int) -> Iterator[Frame]:
    """Kind and payload of each frame, from that byte on. Raises FrameCut, FrameDamage."""
    at, check, index = start, 0, 0
    while at < len(data):
        rest = len(data) - at
        if rest < FRAME_HEAD.size or (data[at] == 0 and not any(data[at:])):
            raise FrameCut(f"the last {rest} bytes, after frame {index}, are no whole frame")
        kind, size, number, before, after = FRAME_HEAD.unpack_from(data, at)
        if number != index or before != head_check(check, kind, size, index):
            raise FrameDamage(f"the head of frame {index} at byte {at} is wrong")
        begin = at + FRAME_HEAD.size
        if begin + size > len(data):
            raise FrameCut(f"the last {rest} bytes, after frame {index}, are no whole frame")
        payload = data[begin : begin + size]
        check = crc32(payload, before)
        if check != after:
            raise FrameDamage(f"frame {index} at byte {at} is not what was written")
        yield kind, payload
        at, index = begin + size, index + 1


def read_frames(
    frames: Iterator[Frame],
    *,
    name: str,
    begin: Callable[[int, memoryview], None],
    take: Callable[[int, memoryview], bool],
    salvage: bool,
) -> tuple[bool, str]:
    """Give the first frame to `begin`, the others to `take`, which is True for the last of a file.

    True if that came and nothing was wrong; and what is missing or wrong, "" if nothing is. Raises
    TraceError for a file without a header and for damage; with `salvage`, damage behind the header
    only ends the reading.
    """
    is_begun, is_over, note = False, False, ""
    try:
        for kind, payload in frames:
            if not is_begun:
                begin(kind, payload)
                is_begun = True
            elif is_over:
                raise FrameDamage("frames follow its end")
            else:
                is_over = take(kind, payload)
    except FrameCut as cut:
        note = f"cut off: {cut}"
    except FrameDamage as damage:
        if not salvage or not is_begun:
            hint = "; --salvage reads what precedes it" if is_begun else ""
            raise TraceError(f"{name} is damaged: {damage}{hint}") from None
        is_over, note = False, f"damaged: {damage}"
    if not is_begun:
        raise TraceError(f"{name} holds no header: {note or 'it is empty'}")
    if not is_over and not note:
        note = "cut off: no end frame, so the recording process died or still runs"
    return is_over, note


def decoded(payload: memoryview, kind: type[T]) -> T:
    """A payload as a message of that class. Raises FrameDamage."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        text = one_line(str(error))
        raise FrameDamage(f"a {kind.__name__} frame makes no sense: {text}") from None
