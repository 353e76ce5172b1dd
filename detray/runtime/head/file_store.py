"""The head's store as one file: SQLite, written ahead, synchronised with every commit.

Theory of operation
-------------------
`PATH/head.db` has one row for each event since the last snapshot, and at most one snapshot. A
commit is one transaction; SQLite writes it to `head.db-wal` and synchronises that file before it
returns, so a crash at any byte leaves a prefix of the commits, with all that returned. Compaction
replaces the events by a snapshot in one more transaction.

Each row has a digest over its own bytes and the digest of the row before. SQLite finds torn writes;
this finds bytes that changed since, and rows of another log. A file that is not ours, that is
damaged, or that a newer release wrote is left as it is (`StoreError`).

The kernel keeps the file locked for this process as long as it is open; when the process dies,
however, the next one can have it. Once a disk is full or fails, nothing is known of the last
commit: the store takes nothing any more, the head stops, and the next one reads what there is. (It
could try again, but a head that waits for a disk answers nobody, and looks alive.)

What this cannot tell: a byte that changed in `head.db-wal` ends the log there, as a torn write
does, until SQLite has moved its pages into `head.db`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import msgspec

from detray.core.durable import (
    DurableEvent,
    decode_event,
    digest,
    encode_event,
)
from detray.runtime.head.store import Loaded, StoreError, read_tables

FILE_NAME = "head.db"
APPLICATION_ID = 0x64747261
"""What SQLite keeps at byte 68 to tell programs apart: "dtra"."""
SCHEMA_VERSION = 1
EVENTS_MAX = 10_000
"""So many events since the last snapshot, and it is time for another."""
_SEED = bytes(16)

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE snapshot (sequence INTEGER PRIMARY KEY, body BLOB NOT NULL, chain BLOB NOT NULL);
CREATE TABLE log (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, body BLOB NOT NULL,
                  chain BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class FileStore:
    """A `HeadStore` in a folder of its own."""

    def __init__(self, path: str, *, events_max: int = EVENTS_MAX) -> None:
        self.place = f"file:{path}"
        self._path = path
        self._file = os.path.join(path, FILE_NAME)
        self._events_max = events_max
        self._db: sqlite3.Connection | None = None
        self._sequence = 0
        self._chain = _SEED
        self._events = 0
        """Since the last snapshot."""
        self._broken = ""
        """Why nothing is taken any more."""

    def open(self) -> None:
        """Take the folder and its file, alone. Raises StoreError, and has changed nothing then."""
        if self._db is not None:
            return
        try:
            os.makedirs(self._path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the folder {self._path}: {error.strerror}. Give another one with"
                " --store file:PATH."
            ) from None
        with self._explained("open"):
            self._db = self._connect()
        try:
            self._check_it_is_ours()
        except StoreError:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        """The file, locked from its first reading on, until the connection ends."""
        db = sqlite3.connect(self._file, timeout=0, isolation_level=None)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            if not db.execute("PRAGMA schema_version").fetchone()[0] and not _is_marked(db):
                db.execute("PRAGMA journal_mode = WAL")
                os.chmod(self._file, 0o600)
            # The lock is taken with the first write, so there is one.
            db.execute("BEGIN EXCLUSIVE")
            db.execute("COMMIT")
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
        return db

    def _check_it_is_ours(self) -> None:
        """Make the tables in an empty file; refuse a file of anybody else."""
        db = self._open_db()
        with self._explained("read"):
            version = db.execute("PRAGMA user_version").fetchone()[0]
            has_tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if not has_tables and not _is_marked(db) and not version:
                db.executescript(_SCHEMA)
                self._sync_folder()
                return
            if not _is_marked(db):
                raise StoreError(
                    f"{self._file} is a database of another program. It was not changed; give an"
                    " empty folder with --store file:PATH."
                )
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._file} was written by a newer release of detray (format {version}, this one"
                f" knows {SCHEMA_VERSION}). It was not changed; start the head with that release,"
                " or give another folder with --store file:PATH."
            )

    def load(self) -> Loaded:
        """Snapshot and events, in order. Raises StoreError if a byte of them is not as written."""
        db = self._open_db()
        events: list[DurableEvent] = []
        with self._explained("read"):
            rows = db.execute("SELECT sequence, body, chain FROM snapshot").fetchall()
            sequence, snapshot, chain = rows[-1] if rows else (0, None, _SEED)
            if snapshot is not None and chain != _chained(_SEED, sequence, snapshot):
                raise self._damaged("its snapshot")
            log = db.execute("SELECT sequence, kind, body, chain FROM log ORDER BY sequence")
            for number, kind, body, expected in log:
                chain = _chained(chain, number, body)
                if number != sequence + 1 or chain != expected:
                    raise self._damaged(f"event {number} ({kind}) of its log")
                sequence = number
                try:
                    events.append(decode_event(body))
                except msgspec.DecodeError as error:
                    raise StoreError(
                        f"{self._file}: this release of detray does not know event {number}"
                        f" ({kind}: {error}). It was not changed; start the head with the release"
                        " that wrote it."
                    ) from None
        self._sequence, self._chain, self._events = sequence, chain, len(events)
        return Loaded(snapshot, events, sequence)

    def commit(self, events: Sequence[DurableEvent]) -> int:
        """One transaction; when it returns, the disk has it. Raises StoreError, and then for ever.

        `load` must have been called.
        """
        db = self._open_db()
        sequence, chain = self._sequence, self._chain
        rows: list[tuple[int, str, bytes, bytes]] = []
        for event in events:
            sequence += 1
            body = encode_event(event)
            chain = _chained(chain, sequence, body)
            rows.append((sequence, type(event).__name__, body, chain))
        with self._explained("write", breaks=True):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", rows)
            db.execute("COMMIT")
        self._sequence, self._chain = sequence, chain
        self._events += len(rows)
        return sequence

    @property
    def is_long(self) -> bool:
        """True after `events_max` events since the last snapshot."""
        return self._events >= self._events_max

    def compact(self, snapshot: bytes) -> None:
        """Put the snapshot in the place of all events so far, in one transaction."""
        db = self._open_db()
        chain = _chained(_SEED, self._sequence, snapshot)
        with self._explained("write", breaks=True):
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM snapshot")
            db.execute("INSERT INTO snapshot VALUES (?, ?, ?)", (self._sequence, snapshot, chain))
            db.execute("DELETE FROM log")
            db.execute("COMMIT")
        self._chain, self._events = chain, 0

    def digest(self) -> str:
        """Of the tables that come of what the file has now."""
        before = self._sequence, self._chain, self._events
        loaded = self.load()
        self._sequence, self._chain, self._events = before
        return digest(read_tables(loaded, self._file))

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error:
                pass  # What was committed is in the file, or in the one beside it.

    # -------------------------------------------------------------- failures

    def _open_db(self) -> sqlite3.Connection:
        if self._broken:
            raise StoreError(self._broken)
        if self._db is None:
            raise StoreError(f"{self._file} is not open")
        return self._db

    @contextmanager
    def _explained(self, verb: str, *, breaks: bool = False) -> Iterator[None]:
        """Errors of SQLite and of the system as `StoreError`s that say what to do.

        `breaks`: after one, whether the transaction is in the file is not known here.
        """
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            text = self._explain(verb, error)
            if breaks:
                self._broken = text
                self.close()
            raise StoreError(text) from None

    def _explain(self, verb: str, error: Exception) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return (
                f"another head has {self._file} open: one cluster has one head at a time. Stop it"
                " (detray stop), or give this one a store of its own with --store file:PATH."
            )
        if code == sqlite3.SQLITE_FULL:
            return (
                f"cannot {verb} {self._file}: the disk is full. All that was acknowledged is in it."
                " Make room, and start the head again; the nodes wait for it."
            )
        if code == sqlite3.SQLITE_NOTADB:
            return (
                f"{self._file} is not a store of a head. It was not changed; give an empty folder"
                " with --store file:PATH."
            )
        if code == sqlite3.SQLITE_CORRUPT:
            return str(self._damaged(str(error)))
        return (
            f"cannot {verb} {self._file}: {error}. See that this user may, and that the disk works."
        )

    def _damaged(self, what: str) -> StoreError:
        return StoreError(
            f"{self._file} is damaged: {what} is not what was written. It was not changed; put a"
            " copy of it in its place, or start a new cluster with another --store."
        )

    def _sync_folder(self) -> None:
        """The names of new files are on the disk, too."""
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _is_marked(db: sqlite3.Connection) -> bool:
    found: int = db.execute("PRAGMA application_id").fetchone()[0]
    return found == APPLICATION_ID


def _chained(before: bytes, sequence: int, body: bytes) -> bytes:
    """The digest of a row: of the one before, its own number and bytes."""
    return blake2b(before + sequence.to_bytes(8, "big") + body, digest_size=16).digest()
