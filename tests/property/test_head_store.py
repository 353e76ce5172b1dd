"""The head's log, cut off at any byte, is a prefix of what was committed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as some

from detray.core.durable import (
    Admitted,
    Buried,
    DurableEvent,
    DurableTables,
    EpochRaised,
    JobBegan,
    JobOver,
    apply,
    decode_event,
    decode_snapshot,
    digest,
    encode_event,
    encode_snapshot,
)
from detray.ids import JobNumber, NodeID
from detray.runtime.head.file_store import FILE_NAME, FileStore
from detray.runtime.head.store import read_tables

numbers = some.integers(0, 5)
texts = some.text(max_size=20)
events = some.one_of(
    some.builds(EpochRaised, numbers, numbers.map(NodeID), numbers.map(JobNumber)),
    some.builds(
        Admitted,
        numbers.map(NodeID),
        numbers,
        texts,
        some.lists(some.tuples(texts, numbers), max_size=3).map(tuple),
        texts,
        some.lists(some.tuples(texts, texts), max_size=2).map(tuple),
    ),
    some.builds(Buried, numbers.map(NodeID), texts),
    some.builds(JobBegan, numbers.map(JobNumber), numbers.map(NodeID), texts, texts),
    some.builds(JobOver, numbers.map(JobNumber)),
)
commits = some.lists(some.lists(events, min_size=1, max_size=4), min_size=1, max_size=12)


def tables_of(log: list[list[DurableEvent]]) -> DurableTables:
    """What comes of commits."""
    tables = DurableTables()
    for group in log:
        for event in group:
            apply(tables, event)
    return tables


@given(commits)
def test_snapshots_and_events_survive_the_bytes(log: list[list[DurableEvent]]) -> None:
    """And where the log is cut into snapshot and tail makes no difference."""
    whole = tables_of(log)
    for place in range(len(log) + 1):
        tables = decode_snapshot(encode_snapshot(tables_of(log[:place])))
        for group in log[place:]:
            for event in group:
                apply(tables, decode_event(encode_event(event)))
        assert digest(tables) == digest(whole)
        assert encode_snapshot(tables) == encode_snapshot(whole)


@settings(max_examples=40, deadline=None)
@given(commits, some.data())
def test_a_log_cut_at_any_byte_is_a_prefix(
    log: list[list[DurableEvent]], data: some.DataObject
) -> None:
    compacted = data.draw(some.integers(-1, len(log) - 1), "a snapshot after this commit")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = FileStore(str(folder / "live"))
        store.open()
        store.load()
        wal = folder / "live" / f"{FILE_NAME}-wal"
        sizes = []
        for number, group in enumerate(log):
            store.commit(group)
            sizes.append(wal.stat().st_size)
            if number == compacted:
                store.compact(encode_snapshot(tables_of(log[: number + 1])))
        cut = data.draw(some.integers(0, wal.stat().st_size), "bytes that reached the disk")
        shutil.copytree(folder / "live", folder / "dead")
        store.close()
        with open(folder / "dead" / f"{FILE_NAME}-wal", "r+b") as file:
            file.truncate(cut)
            if data.draw(some.booleans(), "the rest is nonsense"):
                file.seek(cut)
                file.write(data.draw(some.binary(max_size=5_000)))
        again = FileStore(str(folder / "dead"))
        again.open()
        found = digest(read_tables(again.load()))
        again.close()
    acknowledged = sum(size <= cut for size in sizes)
    possible = [digest(tables_of(log[:count])) for count in range(acknowledged, len(log) + 1)]
    assert found in possible
