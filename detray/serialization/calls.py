"""The arguments of one call as bytes and back.

Rules
-----
- Top-level references, positional or by keyword, are replaced by their values before the task runs:
  they leave the pickled arguments and become `args`, in order (positional first). The same
  reference given twice is listed twice; each place gets its value.
- References inside other arguments stay references (`refs`): the task does not wait for them.
- No arguments, or nothing but positional references: no bytes at all.

The bytes hold `args` (a tuple), or `[args, kwargs]`, or `[args, kwargs, slots]` where `slots` are
the positions and keywords of the references, whose places in `args` hold None.
"""

from __future__ import annotations

from pickle import dumps
from typing import Any

from detray.ids import ObjectID
from detray.object_ref import ObjectRef, session_of
from detray.serialization.values import ATOMS, PROTOCOL, Serialized, deserialize, serialize

Arguments = tuple[Any, ...]
Keywords = dict[str, Any]
Encoded = tuple[Serialized | None, tuple[ObjectID, ...]]


def encode_call(args: Arguments, kwargs: Keywords) -> Encoded:
    """The call as (its bytes or None, the top-level references to wait for).

    The references nested in the other arguments are the bytes' `.refs`. Raises what pickling an
    argument raises.
    """
    if not kwargs:
        if not args:
            return None, ()
        if ATOMS.issuperset(map(type, args)):
            return Serialized(dumps(args, PROTOCOL)), ()
        if ObjectRef not in map(type, args):
            return serialize(args), ()
    return _encode_with_refs(args, kwargs)


def decode_call(blob: bytes | memoryview | None, values: list[Any]) -> tuple[Arguments, Keywords]:
    """The call back from its bytes and the values of its top-level references, in order."""
    if not blob:
        return tuple(values), {}
    call: Any = deserialize(blob)
    if type(call) is tuple:
        return call, {}
    if len(call) == 2:
        return call[0], call[1]
    args, kwargs, slots = call
    args = list(args)
    for slot, value in zip(slots, values, strict=True):
        if type(slot) is int:
            args[slot] = value
        else:
            kwargs[slot] = value
    return tuple(args), kwargs


def _encode_with_refs(args: Arguments, kwargs: Keywords) -> Encoded:
    slots: list[int | str] = []
    items: list[ObjectID] = []
    for slot, value in enumerate(args):
        if type(value) is ObjectRef:
            session_of(value)
            slots.append(slot)
            items.append(value.binary())
    if len(slots) == len(args) and not kwargs:
        return None, tuple(items)
    for key, value in kwargs.items():
        if type(value) is ObjectRef:
            session_of(value)
            slots.append(key)
            items.append(value.binary())
    if not slots:
        return serialize([args, kwargs]), ()
    rest = [None if type(value) is ObjectRef else value for value in args]
    named = {key: value for key, value in kwargs.items() if type(value) is not ObjectRef}
    return serialize([tuple(rest), named, slots]), tuple(items)
