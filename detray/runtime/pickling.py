"""The pickler for values that the C pickler cannot be trusted with.

It is cloudpickle's (functions, lambdas and classes by value where they cannot be imported), and
three things more: it lists the references it meets, it keeps arrays read-only, and it asks the
serializers that the user registered. Importing this module costs about 30 ms, so it is imported at
first need.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pickle import PickleBuffer
from types import FunctionType
from typing import Any

import cloudpickle

from detray.ids import ObjectID
from detray.object_ref import ObjectRef, session_of
from detray.runtime.serialization import reducers


class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """A cloudpickle pickler with out-of-band buffers; `refs` and `buffers` fill up as it works."""

    def __init__(self) -> None:
        self.file = BytesIO()
        self.refs: dict[ObjectID, None] = {}
        self.buffers: list[memoryview] = []
        super().__init__(self.file, protocol=5, buffer_callback=self._take_buffer)

    def reducer_override(self, obj: Any) -> Any:  # Any: pickle's own interface
        """How to pickle `obj`, or NotImplemented to leave it to pickle."""
        kind = type(obj)
        if kind is ObjectRef:
            session_of(obj)
            self.refs[obj._id] = None
            return ObjectRef, (obj._id,)
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
            return _reduce_array(obj)
        if (kind is FunctionType or isinstance(obj, type)) and _is_known(obj):
            return NotImplemented
        reducer = reducers.get(kind)
        if reducer is not None:
            return reducer(obj)
        return super().reducer_override(obj)

    def _take_buffer(self, buffer: PickleBuffer) -> bool:
        self.buffers.append(buffer.raw())
        return False  # False: out of band


def _is_known(obj: Any) -> bool:
    """True for functions and classes that pickle by name: asking cloudpickle costs 3 us each."""
    if obj.__module__.startswith("numpy"):
        return "<locals>" not in obj.__qualname__
    return obj is ObjectRef or obj is _load_array


def dump_rich(value: object) -> tuple[bytes, list[memoryview], tuple[ObjectID, ...]]:
    """`value` as (pickle stream, out-of-band buffers, references inside)."""
    pickler = ValuePickler()
    pickler.dump(value)
    return pickler.file.getvalue(), pickler.buffers, tuple(pickler.refs)


def register(
    kind: type, serializer: Callable[[Any], object], deserializer: Callable[[Any], object]
) -> None:
    """Pickle instances of exactly `kind` in this process by `serializer`, back by `deserializer`.

    The deserializer travels with the value, so readers need not register anything.
    """
    reducers[kind] = lambda value: (_load_custom, (deserializer, serializer(value)))


def deregister(kind: type) -> None:
    """Forget what `register` was told about `kind`; unknown kinds are fine."""
    reducers.pop(kind, None)


def _load_custom(deserializer: Callable[[Any], object], state: object) -> object:
    return deserializer(state)


def _reduce_array(array: Any) -> Any:  # Any: numpy is not imported here
    """Arrays that numpy would pickle in band, hence writable, go as raw bytes; others as they are.

    Arrays of Python objects stay numpy's business: they are lists in disguise, copied on every read
    and therefore writable.
    """
    kind = array.dtype.kind
    if array.dtype.hasobject:
        return NotImplemented
    flags = array.flags
    if (flags.c_contiguous or flags.f_contiguous) and kind not in "mM" and not array.dtype.names:
        return NotImplemented
    flat = array.reshape(-1)  # Copies what is not contiguous.
    if not flat.flags.c_contiguous:
        flat = flat.copy()
    return _load_array, (flat.view("u1"), array.dtype, array.shape)


def _load_array(raw: Any, dtype: Any, shape: tuple[int, ...]) -> Any:  # Any: as above
    return raw.view(dtype).reshape(shape)
