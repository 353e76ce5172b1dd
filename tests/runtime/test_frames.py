"""Frames: what is cut out of a stream is what was put in, however the stream is cut."""

from __future__ import annotations

import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detray.runtime.frames import FrameError, FrameReader, frame, joined

NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1)
MESSAGES = st.lists(st.lists(NUMBERS, max_size=3), max_size=20)


@given(st.lists(st.tuples(MESSAGES, st.binary(max_size=300)), max_size=8), st.data())
def test_frames_come_out_as_they_went_in(
    frames: list[tuple[list[list[int]], bytes]], data: st.DataObject
) -> None:
    encode = msgspec.msgpack.encode
    stream = b"".join(frame(encode(messages), [payload]) for messages, payload in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    ours, theirs = socket.socketpair()
    reader = FrameReader()
    found: list[tuple[bytes, bytes]] = []
    with ours, theirs:
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if start == stop:
                continue
            theirs.sendall(stream[start:stop])
            assert reader.receive(ours) == stop - start
            metas, payloads = reader.take_all()
            found += [(bytes(m), bytes(p)) for m, p in zip(metas, payloads, strict=True)]
    assert found == [(encode(messages), payload) for messages, payload in frames]
    assert reader.is_empty


@given(st.lists(st.lists(NUMBERS, max_size=70), min_size=1, max_size=5))
def test_joined_arrays_decode_to_all_messages(arrays: list[list[int]]) -> None:
    metas = [memoryview(msgspec.msgpack.encode(array)) for array in arrays]
    assert msgspec.msgpack.decode(joined(metas)) == [item for array in arrays for item in array]


def test_a_long_array_is_joined_too() -> None:
    metas = [memoryview(msgspec.msgpack.encode([7] * count)) for count in (3, 20, 70_000)]
    assert msgspec.msgpack.decode(joined(metas)) == [7] * 70_023


@pytest.mark.parametrize("meta", [b"", b"\xc0", b"\x81\x01\x02", b"\xdc\x00"])
def test_what_is_no_array_is_not_joined(meta: bytes) -> None:
    with pytest.raises(FrameError):
        joined([memoryview(b"\x90"), memoryview(meta)])


def test_a_false_header_behind_a_good_frame_is_told() -> None:
    ours, theirs = socket.socketpair()
    reader = FrameReader(frame_bytes_max=1000)
    with ours, theirs:
        theirs.sendall(frame(b"\x90") + b"\xff\xff\xff\x7f\x00\x00\x00\x00")
        reader.receive(ours)
        metas, _ = reader.take_all()
        assert [bytes(meta) for meta in metas] == [b"\x90"]
        with pytest.raises(FrameError):
            reader.take_all()
