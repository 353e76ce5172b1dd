"""Tables of a TOML file as Structs: every mistake is one line that names file, table and key.

A field's name ends in its unit, its key does not: `latency_ns` is written `latency = "100us"`,
`store_bytes` as `store = "8GiB"` or `store_bytes = "8GiB"`, `bandwidth_bytes_per_s` as
`bandwidth = "1Gbit"`. Fields that differ in their unit only are written whole. Quantities are read
by `units`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from detray.trace.format import MAGIC
from detray_sim.units import bytes_per_s, duration_ns, size_bytes

T = TypeVar("T", bound=msgspec.Struct)
Table = Mapping[str, Any]  # Any: whatever TOML can hold

_BYTES_MAX = 16 << 20

_UNITS: tuple[tuple[str, Callable[[object], int]], ...] = (
    ("_bytes_per_s", bytes_per_s),
    ("_bytes", size_bytes),
    ("_ns", duration_ns),
)


class ScenarioError(ValueError):
    """A scenario that cannot be used: one line with file, table and key."""


class Place(NamedTuple):
    """Where in which file."""

    file: str
    table: str = ""

    def error(self, what: str, key: str = "") -> ScenarioError:
        """The error to raise for this place."""
        table = f"[{self.table}] " if self.table else ""
        return ScenarioError(f"{self.file}: {table}{key}{': ' if key else ''}{what}")

    def inner(self, name: str) -> Place:
        """A table in this one."""
        return Place(self.file, f"{self.table}.{name}" if self.table else name)


def read_toml(path: str | os.PathLike[str]) -> Table:
    """The top-level table of a file. Raises OSError, ScenarioError."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_BYTES_MAX + 1)  # Not all of it: a device has no end.
        if data.startswith(MAGIC):
            raise ScenarioError(f"{path}: a trace: `detray-sim whatif {path}` plays it")
        if len(data) > _BYTES_MAX:
            raise ScenarioError(f"{path}: no TOML file of ours: it is longer than 16 MB")
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ScenarioError(f"{path}: no TOML file: {error}") from None


def fill(
    kind: type[T],
    table: object,
    place: Place,
    elsewhere: Table | None = None,
    base: T | None = None,
) -> T:
    """A Struct of `kind` from a table. Raises ScenarioError.

    `elsewhere` are hints for keys that belong to another table. Keys that are not given have the
    values of `base`, without it the defaults of the Struct.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    keys = _keys(list(fields))
    values: dict[str, Any] = {}  # Any: checked by msgspec below
    for key, value in as_table(table, place).items():
        if key not in keys:
            raise unknown_key(key, _shortest(keys), place, elsewhere)
        field = fields[keys[key]]
        if field.encode_name in values:
            raise place.error("it is there twice, with and without its unit", key)
        values[field.encode_name] = _value(field.name, value, place, key)
    if base is not None:
        values = {field.encode_name: getattr(base, name) for name, field in fields.items()} | values
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _located(str(error), place) from None


def as_table(value: object, place: Place) -> Table:
    """The value itself if it is a table. Raises ScenarioError."""
    if not isinstance(value, dict):
        raise place.error(f"it is a table, not {value!r}")
    return value


def unknown_key(
    key: str, known: Iterable[str], place: Place, elsewhere: Table | None = None
) -> ScenarioError:
    """The error for a key that means nothing here, with the nearest that does."""
    names = list(known)
    close = get_close_matches(key, names, 1, 0.6)
    if elsewhere and key in elsewhere:
        hint = str(elsewhere[key])
    elif close:
        hint = f"did you mean {close[0]!r}?"
    else:
        hint = f"known are {', '.join(names)}"
    return place.error(f"unknown key; {hint}", key)


def one_of(value: object, known: Iterable[str], place: Place, key: str) -> str:
    """The value itself if it is one of the known ones. Raises ScenarioError."""
    names = list(known)
    if isinstance(value, str) and value in names:
        return value
    close = get_close_matches(str(value), names, 1, 0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise place.error(f"it is one of {', '.join(names)}, not {value!r}{hint}", key)


def _keys(names: list[str]) -> dict[str, str]:
    """What is written for each field. Fields that differ in their unit only are written whole."""
    short = [_key(name) for name in names]
    keys = {
        key if short.count(key) == 1 else name: name for key, name in zip(short, names, strict=True)
    }
    return keys | {name: name for name in names if name.endswith("_bytes")}


def _shortest(keys: Mapping[str, str]) -> list[str]:
    """One way to write each field."""
    return [key for key, name in keys.items() if _key(key) == key or _key(key) not in keys]


def _key(name: str) -> str:
    for suffix, _ in _UNITS:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _value(name: str, value: object, place: Place, key: str) -> object:
    for suffix, read in _UNITS:
        if name.endswith(suffix):
            try:
                return read(value)
            except ValueError as error:
                raise place.error(str(error), key) from None
    return value


def _located(message: str, place: Place) -> ScenarioError:
    """What msgspec says, with the key in front: "Expected `int`, got `str` - at `$.nodes`"."""
    match = re.fullmatch(r"(.*) - at `\$\.?([^`]*)`", message, re.DOTALL)
    text, path = match.groups() if match else (message, "")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", text)
    if missing:
        return place.error("it is missing", _key(missing[1]))
    return place.error(text[:1].lower() + text[1:], path)
