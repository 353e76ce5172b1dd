"""The general form of a stimulus, for those that no directive says: its kind and its fields.

    told Placed task=a attempt=0 node=1 incarnation=1
    told RunDelivered node=0 task=b template=4294967296 parent=root depth=1 size_bytes=20

Fields that have their default are left out, and so is the number of a message on its link. Ids are
named; what is compound is JSON with names in it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from types import UnionType
from typing import Any, Protocol, get_args, get_origin

import msgspec

from detray.core.head_messages import HeadMessage, NodeMessage
from detray.core.peer_messages import PeerMessage
from detray.core.stimuli import ClientStimulus, DriverStimulus
from detray.ids import ClientID, FunctionID, NodeID, ObjectID, TaskID
from detray.trace.transcript.script import ScriptError, Words

KINDS: dict[str, type] = {
    kind.__name__: kind
    for union in (ClientStimulus, DriverStimulus, HeadMessage, NodeMessage, PeerMessage)
    for kind in get_args(union)
}
"""All stimuli by name."""
LINKED = frozenset(
    kind for union in (HeadMessage, NodeMessage, PeerMessage) for kind in get_args(union)
)
FROM_HEAD = frozenset(get_args(HeadMessage))
Fields = dict[str, tuple[Any, Any]]  # Any: types and defaults


class Names(Protocol):
    """What ids are called."""

    def task_name(self, item: TaskID) -> str:
        """A task, "root" for a program itself, "none"."""

    def object_name(self, item: ObjectID) -> str:
        """An object."""

    def function_name(self, item: FunctionID) -> str:
        """A function."""

    def client_name(self, client: ClientID) -> str:
        """w1, d1, o2."""

    def node_name(self, number: NodeID) -> str:
        """A node's name, or its number."""


class Meanings(Protocol):
    """What names mean."""

    def task(self, name: str) -> TaskID:
        """The other way round."""

    def object(self, name: str) -> ObjectID:
        """The same."""

    def function(self, name: str) -> FunctionID:
        """The same."""

    def client(self, name: str) -> ClientID:
        """The same."""

    def node(self, name: str) -> NodeID:
        """The same."""


# ------------------------------------------------------------------ speaking


def told(stimulus: Any, names: Names, link_seq: int = 0) -> str:  # Any: a stimulus
    """A stimulus in the general form; `link_seq` goes without saying."""
    words = ["told", type(stimulus).__name__]
    for name, (kind, default) in fields_of(type(stimulus)).items():
        value = getattr(stimulus, name)
        if name == "link_seq" and value == link_seq:
            continue
        if value != default:
            words.append(shlex.quote(f"{name}={_text(_plain(value, kind, names))}"))
    return " ".join(words)


def _text(value: Any) -> str:  # Any: JSON
    if isinstance(value, str) and value.isprintable() and value[:1] != '"':
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any, kind: Any, names: Names) -> Any:  # Any: values, types, JSON
    """A value with names for ids, as JSON has it."""
    namer = _NAMERS.get(kind)
    if namer is not None:
        return namer(names, value)
    if isinstance(value, msgspec.Struct):
        return {
            name: _plain(getattr(value, name), inner, names)
            for name, (inner, default) in fields_of(type(value)).items()
            if getattr(value, name) != default
        }
    if isinstance(value, tuple):
        return [
            _plain(part, inner, names)
            for part, inner in zip(value, _inner(kind, len(value)), strict=True)
        ]
    return value.hex() if isinstance(value, bytes) else value


# ------------------------------------------------------------------ understanding


def untold(words: Words, meanings: Meanings, link_seq: Callable[[type, NodeID], int]) -> Any:
    """The stimulus that a `told` directive says. (Any: of whatever kind it names.)"""
    if len(words.names) != 1 or words.names[0] not in KINDS:
        raise ScriptError(f"told takes the name of a stimulus, not {' '.join(words.names)!r}")
    kind = KINDS[words.names[0]]
    values = {}
    for name, (inner, default) in fields_of(kind).items():
        text = words.text(name)
        if name in words.options:
            values[name] = _meant(_parsed(text, inner), inner, meanings)
        elif name != "link_seq":
            if default is msgspec.NODEFAULT:
                raise ScriptError(f"told {kind.__name__}: {name} is missing")
            values[name] = default
    if kind in LINKED and "link_seq" not in values:
        node = NodeID(-1) if kind in FROM_HEAD else values.get("node", NodeID(-1))
        values["link_seq"] = link_seq(kind, node)
    return kind(**values)


def _parsed(text: str, kind: Any) -> Any:  # Any: a type, JSON
    if kind in (str, bytes) or kind in _NAMERS:
        return json.loads(text) if text[:1] == '"' else text
    try:
        return json.loads(text)
    except ValueError:
        raise ScriptError(f"{text!r} is no value") from None


def _meant(value: Any, kind: Any, meanings: Meanings) -> Any:  # Any: as above
    meaning = _MEANINGS.get(kind)
    if meaning is not None:
        return meaning(meanings, value)
    if isinstance(kind, UnionType):
        kind = next((part for part in get_args(kind) if part is not type(None)), kind)
        if value is None:
            return None
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind(
            **{
                name: _meant(value[name], inner, meanings)
                for name, (inner, _) in fields_of(kind).items()
                if name in value
            }
        )
    if isinstance(value, list):
        return tuple(
            _meant(part, inner, meanings)
            for part, inner in zip(value, _inner(kind, len(value)), strict=True)
        )
    return bytes.fromhex(value) if kind is bytes else value


def _inner(kind: Any, count: int) -> list[Any]:  # Any: types
    """The types of the parts of a tuple."""
    arguments = get_args(kind)
    if get_origin(kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return [arguments[0]] * count
    if len(arguments) != count:
        raise ScriptError(f"{count} values where {len(arguments)} belong")
    return list(arguments)


_FIELDS: dict[type, Fields] = {}


def fields_of(kind: type) -> Fields:
    """The fields of a message: type, and default or NODEFAULT."""
    found = _FIELDS.get(kind)
    if found is None:
        found = _FIELDS[kind] = {
            field.name: (field.type, field.default) for field in msgspec.structs.fields(kind)
        }
    return found


_NAMERS: dict[Any, Callable[[Names, Any], str]] = {  # Any: NewTypes, and values of them
    TaskID: lambda names, value: names.task_name(value),
    ObjectID: lambda names, value: names.object_name(value),
    FunctionID: lambda names, value: names.function_name(value),
    ClientID: lambda names, value: names.client_name(value),
    NodeID: lambda names, value: names.node_name(value),
}
_MEANINGS: dict[Any, Callable[[Meanings, str], Any]] = {  # Any: the same
    TaskID: lambda meanings, name: meanings.task(name),
    ObjectID: lambda meanings, name: meanings.object(name),
    FunctionID: lambda meanings, name: meanings.function(name),
    ClientID: lambda meanings, name: meanings.client(name),
    NodeID: lambda meanings, name: meanings.node(name),
}
