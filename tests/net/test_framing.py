"""Bytes in pieces: frames, handshakes, addresses and tokens by themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detray.runtime.net import security
from detray.runtime.net.address import Address, parse_address
from detray.runtime.net.framing import (
    ASIDE,
    BLOCKS,
    MESSAGES,
    Intake,
    LinkGarbage,
    array_of,
    encode_frame,
)
from detray.runtime.net.handshake import Handshake, HandshakeError, pack_greeting

_PART = st.tuples(st.sampled_from([MESSAGES, ASIDE, BLOCKS, -1]), st.binary(max_size=700))


@given(st.lists(_PART, max_size=20), st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_frames_and_data_survive_any_cut(parts: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However the stream is cut, frames come out whole and data (-1) goes where it should."""
    stream = b"".join(body if kind < 0 else encode_frame(kind, body) for kind, body in parts)
    intake, came = Intake(), list[tuple[int, bytes]]()
    targets: list[bytearray] = []

    def take() -> None:
        while not intake.is_redirected and len(came) < len(parts):
            kind, body = parts[len(came)]
            if kind < 0:
                targets.append(bytearray(len(body)))
                came.append((kind, b""))
                intake.redirect(memoryview(targets[-1]))
                continue
            item = intake.next()
            if item is None:
                return
            came.append((item[0], bytes(item[1])))

    take()
    at = turn = 0
    while at < len(stream):
        room = intake.room()
        count = min(cuts[turn % len(cuts)], len(room), len(stream) - at)
        room[:count] = stream[at : at + count]
        intake.took(count)
        at, turn = at + count, turn + 1
        take()
    data = iter(targets)
    assert [(k, bytes(next(data)) if k < 0 else b) for k, b in came] == parts


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(1, 255))
def test_a_wrong_byte_is_found_out(body: bytes, at: int, change: int) -> None:
    """Wherever it is: in the length, the kind, the digest or the body."""
    frame = bytearray(encode_frame(ASIDE, body))
    frame[at % len(frame)] ^= change
    intake = Intake()
    intake.feed(bytes(frame))
    with pytest.raises(LinkGarbage):
        intake.next()
        raise AssertionError("it was taken for a frame")


def test_a_large_frame_is_read_in_linear_time() -> None:
    """The buffer grows by what has come; each byte is copied a few times at most."""
    body = os.urandom(8 << 20)
    stream = memoryview(encode_frame(MESSAGES, body))
    intake, at, sizes = Intake(), 0, []
    while (item := intake.next()) is None:
        room = intake.room()
        count = min(len(room), 10_000, len(stream) - at)
        room[:count] = stream[at : at + count]
        intake.took(count)
        at += count
        if not sizes or len(intake._buffer) != sizes[-1]:
            sizes.append(len(intake._buffer))
    assert bytes(item[1]) == body and len(sizes) < 8


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_no_bytes_make_a_handshake_raise_anything_else(pieces: list[bytes]) -> None:
    """Nor prove anything."""
    for is_dialler in (False, True):
        handshake = Handshake(b"t" * 32, is_dialler=is_dialler)
        try:
            for piece in pieces:
                handshake.receive(piece)
                assert handshake.next_greeting() is None
        except HandshakeError:
            pass
        assert not handshake.is_proven


@given(st.integers(1, 50))
def test_a_handshake_survives_any_cut(step: int) -> None:
    """Both ends prove themselves, and greetings come out whole."""
    dialler = Handshake(b"t" * 32, is_dialler=True)
    acceptor = Handshake(b"t" * 32, is_dialler=False)
    to_acceptor, to_dialler = dialler.begin(), acceptor.begin()
    greeted = False
    while to_acceptor or to_dialler:
        piece, to_acceptor = to_acceptor[:step], to_acceptor[step:]
        to_dialler += acceptor.receive(piece)
        piece, to_dialler = to_dialler[:step], to_dialler[step:]
        to_acceptor += dialler.receive(piece)
        if dialler.is_proven and not greeted:
            greeted = True
            to_acceptor += pack_greeting(b"hello") + pack_greeting(b"again") + b"frames"
    assert dialler.is_proven and acceptor.is_proven
    assert [acceptor.next_greeting(), acceptor.next_greeting()] == [b"hello", b"again"]
    assert acceptor.take_rest() == b"frames"


@given(st.binary(min_size=1, max_size=200), st.integers(0, 300), st.integers(1, 255))
def test_a_wrong_byte_of_a_greeting_is_found_out(body: bytes, at: int, change: int) -> None:
    """Else a node would be taken for another, or messages for handled that never came."""
    said = bytearray(pack_greeting(body))
    said[at % len(said)] ^= change
    dialler = Handshake(b"t" * 32, is_dialler=True)
    acceptor = Handshake(b"t" * 32, is_dialler=False)
    acceptor.receive(dialler.receive(acceptor.receive(dialler.begin())))
    try:
        acceptor.receive(bytes(said))
        assert acceptor.next_greeting() is None  # longer, it says: it waits for the rest
    except HandshakeError:
        pass


def test_an_array_of_any_length() -> None:
    """As msgspec writes it."""
    import msgspec

    for count in (0, 1, 15, 16, 70_000):
        assert array_of([b"\x01"] * count) == msgspec.msgpack.encode([1] * count)


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("127.0.0.1:6379", "127.0.0.1", 6379),
        ("[::1]:1", "::1", 1),
        ("head.example.com:65535", "head.example.com", 65535),
        (" localhost:80 ", "localhost", 80),
        ("localhost", "localhost", 7),
        ("[fe80::1%eth0]", "fe80::1%eth0", 7),
    ],
)
def test_addresses_are_read_and_written(text: str, host: str, port: int) -> None:
    """IPv4, IPv6, names."""
    address = parse_address(text, default_port=7)
    assert address == Address(host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":80", "host:", "host:0", "host:65536", "host:+1", "host:٣", "::1:80", "[::1", "[::1]80",
     "[host]:1", "a b:1", "http://x:1", "user@x:1", "x" * 300 + ":1"],
)  # fmt: skip
def test_addresses_that_make_no_sense_are_refused(text: str) -> None:
    """With a sentence that shows the text."""
    with pytest.raises(ValueError, match=r"address|ambiguous|names no host|port"):
        parse_address(text, default_port=7)


def test_a_missing_port_is_named() -> None:
    """Unless there is a default."""
    with pytest.raises(ValueError, match="has no port: write host:6379"):
        parse_address("host")


def test_tokens_of_files_and_environment(tmp_path: Path) -> None:
    """A file that others may read holds no secret."""
    token, path = security.make_token(), tmp_path / "token"
    security.write_token(str(path), token)
    assert path.stat().st_mode & 0o777 == 0o600
    assert security.read_token(str(path)) == token
    with pytest.raises(FileExistsError):
        security.write_token(str(path), token)
    assert security.find_token({}) is None
    assert security.find_token({"DETRAY_TOKEN": token.decode() + "\n"}) == token
    assert security.find_token({"DETRAY_TOKEN_FILE": str(path)}) == token
    with pytest.raises(ValueError, match="both set"):
        security.find_token({"DETRAY_TOKEN": "x", "DETRAY_TOKEN_FILE": "y"})
    with pytest.raises(ValueError, match="needs at least 16"):
        security.find_token({"DETRAY_TOKEN": "short"})
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(PermissionError, match="chmod 600"):
            security.read_token(str(path))
