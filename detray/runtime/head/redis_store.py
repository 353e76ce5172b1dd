"""The head's store with a second copy on a Redis server (PROTOCOL N8, D 38).

Theory of operation
-------------------
Commits go to a local store first, and count when they are there. A thread feeds the server from
what was committed; the server may be away, and catches up when it is back. What is not there yet is
kept up to `QUEUE_MAX` events; beyond that, and whenever the server turns out to have something else
than we gave it (it was restarted empty, or lost its last second), it gets a snapshot instead. The
tables of a head are small: so a snapshot is never far from the events that it replaces.

One thing is not lazy. A head begins with `EpochRaised`, and that commit goes to the server first,
by compare-and-set: of two heads that start with one server, wherever they run, one gets the epoch
and the other StoreError. A head that runs while another takes over finds the higher epoch within a
second, and must end (`check`). Every write names the epoch of its writer, and the server takes it
only from the highest (`_SCRIPTS`).

At start the copy that is further on counts: the higher epoch, then the longer log. A local store
that is behind takes over what the server has; so a head may start on another machine, with an empty
directory and the server alone. What only the old machine knew (the lag) is lost then, and the head
is told so (`Loaded.is_complete`): it gives out no number that the old one might have.

Keys, all below `detray:CLUSTER:`

========== ====== ==================================================================================
key        type   what
========== ====== ==================================================================================
epoch      string of the head that may write
sequence   string number of the last event that is in this copy
log        stream the events since the snapshot; the id of number n is n-0, field `event` has bytes
snapshot   hash   `data` (the durable tables as of) `sequence`
========== ====== ==================================================================================
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic_ns
from typing import Any, NamedTuple

import msgspec

from detray.core.durable import (
    DurableEvent,
    DurableTables,
    EpochRaised,
    apply,
    decode_event,
    encode_event,
    encode_snapshot,
)
from detray.ids import JobNumber, NodeID
from detray.runtime.head.overview import StoreState
from detray.runtime.head.redis_server import Redis, connect, describe, errors, safe_url
from detray.runtime.head.store import HeadStore, Loaded, StoreError, read_tables

QUEUE_MAX = 10_000
"""Events that wait for the server in memory."""
BATCH_MAX = 500
LOOK_S = 1.0
"""An idle head looks this often whether it is still the one, and the server still has all."""
RETRY_S = 0.5
RETRY_S_MAX = 5.0
LAST_S = 2.0
"""How long `close` waits for the server to get the rest."""

Note = Callable[[str, str], None]
"""Takes a level ("info", "warning") and a line of text; from any thread."""

_APPEND = """
for i = n, #ARGV do
  redis.call('XADD', KEYS[3], string.format('%d-0', last + i - n + 1), 'event', ARGV[i])
end
last = last + #ARGV - n + 1
redis.call('SET', KEYS[2], string.format('%d', last))
"""
_SCRIPTS = {
    # epoch, first, event...: what comes after `first` - 1, of the head with that epoch.
    "append": f"""
local epoch = tonumber(redis.call('GET', KEYS[1]) or '0')
local last = tonumber(redis.call('GET', KEYS[2]) or '-1')
if epoch > tonumber(ARGV[1]) then return {{'fenced', epoch}} end
if epoch < tonumber(ARGV[1]) or last ~= tonumber(ARGV[2]) - 1 then return {{'gap', last}} end
local n = 3
{_APPEND}
return {{'ok', last}}
""",
    # found, epoch, first, event...: the same, and the epoch becomes ours.
    "raise": f"""
local epoch = tonumber(redis.call('GET', KEYS[1]) or '0')
local last = tonumber(redis.call('GET', KEYS[2]) or '-1')
if epoch ~= tonumber(ARGV[1]) then return {{'fenced', epoch}} end
if last ~= tonumber(ARGV[3]) - 1 then return {{'gap', last}} end
local n = 4
{_APPEND}
redis.call('SET', KEYS[1], ARGV[2])
return {{'ok', last}}
""",
    # epoch, sequence, snapshot: all events so far are in it.
    "replace": """
