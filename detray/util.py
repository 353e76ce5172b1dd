"""What Ray has under `ray.util`, as far as detray has it."""

from __future__ import annotations

from detray.iteration import as_completed, map_unordered
from detray.serializability import inspect_serializability
from detray.serializers import deregister_serializer, register_serializer

__all__ = [
    "as_completed",
    "deregister_serializer",
    "inspect_serializability",
    "map_unordered",
    "register_serializer",
]
