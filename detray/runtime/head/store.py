"""Where the head's durable events go: what a store must do (PROTOCOL N8, D 38).

One step of the head, with its store::

    effects = core.handle(*stimuli, now_ns=now_ns)
    if effects and type(effects[0]) is Persist:
        store.commit(effects[0].events)          before any other effect of the step leaves
        if store.is_long:
            store.compact(encode_snapshot(core.tables.durable))

and its beginning::

    store.open()                                 nobody else has it, or StoreError
    core = GlobalScheduler.recover(config, read_tables(store.load()), now_ns)
    ...the first step, without stimuli, orders Persist of the raised epoch; then it may listen

Of two heads on one store one lives. A store that only one process can have open refuses `open`.
One that others can reach compares and sets: the first `commit` after `load` has an `EpochRaised`,
which it takes only if the log still ends where `load` found it (the old head may have committed
since, and the new one would not know); later ones it takes only while nobody raised the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from detray.core.durable import DurableEvent, DurableTables, apply, decode_snapshot
from detray.errors import DetrayError


class StoreError(DetrayError):
    """The head's store cannot be used: what is wrong, with which file or server, what to do.

    Whatever was acknowledged is still in it, and nothing was destroyed. (text)
    """


class Loaded(NamedTuple):
    """What a store has: a snapshot (None: there never was one) and the events since, in order."""

    snapshot: bytes | None
    events: list[DurableEvent]
    sequence: int
    """Of the last event, counted from 1 since the store was made; 0: there is none."""
    is_complete: bool = True
    """False if acknowledged events may be missing at the end: this is a copy that lags."""


class HeadStore(Protocol):
    """Keeps what was committed, whoever is killed. Every method may raise `StoreError`."""

    @property
    def place(self) -> str:
        """Where it is, as the user would give it to `--store`."""

    def open(self) -> None:
        """Take it, alone. Makes an empty one if nothing is there; never replaces anything."""

    def load(self) -> Loaded:
        """All that was committed. An unfinished commit at the end is no part of it."""

    def commit(self, events: Sequence[DurableEvent]) -> int:
        """Keep events, all of them or none; when it returns they are there for good.

        Returns the sequence of the last. After a StoreError it is not known whether they are there:
        the head must stop.
        """

    @property
    def is_long(self) -> bool:
        """True if so much was committed since the last snapshot that `compact` is worth it."""

    def compact(self, snapshot: bytes) -> None:
        """Replace all events so far by the tables that come of them (`encode_snapshot`).

        A crash in the middle leaves either.
        """

    def digest(self) -> str:
        """Of the tables that a recovery from here would begin with (`durable.digest`)."""

    def close(self) -> None:
        """Let go of it. May be called twice."""


def read_tables(loaded: Loaded, place: str = "the store") -> DurableTables:
    """The durable tables that a store has. Raises StoreError if a newer release wrote them."""
    try:
        tables = DurableTables() if loaded.snapshot is None else decode_snapshot(loaded.snapshot)
    except msgspec.DecodeError as error:
        raise StoreError(
            f"{place} has a snapshot that this release of detray cannot read ({error})."
            " Nothing was changed. Start the head with the release that wrote it, or with another"
            " store."
        ) from None
    for event in loaded.events:
        apply(tables, event)
    return tables
