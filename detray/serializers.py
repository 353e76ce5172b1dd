"""Serializers of the user's own for classes that pickle cannot handle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def register_serializer(
    cls: type[T], *, serializer: Callable[[T], Any], deserializer: Callable[[Any], T]
) -> None:
    """Turn instances of exactly `cls` into bytes by way of `serializer`'s result, in this process.

    The deserializer travels with each value: readers need not register anything.
    """
    from detray.serialization.pickling import register

    register(cls, serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Undo `register_serializer`; nothing happens if there is none for `cls`."""
    from detray.serialization.pickling import deregister

    deregister(cls)
