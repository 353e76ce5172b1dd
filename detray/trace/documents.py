"""What commands tell programs with `--json`: one object, whose keys docs/json.md lists.

Rules
-----
- The first keys are `command` and `schema`, the number of the rules that hold for the rest.
- Keys are words in lower case with `_` between. A unit ends the key: `_ns` and `_bytes`, integers.
- What has an id has `id`, in hexadecimal, `short`, its name for people, and `name`, its function's.
- A file that was read is `trace`, one that was written `output`. Rows of a table are `rows`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 1
"""Raised when a key changes its meaning, or goes. New keys may come without that."""
_SECOND_NS = 1_000_000_000
_SECONDS, _BYTES = "_s", "bytes_"


def document(command: str, body: Mapping[str, Any]) -> str:
    """The text of an answer. (Any: plain data.)"""
    return json.dumps({"command": command, "schema": SCHEMA, **body}, indent=1)


def in_house_units(value: Any) -> Any:  # Any: plain data, both
    """The same with keys of seconds, `x_s`, as `x_ns`, rounded, and of bytes, `bytes_x`, as
    `x_bytes`."""
    if isinstance(value, Mapping):
        found = {}
        for name, inner in value.items():
            if name.endswith(_SECONDS) and (inner is None or isinstance(inner, int | float)):
                ns = None if inner is None else round(inner * _SECOND_NS)
                found[f"{name.removesuffix(_SECONDS)}_ns"] = ns
            elif name.startswith(_BYTES) and isinstance(inner, int):
                found[f"{name.removeprefix(_BYTES)}_bytes"] = inner
            else:
                found[name] = in_house_units(inner)
        return found
    if isinstance(value, list | tuple):
        return [in_house_units(inner) for inner in value]
    return value
