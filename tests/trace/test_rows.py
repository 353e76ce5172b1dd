"""Rows: a dict whose rows stay bytes until somebody looks, and the versions of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec import Raw

from detray.trace.travel.rows import Rows, Version


class Row(msgspec.Struct):
    """Something that can be changed where it lies."""

    number: int
    items: list[int] = []


DECODE = msgspec.msgpack.Decoder(Row).decode
UNPACK = msgspec.msgpack.Decoder(dict[int, Raw]).decode
encode = msgspec.msgpack.encode


def rows_of(count: int) -> tuple[Rows[int, Row], dict[int, Row]]:
    """A table that was thawed, nothing decoded; and the same as a plain dict."""
    plain = {key: Row(key) for key in range(count)}
    return Rows.of(plain, DECODE).freeze(None).thaw(DECODE), {k: Row(k) for k in range(count)}


def is_raw(rows: Rows[int, Row], key: int) -> bool:
    """True if the row was not decoded."""
    return type(dict.__getitem__(rows, key)) is Raw


def test_only_what_is_asked_for_is_decoded():
    """A key, a length, a membership decode nothing."""
    rows, _ = rows_of(3)
    assert 1 in rows and len(rows) == 3 and list(rows) == [0, 1, 2]
    assert all(is_raw(rows, key) for key in range(3))
    assert rows[1] == Row(1)
    assert [is_raw(rows, key) for key in range(3)] == [True, False, True]


READS: dict[str, Callable[[Any], Any]] = {
    "getitem": lambda d: d[1],
    "get": lambda d: (d.get(1), d.get(9), d.get(9, 4)),
    "values": lambda d: list(d.values()),
    "items": lambda d: list(d.items()),
    "keys": lambda d: list(d.keys()),
    "copy": lambda d: d.copy(),
    "dict": dict,
    "unpacking": lambda d: {**d},
    "or": lambda d: d | {7: Row(7)},
    "ror": lambda d: {7: Row(7)} | d,
    "equality": lambda d: (d == {k: Row(k) for k in range(4)}, d != {}, d == {}),
    "reversed": lambda d: list(reversed(d)),
    "sorted": lambda d: sorted(d.items(), reverse=True),
    "repr": repr,
    "comprehension": lambda d: {k: v.number for k, v in d.items()},
    "in values": lambda d: (Row(2) in d.values(), (2, Row(2)) in d.items()),
    "length of views": lambda d: (len(d.values()), len(d.items())),
    "encode": encode,
    "map": lambda d: list(map(d.get, (1, 2))),
}
WRITES: dict[str, Callable[[Any], Any]] = {
    "set": lambda d: d.__setitem__(1, Row(10)),
    "set new": lambda d: d.__setitem__(9, Row(9)),
    "delete": lambda d: d.__delitem__(2),
    "pop": lambda d: (d.pop(1), d.pop(1, None)),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: (d.setdefault(1, Row(5)), d.setdefault(8, Row(8))),
    "update": lambda d: d.update({0: Row(6), 6: Row(6)}),
    "ior": lambda d: d.__ior__({0: Row(6)}) is d,
    "clear": lambda d: d.clear(),
    "change": lambda d: d[3].items.append(4),
    "again": lambda d: d.__setitem__(0, d.pop(0)),
}


def test_everything_that_a_dict_can_do_does_the_same():
    """Results, and what is left afterwards, as of a plain dict; after any thaw and freeze."""
    for name, action in (READS | WRITES).items():
        rows, plain = rows_of(4)
        version = rows.freeze(None)
        if name != "repr":
            assert same(action(rows), action(plain)), name
        assert encode(rows) == encode(plain), name
        after = rows.freeze(version)
        assert encode(after.thaw(DECODE)) == encode(plain), name
        assert list(after.thaw(DECODE).items()) == list(plain.items()), name


def same(a: Any, b: Any) -> bool:  # Any: results
    """Equal, dicts in their order."""
    return encode(a) == encode(b)


def test_no_method_of_dict_was_forgotten():
    """Each is written anew, tested above, or looks at keys only."""
    of_keys = {"__contains__", "__len__", "keys", "__reversed__", "__iter__", "fromkeys"}
    of_objects = set(dir(object)) | {"__class_getitem__"}
    forgotten = set(dir(dict)) - of_objects - of_keys - set(vars(Rows))
    assert forgotten == set()


def test_what_was_only_looked_at_shares_its_bytes():
    """A look changes nothing: the version stays the same one."""
    rows, _ = rows_of(4)
    version = rows.freeze(None)
    for row in rows.values():
        assert row.items == []
    assert rows.freeze(version) is version


def test_a_version_keeps_what_changed_and_nothing_else():
    """One row of many: one row in the version."""
    rows, _ = rows_of(1_000)
    version = rows.freeze(None)
    rows[7].items.append(1)
    after = rows.freeze(version)
    assert list(after.changed) == [7] and not after.added and not after.removed
    assert after.find(7) == Raw(encode(Row(7, [1])))
    assert after.find(8) is version.find(8)


actions = some.lists(
    some.tuples(
        some.sampled_from(("set", "drop", "change", "look", "freeze")), some.integers(0, 12)
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(actions, some.booleans())
def test_every_version_is_the_dict_as_it_was(script, are_packed):
    """Whatever is done, in whatever order: rows, their order, and single rows."""
    rows: Rows[int, Row] = Rows.of({}, DECODE)
    plain: dict[int, Row] = {}
    versions: list[tuple[Version, bytes]] = [(rows.freeze(None), encode(plain))]
    for kind, key in script:
        if kind == "freeze":
            versions.append((rows.freeze(versions[-1][0]), encode(plain)))
            if key % 3 == 0:
                rows = versions[-1][0].thaw(DECODE)
        else:
            for table in (rows, plain):
                act(table, kind, key)
        assert encode(rows) == encode(plain)
    if are_packed:
        for version, _ in versions[::2]:
            version.pack(UNPACK)
    for version, expected in versions:
        assert encode(version.thaw(DECODE)) == expected
        was = msgspec.msgpack.decode(expected, type=dict[int, Row])
        for key in range(13):
            row = version.find(key)
            assert (None if row is None else DECODE(row)) == was.get(key)


def act(table: dict[int, Row], kind: str, key: int) -> None:
    """One line of a script."""
    if kind == "set":
        table[key] = Row(len(table))
    elif kind == "drop":
        table.pop(key, None)
    elif key in table:
        row = table[key]
        if kind == "change":
            row.items.append(key)
