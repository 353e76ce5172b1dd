"""Grants: a process's share in keeping objects, counted so that drops may cross grants.

Rules
-----
- Every message that brings a reference (or a view pin) grants one. The process counts the grants it
  received per object and gives all of them back at once when nothing in it uses the object any
  more. The sender's count ends when everything it granted came back, so a drop that crosses a newer
  grant on the wire returns too little to end it (PROTOCOL N3).
- A *use* is a Python reference, or a carrier: bytes not yet unpickled, a run that waits in the
  inbox. For pins it is an exporter of views.
- `created` and `dropped` may be appended to at any moment by any thread, also from `__del__` in the
  middle of any other line of this process. Everything else is the owner's, under its lock.
- A use always comes from another one (a copy, an unpickled carrier) or from a new name, and is
  appended to `created` before that other one can reach `dropped`. So `settle` reads the length of
  `dropped` first, then counts all of `created`, then the drops.
"""

from __future__ import annotations

from collections import _count_elements, deque  # type: ignore[attr-defined]  # Counter's loop
from collections.abc import Iterable

from detray.ids import ObjectID

SETTLE_MAX = 10_000
"""Drops settled at once; the rest waits for the next time."""

Settled = tuple[list[ObjectID], list[int]]


class Grants:
    """Grants received and uses left, per object.

    `received[o]` >= 1 while the row lives. `uses[o]` >= 1 if present; a row without uses is a new
    name whose first reference is about to be made. `settle` is the only place where rows end.
    """

    __slots__ = ("created", "dropped", "received", "uses")

    def __init__(self) -> None:
        self.received: dict[ObjectID, int] = {}
        self.uses: dict[ObjectID, int] = {}
        self.created: deque[ObjectID] = deque()
        self.dropped: deque[ObjectID] = deque()

    def claim(self, item: ObjectID) -> None:
        """Count a grant whose use will be made by its own `created`."""
        self.received[item] = self.received.get(item, 0) + 1

    def receive(self, items: Iterable[ObjectID]) -> None:
        """A message granted these, one each, and is their carrier until `release`."""
        received, uses = self.received, self.uses
        for item in items:
            received[item] = received.get(item, 0) + 1
            uses[item] = uses.get(item, 0) + 1

    def release(self, items: Iterable[ObjectID]) -> None:
        """The carrier of these is gone: unpickled, or thrown away. Any thread may say so."""
        self.dropped.extend(items)

    @property
    def is_settled(self) -> bool:
        """True if nobody let go of anything since the last `settle`."""
        return not self.dropped

    def settle(self) -> Settled:
        """Count what was created and dropped; the objects that ended and the grants to give back.

        Works through at most SETTLE_MAX drops.
        """
        pending = min(len(self.dropped), SETTLE_MAX)
        self._count_created()
        uses, take = self.uses, self.dropped.popleft
        ended: list[ObjectID] = []
        counts: list[int] = []
        for _ in range(pending):
            item = take()
            left = uses.pop(item, 1)
            if left > 1:
                uses[item] = left - 1
                continue
            count = self.received.pop(item, 0)
            if count:  # A reference made by hand, from bytes, never had a grant.
                ended.append(item)
                counts.append(count)
        return ended, counts

    def _count_created(self) -> None:
        take = self.created.popleft
        _count_elements(self.uses, [take() for _ in range(len(self.created))])
