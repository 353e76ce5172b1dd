"""The thread that sends what the program leaves behind: trailing submissions, drops.

Nobody else would: a program that submits a task and then computes, or lets a reference die, may not
call detray again for hours. The thread looks once a millisecond while there is something to do and
sleeps after 50 looks in vain. A burst that is under way sends its batches itself: only what was
there at the last look, and was not sent since, is sent from here.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import sleep

from detray.runtime.connection import Connection
from detray.runtime.forks import Forks

TICK_S = 0.001
IDLE_TICKS_MAX = 50
FORK_TICK_S = 1.0
"""How often it looks for the end of forks while there is nothing else to do."""


class Flusher:
    """Sends a connection's leftovers within about two milliseconds of `kick`."""

    __slots__ = ("_connection", "_forks", "_kick", "_started", "asleep")

    def __init__(self, connection: Connection, forks: Forks) -> None:
        self._connection = connection
        self._forks = forks
        self._kick = allocate_lock()
        self._kick.acquire()
        self._started = False
        self.asleep = True
        """Whoever leaves something behind while this is set must call `kick`."""

    def kick(self) -> None:
        """Wake the thread, or start it. Allowed in `__del__`: takes no lock."""
        self.asleep = False
        if not self._started:
            self._started = True
            try:
                start_new_thread(self._run, ())
            except RuntimeError:  # The interpreter is ending.
                pass
            return
        try:
            self._kick.release()
        except RuntimeError:  # Somebody else kicked in the same moment.
            pass

    def stop(self) -> None:
        """The stream has ended: let the thread see it."""
        if self._started:
            self.kick()

    def forget(self) -> None:
        """In a forked child: there is no thread here, and nobody needs one."""
        self.asleep = False
        self._started = True

    def _run(self) -> None:
        connection, books = self._connection, self._connection.books
        idle = 0
        seen = -1
        while connection.broken is None:
            self._forks.release_ended()
            if not books.has_something:
                idle += 1
                if idle > IDLE_TICKS_MAX:
                    self._doze()
                    idle = 0
            elif books.taken == seen:
                connection.flush()
                idle = 0
            seen = books.taken
            sleep(TICK_S)

    def _doze(self) -> None:
        self.asleep = True
        # Said first, looked again afterwards: what is left behind from now on comes with a kick.
        if self._connection.books.has_something:
            self.asleep = False
            return
        self._kick.acquire(timeout=FORK_TICK_S if self._forks.has_any else -1)
        self.asleep = False
