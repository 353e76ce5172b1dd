"""Shield: SIGINT and alarms wait until the books and the wire are consistent again.

A Python signal handler may raise between any two bytecodes of the main thread: between receiving
bytes and counting them, for example, which would cut the stream in the wrong place for ever. So the
main thread raises its shield while it sends and receives, and lowers it only where it blocks.

A program's own handler, or `KeyboardInterrupt`, thus comes a few microseconds late and out of a
call of detray that can be repeated. Only the main thread ever runs signal handlers; for other
threads nothing here does anything.
"""

from __future__ import annotations

import _signal  # signal itself makes enums of what these return: 20 us a call
from _thread import get_ident
from collections.abc import Callable
from threading import main_thread
from types import FrameType
from typing import Any

_GUARDED = (_signal.SIGINT, _signal.SIGALRM, _signal.SIGUSR1, _signal.SIGUSR2)
"""Signals whose handlers like to raise: Ctrl-C, and time limits made of alarms."""

Handler = Callable[[int, FrameType | None], Any]


class Shield:
    """A worker's shield: its own SIGINT handler asks `holds_back` and calls `note`.

    Not reentrant by nesting: `raise_` says whether it was this call that raised it.
    """

    __slots__ = ("_main", "_noted", "_raised")

    def __init__(self) -> None:
        self._main = main_thread().ident
        self._raised = False
        self._noted: Callable[[], object] | None = None

    @property
    def holds_back(self) -> bool:
        """True while an interrupt must not raise."""
        return self._raised

    def note(self, deliver: Callable[[], object]) -> None:
        """Call `deliver` when the shield goes down."""
        self._noted = deliver

    def raise_(self) -> bool:
        """Hold interrupts back; False if there is nothing to do or it was done already."""
        if self._raised or get_ident() != self._main:
            return False
        self._raised = True
        return True

    def lower(self) -> None:
        """Let interrupts come again, a held back one at once: may raise what its handler raises."""
        self._raised = False
        noted, self._noted = self._noted, None
        if noted is not None:
            noted()

    def open(self) -> bool:
        """Before the main thread blocks: let interrupts come. True if `close` must follow."""
        if not self._raised or get_ident() != self._main:
            return False
        self.lower()
        return True

    def close(self) -> None:
        """The main thread does not block any more."""
        self._raised = True


class DriverShield(Shield):
    """Stands in for the program's own handlers of `_GUARDED`, but only while it is raised.

    (A handler that stayed would hide `signal.default_int_handler` from asyncio, which looks for
    it.) If a handler raises while the shield goes up or down, ours stays until the next time and
    passes on what comes.
    """

    __slots__ = ("_handlers",)

    def __init__(self) -> None:
        super().__init__()
        self._handlers: dict[int, Handler] = {}

    def raise_(self) -> bool:
        """Hold interrupts back, whoever handles them in this program."""
        if self._raised or get_ident() != self._main:
            return False
        self._stand_in()
        self._raised = bool(self._handlers)  # If none is handled by Python, nothing raises.
        return self._raised

    def lower(self) -> None:
        """Give the program its handlers back, and call one if its signal came meanwhile."""
        self._raised = False  # First: whatever raises from here on leaves the shield down.
        for number, handler in self._handlers.items():
            _signal.signal(number, handler)
        super().lower()

    def close(self) -> None:
        """Hold back again after `open`; the program's handlers may be others now."""
        super().close()
        self._stand_in()

    def _stand_in(self) -> None:
        mine, handlers = self._on_signal, self._handlers
        for number in _GUARDED:
            handler = _signal.getsignal(number)
            if handler == mine:
                continue
            if callable(handler):
                handlers[number] = handler
                _signal.signal(number, mine)
            else:  # Ignored, or left to the kernel.
                handlers.pop(number, None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers.get(number)
        if handler is None:
            return
        if self._raised:
            self._noted = lambda: handler(number, None)
        else:
            handler(number, frame)
