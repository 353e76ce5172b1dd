"""One number for a whole run: a hash of all that its cores were told and what they ordered."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

_BATCH = 1 << 16
"""Hashing many steps at once is cheaper."""
_encode = msgspec.msgpack.Encoder().encode


class RunDigest:
    """Equal runs have equal digests, and runs that differ anywhere have not."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._parts = bytearray()

    def add(self, core: int, now_ns: int, stimuli: Sequence[Any], effects: Sequence[Any]) -> None:
        """The next step of any core. (Any: messages of all kinds.)"""
        self._parts += _encode((core, now_ns, stimuli, effects))
        if len(self._parts) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._hash.update(self._parts)
        self._parts.clear()

    def hex(self) -> str:
        """The digest of all steps so far."""
        self._flush()
        return self._hash.hexdigest()
