"""What was decided: recording, replaying, telling and drawing it (docs/traces.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detray.trace.comparing.diffing import diff as diff
    from detray.trace.drawings.drawing import draw as draw
    from detray.trace.explaining.answering import why as why
    from detray.trace.format import TraceError as TraceError
    from detray.trace.reading import Trace as Trace
    from detray.trace.reading import open_trace as open
    from detray.trace.reducing.expecting import expect as expect
    from detray.trace.reducing.shrinking import shrink as shrink
    from detray.trace.replaying import ReplayReport as ReplayReport
    from detray.trace.replaying import replay as replay
    from detray.trace.reporting.making import report as report
    from detray.trace.travel.seeking import Replay as Replay

_HOMES = {
    "diff": ("comparing.diffing", "diff"),
    "draw": ("drawings.drawing", "draw"),
    "expect": ("reducing.expecting", "expect"),
    "open": ("reading", "open_trace"),
    "replay": ("replaying", "replay"),
    "report": ("reporting.making", "report"),
    "shrink": ("reducing.shrinking", "shrink"),
    "Replay": ("travel.seeking", "Replay"),
    "ReplayReport": ("replaying", "ReplayReport"),
    "Trace": ("reading", "Trace"),
    "TraceError": ("format", "TraceError"),
    "why": ("explaining.answering", "why"),
}
__all__ = [
    "Replay",
    "ReplayReport",
    "Trace",
    "TraceError",
    "diff",
    "draw",
    "expect",
    "open",
    "replay",
    "report",
    "shrink",
    "why",
]


def __getattr__(name: str) -> Any:  # Any: a module attribute
    """Found when asked for: a service records, and loads nothing of the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)
