"""The head's file store with real files, real locks and real kills."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from detray.core.durable import (
    Admitted,
    Buried,
    DurableEvent,
    DurableTables,
    EpochRaised,
    JobBegan,
    apply,
    digest,
    encode_snapshot,
)
from detray.ids import JobNumber, NodeID
from detray.runtime.head.file_store import FILE_NAME, FileStore
from detray.runtime.head.store import Loaded, StoreError, read_tables

DEADLINE_S = 60


def opened(path: Path, **options: int) -> FileStore:
    """A store that is ready to take events."""
    store = FileStore(str(path), **options)
    store.open()
    store.load()
    return store


def admitted(number: int) -> Admitted:
    """An admission of some size."""
    return Admitted(NodeID(number), 1, f"n{number}", (("CPU", 10_000),), f"10.0.0.{number}:1")


def test_a_new_store_is_empty_and_private(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "new" / "store"))
    store.open()
    assert store.load() == Loaded(None, [], 0)
    assert store.digest() == digest(DurableTables())
    assert (tmp_path / "new" / "store").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "store" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    store.close()
    store.close()


def test_what_was_committed_is_read_back_in_order(tmp_path: Path) -> None:
    store = opened(tmp_path)
    events: list[DurableEvent] = [
        EpochRaised(1, NodeID(0), JobNumber(1)),
        admitted(0),
        JobBegan(JobNumber(1), NodeID(0), "a.py", "space"),
        Buried(NodeID(0), "of old age"),
    ]
    assert store.commit(events[:1]) == 1
    assert store.commit(events[1:]) == 4
    store.close()
    again = FileStore(str(tmp_path))
    again.open()
    assert again.load() == Loaded(None, events, 4)
    again.close()


def test_a_snapshot_takes_the_place_of_the_events(tmp_path: Path) -> None:
    store = opened(tmp_path, events_max=3)
    tables = DurableTables()
    for number in range(3):
        assert not store.is_long
        store.commit([admitted(number)])
        apply(tables, admitted(number))
    assert store.is_long
    store.compact(encode_snapshot(tables))
    assert not store.is_long
    assert store.digest() == digest(tables)
    store.commit([Buried(NodeID(1), "x")])
    store.close()
    again = opened(tmp_path)
    loaded = again.load()
    assert (loaded.events, loaded.sequence) == ([Buried(NodeID(1), "x")], 4)
    apply(tables, Buried(NodeID(1), "x"))
    assert digest(read_tables(loaded)) == again.digest() == digest(tables)
    again.close()


def test_one_process_has_it_at_a_time(tmp_path: Path) -> None:
    """D 38: the store lets one head live."""
    store = opened(tmp_path)
    program = (
        "import sys; from detray.runtime.head.file_store import FileStore\n"
        "store = FileStore(sys.argv[1]); store.open()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert "another head has" in second.stderr and "detray stop" in second.stderr
    with pytest.raises(StoreError, match="another head"):
        FileStore(str(tmp_path)).open()
    store.commit([admitted(0)])
    store.close()
    assert subprocess.run(command, timeout=DEADLINE_S).returncode == 0


_COMMITS_FOR_EVER = """
import sys
from detray.core.durable import DurableTables, Buried, apply, encode_snapshot
from detray.runtime.head.file_store import FileStore
from detray.runtime.head.store import read_tables
store = FileStore(sys.argv[1], events_max=50)
store.open()
tables = read_tables(store.load())
while True:
    event = Buried(1, "x" * 300)
    number = store.commit([event])
    apply(tables, event)
    print(number, flush=True)
    if store.is_long:
        store.compact(encode_snapshot(tables))
"""


def test_a_head_that_is_killed_loses_nothing_that_it_was_told_is_there(tmp_path: Path) -> None:
    last = 0
    for lines in (1, 7, 120):
        command = [sys.executable, "-c", _COMMITS_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(lines):
                last = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split()
        # The last line may have been cut short.
        last = max(last, *map(int, rest[:-1])) if len(rest) > 1 else last
        store = opened(tmp_path)
        assert store.load().sequence >= last
        store.close()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(b"these are my notes about the head" * 100)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"not a store of a head.*--store"):
        FileStore(str(tmp_path)).open()
    assert file.read_bytes() == before
    file.unlink()
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE mine (row TEXT)")
    db.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        FileStore(str(tmp_path)).open()
    assert file.read_bytes() == before


def test_a_newer_release_is_asked_for(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StoreError, match="newer release"):
        FileStore(str(tmp_path)).open()


@pytest.mark.parametrize("table", ["log", "snapshot"])
def test_a_changed_byte_is_found(tmp_path: Path, table: str) -> None:
    store = opened(tmp_path)
    store.commit([admitted(0)])
    store.compact(encode_snapshot(read_tables(store.load())))
    store.commit([admitted(1), admitted(2)])
    store.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        ((body,),) = db.execute(f"SELECT body FROM {table} LIMIT 1")
        changed = body.replace(b"CPU", b"GPU")
        assert changed != body
        db.execute(f"UPDATE {table} SET body = ? WHERE body = ?", (changed, body))
    db.close()
    store = FileStore(str(tmp_path))
    store.open()
    with pytest.raises(StoreError, match="damaged"):
        store.load()
    store.close()


def test_a_row_that_is_missing_is_found(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.commit([admitted(number) for number in range(4)])
    store.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("DELETE FROM log WHERE sequence = 2")
    db.close()
    store = FileStore(str(tmp_path))
    store.open()
    with pytest.raises(StoreError, match="event 3"):
        store.load()
    store.close()


def test_after_a_full_disk_it_takes_nothing_and_has_lost_nothing(tmp_path: Path) -> None:
    """Whether the last commit is there is not known, so the head must stop (PROTOCOL N8)."""
    store = opened(tmp_path)
    store.commit([admitted(0)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            store.commit([Buried(NodeID(0), "y" * 200_000)])
        with pytest.raises(StoreError, match="cannot write"):
            store.commit([admitted(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
        store.close()
    again = opened(tmp_path)
    assert again.load().events == [admitted(0)]
    again.close()


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/below.*--store"):
        FileStore(str(tmp_path / "file" / "below")).open()


def test_a_crash_between_the_files_leaves_a_prefix(tmp_path: Path) -> None:
    """The file beside it gone altogether is the shortest of all torn tails."""
    store = opened(tmp_path / "a")
    store.commit([admitted(0)])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    store.close()
    os.unlink(tmp_path / "b" / f"{FILE_NAME}-wal")
    again = opened(tmp_path / "b")
    assert again.load().events in ([], [admitted(0)])
    again.close()
