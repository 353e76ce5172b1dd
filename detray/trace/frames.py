"""The frames of a file, in order, each compared with its checks (traces and payload files)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar
from zlib import crc32

import msgspec

from detray.trace.format import FRAME_HEAD, head_check
from detray.trace.plain_text import one_line

T = TypeVar("T")


class FrameCut(Exception):
    """The bytes end within a frame."""


class FrameDamage(Exception):
    """A frame is there and wrong."""


def frames_of(data: memoryview, start: int) -> Iterator[tuple[int, memoryview]]:
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


def decoded(payload: memoryview, kind: type[T]) -> T:
    """A payload as a message of that class. Raises FrameDamage."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        text = one_line(str(error))
        raise FrameDamage(f"a {kind.__name__} frame makes no sense: {text}") from None
