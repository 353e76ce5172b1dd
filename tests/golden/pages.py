"""The parts of `docs/architecture.md` that are made from the code and from transcripts.

A part stands between `<!-- made: name -->` and `<!-- end -->`. The test compares it, and
`--rewrite` writes it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from detray.core.states import MOVES, OBJECT_MOVES
from detray.core.tables import Object, Tables, Task
from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES
from detray.trace.transcript.writing import SHRUNK
from tests.golden.play import HERE, play, transcripts

_PART = re.compile(r"(<!-- made: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rewritten(text: str) -> str:
    """A page with all its made parts as they are today."""
    return _PART.sub(lambda m: f"{m[1]}{PARTS[m[2]]()}{m[3]}", text)


def life(name: str) -> str:
    """A transcript, as a block of text."""
    text = (HERE / f"{name}.txt").read_text()
    return f"```text\n{text}```\n"


def diagram(moves: dict[type, tuple[type, ...]], *, may_end: bool) -> str:
    """A table of moves as a state diagram."""
    first = next(iter(moves))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.__name__}"]
    for source, targets in moves.items():
        lines += [f"    {source.__name__} --> {target.__name__}" for target in targets]
        if may_end:
            lines.append(f"    {source.__name__} --> [*]")
    return "\n".join([*lines, "```", ""])


def places(kind: type) -> str:
    """Where the id of a row is found, by its state: always, and sometimes; from all transcripts."""
    rows: dict[str, list[set[str]]] = defaultdict(list)

    def look(tables: Tables) -> None:
        found = defaultdict(set)
        for item, place in _mentions(tables, ""):
            found[item].add(place)
        table = tables.tasks if kind is Task else tables.objects
        for key, row in table.items():  # type: ignore[attr-defined]  # both are dicts
            rows[type(row.state).__name__].append(found[key])

    for path in transcripts():
        if path.read_text().startswith(SHRUNK):
            continue
        play(path.read_text(), after_step=lambda s: [look(w.local.tables) for w in s.worlds])
    lines = ["| state | always in | sometimes in |", "|---|---|---|"]
    for state in MOVES if kind is Task else OBJECT_MOVES:
        sets = rows[state.__name__]
        always = set.intersection(*sets)
        sometimes = set.union(*sets) - always
        lines.append(f"| {state.__name__} | {_listed(always)} | {_listed(sometimes)} |")
    return "\n".join([*lines, ""])


def _listed(names: set[str]) -> str:
    own = ("tasks", "tasks.spec.task", "objects", "objects.id")
    return ", ".join(f"`{name}`" for name in sorted(names - set(own))) or "-"


def _mentions(value: Any, place: str) -> Iterator[tuple[bytes, str]]:  # Any: a table, or a part
    """Every task and object id in the tables, and where it stands."""
    if isinstance(value, bytes):
        if len(value) in (TASK_ID_BYTES, OBJECT_ID_BYTES):
            yield value, place
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _mentions(getattr(value, name), f"{place}.{name}" if place else name)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _mentions(key, place)
            yield from _mentions(part, place)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _mentions(part, place)


PARTS: dict[str, Callable[[], str]] = {
    "life of one task": lambda: life("life_of_a_task"),
    "life on two nodes": lambda: life("two_nodes"),
    "moves of a task": lambda: diagram(MOVES, may_end=True),
    "moves of an object": lambda: diagram(OBJECT_MOVES, may_end=False),
    "where a task is found": lambda: places(Task),
    "where an object is found": lambda: places(Object),
}
