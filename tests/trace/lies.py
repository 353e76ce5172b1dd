"""Traces whose messages lie: right in form, and not what any core was told or said."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from detray.trace.reading import RecordedStep, Trace

INTEGERS = (0, -1, 1, 7, 2**31, 2**53, -(2**40))
_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class LyingTrace(Trace):
    """A trace with some of its messages changed, always the same way for the same seed."""

    def __init__(self, data: bytes, seed: int, share: float = 0.1) -> None:
        """`share` of all messages are changed in one place each."""
        super().__init__(data, f"lies {seed}")
        self._seed = seed
        self._share = share

    def steps(self) -> Iterator[RecordedStep]:
        """The steps, some of them with lies in them."""
        chance = random.Random(self._seed)
        for step in super().steps():
            metas = tuple(self._lie(chance, blob) for blob in step.metas)
            groups = step.groups
            if groups is not None:
                groups = tuple(self._lie(chance, blob) for blob in groups)
            yield step._replace(metas=metas, groups=groups)

    def _lie(self, chance: random.Random, blob: bytes) -> bytes:
        messages = _decode(blob)
        for message in messages:
            if chance.random() < self._share and len(message) > 1:
                at = chance.randrange(1, len(message))
                message[at] = _changed(chance, message[at])
        return _encode(messages)


def _changed(chance: random.Random, value: Any) -> Any:  # Any: a field of a message
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice(INTEGERS)
    if isinstance(value, bytes):
        return chance.choice((b"", value[:5], value[::-1], value + value, bytes(len(value))))
    if isinstance(value, str):
        return chance.choice(("", "x" * 300, value[::-1]))
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        again = [*value[:at], _changed(chance, value[at]), *value[at + 1 :]]
        return chance.choice((value[:0], *[again] * 7))
    return value