local epoch = tonumber(redis.call('GET', KEYS[1]) or '0')
if epoch > tonumber(ARGV[1]) then return {'fenced', epoch} end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[4], 'sequence', ARGV[2], 'data', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return {'ok', tonumber(ARGV[2])}
""",
}


class Verdict(NamedTuple):
    """Of a script: "ok" or "gap" with the last sequence there, or "fenced" with the epoch there."""

    word: str
    number: int


class FoundCopy(NamedTuple):
    """What the server has. `tables` is None if it has nothing, or nothing that fits together."""

    epoch: int
    sequence: int
    tables: DurableTables | None
    problem: str


class RedisCopy:
    """The keys on the server. Methods raise what `redis_server.errors` lists."""

    def __init__(self, client: Redis, cluster: str) -> None:
        self._client = client
        names = ("epoch", "sequence", "log", "snapshot")
        self._keys = [f"detray:{cluster}:{name}" for name in names]
        self._scripts = {name: client.register_script(text) for name, text in _SCRIPTS.items()}

    def read(self) -> FoundCopy:
        """All of it, as of one moment."""
        epoch_key, sequence_key, log_key, snapshot_key = self._keys
        pipe = self._client.pipeline(transaction=True)
        pipe.get(epoch_key)
        pipe.get(sequence_key)
        pipe.hmget(snapshot_key, "sequence", "data")
        pipe.xrange(log_key)
        epoch, sequence, (start, snapshot), entries = pipe.execute()
        if epoch is None and sequence is None and snapshot is None and not entries:
            return FoundCopy(0, 0, None, "")
        try:
            tables = _tables(int(start or 0), int(sequence or 0), snapshot, entries)
            return FoundCopy(int(epoch or 0), int(sequence or 0), tables, "")
        except (ValueError, StoreError) as problem:
            return FoundCopy(int(epoch or 0), 0, None, str(problem))

    def append(self, epoch: int, first: int, events: Sequence[bytes]) -> Verdict:
        """Events from number `first` on."""
        return self._run("append", epoch, first, *events)

    def raise_epoch(self, found: int, epoch: int, first: int, events: Sequence[bytes]) -> Verdict:
        """Events from number `first` on, under a new epoch, if it is still the one we found."""
        return self._run("raise", found, epoch, first, *events)

    def replace(self, epoch: int, sequence: int, snapshot: bytes) -> Verdict:
        """Everything by a snapshot."""
        return self._run("replace", epoch, sequence, snapshot)

    def look(self) -> tuple[int, int]:
        """Epoch and sequence."""
        epoch, sequence = self._client.mget(self._keys[:2])
        return int(epoch or 0), int(sequence or -1)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _run(self, name: str, *arguments: Any) -> Verdict:  # Any: numbers and bytes
        word, number = self._scripts[name](keys=self._keys, args=arguments)
        return Verdict(word.decode(), int(number))


def _tables(start: int, sequence: int, snapshot: bytes | None, entries: list[Any]) -> DurableTables:
    """What snapshot and events say. (Any: entries as redis-py gives them.) Raises ValueError."""
    events = []
    for index, (entry, fields) in enumerate(entries):
        if entry != b"%d-0" % (start + index + 1):
            raise ValueError(f"event {start + index + 1} is missing in its log")
        try:
            events.append(decode_event(fields.get(b"event", b"")))
        except msgspec.DecodeError as error:
            raise ValueError(f"event {start + index + 1} cannot be read: {error}") from None
    if start + len(events) != sequence:
        raise ValueError(f"its log ends at {start + len(events)}, not at {sequence}")
    return read_tables(Loaded(snapshot, events, sequence), "the copy on the Redis server")


class RedisStore:
    """A `HeadStore`: a local store that is fed to a Redis server. See the module."""

    def __init__(self, local: HeadStore, url: str, cluster: str, note: Note) -> None:
        """Raises StoreError if the URL is none or the package is missing; connects in `open`."""
        self._local = local
        self._url = url
        self._note = note
        self._copy = RedisCopy(connect(url), cluster)
        self._found_epoch = 0
        self._epoch = 0
        self._feeder: _Feeder | None = None
        self._mirror = _Mirror()

    @property
    def place(self) -> str:
        """The URL, without its password."""
        return safe_url(self._url)

    def open(self) -> None:
        """Take the local store, and see that the server answers."""
        self._local.open()
        try:
            self._copy.look()
        except errors() as error:
            self._local.close()
            raise self._away(error) from None

    def load(self) -> Loaded:
        """What is further on; if that is the server's copy, the local store takes it over."""
        loaded = self._local.load()
        tables = read_tables(loaded, self._local.place)
        try:
            remote = self._copy.read()
            taken, is_complete = self._compare(loaded, tables, remote)
            if taken is not None:
                tables = taken
                self._local.compact(encode_snapshot(tables))
                loaded = self._local.load()
            self._bring_even(remote, tables, loaded.sequence, is_changed=taken is not None)
        except errors() as error:
            raise self._away(error) from None
        self._found_epoch = remote.epoch
        self._mirror = _Mirror(tables, loaded.sequence)
        events = loaded.events
        if remote.epoch > tables.epoch:
            # A head that left no trace but its epoch: ours must be higher than that.
            events = [*events, EpochRaised(remote.epoch, NodeID(0), JobNumber(0))]
        return Loaded(loaded.snapshot, events, loaded.sequence, is_complete)

    def commit(self, events: Sequence[DurableEvent]) -> int:
        """To the local store; the server hears of it. The first commit, with the epoch, to both."""
        raised = next((event.epoch for event in events if isinstance(event, EpochRaised)), 0)
        self.check()
        encoded = [encode_event(event) for event in events]
        if raised:
            self._raise(raised, encoded)
        sequence = self._local.commit(events)
        self._mirror.apply(events, sequence)
        if raised:
            self._epoch = raised
            self._feeder = _Feeder(self._copy, raised, self._mirror, self._url, self._note)
        elif self._feeder is not None:
            self._feeder.offer(sequence, encoded)
        return sequence

    def check(self) -> None:
        """Raises StoreError if another head has taken over. To be called about once a second."""
        if self._feeder is not None and self._feeder.fenced_by:
            raise self._fenced(self._feeder.fenced_by)

    @property
    def state(self) -> StoreState:
        """How far the server is behind."""
        return StoreState() if self._feeder is None else self._feeder.state(monotonic_ns())

    @property
    def is_long(self) -> bool:
        """True if the local log is worth a `compact`."""
        return self._local.is_long

    def compact(self, snapshot: bytes) -> None:
        """In the local store, and then in the server's copy."""
        self._local.compact(snapshot)
        if self._feeder is not None:
            self._feeder.want_snapshot()

    def digest(self) -> str:
        """Of the local store's tables."""
        return self._local.digest()

    def close(self) -> None:
        """Let the server get the rest, if it is quick, and let go of both."""
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.close()
        else:
            self._copy.close()
        self._local.close()

    # -------------------------------------------------------------- start

    def _compare(
        self, loaded: Loaded, tables: DurableTables, remote: FoundCopy
    ) -> tuple[DurableTables | None, bool]:
        """The server's tables if they are further on; and whether no event can be missing."""
        mine = (tables.epoch, loaded.sequence)
        if remote.tables is None:
            if remote.problem:
                if not tables.epoch:
                    raise StoreError(
                        f"the copy at {self.place} is damaged: {remote.problem}, and "
                        f"{self._local.place} is empty. Start the head where the last one ran, or "
                        "with another store"
                    )
                self._note("warning", f"the copy at {self.place} is replaced: {remote.problem}")
            return None, remote.epoch == tables.epoch
        if (remote.tables.epoch, remote.sequence) > mine:
            self._note(
                "info",
                f"{self.place} is further (epoch {remote.tables.epoch}, event {remote.sequence}) "
                f"than {self._local.place} (epoch {mine[0]}, event {mine[1]}): taken from there",
            )
            return remote.tables, False
        return None, remote.tables.epoch == tables.epoch

    def _bring_even(
        self, remote: FoundCopy, tables: DurableTables, sequence: int, *, is_changed: bool
    ) -> None:
        """Have the server's copy be what the local store has, under its numbers."""
        there = (remote.tables.epoch, remote.sequence) if remote.tables is not None else None
        if there == (tables.epoch, sequence) and not is_changed:
            return
        answer = self._copy.replace(remote.epoch, sequence, encode_snapshot(tables))
        if answer.word != "ok":
            raise self._fenced(answer.number)

    def _raise(self, epoch: int, events: list[bytes]) -> None:
        first = self._mirror.sequence + 1
        try:
            answer = self._copy.raise_epoch(self._found_epoch, epoch, first, events)
        except errors() as error:
            raise self._away(error) from None
        if answer.word == "fenced":
            raise self._fenced(answer.number)
        if answer.word == "gap":
            raise StoreError(
                f"another head starts with {self.place} at this moment: its copy changed from "
                f"event {first - 1} to {answer.number}. Start one of them"
            )

    def _away(self, error: Exception) -> StoreError:
        return StoreError(
            f"{describe(self._url, error)}. A head with this store starts only if the server "
            "answers: of two heads it lets one live. Start the server, or start the head with "
            f"--store {self._local.place}"
        )

    def _fenced(self, epoch: int) -> StoreError:
        return StoreError(
            f"another head has taken over: {self.place} says epoch {epoch}, this head has "
            f"{self._epoch or self._found_epoch}. This one must end"
        )


