"""The project's own source, parsed: what the tests of the house look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "detray", ROOT / "sim" / "detray_sim")
CORE = (ROOT / "detray" / "core", ROOT / "detray" / "ids.py")


def modules(*places: Path) -> list[Path]:
    """Every module at or below the given places (default: both packages)."""
    found: list[Path] = []
    for place in places or PACKAGES:
        found += [place] if place.is_file() else sorted(place.rglob("*.py"))
    return found


def name_of(path: Path) -> str:
    """`detray/core/local.py` for messages and lists of exceptions."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(), filename=str(path))


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module name that is imported, at any depth of the code, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            yield node.module or "", node.lineno


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every function's name and its length in lines, decorators and docstring included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            yield node.name, node.end_lineno - first + 1
