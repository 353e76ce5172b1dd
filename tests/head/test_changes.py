"""What a node tells for the view: in step with its tables, batched, bounded, whole after a loss."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from detray.core.states import Failed
from detray.core.tables import HERE, Tables
from detray.runtime import changes as module
from detray.runtime.changes import KINDS, Changes, RowBatch, ViewRow
from tests.golden.play import play, transcripts
from tests.support.play import Player


class Model:
    """A head's idea of one node's rows, made of batches alone."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.seen = 0
        self.rows: dict[tuple[str, bytes], ViewRow] = {}
        self.faults: list[str] = []

    def ask(self, tables: Tables, now_ns: int = 1) -> RowBatch:
        """One question and its answer, through the wire."""
        answer = self.changes.since(self.seen, tables, now_ns)
        wire = msgspec.msgpack.decode(msgspec.msgpack.encode(answer))
        batch = msgspec.convert(wire, RowBatch)
        if batch.is_full:
            self.rows.clear()
        for kind, ids in batch.removed.items():
            for item in ids:
                del self.rows[kind, item]
        for kind, found in batch.rows.items():
            self.rows |= {(kind, row.id): row for row in found}
        self.faults += [fault.text for fault in batch.faults]
        self.seen = batch.number
        return batch


def played(seed: int) -> Player:
    """A program in the middle of its life."""
    player = Player(random.Random(seed).randrange)
    for _ in range(60):
        player._move()
    assert len(player.world.local.tables.objects) > 4
    return player


def expected(tables: Tables) -> dict[tuple[str, bytes], ViewRow]:
    """What somebody says who is told everything, and only once."""
    model = Model()
    model.ask(tables)
    return model.rows


def test_batches_add_up_to_the_tables() -> None:
    """On every node of every transcript, after each step: the sum of all batches is the present."""
    models: dict[int, Model] = {}
    kinds: set[tuple[str, bool, bool]] = set()

    def look(stage: Any) -> None:  # Any: the transcripts' stage
        for world in stage.worlds:
            model = models.setdefault(id(world), Model())
            model.world = world  # type: ignore[attr-defined]  # keeps its id from another's use
            tables = world.local.tables
            model.ask(tables)
            assert model.rows == expected(tables)
            kinds.update(
                (kind, row.facts is not None, bool(row.place))
                for (kind, _), row in model.rows.items()
            )

    for path in transcripts():
        models.clear()
        play(path.read_text(), after_step=look)
    assert {(kind, True, True) for kind in KINDS} <= kinds
    assert ("tasks", False, True) in kinds, "a run for another node"
    assert ("objects", False, True) in kinds, "a copy of another node's object"


def test_nothing_new_is_nothing_to_tell() -> None:
    """The second answer about the same tables is empty."""
    player = played(1)
    tables = player.world.local.tables
    model = Model()
    assert model.ask(tables).rows
    batch = model.ask(tables)
    assert (batch.rows, batch.removed, batch.faults, batch.is_full) == ({}, {}, [], False)


def test_a_lost_batch_is_followed_by_everything() -> None:
    """The head names the last one that it has; if that is not our last, all is told anew."""
    player = played(2)
    model = Model()
    for _ in range(30):
        player._move()
        model.ask(player.world.local.tables)
        model.changes.since(model.seen, player.world.local.tables, 1)  # This answer is lost.
        assert model.ask(player.world.local.tables).is_full
        assert model.rows == expected(player.world.local.tables)


def test_another_head_is_told_everything() -> None:
    """It has seen nothing."""
    player = played(3)
    model = Model()
    model.ask(player.world.local.tables)
    model.ask(player.world.local.tables)
    model.seen = 0
    assert model.ask(player.world.local.tables).is_full
    assert model.rows == expected(player.world.local.tables)


def test_asking_changes_nothing_in_the_core() -> None:
    """Snapshots before and after are equal bytes."""
    player = played(4)
    for _ in range(20):
        player._move()
        before = player.world.local.snapshot()
        Changes().since(0, player.world.local.tables, 1)
        assert player.world.local.snapshot() == before


def test_a_question_costs_a_bounded_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tables are told in several batches, which say how old they are; then they are whole."""
    monkeypatch.setattr(module, "LOOK_MAX", 3)
    monkeypatch.setattr(module, "SEND_MAX", 2)
    player = played(5)
    tables = player.world.local.tables
    assert len(tables.objects) > 10
    model = Model()
    batches = 0
    while True:
        batch = model.ask(tables, now_ns=batches * 1_000)
        assert all(len(found) <= 2 for found in batch.rows.values())
        batches += 1
        if len(model.rows) == sum(len(getattr(tables, kind)) for kind in KINDS):
            break
        assert batches < 1_000
    assert batches > 3
    monkeypatch.setattr(module, "LOOK_MAX", 1_000_000)
    monkeypatch.setattr(module, "SEND_MAX", 1_000_000)
    assert model.rows == expected(tables)


def test_the_age_of_a_batch_is_that_of_its_oldest_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 while a round takes one batch; while it takes several, since the last whole one began."""
    player = played(6)
    tables = player.world.local.tables
    model = Model()
    assert [model.ask(tables, now).age_ns for now in (1_000, 2_000)] == [0, 0]
    monkeypatch.setattr(module, "LOOK_MAX", 1)
    assert [model.ask(tables, now).age_ns for now in (3_000, 4_000)] == [1_000, 2_000]


def test_what_is_shown_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million tasks are not a million keys: the oldest are shown."""
    monkeypatch.setattr(module, "SHOWN_MAX", 4)
    player = played(5)
    model = Model()
    for _ in range(3):
        model.ask(player.world.local.tables)
    objects = [item for kind, item in model.rows if kind == "objects"]
    assert objects == list(player.world.local.tables.objects)[:4]


def test_failures_are_told_once_by_their_owner() -> None:
    """With what went wrong."""
    told = failed = 0
    for path in transcripts():
        models: dict[int, Model] = {}
        seen: dict[int, set[bytes]] = {}

        def look(
            stage: Any,  # Any: the transcripts' stage
            models: dict[int, Model] = models,
            seen: dict[int, set[bytes]] = seen,
        ) -> None:
            for world in stage.worlds:
                models.setdefault(id(world), Model()).ask(world.local.tables)
                for row in world.local.tables.objects.values():
                    is_ours = row.shared is None or row.shared.home == HERE
                    if isinstance(row.state, Failed) and is_ours:
                        seen.setdefault(id(world), set()).add(row.id)

        play(path.read_text(), after_step=look)
        told += sum(len(model.faults) for model in models.values())
        failed += sum(len(found) for found in seen.values())
    assert 0 < told <= failed


def test_texts_are_cut() -> None:
    """Names and lists of ids do not make a row large."""
    assert len(module._short("x" * 10_000)) == module.TEXT_MAX
    many = tuple(bytes([index]) * 20 for index in range(100))
    assert module._ids(many).endswith(",and 68 more")  # type: ignore[arg-type]  # stand-ins
