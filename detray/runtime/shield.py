"""Shield: SIGINT waits until the books and the wire are consistent again.

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

_SIGINT = _signal.SIGINT

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
    """Stands in for the program's own SIGINT handler, but only while it is raised.

    (A handler that stayed would hide `signal.default_int_handler` from asyncio, which looks for
    it.)
    """

    __slots__ = ("_handler",)

    def __init__(self) -> None:
        super().__init__()
        self._handler: Handler | None = None

    def raise_(self) -> bool:
        """Hold interrupts back, whoever handles them in this program."""
        if self._raised or get_ident() != self._main:
            return False
        handler = _signal.getsignal(_SIGINT)
        if not callable(handler):  # Ignored, or left to the kernel: nothing raises.
            return False
        self._handler = handler
        self._raised = True
        _signal.signal(_SIGINT, self._on_signal)
        return True

    def lower(self) -> None:
        """Give the program its handler back, and call it if a signal came meanwhile."""
        handler = self._handler
        if handler is not None:
            _signal.signal(_SIGINT, handler)
        super().lower()

    def close(self) -> None:
        """Hold back again after `open`; the program's handler may be another one now."""
        super().close()
        handler = _signal.getsignal(_SIGINT)
        if callable(handler) and handler != self._on_signal:
            self._handler = handler
            _signal.signal(_SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        handler = self._handler
        if handler is None:
            return
        if self._raised:
            self._noted = lambda: handler(number, None)
        else:
            handler(number, frame)
