"""Forks of this process: what they may look at stays pinned until the kernel says they are gone.

A fork inherits our mappings, and with them every view that is alive at that moment; but only we
return the pin of a view, and do so when *our* last user of it is gone. So each fork counts as one
more user of these blocks. How long, the kernel knows: the fork inherits the write end of a pipe,
which closes with its last copy (the fork's end, that of its own forks, or an exec, which also ends
the mappings), and we watch the read end.
"""

from __future__ import annotations

import os
import select
from _thread import get_ident

from detray.core.grants import Grants
from detray.ids import ObjectID

_Pipe = tuple[int, int]


class Forks:
    """Keeps the pins that forks of this process may need. The three hooks never raise."""

    __slots__ = ("_ends", "_kept", "_pins", "_starting")

    def __init__(self, pins: Grants) -> None:
        self._pins = pins
        self._starting: dict[int, tuple[_Pipe, list[ObjectID]]] = {}
        """By the thread that forks just now."""
        self._kept: dict[int, list[ObjectID]] = {}
        """By the read end of a fork's pipe: the objects it is counted as a user of."""
        self._ends = select.poll()

    @property
    def has_any(self) -> bool:
        """True if pins are kept for a fork that was alive when we last looked."""
        return bool(self._kept)

    def begin(self) -> None:
        """Before a fork: count it as a user of every block that is in view."""
        # No lock: this thread may hold it, if a finalizer forks. Each copy is one bytecode.
        items = list(dict.fromkeys([*list(self._pins.uses), *list(self._pins.created)]))
        if not items:
            return
        self._pins.created.extend(items)
        try:
            self._starting[get_ident()] = (os.pipe(), items)
        except OSError:
            pass  # No descriptor is left to watch it by: kept until this process ends.

    def end_in_parent(self) -> None:
        """After a fork, or after it failed: watch the child."""
        pipe, items = self._starting.pop(get_ident(), (None, []))
        if pipe is not None:
            os.close(pipe[1])
            self._kept[pipe[0]] = items
            self._ends.register(pipe[0], 0)

    def end_in_child(self) -> None:
        """In the fork: keep the write end, which we are watched by, and nothing else."""
        pipe, _ = self._starting.pop(get_ident(), (None, []))
        for end in (*self._kept, *(pipe[:1] if pipe else ())):
            os.close(end)
        self._kept.clear()

    def release_ended(self) -> None:
        """Give up the share of forks that are gone. Any thread may look."""
        for end, _ in self._ends.poll(0) if self._kept else ():
            items = self._kept.pop(end, None)
            if items is not None:  # Else another thread was faster.
                self._ends.unregister(end)
                os.close(end)
                self._pins.dropped.extend(items)

    def close(self) -> None:
        """The session is over: nobody counts any more."""
        while self._kept:
            os.close(self._kept.popitem()[0])
