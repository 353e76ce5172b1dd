"""Shrinking: the smallest tape that still fails in the same way.

The same way is the same `Signature`: which oracle, where, with all numbers and ids taken out. The
passes go from what saves most to what saves least: whole kinds of faults, single faults, nodes and
workers, tasks, knobs of the schedule and of the policy, and at last the size of every number. Each
takes choices towards 0, the simplest, by halves first (Zeller's ddmin); any tape is a valid one, so
nothing but running it decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter

import msgspec

RUNS_MAX, SECONDS_MAX = 400, 60.0


class Signature(msgspec.Struct, frozen=True):
    """What failed: the oracle, and where, such that equal bugs look equal."""

    oracle: str
    where: str

    def __str__(self) -> str:
        return f"{self.oracle}: {self.where}"


_NOISE = (
    (re.compile(r"0x[0-9a-fA-F]+"), "@"),
    (re.compile(r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\""), "bytes"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,}\b"), "id"),
    (re.compile(r"-?\d+"), "n"),
    (re.compile(r"\b(n)(?:, n)+\b"), r"\1"),
    (re.compile(r"\s+"), " "),
)
_WHERE_MAX = 160


def sign(oracle: str, text: str) -> Signature:
    """The signature of a failure that an oracle tells in `text`: no numbers, no ids."""
    for pattern, word in _NOISE:
        text = pattern.sub(word, text)
    return Signature(oracle, text.strip()[:_WHERE_MAX])


Choices = dict[str, int]
Probe = Callable[[Choices], Choices | None]
"""Runs a tape: the choices that were asked for if it fails in the same way, else None."""


class Shrunk(msgspec.Struct, frozen=True):
    """What came of shrinking. `trail`: after which pass how many choices were not 0."""

    choices: Choices
    runs: int
    seconds: float
    trail: tuple[tuple[str, int], ...]


def shrink(
    choices: Mapping[str, int],
    fails: Probe,
    *,
    runs_max: int = RUNS_MAX,
    seconds_max: float = SECONDS_MAX,
) -> Shrunk:
    """The smallest failing tape that the budget allows to find; `choices` must fail."""
    work = _Work(dict(choices), fails, runs_max, seconds_max)
    trail: list[tuple[str, int]] = []
    try:
        while True:
            before = work.weight
            for name, is_in in PASSES:
                _zero_groups(work, name, is_in)
                trail.append((name, work.weight[0]))
            _lessen(work)
            trail.append(("numbers", work.weight[0]))
            if work.weight == before:
                break
    except _Spent:
        trail.append(("budget", work.weight[0]))
    return Shrunk(work.choices, work.runs, perf_counter() - work.began, tuple(trail))


PASSES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("kinds of faults", lambda label: label.startswith("kinds/")),
    ("faults", lambda label: label.startswith("faults/") and label.endswith("/is")),
    ("features", lambda label: label.startswith("features/")),
    ("nodes and workers", lambda label: label.startswith("world/node")),
    ("tasks", lambda label: label.startswith("program/") and label.endswith("/is")),
    ("program", lambda label: label.startswith("program/")),
    ("schedule", lambda label: label.startswith("schedule/")),
    ("policy", lambda label: label.startswith("policy/")),
    ("world", lambda label: label.startswith("world/")),
    ("all", lambda label: True),
)
"""Which choices a pass takes to 0, by label; each pass knows only where they stand on the tape."""


class _Spent(Exception):
    """The budget is."""


class _Work:
    """The smallest failing tape so far, and what trying costs."""

    def __init__(self, choices: Choices, fails: Probe, runs_max: int, seconds_max: float) -> None:
        self.choices = choices
        self.runs = 0
        self.began = perf_counter()
        self._fails = fails
        self._runs_max = runs_max
        self._seconds_max = seconds_max
        self._tried: set[tuple[tuple[str, int], ...]] = set()

    @property
    def weight(self) -> tuple[int, int]:
        """What is to become less: choices that are not 0, and their sum."""
        values = [value for value in self.choices.values() if value]
        return len(values), sum(values)

    def try_with(self, changes: Mapping[str, int]) -> bool:
        """Take the changed tape if it fails in the same way, and is no heavier."""
        tape = {**self.choices, **changes}
        key = tuple(sorted((label, value) for label, value in tape.items() if value))
        if key in self._tried:
            return False
        self._tried.add(key)
        if self.runs >= self._runs_max or perf_counter() - self.began > self._seconds_max:
            raise _Spent
        self.runs += 1
        used = self._fails(tape)
        if used is None:
            return False
        before, kept = self.weight, self.choices
        self.choices = used
        if self.weight >= before:
            self.choices = kept
            return False
        return True


def _zero_groups(work: _Work, name: str, is_in: Callable[[str], bool]) -> None:
    """Take the labels of a pass to 0: all, then halves, quarters... down to single ones.

    The later half goes first: what was planned last is needed least.
    """
    labels = [label for label, value in work.choices.items() if value and is_in(label)]
    size = len(labels)
    while size:
        for start in reversed(range(0, len(labels), size)):
            part = [x for x in labels[start : start + size] if work.choices.get(x)]
            if part:
                work.try_with(dict.fromkeys(part, 0))
        labels = [label for label in labels if work.choices.get(label)]
        if name == "all" and size == 1:
            return
        size = min(size - 1, (size + 1) // 2) if size > 1 else 0


def _lessen(work: _Work) -> None:
    """Make each number smaller: a few small ones, then by halving the distance."""
    for label in list(work.choices):
        for value in _smaller(work.choices.get(label, 0)):
            if value < work.choices.get(label, 0) and work.try_with({label: value}):
                break
        low = 0
        while (high := work.choices.get(label, 0)) - low > 1:
            middle = (low + high) // 2
            if not work.try_with({label: middle}):
                low = middle


def _smaller(value: int) -> Iterator[int]:
    """Candidates below `value` that are worth trying first."""
    for candidate in (0, 1, 2, value - 1):
        if 0 <= candidate < value:
            yield candidate
