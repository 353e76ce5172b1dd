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
from detray.serialization.values import reducers


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
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and vars(obj).get("__slots__"):  # Not a NamedTuple: ()
            _keep_slots(obj, reduced)
        return reduced

    def forget(self) -> None:
        """Be as new."""
        self.file.seek(0)
        self.file.truncate()
        self.clear_memo()
        self.globals_ref.clear()
        self.refs = {}
        self.buffers = []

    def _take_buffer(self, buffer: PickleBuffer) -> bool:
        self.buffers.append(buffer.raw())
        return False  # False: out of band


def _keep_slots(kind: Any, reduced: Any) -> None:
    """Have a class by value made anew with its slots. (Any: as above.)

    cloudpickle's copies have a `__dict__` instead, and their instances cannot come back to the
    process of the original, whose class has none.
    """
    if reduced is not NotImplemented and reduced[0].__name__ == "_make_skeleton_class":
        namespace = reduced[1][3]
        namespace["__slots__"] = kind.__slots__


def _is_known(obj: Any) -> bool:
    """True for functions and classes that pickle by name: asking cloudpickle costs 3 us each."""
    if obj.__module__.startswith("numpy"):
        return "<locals>" not in obj.__qualname__
    return obj is ObjectRef or obj is load_array


def dump_rich(value: object) -> tuple[bytes, list[memoryview], tuple[ObjectID, ...]]:
    """`value` as (pickle stream, out-of-band buffers, references inside)."""
    # Making a pickler costs 3 us, a third of a small value's pickling. One at work is not among the
    # idle ones: a __reduce__ that pickles something itself gets another.
    try:
        pickler = _idle.pop()
    except IndexError:  # Asked this way: threads may come between a look and a pop.
        pickler = ValuePickler()
    pickler.dump(value)
    found = pickler.file.getvalue(), pickler.buffers, tuple(pickler.refs)
    pickler.forget()
    _idle.append(pickler)
    return found


_idle: list[ValuePickler] = []
"""Picklers that may be used again; one that raised is not."""


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
    """Every array as raw memory, also those that numpy would pickle in band, hence writable.

    To name the type by a string and to load with a function of our own is three times as fast as
    numpy's way. Arrays of Python objects stay numpy's business: they are lists in disguise, copied
    on every read and therefore writable.
    """
    dtype = array.dtype
    if dtype.hasobject:
        return NotImplemented
    flags = array.flags
    simple = dtype.kind in "biufc"
    if simple and flags.c_contiguous:
        return load_array, (PickleBuffer(array), dtype.str, array.shape)
    if simple and flags.f_contiguous:
        return load_array, (PickleBuffer(array), dtype.str, array.shape, "F")
    flat = array.reshape(-1)  # Copies what is not contiguous.
    if not flat.flags.c_contiguous:
        flat = flat.copy()
    return load_array, (PickleBuffer(flat.view("u1")), dtype.str if simple else dtype, array.shape)


def load_array(raw: Any, dtype: Any, shape: tuple[int, ...], order: Any = "C") -> Any:
    """An array over the memory of `raw`. (Any: as above.)"""
    from numpy import frombuffer, ndarray

    if not raw.nbytes:
        return frombuffer(b"", dtype).reshape(shape)
    return ndarray(shape, dtype, raw, order=order)
