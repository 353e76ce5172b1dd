"""The baton: threads for user code, of which one runs at a time.

Whoever hands over yields the processor once before it blocks: in that moment the interpreter's own
lock is free, and the other side takes it without either of them being put to sleep. That makes a
hand-over ten times as fast.

The *loop* is the thread of the driver program while it waits; it turns the simulation. A `Carrier`
is the thread of one simulated worker process. The loop hands the baton to a carrier (`go`) and
sleeps until it is back: because the code asked for something (`hand_back`), or is over.
"""

from __future__ import annotations

import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable
from os import sched_yield

_STOP_S = 1.0
"""So long the program waits for code that was interrupted; then its thread is left alone."""
_KILLS_MAX = 100
"""So often code is told that its process is dead; then its thread is left where it stands."""


class Killed(BaseException):
    """The simulated process that this code ran in is dead: raised at its next call of detray."""


class Carrier:
    """A thread that runs what it is given, piece by piece, as long as its process lives."""

    def __init__(self, name: str) -> None:
        self.is_killed = False
        self.is_over = True
        """True unless the code that was begun has something left to do."""
        self.bug: BaseException | None = None
        """What came out of the code though it catches everything: a bug of ours."""
        self.ident = 0
        self._call: Callable[[], None] | None = None
        self._is_gone = False
        self._is_running = False
        self._kills = 0
        self._to_carrier = allocate_lock()
        self._to_carrier.acquire()
        self._to_loop = allocate_lock()
        self._to_loop.acquire()
        self._trace = sys.gettrace()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    # -------------------------------------------------------------- in the loop

    def begin(self, call: Callable[[], None]) -> None:
        """Run `call` when `go` is called next."""
        self._call = call
        self.is_over = False

    def go(self) -> None:
        """Hand over the baton; returns when it is back."""
        self._is_running = True
        self._to_carrier.release()
        sched_yield()
        self._to_loop.acquire()  # Ctrl-C comes out of here
        self._is_running = False
        if self.bug is not None:
            raise self.bug

    def kill(self) -> None:
        """End the thread: its code sees `Killed` where it stands, and at every further call."""
        if self.is_killed:
            return
        self.is_killed = True
        if self._is_running:
            self._stop_running()
        else:
            self.go()
        if self._is_gone:
            self._thread.join()

    def _stop_running(self) -> None:
        """The loop was interrupted while the code ran: it may compute for ever."""
        import ctypes

        ident = ctypes.c_ulong(self.ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Killed))
        self._to_loop.acquire(timeout=_STOP_S)

    # -------------------------------------------------------------- in the carrier

    def hand_back(self) -> None:
        """Give the baton back and wait for it. Raises Killed if there is nothing to wait for."""
        if not self.is_killed:
            self._to_loop.release()
            sched_yield()
            self._to_carrier.acquire()
        self.check()

    def check(self) -> None:
        """Raise Killed if the process is dead. Code that goes on all the same is left there."""
        if self.is_killed:
            self._kills += 1
            if self._kills > _KILLS_MAX:
                self._thread.name = f"abandoned {self._thread.name}"
                self._to_loop.release()
                self._to_carrier.acquire()
            raise Killed

    def _main(self) -> None:
        self.ident = threading.get_ident()
        if self._trace is not None and sys.gettrace() is None:
            sys.settrace(self._trace)  # a debugger that watches the program watches its tasks
        while True:
            self._to_carrier.acquire()
            call, self._call = self._call, None
            if call is not None and not self.is_killed:
                try:
                    call()
                except Killed:
                    pass
                except BaseException as bug:
                    self.bug = bug
            del call
            self.is_over = True
            if self.is_killed:
                break
            self._to_loop.release()
            sched_yield()
        self._is_gone = True
        self._to_loop.release()
