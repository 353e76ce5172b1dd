"""Checkpoints: what a core is at one moment, cheap to make, cheap to keep, quick to go back to.

Theory of operation
-------------------
A core's tables are a Struct. Its plain numbers are encoded together; its large dicts become `Rows`
and are kept as versions (`rows.py`); all else is encoded field by field and cut into pages, so that
what is as it was in the checkpoint before is shared with it. Small dicts stay plain: they are
quick to encode whole, and a core works faster with them.

Which field is what is found from the types of the Struct. A core that has no such tables is kept
as its snapshot. Whatever way: what is restored has the same snapshot, to the byte (PROTOCOL T13).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Raw

from detray.core.snapshot import share_object_state, share_task_state
from detray.core.tables import Object, Task
from detray.trace.play import Core, Maker
from detray.trace.travel.rows import Rows, Version

ROWS_MIN = 64
"""A dict with fewer entries stays plain."""
OVERHEAD_BYTES = 2_000
"""What a checkpoint takes that shares everything with another."""
PAGE_BYTES = 16 << 10
"""What is encoded whole is shared between checkpoints in pieces of this size."""

Pages = bytes | tuple[bytes, ...]
Part = Version | Pages | tuple[Pages, ...]
_encode = msgspec.msgpack.Encoder().encode
_SHARE: dict[Any, Callable[[Any], None]] = {Task: share_task_state, Object: share_object_state}


class _Field(NamedTuple):
    """A field of the tables that is no plain number."""

    name: str
    decode: Callable[[bytes], Any]
    """The whole field."""
    decode_row: Callable[[Raw], Any] | None
    """A row of it, if it is a dict."""
    unpack: Callable[[bytes], dict[Any, Raw]] | None
    """All of it if it is a dict, without decoding its rows."""
    is_list: bool
    """A list of Structs, kept element by element."""


class _Layout(NamedTuple):
    """How the tables of a kind of core are kept."""

    kind: type
    constants: tuple[str, ...]
    """Frozen: kept as they are."""
    numbers: tuple[str, ...]
    fields: tuple[_Field, ...]


class FrozenCore:
    """A core at one moment. `freeze` makes it, `thaw` makes a core of it, any number of times."""

    __slots__ = (
        "_constants", "_kind", "_numbers", "_parts", "_placement", "_snapshot", "weight",
    )  # fmt: skip

    def __init__(self, core: Core, before: FrozenCore | None) -> None:
        """`before` is what `core` was thawed from, or frozen as last; None if it is neither.

        The core's large tables are exchanged for others with the same rows.
        """
        tables = getattr(core, "tables", None)
        self._kind: Any = type(tables)  # Any: a class of Structs, if it has tables
        self._snapshot = b""
        if not isinstance(tables, msgspec.Struct) or not hasattr(core, "adopt"):
            self._snapshot = core.snapshot()
            self._parts: tuple[Part, ...] = ()
            self.weight = len(self._snapshot)
            return
        layout = _layout(type(tables))
        self._constants = [getattr(tables, name) for name in layout.constants]
        numbers = _encode([getattr(tables, name) for name in layout.numbers])
        is_same = before is not None and before._numbers == numbers
        self._numbers: bytes = before._numbers if before is not None and is_same else numbers
        parts = before._parts if before is not None else (None,) * len(layout.fields)
        self._parts = tuple(
            _freeze(tables, field, part) for field, part in zip(layout.fields, parts, strict=True)
        )
        self._placement = deepcopy(getattr(core, "placement", None))
        self.weight = weigh((self,), {place for part in parts for place in _places(part)})
        """About how many bytes it takes that `before` does not."""

    def thaw(self, maker: Maker) -> Core:
        """A core that goes on from that moment."""
        if self._snapshot:
            return maker.restore(self._snapshot)
        layout = _layout(self._kind)
        values: dict[str, Any] = dict(zip(layout.constants, self._constants, strict=True))
        numbers = msgspec.msgpack.decode(self._numbers)
        values.update(zip(layout.numbers, numbers, strict=True))
        for field, part in zip(layout.fields, self._parts, strict=True):
            values[field.name] = _thaw(field, part)
        core: Any = maker.make()  # Any: it has `adopt`, as the core that was frozen had
        if self._placement is not None:
            core.placement = deepcopy(self._placement)
        core.adopt(self._kind(**values))
        return core  # type: ignore[no-any-return]  # the maker's

    def pack(self) -> None:
        """Take little room, and longer to thaw."""
        if self._snapshot:
            return
        fields = _layout(self._kind).fields
        for field, part in zip(fields, self._parts, strict=True):
            if isinstance(part, Version):
                assert field.unpack is not None  # it is a dict
                part.pack(field.unpack)


def weigh(cores: Iterable[FrozenCore], seen: set[int] | None = None) -> int:
    """About how many bytes these take together; parts with an id in `seen` count nothing."""
    seen = set() if seen is None else seen
    total = 0
    for core in cores:
        total += OVERHEAD_BYTES + len(core._snapshot)
        for part in core._parts:
            if id(part) not in seen:
                seen.add(id(part))
                total += _weight(part, seen)
    return total


def _places(part: object) -> Iterator[int]:
    """The ids of a part and of its pages."""
    yield id(part)
    if isinstance(part, tuple):
        for page in part:
            yield from _places(page)


def _weight(part: Part, seen: set[int]) -> int:
    if isinstance(part, bytes):
        return sys.getsizeof(part)
    if isinstance(part, Version):
        return part.weight
    total = 0
    for page in part:
        if id(page) not in seen:
            seen.add(id(page))
            total += _weight(page, seen)
    return total


def _freeze(tables: msgspec.Struct, field: _Field, before: Part | None) -> Part:
    value = getattr(tables, field.name)
    if field.decode_row is not None:
        if isinstance(value, Rows):
            if len(value) >= ROWS_MIN // 2:
                return value.freeze(before if isinstance(before, Version) else None)
            value = value.copy()
            setattr(tables, field.name, value)
        elif len(value) >= ROWS_MIN:
            rows = Rows.of(value, field.decode_row)
            setattr(tables, field.name, rows)
            return rows.freeze(None)
    old = before if isinstance(before, tuple) else ()
    if field.is_list:
        return tuple(
            _paged(_encode(item), old[place] if place < len(old) else b"")
            for place, item in enumerate(value)
        )
    encoded = _encode(value)
    return before if before == encoded and before is not None else _paged(encoded, before)


def _paged(encoded: bytes, before: object) -> Pages:
    """The bytes as they are or in pages, those of `before` where they are equal."""
    if len(encoded) <= PAGE_BYTES:
        return before if isinstance(before, bytes) and before == encoded else encoded
    old: Sequence[Any] = before if isinstance(before, tuple) else ()
    pages = []
    for place, at in enumerate(range(0, len(encoded), PAGE_BYTES)):
        page = encoded[at : at + PAGE_BYTES]
        pages.append(old[place] if place < len(old) and old[place] == page else page)
    return tuple(pages)


def _thaw(field: _Field, part: Part) -> Any:  # Any: the value of the field
    if isinstance(part, Version):
        assert field.decode_row is not None  # only dicts have versions
        return part.thaw(field.decode_row)
    if field.is_list:
        return [field.decode(_joined(item)) for item in part]
    return field.decode(_joined(part))


def _joined(part: Any) -> bytes:  # Any: pages
    return part if isinstance(part, bytes) else b"".join(part)


@lru_cache
def _layout(kind: Any) -> _Layout:  # Any: a class of Structs
    constants, numbers, fields = [], [], []
    for info in msgspec.structs.fields(kind):
        plain = _supertype(info.type)
        if plain in (int, bool, str, bytes):
            numbers.append(info.encode_name)
        elif isinstance(plain, type) and getattr(plain, "__struct_config__", _NONE).frozen:
            constants.append(info.encode_name)
        else:
            fields.append(_field(info.encode_name, plain))
    return _Layout(kind, tuple(constants), tuple(numbers), tuple(fields))


class _NONE:
    frozen = False


def _field(name: str, kind: Any) -> _Field:  # Any: a type with its arguments
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        row = _decoder(arguments[1])
        share = _SHARE.get(arguments[1])
        whole = msgspec.msgpack.Decoder(kind).decode
        unpack = _decoder(dict[arguments[0], Raw])  # type: ignore[valid-type]  # found at run time
        return _Field(name, _sharing_all(whole, share), _sharing(row, share), unpack, False)
    if get_origin(kind) is list and hasattr(arguments[0], "__struct_config__"):
        return _Field(name, _decoder(arguments[0]), None, None, True)
    return _Field(name, _decoder(kind), None, None, False)


def _decoder(kind: Any) -> Callable[[Any], Any]:  # Any: as above
    return msgspec.msgpack.Decoder(kind).decode


def _sharing(decode: Callable[[Any], Any], share: Callable[[Any], None] | None) -> Any:
    """Decode a row and put shared instances back into it."""
    if share is None:
        return decode

    def decode_row(raw: Raw) -> Any:
        row = decode(raw)
        share(row)
        return row

    return decode_row


def _sharing_all(decode: Callable[[Any], Any], share: Callable[[Any], None] | None) -> Any:
    """The same for a whole dict."""
    if share is None:
        return decode

    def decode_all(data: bytes) -> Any:
        rows = decode(data)
        for row in rows.values():
            share(row)
        return rows

    return decode_all


def _supertype(kind: Any) -> Any:  # Any: as above
    """The type behind a NewType."""
    while hasattr(kind, "__supertype__"):
        kind = kind.__supertype__
    return kind
