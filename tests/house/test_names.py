"""One word, one meaning: names across the package, and what the public ones say."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict

import detray
from tests.house.source import ROOT, modules, name_of, parse

REPEATED = {
    "Client": "the core's row about a process, and that process's own end of the stream",
    "Hello": "how a process presents itself: to the service of its node, and to other nodes",
}
"""Class names that exist twice, and why they may."""


def test_no_class_name_exists_twice() -> None:
    """A class is known by its name alone, in a traceback as in a trace."""
    homes = defaultdict(list)
    for path in modules(ROOT / "detray"):
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name_of(path))
    wrong = {name: where for name, where in homes.items() if len(where) > 1}
    assert {name: where for name, where in wrong.items() if name not in REPEATED} == {}


def test_nothing_of_ours_is_called_event() -> None:
    """simpy and threading have an Event each; ours are stimuli and effects."""
    classes = [
        f"{name_of(path)}: {node.name}"
        for path in modules()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Event")
    ]
    assert classes == []


def test_every_public_name_has_a_docstring() -> None:
    """help(detray.anything) says what it is."""
    silent = [
        name
        for name in detray.__all__
        if not name.startswith("__") and not inspect.getdoc(getattr(detray, name))
    ]
    assert silent == []


def test_every_public_class_and_function_has_a_docstring() -> None:
    """The first sentence says what it is or does."""
    silent = []
    for path in modules():
        tree = parse(path)
        if not ast.get_docstring(tree):
            silent.append(name_of(path))
        for node in tree.body:
            if (
                isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                silent.append(f"{name_of(path)}: {node.name}")
    assert silent == []
