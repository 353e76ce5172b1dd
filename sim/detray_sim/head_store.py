"""The simulated head's store: what was committed, as bytes, whoever commits it.

As any `HeadStore` it lets one head live: whoever raised the epoch last. It checks what the protocol
promises for the durable tables: those of a head that recovers are those that were committed, by
digest, and those of a head that commits are what comes of its events (PROTOCOL N8).
"""

from __future__ import annotations

from collections.abc import Sequence

from detray.core.durable import (
    DurableEvent,
    DurableTables,
    EpochRaised,
    apply,
    decode_event,
    decode_snapshot,
    digest,
    encode_event,
    encode_snapshot,
)

EVENTS_MAX = 8
"""Commits are few in a world: snapshots come early, so that recovery sees both."""


class NotAlone(Exception):
    """Another head has raised the epoch: this one must stop."""


class SimHeadStore:
    """Survives every head."""

    def __init__(self) -> None:
        self.tables = DurableTables()
        """What was committed so far."""
        self._snapshot = encode_snapshot(self.tables)
        self._events: list[bytes] = []
        self.sequence = 0
        """Events committed since the beginning."""

    def load(self) -> DurableTables:
        """The tables for a head that begins; they are of `sequence`."""
        tables = decode_snapshot(self._snapshot)
        for event in self._events:
            apply(tables, decode_event(event))
        assert digest(tables) == digest(self.tables), f"{tables} instead of {self.tables}"
        return tables

    def commit(self, events: Sequence[DurableEvent], of: DurableTables, loaded: int) -> None:
        """Keep what the head with the tables `of` decided, which began at `loaded`.

        Raises NotAlone if another head has raised the epoch, or, for a head that raises it, if
        another has committed anything since it loaded.
        """
        raises = type(events[0]) is EpochRaised
        is_alone = loaded == self.sequence if raises else of.epoch == self.tables.epoch
        if not is_alone:
            raise NotAlone(of.epoch, self.tables.epoch)
        self.sequence += len(events)
        for event in events:
            apply(self.tables, event)
            self._events.append(encode_event(event))
        assert digest(of) == digest(self.tables), f"{of} instead of {self.tables}"
        if len(self._events) >= EVENTS_MAX:
            self._snapshot = encode_snapshot(self.tables)
            self._events.clear()
