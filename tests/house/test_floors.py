"""The floors hold, and the core is as pure as it says."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import CORE, ROOT, imports, modules, name_of, parse

CORE_MAY_IMPORT = {
    "__future__",
    "_blake2",
    "bisect",
    "collections",
    "collections.abc",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "msgspec",
    "msgspec.structs",
    "operator",
    "typing",
}
IMPURE_CALLS = {"open", "input", "print", "eval", "exec", "hash", "id", "__import__", "vars", "dir"}
"""`hash` and `id` differ from process to process; the others reach outside."""


@pytest.mark.parametrize("path", modules(*CORE), ids=name_of)
def test_the_core_imports_only_what_computes(path: Path) -> None:
    """A list of what is allowed, not of what is forbidden: new modules of Python stay out."""
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(parse(path))
        if name not in CORE_MAY_IMPORT
        and not name.startswith(("detray.core", "detray.ids", "detray.errors"))
    ]
    assert wrong == []


@pytest.mark.parametrize("path", modules(*CORE), ids=name_of)
def test_the_core_calls_nothing_that_differs_between_processes(path: Path) -> None:
    """No hash(), id(), open() and the like."""
    wrong = [
        f"line {node.lineno}: {node.func.id}()"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in IMPURE_CALLS
    ]
    assert wrong == []


@pytest.mark.parametrize("path", modules(*CORE), ids=name_of)
def test_the_core_computes_with_integers(path: Path) -> None:
    """No float literal and no true division: sums of floats depend on their order."""
    wrong = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            wrong.append(f"line {node.lineno}: {node.value}")
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            wrong.append(f"line {node.lineno}: /")
    assert wrong == []


@pytest.mark.parametrize("path", modules(*CORE), ids=name_of)
def test_the_core_iterates_over_no_set(path: Path) -> None:
    """The order of a set depends on hashes, and those of strings on the process."""
    wrong = []
    for node in ast.walk(parse(path)):
        loops = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
        wrong += [f"line {loop.lineno}" for loop in loops if _is_a_set(loop)]
    assert wrong == []


def _is_a_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("set", "frozenset")
    return isinstance(node, ast.Set | ast.SetComp)


def test_import_linter_keeps_every_contract() -> None:
    """The contracts of pyproject.toml: floors as layers, and who may not know whom."""
    beside_python = Path(sys.executable).parent / "lint-imports"
    command = str(beside_python) if beside_python.exists() else shutil.which("lint-imports")
    if command is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
