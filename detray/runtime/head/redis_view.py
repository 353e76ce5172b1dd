"""The cluster as plain keys on a Redis server, for `redis-cli` (PROTOCOL N19).

Rules
-----
- A derived view: nothing ever reads it back. It says how old it is, and it may be incomplete.
- The head's loop hands over finished data and goes on (`show`, `take`); a thread writes.
- What waits for the server is bounded: the newest report, and one batch of each node. A node is not
  asked for the next one before its last was written, and none while the server is away (`wants`).
- Whoever starts writing clears what an earlier head wrote. When the server was away, or a node's
  batch was lost, that node's keys are cleared and it tells everything anew.

The keys and their fields are described in docs/cluster-redis.md.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from detray.runtime.changes import KINDS, SOMETIMES, Facts, RowBatch
from detray.runtime.head.overview import Page
from detray.runtime.head.redis_server import Redis, connect, describe, safe_url

CHUNK = 500
"""Commands in one pipeline."""
ID_BYTES_MAX = 20
FIELDS_MAX = 32
TEXT_MAX = 2_048
AGE_NS_MAX = 1 << 60
ERRORS_MAX = 1_000
"""Entries of the stream of errors."""
RETRY_S = 0.5
RETRY_S_MAX = 5.0
LAST_S = 1.0

PLACES = {"tasks": "runs", "objects": "copies", "functions": "imports"}
"""By kind, the set of what a node has a place for without being its owner."""
SINGULAR = {"tasks": "task", "objects": "object", "functions": "function"}

Note = Callable[[str, str], None]


class _Batch(NamedTuple):
    node: int
    rows: RowBatch
    at: float
    """Unix time of its arrival."""


class RedisView:
    """Writes the keys. All methods are the loop's."""

    def __init__(self, url: str, cluster: str, note: Note) -> None:
        """Raises StoreError if the URL is none or the package is missing; begins to write."""
        self._url = url
        self._note = note
        self._client = connect(url)
        self._keys = _Keys(self._client, cluster)
        self._changed = threading.Condition()
        self._report: tuple[Page, float] | None = None
        self._batches: dict[int, _Batch] = {}
        """Read and not written yet, or being written."""
        self._seen: dict[int, int] = {}
        """By node, the number of its last batch that was written."""
        self._is_up = False
        self._is_closing = False
        self.problem = ""
        """Why nothing is written at the moment."""
        self._thread = threading.Thread(target=self._run, name="detray-view", daemon=True)
        self._thread.start()

    def wants(self, node: int) -> int | None:
        """The number to ask a node with for its next changes; None: do not ask now."""
        with self._changed:
            if not self._is_up or node in self._batches:
                return None
            return self._seen.get(node, 0)

    def take(self, node: int, body: object) -> None:
        """A node's answer, a `RowBatch` as it came over the wire. Raises ValueError for others."""
        try:
            rows = msgspec.convert(body, RowBatch)
            _check(rows)
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"node {node} sent changes that are none: {error}") from None
        with self._changed:
            if node in self._batches or not self._is_up:
                return
            if not rows.is_full and rows.number != self._seen.get(node, 0) + 1:
                self._seen.pop(node, None)  # One between was lost: it tells all anew.
                return
            self._batches[node] = _Batch(node, rows, time.time())
            self._changed.notify()

    def show(self, report: Page) -> None:
        """The newest report: nodes, jobs, failures. Nodes that are dead in it lose their rows."""
        with self._changed:
            self._report = (report, time.time())
            self._changed.notify()

    def close(self) -> None:
        """Some time for what is under way. The keys stay, and say how old they are."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(LAST_S)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            pause_s = 0.0
            while self._wait(pause_s):
                try:
                    self._write()
                    pause_s = 0.0
                except Exception as error:  # Also a bug of ours: a view is not worth a head.
                    self._lose(error)
                    pause_s = min(RETRY_S_MAX, max(RETRY_S, pause_s * 2))
        finally:
            self._client.close()

    def _wait(self, pause_s: float) -> bool:
        with self._changed:
            if pause_s:
                self._changed.wait_for(lambda: self._is_closing, pause_s)
            elif self._is_up:
                self._changed.wait_for(
                    lambda: self._is_closing or self._report is not None or bool(self._batches)
                )
            return not self._is_closing

    def _lose(self, error: Exception) -> None:
        """The server is away: whatever was told since may be there or not."""
        with self._changed:
            was_up, self._is_up = self._is_up, False
            self._batches.clear()
            self._seen.clear()
            self.problem = describe(self._url, error)
        if was_up:
            self._note("warning", f"the plain keys are not kept up to date: {self.problem}")

    def _write(self) -> None:
        if not self._is_up:
            self._keys.clear()
            with self._changed:
                if self.problem:
                    self._note("info", f"the plain keys at {safe_url(self._url)} are kept again")
                self._is_up = True
                self.problem = ""
        else:
            self._keys.check()
        with self._changed:
            report, self._report = self._report, None
            batches = list(self._batches.values())
        dead: list[int] = []
        if report is not None:
            dead = [entry["number"] for entry in report[0]["nodes"] if not entry["alive"]]
            self._keys.write_report(*report)
        for node in dead:
            with self._changed:
                had = self._seen.pop(node, None) is not None or node in self._batches
            if had:
                self._keys.clear_rows(node)
        for batch in batches:
            if batch.node not in dead:
                self._keys.write_rows(batch)
            with self._changed:
                del self._batches[batch.node]
                if batch.node not in dead:
                    self._seen[batch.node] = batch.rows.number


def _check(rows: RowBatch) -> None:
    """Raises ValueError for what would make keys or fields that are not ours."""
    if not 0 <= rows.age_ns <= AGE_NS_MAX:
        raise ValueError(f"an age of {rows.age_ns} ns")
    unknown = [kind for kind in (*rows.rows, *rows.removed) if kind not in KINDS]
    if unknown:
        raise ValueError(f"there are no {unknown[0]!r:.40}")
    ids = [row.id for found in rows.rows.values() for row in found]
    ids += [item for gone in rows.removed.values() for item in gone]
    if any(len(item) > ID_BYTES_MAX for item in ids):
        raise ValueError("an id is too long")
    for found in rows.rows.values():
        for row in found:
            if row.facts is not None and len(row.facts) > FIELDS_MAX:
                raise ValueError("a row has too many fields")


class _Keys:
    """The layout. Methods raise what `redis_server.errors` lists."""

    def __init__(self, client: Redis, cluster: str) -> None:
        self._client = client
        self._prefix = f"detray:{cluster}:"
        self._shown: set[str] = set()
        """Keys of nodes and jobs that are there."""
        self._writer = os.urandom(8).hex().encode()
        """Written with the first key: as long as it is there, so is the rest."""

    def clear(self) -> None:
        """Everything of this view goes."""
        for kind in (*SINGULAR.values(), "node", "job"):
            found = self._client.scan_iter(match=f"{self._prefix}{kind}:*", count=1_000)
            for keys in _chunks(found):
                self._client.unlink(*keys)
        self._client.delete(f"{self._prefix}view", f"{self._prefix}nodes", f"{self._prefix}jobs")
        self._client.hset(f"{self._prefix}view", "writer", self._writer)
        self._shown = set()

    def check(self) -> None:
        """Raises LookupError if what was written is gone: a server may end and come back empty
        between two writes, and the client connects again without a word.
        """
        found = self._client.hget(f"{self._prefix}view", "writer")
        if found != self._writer:
            raise LookupError("what was written is gone: it came back empty, or another head is")

    def clear_rows(self, node: int) -> None:
        """What a node told goes: rows that it owns, and its places in those of others."""
        for kind in KINDS:
            owned, placed = self._sets(node, kind)
            for items in _chunks(self._client.sscan_iter(owned, count=1_000)):
                self._client.unlink(*(self._row(kind, item.decode()) for item in items))
            for items in _chunks(self._client.sscan_iter(placed, count=1_000)):
                pipe = self._client.pipeline(transaction=False)
                for item in items:
                    pipe.hdel(self._row(kind, item.decode()), f"at:{node}")
                pipe.execute()
            self._client.delete(owned, placed)

    def write_rows(self, batch: _Batch) -> None:
        """A node's changes."""
        node, rows = batch.node, batch.rows
        if rows.is_full:
            self.clear_rows(node)
        for commands in _chunks(self._commands(node, rows)):
            pipe = self._client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            pipe.execute()
        looked_at = batch.at - rows.age_ns / 1e9
        self._client.hset(
            f"{self._prefix}node:{node}",
            mapping={"rows_updated": _clock(batch.at), "rows_looked_at_since": _clock(looked_at)},
        )

    def write_report(self, report: Page, at: float) -> None:
        """Nodes, jobs and failures."""
        prefix, pipe = self._prefix, self._client.pipeline(transaction=False)
        living = [entry for entry in report["nodes"] if entry["alive"]]
        pipe.delete(f"{prefix}nodes", f"{prefix}jobs")
        shown = {f"{prefix}node:{entry['number']}" for entry in report["nodes"]}
        shown |= {f"{prefix}job:{job['number']}" for job in report["jobs"]}
        for key in self._shown - shown:
            pipe.unlink(key)
        self._shown |= shown
        for entry in report["nodes"]:
            pipe.hset(f"{prefix}node:{entry['number']}", mapping=_node_fields(entry))
        if living:
            pipe.sadd(f"{prefix}nodes", *(entry["number"] for entry in living))
        for job in report["jobs"]:
            pipe.hset(f"{prefix}job:{job['number']}", mapping={k: _text(v) for k, v in job.items()})
        if report["jobs"]:
            pipe.sadd(f"{prefix}jobs", *(job["number"] for job in report["jobs"]))
        pipe.hset(
            f"{prefix}view",
            mapping={
                "updated": _clock(at),
                "updated_unix": f"{at:.3f}",
                "nodes_alive": len(living),
                "head": report["head"]["address"],
                "epoch": report["head"]["epoch"],
                "note": "derived, batched, never read back; ages and limits: docs/cluster.md",
            },
        )
        pipe.execute()
        self._shown = shown

    # Any: commands as redis-py takes them
    def _commands(self, node: int, rows: RowBatch) -> Iterable[tuple[Any, ...]]:
        field = f"at:{node}"
        for kind, items in rows.removed.items():
            owned, placed = self._sets(node, kind)
            for item in items:
                yield (
                    "EVAL",
                    _REMOVE,
                    3,
                    self._row(kind, item.hex()),
                    owned,
                    placed,
                    item.hex(),
                    field,
                )
        for kind, found in rows.rows.items():
            owned, placed = self._sets(node, kind)
            for row in found:
                key, member = self._row(kind, row.id.hex()), row.id.hex()
                fields = _flat(row.facts) if row.facts is not None else []
                fields += [field, row.place[:TEXT_MAX]] if row.place else []
                stale = [] if row.place else [field]
                if row.facts is not None:
                    stale += [name for name in SOMETIMES if name not in row.facts]
                if stale:
                    yield "HDEL", key, *stale
                if fields:
                    yield "HSET", key, *fields
                yield ("SADD" if row.facts is not None else "SREM"), owned, member
                yield ("SADD" if row.place else "SREM"), placed, member
        for fault in rows.faults[:ERRORS_MAX]:
            told: Facts = {"object": fault.object.hex(), "failure": fault.failure, "node": node}
            told["text"] = fault.text
            yield "XADD", f"{self._prefix}errors", "MAXLEN", "~", ERRORS_MAX, "*", *_flat(told)

    def _row(self, kind: str, item: str) -> str:
        return f"{self._prefix}{SINGULAR[kind]}:{item}"

    def _sets(self, node: int, kind: str) -> tuple[str, str]:
        """Keys of the sets of what a node owns, and what it has a place for."""
        base = f"{self._prefix}node:{node}:"
        return base + kind, base + PLACES[kind]