class _Mirror:
    """The tables as committed, so that a snapshot can be had in any thread."""

    def __init__(self, tables: DurableTables | None = None, sequence: int = 0) -> None:
        self._tables = tables or DurableTables()
        self.sequence = sequence
        self._lock = threading.Lock()

    def apply(self, events: Sequence[DurableEvent], sequence: int) -> None:
        with self._lock:
            for event in events:
                apply(self._tables, event)
            self.sequence = sequence

    def snapshot(self) -> tuple[int, bytes]:
        with self._lock:
            return self.sequence, encode_snapshot(self._tables)


class _Waiting(NamedTuple):
    """An event that the server lacks."""

    sequence: int
    event: bytes
    at_ns: int


class _Feeder:
    """The thread that brings the server what it lacks."""

    def __init__(self, copy: RedisCopy, epoch: int, mirror: _Mirror, url: str, note: Note) -> None:
        self._copy = copy
        self._epoch = epoch
        self._mirror = mirror
        self._url = url
        self._note = note
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._there = mirror.sequence
        """The last event that the server has of us."""
        self._needs_snapshot = False
        self._behind_ns = 0
        """Since when it lacks something; 0: it lacks nothing."""
        self._is_closing = False
        self._problem = ""
        self.fenced_by = 0
        """The epoch of the head that took over; 0: none."""
        self._thread = threading.Thread(target=self._run, name="detray-redis", daemon=True)
        self._thread.start()

    def offer(self, sequence: int, events: list[bytes]) -> None:
        """The local store has these; the last is number `sequence`."""
        now_ns = monotonic_ns()
        with self._changed:
            self._behind_ns = self._behind_ns or now_ns
            first = sequence - len(events) + 1
            self._queue.extend(_Waiting(first + i, e, now_ns) for i, e in enumerate(events))
            if len(self._queue) > QUEUE_MAX:
                self._queue.clear()
                self._needs_snapshot = True
            self._changed.notify()

    def want_snapshot(self) -> None:
        """Trim the server's log behind a snapshot."""
        with self._changed:
            self._needs_snapshot = True
            self._changed.notify()

    def state(self, now_ns: int) -> StoreState:
        """For people."""
        with self._changed:
            behind_ns = now_ns - self._behind_ns if self._behind_ns else 0
            lag = self._mirror.sequence - self._there
            return StoreState(not self._problem, lag, behind_ns, self._problem)

    def close(self) -> None:
        """Some time for the rest; then the thread is left to its last answer."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(LAST_S)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            self._feed()
        finally:
            self._copy.close()  # Here, since an answer may be under way when `close` gives up.

    def _feed(self) -> None:
        pause_s = 0.0
        while self._wait(pause_s):
            try:
                self._work()
            except Exception as error:  # The second copy is not worth a head, whatever it is.
                if not self._problem:
                    self._note("warning", f"{describe(self._url, error)}. The cluster goes on")
                with self._changed:
                    self._problem = describe(self._url, error)
                pause_s = min(RETRY_S_MAX, max(RETRY_S, pause_s * 2))
                continue
            if self._problem:
                self._note("info", f"{safe_url(self._url)} is back, and has all")
            with self._changed:
                self._problem = ""
            pause_s = 0.0

    def _wait(self, pause_s: float) -> bool:
        """Until there is something to do; False if that is nothing any more."""
        with self._changed:
            if pause_s:
                self._changed.wait_for(lambda: self._is_closing, pause_s)
                return not (self._is_closing or self.fenced_by)
            self._changed.wait_for(lambda: self._is_closing or self._lacks, LOOK_S)
            return not self.fenced_by and (self._lacks or not self._is_closing)

    @property
    def _lacks(self) -> bool:
        return bool(self._queue) or self._needs_snapshot

    def _work(self) -> None:
        """Bring it all that it lacks, or look whether it is still as we left it."""
        if not self._lacks:
            epoch, sequence = self._copy.look()
            if epoch > self._epoch:
                self._take(Verdict("fenced", epoch))
            elif (epoch, sequence) != (self._epoch, self._there):
                self.want_snapshot()
        while self._lacks and not self.fenced_by:
            if self._needs_snapshot:
                with self._changed:
                    self._needs_snapshot = False
                sequence, snapshot = self._mirror.snapshot()
                try:
                    answer = self._copy.replace(self._epoch, sequence, snapshot)
                except BaseException:
                    self.want_snapshot()
                    raise
            else:
                with self._changed:
                    batch = list(islice(self._queue, BATCH_MAX))
                events = [waiting.event for waiting in batch]
                answer = self._copy.append(self._epoch, batch[0].sequence, events)
            self._take(answer)

    def _take(self, answer: Verdict) -> None:
        """What the server has now."""
        word, number = answer
        if word == "fenced":
            self._note("warning", f"{safe_url(self._url)} has epoch {number}: another head")
            self.fenced_by = number
            return
        with self._changed:
            # A gap ahead of the batch: an answer was lost, what it answered was not.
            if word == "gap" and not self._there <= number <= self._mirror.sequence:
                self._needs_snapshot = True
                return
            self._there = number
            while self._queue and self._queue[0].sequence <= number:
                self._queue.popleft()
            if word == "gap" and self._queue and self._queue[0].sequence != number + 1:
                self._needs_snapshot = True
            self._behind_ns = self._queue[0].at_ns if self._queue else 0
