"""An alarm clock that can be set anew, on timers that cannot be taken back."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns

from detray.core.session import NEVER
from detray.runtime.wakeups import Wakeups


class Alarm:
    """Runs `action` once at the time it was last set to. Pushes few timers: see `_ring`."""

    __slots__ = ("_action", "_pending_ns", "_wakeups", "due_ns")

    def __init__(self, wakeups: Wakeups, action: Callable[[], None]) -> None:
        self._wakeups = wakeups
        self._action: Callable[[], None] | None = action
        self._pending_ns = NEVER
        self.due_ns = NEVER
        """When it rings; NEVER: not at all."""

    def set(self, when_ns: int) -> None:
        """Ring then, and not when it was set to before; NEVER to ring no more."""
        if self._action is None:
            return
        self.due_ns = when_ns
        if when_ns < self._pending_ns:
            self._pending_ns = when_ns
            self._wakeups.call_at(when_ns, lambda: self._ring(when_ns))

    def end(self) -> None:
        """Forget the action, for good: a timer that is still pending keeps nothing alive."""
        self.due_ns = NEVER
        self._action = None

    def _ring(self, pending_ns: int) -> None:
        if pending_ns != self._pending_ns:
            return  # an earlier one was set later, and rang
        self._pending_ns = NEVER
        if monotonic_ns() < self.due_ns:
            # Set to a later time since: most alarms are, again and again, for one timer each.
            if self.due_ns != NEVER:
                self.set(self.due_ns)
            return
        self.due_ns = NEVER
        if self._action is not None:
            self._action()
