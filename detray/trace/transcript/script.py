"""Transcripts as text: prose, and blocks of directives with everything that came out of them.

A block is one step of the core. Its directives stand on lines of their own, `----` follows, then
the output up to an empty line. Lines that begin with `#` are prose for the reader.

    submit a name=f cpus=1
    ----
    w1 <- run a
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

RULE = "----"
_UNITS = {
    "ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip


class ScriptError(Exception):
    """A transcript says something that cannot be."""


@dataclass
class Passage:
    """One step: its directives, and the output that the file has for it."""

    line: int
    directives: list[str]
    output: list[str]


@dataclass
class Words:
    """A directive taken apart: `verb name name key=value ...`."""

    verb: str
    names: list[str]
    options: dict[str, str]
    used: set[str] = field(default_factory=set)

    def text(self, key: str, default: str = "") -> str:
        """An option as it is written."""
        self.used.add(key)
        return self.options.get(key, default)

    def number(self, key: str, default: int = 0) -> int:
        """An option that is a count, a duration (5us, 2ms, 1s) or a size (64KiB)."""
        text = self.text(key)
        return number(text) if text else default

    def list(self, key: str) -> list[str]:
        """An option of several words, with commas between them."""
        return [word for word in self.text(key).split(",") if word]

    def flag(self, word: str) -> bool:
        """True if the word stands among the names; takes it out."""
        if word in self.names:
            self.names.remove(word)
            return True
        return False

    def finish(self) -> None:
        """Complain about options that nobody asked for."""
        if unknown := sorted(set(self.options) - self.used):
            raise ScriptError(f"{self.verb}: unknown options {unknown}")


def number(text: str) -> int:
    """A whole number with or without a unit."""
    for unit in sorted(_UNITS, key=len, reverse=True):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * _UNITS[unit]
    return int(text)


def split(directive: str) -> Words:
    """Take a directive apart."""
    verb, *rest = shlex.split(directive)
    names = [word for word in rest if "=" not in word]
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    return Words(verb, names, options)


def parse(text: str) -> list[str | Passage]:
    """Prose lines as they stand, and blocks."""
    parts: list[str | Passage] = []
    lines = text.splitlines()
    place = 0
    while place < len(lines):
        line = lines[place]
        if not line or line.startswith("#"):
            parts.append(line)
            place += 1
            continue
        block = Passage(place + 1, [], [])
        while place < len(lines) and lines[place] != RULE:
            if not lines[place]:
                raise ScriptError(f"line {place + 1}: directives without {RULE}")
            block.directives.append(lines[place])
            place += 1
        place += 1
        while place < len(lines) and lines[place]:
            block.output.append(lines[place])
            place += 1
        parts.append(block)
    return parts


def render(parts: list[str | Passage]) -> str:
    """The text that `parse` reads."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, str):
            lines.append(part)
        else:
            lines += [*part.directives, RULE, *part.output]
    return "\n".join(lines).rstrip("\n") + "\n"
