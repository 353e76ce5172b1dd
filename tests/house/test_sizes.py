"""Modules and functions stay small enough to be read in one go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.source import functions, modules, name_of, parse

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
LARGER: dict[str, str] = {}
"""Confessed exceptions: "path" or "path:function", and the reason."""

EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "misc", "common", "tools"}
NAMED_BY_RAY = (
    "detray/cluster_utils.py",
    "detray/util/__init__.py",
    "detray/util/scheduling_strategies.py",
)
"""This is where programs look for them."""


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_is_short(path: Path) -> None:
    """At most 600 lines, each function at most 60."""
    name = name_of(path)
    wrong = []
    lines = path.read_text().count("\n")
    if lines > MODULE_LINES_MAX and name not in LARGER:
        wrong.append(f"{name}: {lines} lines")
    for function, length in functions(parse(path)):
        if length > FUNCTION_LINES_MAX and f"{name}:{function}" not in LARGER:
            wrong.append(f"{name}:{function}: {length} lines")
    assert wrong == []


def test_exceptions_are_needed() -> None:
    """A confessed exception that became small again leaves the list."""
    sizes = {name_of(path): path.read_text().count("\n") for path in modules()}
    for path in modules():
        for function, length in functions(parse(path)):
            key = f"{name_of(path)}:{function}"
            sizes[key] = max(length, sizes.get(key, 0))
    for key in LARGER:
        bound = FUNCTION_LINES_MAX if ":" in key else MODULE_LINES_MAX
        assert sizes.get(key, 0) > bound, f"{key} need not be an exception"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_says_in_its_name_what_it_holds(path: Path) -> None:
    """No utils, helpers, manager, misc."""
    if name_of(path) not in NAMED_BY_RAY:
        assert not EMPTY_NAMES & set(re.split(r"[_/.]", name_of(path)))
