"""Numbers as columns that compress well, in a form that a browser takes apart quickly.

A column of n integers is written as so many *planes* of n bytes each: the lowest byte of every
number, then the next, as many as the largest needs. Before that each number may be replaced by its
difference to the one before, and its sign moves to the lowest bit (0, -1, 1, -2 become 0, 1, 2, 3).
All columns follow a JSON text that names them; the whole is one zlib stream in base64.
`data.js` beside this module reads it.

Source: byte planes are what HDF5 calls the shuffle filter; the sign in the lowest bit is Protocol
Buffers' ZigZag encoding.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

_LEVEL = 9
_MOST = (1 << 53) - 1


class Columns:
    """Columns by name, to be written in the order in which they were added."""

    def __init__(self) -> None:
        self._index: list[tuple[str, int, int, int]] = []
        self._planes: list[bytes] = []

    def add(self, name: str, values: Iterable[int], *, delta: bool = False) -> None:
        """A column of integers; with `delta` for those that mostly grow slowly.

        What a browser cannot count to (2^53: nothing true is so large) is cut.
        """
        numbers = list(values)
        if numbers and (max(numbers) > _MOST or min(numbers) < -_MOST):
            numbers = [max(-_MOST, min(_MOST, value)) for value in numbers]
        if delta:
            numbers = [b - a for a, b in zip([0, *numbers], numbers, strict=False)]
        signless = array("Q", [n << 1 if n >= 0 else (-n << 1) - 1 for n in numbers])
        if sys.byteorder == "big":
            signless.byteswap()
        data = signless.tobytes()
        planes = (max(signless, default=0).bit_length() + 7) // 8
        self._planes += [data[plane::8] for plane in range(planes)]
        self._index.append((name, len(numbers), planes, int(delta)))

    def add_lists(self, name: str, lists: Iterable[Sequence[int]], *, delta: bool = False) -> None:
        """A column of short lists: their lengths, then what is in them, one after another."""
        lengths: list[int] = []
        inside: list[int] = []
        for part in lists:
            lengths.append(len(part))
            inside += part
        self.add(f"{name}#", lengths)
        self.add(name, inside, delta=delta)

    def pack(self, head: dict[str, Any]) -> str:  # Any: JSON
        """All columns with `head`, as base64. The same input gives the same text."""
        text = json.dumps({**head, "columns": self._index}, separators=(",", ":")).encode()
        body = b"".join([len(text).to_bytes(4, "little"), text, *self._planes])
        return base64.b64encode(zlib.compress(body, _LEVEL)).decode()
