"""One number for a whole run: a hash of all that its cores were told and what they ordered."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

_encode = msgspec.msgpack.Encoder().encode


class RunDigest:
    """Equal runs have equal digests, and runs that differ anywhere have not."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)

    def add(self, core: int, now_ns: int, stimuli: Sequence[Any], effects: Sequence[Any]) -> None:
        """The next step of any core. (Any: messages of all kinds.)"""
        self._hash.update(_encode((core, now_ns, stimuli, effects)))

    def hex(self) -> str:
        """The digest of all steps so far."""
        return self._hash.hexdigest()
