"""Where tasks should run: what Ray has under `ray.util.scheduling_strategies`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detray.strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

if not TYPE_CHECKING:  # A type checker would take any name for known.

    def __getattr__(name: str) -> object:
        later = ""
        if name == "PlacementGroupSchedulingStrategy":
            later = ": placement groups come with a later version of detray"
        raise AttributeError(f"module 'detray.util.scheduling_strategies' has no {name!r}{later}")


__all__ = [
    "DoesNotExist",
    "Exists",
    "In",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "NotIn",
]
