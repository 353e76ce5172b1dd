"""Snapshots: every field of every table survives, and the order of rows as well (T13)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from detray.core import peer_messages as pm
from detray.core.snapshot import decode_tables, encode_tables
from detray.core.states import (
    FETCHING,
    GONE,
    PENDING,
    READY,
    WAITING,
    Fetching,
    Gone,
    Pending,
    Ready,
    Waiting,
)
from detray.core.tables import Tables
from tests.golden.play import play, transcripts
from tests.support.play import Player

CONSTANT = {
    "Tables.head_seq": "the session under the link counts what comes from the head",
    "TaskSubmitted.digest": "for who reads a recording",
}
"""Fields of rows that need not vary, and why."""
CONFIGURED = ("Policy.", "LocalConfig.", "Client.namespace", "Peer.address")
MESSAGES = tuple(f"{name}." for name, kind in vars(pm).items() if isinstance(kind, type))
"""Tables keep some messages as they came; what they are is not the tables' business."""


def structs(value: Any) -> Iterator[msgspec.Struct]:  # Any: a table or a part of one
    """Every struct inside `value`, itself included."""
    if isinstance(value, msgspec.Struct):
        yield value
        for name in value.__struct_fields__:
            yield from structs(getattr(value, name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from structs(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from structs(part)


def test_every_row_is_read_back_as_it_was() -> None:
    """After every step of every transcript, in which each field takes more than one value."""
    values: dict[str, set[bytes]] = {}

    def look(tables: Tables) -> None:
        data = encode_tables(tables)
        again = decode_tables(data)
        assert again == tables
        assert encode_tables(again) == data, "the order of rows"
        for row in structs(tables):
            for field in row.__struct_fields__:
                value = msgspec.msgpack.encode(getattr(row, field))
                values.setdefault(f"{type(row).__name__}.{field}", set()).add(value)

    for path in transcripts():
        play(path.read_text(), after_step=lambda s: [look(w.local.tables) for w in s.worlds])
    dull = {name for name, seen in values.items() if len(seen) < 2}
    dull = {name for name in dull if not name.startswith(CONFIGURED + MESSAGES)}
    assert sorted(dull) == sorted(CONSTANT)


def test_shared_states_are_shared_again() -> None:
    """The hot paths compare them by identity."""
    shared: dict[type, object] = {
        Waiting: WAITING, Ready: READY, Pending: PENDING, Fetching: FETCHING, Gone: GONE,
    }  # fmt: skip
    count = 0
    for seed in range(10):
        player = Player(random.Random(seed).randrange)
        for _ in range(60):
            player._move()
            tables = decode_tables(player.world.local.snapshot())
            for row in (*tables.tasks.values(), *tables.objects.values()):
                if type(row.state) in shared:
                    assert row.state is shared[type(row.state)]
                    count += 1
    assert count > 100
