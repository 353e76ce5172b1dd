"""The proof of the token, in both directions, before anything that was sent is interpreted.

    dialler  -> opening     6 bytes "detray", u16 protocol version, 32 random bytes
    acceptor -> opening     the same, with its own random bytes
    dialler  -> proof       HMAC-SHA256(token, role, version, both random parts)
    acceptor -> proof       the same, for its role; 32 zero bytes if the dialler's was wrong
    both     -> greetings   u16 length, u64 xxh3 and so many bytes of msgpack (`identity.py`)

Each side's random part goes into both proofs, so neither can be replayed; the role does, so a proof
cannot be sent back to who made it. An acceptor says nothing to who has not spoken, and proves
nothing to who has not proved the token: a stranger learns that detray listens here. The digest of a
greeting is against broken hardware: a wrong number in it would cost messages, or the link.

Bytes in, bytes out: this knows no socket and no clock. Whoever drives it bounds the time.
"""

from __future__ import annotations

import hmac
import os
import struct

from xxhash import xxh3_64_intdigest

from detray.runtime.net.identity import GREETING_BYTES_MAX

PROTOCOL = 2
"""Raised whenever two versions of this package's bytes do not understand each other."""
_MAGIC = b"detray"
_OPENING = struct.Struct(">6sH32s")
_LENGTH = struct.Struct(">H")
_GREETING = struct.Struct(">HQ")
_NONCE_BYTES = 32
_PROOF_BYTES = 32
_REJECTION = bytes(_PROOF_BYTES)
_DIALLER = b"detray link: dialler"
_ACCEPTOR = b"detray link: acceptor"


class HandshakeError(Exception):
    """The peer is none of ours, or speaks another version; the argument says which, in one line."""

    def __init__(self, reason: str, *, answer: bytes = b"", is_final: bool = False) -> None:
        super().__init__(reason)
        self.answer = answer
        """What to send before the connection ends, so that the peer can say what is wrong."""
        self.is_final = is_final
        """True if another attempt would end like this one."""


class Handshake:
    """One side of the proof, and the cutting of greetings after it."""

    __slots__ = ("_buffer", "_is_dialler", "_nonce", "_token", "_transcript",
                 "is_opened", "is_proven")  # fmt: skip

    def __init__(self, token: bytes, *, is_dialler: bool) -> None:
        self._token = token
        self._is_dialler = is_dialler
        self._nonce = os.urandom(_NONCE_BYTES)
        self._buffer = bytearray()
        self._transcript = b""
        self.is_opened = False
        """True once the peer's opening was right."""
        self.is_proven = False
        """True once the peer has proved the token."""

    def begin(self) -> bytes:
        """What to send before anything comes."""
        return self._opening() if self._is_dialler else b""

    def receive(self, data: bytes) -> bytes:
        """Take what came; returns what to send. Raises HandshakeError."""
        self._buffer += data
        answer = b""
        if not self.is_opened:
            self._check_magic()
            if len(self._buffer) < _OPENING.size:
                return b""
            answer = self._open()
        if not self.is_proven and len(self._buffer) >= _PROOF_BYTES:
            answer += self._check_proof()
        return answer

    def next_greeting(self) -> bytes | None:
        """The next complete greeting; None if more must come first. Raises HandshakeError."""
        if not self.is_proven or len(self._buffer) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer)
        if not 0 < size <= GREETING_BYTES_MAX:
            raise HandshakeError(f"a greeting of {size} bytes, {GREETING_BYTES_MAX} are allowed")
        end = _GREETING.size + size
        if len(self._buffer) < end:
            return None
        _, digest = _GREETING.unpack_from(self._buffer)
        greeting = bytes(self._buffer[_GREETING.size : end])
        if xxh3_64_intdigest(greeting) != digest:
            raise HandshakeError("a greeting with a wrong digest")
        del self._buffer[:end]
        return greeting

    def take_rest(self) -> bytes:
        """What came after the greetings: the beginning of the first frames."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _opening(self) -> bytes:
        return _OPENING.pack(_MAGIC, PROTOCOL, self._nonce)

    def _check_magic(self) -> None:
        """Whoever speaks HTTP or TLS here is told from the first byte on."""
        head = bytes(self._buffer[: len(_MAGIC)])
        if not _MAGIC.startswith(head):
            raise HandshakeError(f"what came is not detray: {bytes(self._buffer[:16])!r}")

    def _open(self) -> bytes:
        _, version, nonce = _OPENING.unpack_from(self._buffer)
        del self._buffer[: _OPENING.size]
        if version != PROTOCOL:
            raise HandshakeError(
                f"it speaks version {version} of the protocol, we speak {PROTOCOL}",
                answer=b"" if self._is_dialler else self._opening(),
                is_final=True,
            )
        nonces = self._nonce + nonce if self._is_dialler else nonce + self._nonce
        self._transcript = _LENGTH.pack(PROTOCOL) + nonces
        self.is_opened = True
        return self._prove(_DIALLER) if self._is_dialler else self._opening()

    def _check_proof(self) -> bytes:
        proof = bytes(self._buffer[:_PROOF_BYTES])
        del self._buffer[:_PROOF_BYTES]
        if self._is_dialler and proof == _REJECTION:
            raise HandshakeError("it does not accept our token", is_final=True)
        if not hmac.compare_digest(proof, self._prove(_ACCEPTOR if self._is_dialler else _DIALLER)):
            raise HandshakeError(
                "it does not know this cluster's token",
                answer=b"" if self._is_dialler else _REJECTION,
            )
        self.is_proven = True
        return b"" if self._is_dialler else self._prove(_ACCEPTOR)

    def _prove(self, role: bytes) -> bytes:
        return hmac.digest(self._token, role + self._transcript, "sha256")


def pack_greeting(body: bytes) -> bytes:
    """A greeting with its length and its digest. Raises ValueError if it is too long."""
    if len(body) > GREETING_BYTES_MAX:
        raise ValueError(f"a greeting of {len(body)} bytes; {GREETING_BYTES_MAX} are allowed")
    return _GREETING.pack(len(body), xxh3_64_intdigest(body)) + body
