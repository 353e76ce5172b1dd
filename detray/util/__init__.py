"""What Ray has under `ray.util`, as far as detray has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detray.iteration import as_completed, map_unordered
from detray.serializability import inspect_serializability
from detray.serializers import deregister_serializer, register_serializer
from detray.util import scheduling_strategies

_LATER = {
    "ActorPool": "actors",
    "Queue": "actors",
    "list_named_actors": "actors",
    "placement_group": "placement groups",
    "remove_placement_group": "placement groups",
    "multiprocessing": "actors, which Ray's pool is made of,",
}
"""Names that Ray has here and detray has not yet, and what they belong to."""


if not TYPE_CHECKING:  # A type checker would take any name for known.

    def __getattr__(name: str) -> object:
        later = f": {_LATER[name]} come with a later version of detray" if name in _LATER else ""
        raise AttributeError(f"module 'detray.util' has no attribute {name!r}{later}")


__all__ = [
    "as_completed",
    "deregister_serializer",
    "inspect_serializability",
    "map_unordered",
    "register_serializer",
    "scheduling_strategies",
]
