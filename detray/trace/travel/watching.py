"""Watching: the next step that changes what the cores know of one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from detray.trace.telling.story import StorySubject

if TYPE_CHECKING:
    from detray.trace.travel.seeking import Replay

Seen = dict[str, tuple[bytes, str]]
"""By name, rows: encoded and as text."""
_encode = msgspec.msgpack.Encoder().encode


class RowWatch:
    """A condition for `Replay.until`: true after a step that changed a row of the subject.

    `changes` then say in words what changed.
    """

    def __init__(self, replay: Replay, subject: StorySubject) -> None:
        self._subject = subject
        self._seen = self._rows(replay)
        self.changes: list[str] = []

    def __call__(self, replay: Replay) -> bool:
        last = replay.last
        if last is None:
            return False
        core = last.step.core
        seen = self._rows(replay)
        before, now = self._seen.get(core, {}), seen.get(core, {})
        self._seen = seen
        if now == before:
            return False
        name = replay.names[core]
        self.changes = [
            f"{name}: {row} is gone; it was {text}"
            for row, (_, text) in before.items()
            if row not in now
        ]
        for row, (data, text) in now.items():
            if row not in before:
                self.changes.append(f"{name}: {row} is new: {text}")
            elif before[row][0] != data:
                self.changes.append(f"{name}: {row} was {before[row][1]}")
                self.changes.append(f"{name}: {row} is  {text}")
        return True

    def _rows(self, replay: Replay) -> dict[int, Seen]:
        return {
            core: {row.name: (_encode(row.row), row.text) for row in rows}
            for core, rows in replay.rows_about(self._subject).items()
        }
