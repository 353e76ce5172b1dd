"""Rows: a table whose rows stay encoded until somebody touches them.

Theory of operation
-------------------
A checkpoint of a state of 50 MB must not cost 50 MB, and going back to it must not take as long as
decoding 50 MB. So while a trace is replayed, large tables are `Rows`: dicts whose values are
`msgspec.Raw` until they are asked for. A row may be changed by whoever got it, so those that were
given out since the last checkpoint, were added, or removed are all that can differ from it. A new
one encodes these and keeps what really changed (`Version`). The bytes of all other rows are shared
by every checkpoint.

The order of a dict is part of the state (PROTOCOL T13), and is what a chain of versions keeps.

Only replay uses this; the cores of a running cluster have plain dicts and pay nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, ItemsView, Iterator, ValuesView
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

K = TypeVar("K")
V = TypeVar("V")
Decode = Callable[[Raw], Any]  # Any: a row, of the type that its table has
_encode = msgspec.msgpack.Encoder().encode
_raw_of = dict.__getitem__
_store = dict.__setitem__
_find = dict.get
_merge = dict.update
_drop = dict.__delitem__
_MISSING = object()
DISTANCE_MIN = 256
"""So many changes are nothing to go through; a full version is made when there are more."""
ENTRY_BYTES = 43
"""What an entry of a dict takes, without what it holds."""
ROW_BYTES = 130
"""What a row of a version takes beside its bytes: entry, key, bytes object, Raw."""


class Rows(dict[K, V]):
    """A dict that decodes a value when it is first given out, and knows what may have changed.

    All that Python code does with a dict sees decoded rows; msgspec encodes it as it would the
    decoded dict, without decoding.
    """

    __slots__ = ("_added", "_decode", "_known", "_removed", "_touched")

    def __init__(self, decode: Decode) -> None:
        """An empty table; `decode` turns the bytes of a row into the row."""
        super().__init__()
        self._decode = decode
        self._known: dict[K, Raw] = {}
        """Of rows that are decoded, what they were at the last version."""
        self._touched: dict[K, None] = {}
        """Rows that were given out, or put here, since."""
        self._added: dict[K, None] = {}
        self._removed: dict[K, None] = {}

    # ---------------------------------------------------------------- reading

    def _open(self, key: K, raw: Raw) -> V:
        row: V = self._decode(raw)
        self._known[key] = raw
        self._touched[key] = None
        _store(self, key, row)
        return row

    def __getitem__(self, key: K) -> V:
        row = _raw_of(self, key)
        if type(row) is Raw:
            return self._open(key, row)  # type: ignore[arg-type]  # the bytes of a row
        if key not in self._touched:
            self._touched[key] = None
        return row

    def get(self, key: K, default: Any = None) -> Any:  # Any: as of a dict
        """As of a dict."""
        row = _find(self, key, _MISSING)
        if row is _MISSING:
            return default
        if type(row) is Raw:
            return self._open(key, row)
        if key not in self._touched:
            self._touched[key] = None
        return row

    def __iter__(self) -> Iterator[K]:
        # Said here so that dict(rows) and {**rows} ask for each row instead of copying the bytes.
        return super().__iter__()

    def values(self) -> ValuesView[V]:  # type: ignore[override]  # a view that decodes
        """As of a dict."""
        return ValuesView(self)

    def items(self) -> ItemsView[K, V]:  # type: ignore[override]  # the same
        """As of a dict."""
        return ItemsView(self)

    def copy(self) -> dict[K, V]:
        """A plain dict of all rows, decoded."""
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        return self.copy() == other

    __hash__ = None

    def __or__(self, other: Any) -> Any:  # Any: as of a dict
        return self.copy() | dict(other)

    def __ror__(self, other: Any) -> Any:  # Any: as of a dict
        return dict(other) | self.copy()

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.copy(),)

    # ---------------------------------------------------------------- writing

    def __setitem__(self, key: K, row: V) -> None:
        old = _find(self, key, _MISSING)
        if old is _MISSING:
            self._added[key] = None
        elif type(old) is Raw:
            self._known[key] = old
        self._touched[key] = None
        _store(self, key, row)

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._touched.pop(key, None)
        self._known.pop(key, None)
        if key in self._added:
            del self._added[key]
        else:
            self._removed[key] = None

    def pop(self, key: K, default: Any = _MISSING) -> Any:  # Any: as of a dict
        """As of a dict."""
        row = _find(self, key, _MISSING)
        if row is _MISSING:
            if default is _MISSING:
                raise KeyError(key)
            return default
        if type(row) is Raw:
            row = self._decode(row)
        del self[key]
        return row

    def popitem(self) -> tuple[K, V]:
        """As of a dict."""
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("popitem(): dictionary is empty")

    def setdefault(self, key: K, default: Any = None) -> Any:  # Any: as of a dict
        """As of a dict."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **more: Any) -> None:  # Any: as of a dict
        """As of a dict."""
        for key, row in dict(*others, **more).items():
            self[key] = row

    def __ior__(self, other: Any) -> Rows[K, V]:  # type: ignore[override]  # as of a dict
        self.update(other)
        return self

    def clear(self) -> None:
        """As of a dict."""
        for key in list(self):
            del self[key]

    # ---------------------------------------------------------------- checkpoints

    @classmethod
    def of(cls, rows: dict[K, V], decode: Decode) -> Rows[K, V]:
        """A table with these rows, which no version knows."""
        table = cls(decode)
        table.update(rows)
        return table

    def freeze(self, parent: Version | None) -> Version:
        """This moment as a version; `parent` is the one that this table began as, if any."""
        touched, known, added, removed = self._touched, self._known, self._added, self._removed
        if parent is not None and not (touched or added or removed):
            return parent
        changed: dict[Any, Raw] = {}
        for key in touched:
            raw = Raw(_encode(_raw_of(self, key)))
            if known.get(key) == raw:
                continue
            known[key] = raw
            if key not in added:
                changed[key] = raw
        fresh: dict[Any, Raw] = {key: known[key] for key in added}
        self._touched, self._added, self._removed = {}, {}, {}
        if parent is None:
            return Version(None, changed, fresh, removed, self._raws())
        if not (changed or fresh or removed):
            return parent
        version = Version(parent, changed, fresh, removed)
        if version.distance > max(DISTANCE_MIN, len(self) // 2):
            version.full = self._raws()
        return version

    def _raws(self) -> dict[Any, Raw]:
        """The bytes of all rows, when none is touched."""
        raws = dict(zip(super().__iter__(), super().values(), strict=True))
        raws.update(self._known)  # type: ignore[arg-type]  # now all are Raw
        return raws  # type: ignore[return-value]  # the same


class Version:
    """A table at one moment: what changed since the version before, or all of it.

    A version that is far from the last full one is made full itself, so going back to any costs
    one copy of a dict and at most half as many changes, and all full ones together take no more
    room than the changes do.
    """

    __slots__ = ("_packed", "_unpack", "added", "changed", "distance", "full", "parent", "removed")

    def __init__(
        self,
        parent: Version | None,
        changed: dict[Any, Raw],
        added: dict[Any, Raw],
        removed: dict[Any, None],
        full: dict[Any, Raw] | None = None,
    ) -> None:
        self.parent = parent
        self.changed = changed
        self.added = added
        self.removed = removed
        """Keys of `parent` that went; those that came back stand in `added`, too."""
        self.full = full
        """Never changed: others copy it."""
        self._packed = b""
        """Instead of all the above: the whole table, compressed; then `_unpack` reads it."""
        self._unpack: Callable[[bytes], dict[Any, Raw]] | None = None
        near: int = parent.distance if parent is not None and parent.full is None else 0
        self.distance: int = near + len(changed) + len(added) + len(removed)
        """How many changes lie between this and the last full version."""

    def __contains__(self, key: Any) -> bool:
        return self.find(key) is not None

    def find(self, key: Any) -> Raw | None:
        """The bytes of a row at that moment, None if there was none."""
        version = self
        while version.full is None:
            if version._packed:
                return version._unpacked().get(key)
            row = version.changed.get(key) or version.added.get(key)  # a Raw is true
            if row is not None:
                return row
            if key in version.removed:
                return None
            assert version.parent is not None  # only a full version has none
            version = version.parent
        return version.full.get(key)

    @property
    def weight(self) -> int:
        """About how many bytes it takes that no other version does."""
        if self._packed:
            return len(self._packed)
        rows = (*self.changed.values(), *self.added.values())
        size = sum(memoryview(raw).nbytes for raw in rows) + ROW_BYTES * (
            len(rows) + len(self.removed)
        )
        return size + (ENTRY_BYTES * len(self.full) if self.full is not None else 0)

    def thaw(self, decode: Decode) -> Rows[Any, Any]:
        """The table as it was. It is to be frozen with this version as its parent."""
        rows: Rows[Any, Any] = Rows(decode)
        self._fill(rows)
        return rows

    def _fill(self, raws: dict[Any, Any]) -> None:
        chain: list[Version] = []
        version = self
        while version.full is None and not version._packed:
            chain.append(version)
            assert version.parent is not None  # only a full version has none
            version = version.parent
        _merge(raws, version.full if version.full is not None else version._unpacked())
        for version in reversed(chain):
            for key in version.removed:
                _drop(raws, key)
            _merge(raws, version.changed)
            _merge(raws, version.added)

    def pack(self, unpack: Callable[[bytes], dict[Any, Raw]]) -> None:
        """Take little room and need no parent any more; going back to it takes longer.

        `unpack` decodes msgpack to a dict with the table's keys, and bytes of rows.
        """
        if self._packed:
            return
        raws: dict[Any, Raw] = {}
        self._fill(raws)
        self._packed, self._unpack = zlib.compress(_encode(raws), 1), unpack
        self.full, self.parent, self.distance = None, None, 0
        self.changed, self.added, self.removed = {}, {}, {}

    def _unpacked(self) -> dict[Any, Raw]:
        assert self._unpack is not None  # it came with the bytes
        return self._unpack(zlib.decompress(self._packed))
