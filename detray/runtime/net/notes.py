"""Notes about peers, few: whoever knocks a thousand times costs one line."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns

_QUIET_NS = 30_000_000_000
_HOSTS_MAX = 256


class PeerNotes:
    """Passes on one note per address and kind of trouble in half a minute."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._last_ns: dict[tuple[str, str], int] = {}

    def say(self, level: str, text: str) -> None:
        """A note that is not limited: a fact about a link of ours."""
        self._note(level, text)

    def trouble(self, host: str, kind: str, text: str, level: str = "warning") -> None:
        """A note about `host`, unless it had one of this kind a short while ago."""
        now_ns = monotonic_ns()
        key = (host, kind)
        last_ns = self._last_ns.pop(key, None)
        if last_ns is not None and now_ns - last_ns < _QUIET_NS:
            self._last_ns[key] = last_ns
            return
        if len(self._last_ns) >= _HOSTS_MAX:
            # So many hosts at once are an attack: forget the oldest, and stay silent about this one
            # if that was noted just now.
            oldest = next(iter(self._last_ns))
            if now_ns - self._last_ns.pop(oldest) < _QUIET_NS:
                self._last_ns[key] = now_ns
                return
        self._last_ns[key] = now_ns
        self._note(level, text)
