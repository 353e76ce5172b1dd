"""All that chance decides in one seed, as labelled integers on a tape that can be edited.

A label names a decision ("faults/3/kind"), not its turn: a decision more or less moves no other. A
fresh tape draws each choice the first time it is asked, from a hash of seed and label, and notes
it. A recorded tape gives back what was noted; a choice that it lacks is 0, one that is out of range
is clamped. So any subset of a tape is a tape, and 0 is always the simplest: whoever asks orders the
possibilities accordingly. That is all that shrinking needs (`shrink.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

import msgspec

T = TypeVar("T")
Law = Callable[[int], int]
"""How 64 random bits become a choice."""


class Recording(msgspec.Struct, frozen=True):
    """A tape as it is written to a file. `seed` is where it came from, for the reader."""

    seed: int
    choices: dict[str, int]


class Tape:
    """Choices by label. `used` are those that were asked for, in order, as they were answered."""

    __slots__ = ("_given", "seed", "used")

    def __init__(self, seed: int, given: Mapping[str, int] | None = None) -> None:
        self.seed = seed
        self.used: dict[str, int] = {}
        self._given = given

    @property
    def is_recorded(self) -> bool:
        """True if nothing is drawn any more."""
        return self._given is not None

    @property
    def given(self) -> Mapping[str, int] | None:
        """What was recorded; None for a fresh tape."""
        return self._given

    # -------------------------------------------------------------------------- choosing

    def choose(self, label: str, bound: int) -> int:
        """An integer in [0, bound); asked twice, it is the same choice."""
        return self._decide(label, bound, None)

    def flag(self, label: str, permille: int) -> bool:
        """True in `permille` of 1000 fresh tapes; False is the simplest."""
        return bool(self._decide(label, 2, lambda word: word * 1000 >> 64 < permille))

    def pick(self, label: str, options: Sequence[T]) -> T:
        """One of `options`, the simplest first."""
        return options[self._decide(label, len(options), None)]

    def between(self, label: str, low: int, high: int) -> int:
        """An integer in [low, high]; `low` is the simplest."""
        return low + self._decide(label, high - low + 1, None)

    def log_between(self, label: str, low: int, high: int) -> int:
        """An integer in [low, high] whose order of magnitude is uniform; 0 < low."""
        return low + self._decide(label, high - low + 1, lambda word: _log(word, low, high) - low)

    def count(self, label: str, bound: int) -> int:
        """How many of something there are, at most `bound`: few more often than many."""
        return self._decide(label, bound + 1, lambda word: _log(word, 1, bound + 1) - 1)

    def plenty(self, label: str, bound: int) -> int:
        """An integer in [0, bound) that is large as a rule: 0 is the simplest, yet seldom drawn."""
        low = bound // 2
        return self._decide(label, bound, lambda word: low + (word * (bound - low) >> 64))

    def _decide(self, label: str, bound: int, law: Law | None) -> int:
        used = self.used
        value = used.get(label)
        if value is None:
            given = self._given
            if given is not None:
                value = given.get(label, 0)
            else:
                name = blake2b(b"%d/%b" % (self.seed, label.encode()), digest_size=8)
                word = int.from_bytes(name.digest(), "little")
                value = word * bound >> 64 if law is None else int(law(word))
        if not 0 <= value < bound:
            value = max(0, bound - 1) if value > 0 else 0
        used[label] = value
        return value

    # -------------------------------------------------------------------------- keeping

    def replay(self) -> Tape:
        """A tape that gives back what this one was asked so far."""
        return Tape(self.seed, dict(self.used))

    def to_json(self) -> bytes:
        """What `from_json` reads."""
        return msgspec.json.format(msgspec.json.encode(Recording(self.seed, self.used)), indent=1)

    @classmethod
    def from_json(cls, data: bytes | str) -> Tape:
        """The tape that was written. Raises msgspec.DecodeError on anything else."""
        recording = msgspec.json.decode(data, type=Recording)
        return cls(recording.seed, recording.choices)


def _log(word: int, low: int, high: int) -> int:
    """An integer in [low, high]: first its order of magnitude (base 2), then its place in it."""
    ratio = high // low
    octaves = max(1, ratio.bit_length())
    octave = word * octaves >> 64
    rest = word * octaves & (1 << 64) - 1
    start = low << octave
    end = min(high, (low << octave + 1) - 1)
    if start > high:
        start, end = low, high
    return start + (rest * (end - start + 1) >> 64)