_REMOVE = """
if redis.call('SREM', KEYS[2], ARGV[1]) == 1 then
  redis.call('UNLINK', KEYS[1])
else
  redis.call('HDEL', KEYS[1], ARGV[2])
end
redis.call('SREM', KEYS[3], ARGV[1])
"""
"""An owner's row goes with all that others said of it; another node takes back its own word."""


def _node_fields(entry: Page) -> dict[str, str]:
    """A node's entry as one flat hash."""
    total, free = entry["resources"]["total"], entry["resources"]["available"]
    fields = {
        key: _text(entry[key])
        for key in ("id", "name", "address", "incarnation", "pid", "head", "alive", "reason")
    }
    fields["age_s"] = _text(entry["age_s"])
    for name, amount in total.items():
        fields[f"total:{name}"] = f"{amount:.15g}"
        fields[f"available:{name}"] = f"{free.get(name, 0):.15g}"
    for group in ("tasks", "objects", "workers", "totals", "labels"):
        fields[group] = json.dumps(entry[group], sort_keys=True)
    fields["store_used_bytes"] = str(entry["store"]["used_bytes"])
    fields["store_size_bytes"] = str(entry["store"]["size_bytes"])
    return fields


def _flat(facts: Facts) -> list[str]:
    return [part for key, value in facts.items() for part in (key[:64], str(value)[:TEXT_MAX])]


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


def _chunks(items: Iterable[Any]) -> Iterable[list[Any]]:  # Any: keys, members, commands
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
