"""Made-up programs whose answers a serial run knows, and whose tasks count how often they begin.

A round is a random graph of tasks: small and large values, tasks that start tasks, references in
lists, puts, everywhere in the cluster. What may fail (it may begin only once, or somebody had put
it) is known beforehand, and so is everything that depends on it.
"""

from __future__ import annotations

import random
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import detray
from detray.errors import GetTimeoutError, WorldError
from tests.support import begun

PATIENCE_S = 60.0
_WORDS = (2_000, 2_000, 20_000, 20_000, 200_000, 200_000, 700_000, 3_000_000)
"""Sizes of arrays: inline, and ever larger blocks."""
_SLOW_S = 0.3
_CAUSE = re.compile(r"node \d+|worker|process")
"""What every error that is allowed must name: whose death it comes from."""
_INPUTS_MAX = 4
_ALWAYS = -1


class Wrong(Exception):
    """The cluster did what it must not."""


class Piece(NamedTuple):
    """One reference of a round, and what is known of it."""

    ref: Any
    value: int
    """What `digest` says of it."""
    mark: Path
    may_fail: bool
    """It or something that it depends on may begin only once, or was put by a task."""
    is_once: bool
    is_boxed: bool
    """A reference inside of a list."""


def digest(item: Any) -> int:
    """A number that any change of a value changes."""
    if isinstance(item, np.ndarray):
        return zlib.crc32(item.tobytes())
    return int(item)


def mix(*numbers: int) -> int:
    """A number that any change of an argument changes."""
    return zlib.crc32(repr(numbers).encode())


def array_of(number: int, words: int) -> np.ndarray[Any, Any]:
    """An array that the number determines."""
    return np.arange(words, dtype=np.uint64) * np.uint64(2 * number + 1)


@detray.remote
def fold(mark: str, seed: int, *inputs: Any) -> int:
    """A number made of everything that is given."""
    begun.begin(mark)
    return mix(seed, *map(digest, inputs))


@detray.remote
def fold_slowly(mark: str, seed: int, seconds: float, *inputs: Any) -> int:
    """The same, later."""
    begun.begin(mark)
    time.sleep(seconds)
    return mix(seed, *map(digest, inputs))


@detray.remote
def grow(mark: str, seed: int, words: int, *inputs: Any) -> np.ndarray[Any, Any]:
    """An array made of everything that is given."""
    begun.begin(mark)
    return array_of(mix(seed, *map(digest, inputs)), words)


@detray.remote
def spread(mark: str, seed: int, width: int, is_once: bool, *inputs: Any) -> int:
    """The same by way of tasks of its own."""
    life = begun.begin(mark)
    parts = [
        fold.options(scheduling_strategy="SPREAD", max_retries=0 if is_once else _ALWAYS).remote(
            f"{mark}.{life}.{index}", seed + index, *inputs
        )
        for index in range(width)
    ]
    return mix(*detray.get(parts))


@detray.remote
def open_box(mark: str, seed: int, boxes: list[Any]) -> int:
    """Get what the references in a list stand for."""
    begun.begin(mark)
    return mix(seed, *map(digest, detray.get(boxes)))


@detray.remote
def box_up(mark: str, seed: int, words: int) -> list[Any]:
    """A reference to something that the task put."""
    begun.begin(mark)
    return [detray.put(array_of(seed, words))]


class Round:
    """One program."""

    def __init__(self, seed: str, marks: Path) -> None:
        self.performed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        """Tasks that ended with an error that was allowed, by its kind."""
        self._random = random.Random(seed)
        self._marks = marks
        self._name = seed
        self._pieces: list[Piece] = []
        self._count = 0

    def run(self, steps: int) -> None:
        """Submit `steps` tasks and forget some of their references on the way. Raises Wrong."""
        kinds: list[Callable[[], Piece]] = [
            self._fold, self._fold_slowly, self._fold_slowly, self._grow, self._grow, self._spread,
            self._open_box, self._box_up, self._put,
        ]  # fmt: skip
        for _ in range(steps):
            act = self._random.choice(kinds)
            self._pieces.append(act())
            self.performed[act.__name__[1:]] += 1
            chance = self._random.random()
            if chance < 0.06:
                self._check(self._pieces.pop(self._random.randrange(len(self._pieces))))
            elif chance < 0.09:
                self._wait()
            elif chance < 0.12:  # forgotten without a look
                self._pieces.pop(self._random.randrange(len(self._pieces)))

    def finish(self) -> None:
        """Every answer, and how often its task began. Raises Wrong."""
        self._random.shuffle(self._pieces)
        while self._pieces:
            self._check(self._pieces.pop())
        # A task of a task may begin once for each life of its parent, and has its own mark. Marks
        # of rounds before stay: what nobody asked for may begin at any time.
        for path in self._marks.glob("once-*.*"):
            if begun.count(path) > 1:
                raise Wrong(f"{path.name} may begin once and began {begun.count(path)} times")

    # -------------------------------------------------------------- what a program does

    def _fold(self) -> Piece:
        inputs = self._inputs()
        seed, is_once = self._seed(), self._is_once()
        mark = self._mark(is_once)
        ref = fold.options(**self._options(is_once)).remote(
            str(mark), seed, *[piece.ref for piece in inputs]
        )
        return self._piece(ref, mix(seed, *[p.value for p in inputs]), mark, is_once, inputs)

    def _fold_slowly(self) -> Piece:
        inputs = self._inputs()
        seed, is_once = self._seed(), self._is_once()
        mark = self._mark(is_once)
        ref = fold_slowly.options(**self._options(is_once)).remote(
            str(mark), seed, self._random.uniform(0, _SLOW_S), *[piece.ref for piece in inputs]
        )
        return self._piece(ref, mix(seed, *[p.value for p in inputs]), mark, is_once, inputs)

    def _grow(self) -> Piece:
        inputs = self._inputs()
        seed, words, is_once = self._seed(), self._random.choice(_WORDS), self._is_once()
        mark = self._mark(is_once)
        ref = grow.options(**self._options(is_once)).remote(
            str(mark), seed, words, *[piece.ref for piece in inputs]
        )
        number = mix(seed, *[piece.value for piece in inputs])
        return self._piece(ref, digest(array_of(number, words)), mark, is_once, inputs)

    def _spread(self) -> Piece:
        inputs = self._inputs()
        seed, width, is_once = self._seed(), self._random.randrange(1, 5), self._is_once()
        mark = self._mark(is_once)
        ref = spread.options(**self._options(False)).remote(
            str(mark), seed, width, is_once, *[piece.ref for piece in inputs]
        )
        values = [piece.value for piece in inputs]
        value = mix(*[mix(seed + index, *values) for index in range(width)])
        piece = self._piece(ref, value, mark, False, inputs)
        return piece._replace(may_fail=piece.may_fail or is_once)

    def _open_box(self) -> Piece:
        inputs = self._inputs()
        seed, is_once = self._seed(), self._is_once()
        mark = self._mark(is_once)
        ref = open_box.options(**self._options(is_once)).remote(
            str(mark), seed, [piece.ref for piece in inputs]
        )
        return self._piece(ref, mix(seed, *[p.value for p in inputs]), mark, is_once, inputs)

    def _box_up(self) -> Piece:
        seed, words = self._seed(), self._random.choice(_WORDS)
        mark = self._mark(False)
        ref = box_up.options(**self._options(False)).remote(str(mark), seed, words)
        value = digest(array_of(seed, words))
        return Piece(ref, value, mark, may_fail=True, is_once=False, is_boxed=True)

    def _put(self) -> Piece:
        words, number = self._random.choice(_WORDS), self._seed()
        mark = self._mark(False)
        mark.write_bytes(b"x")
        value = array_of(number, words)
        return Piece(detray.put(value), digest(value), mark, False, False, False)

    def _wait(self) -> None:
        """Some of them are there at last, values or errors."""
        refs = [piece.ref for piece in self._pieces[-10:]]
        ready, rest = detray.wait(refs, num_returns=(len(refs) + 1) // 2, timeout=PATIENCE_S)
        if len(ready) != (len(refs) + 1) // 2 or len(ready) + len(rest) != len(refs):
            raise Wrong(f"wait for half of {len(refs)} gave {len(ready)} and {len(rest)}")

    # -------------------------------------------------------------- inside

    def _piece(self, ref: Any, value: int, mark: Path, is_once: bool, inputs: list[Piece]) -> Piece:
        may_fail = is_once or any(piece.may_fail for piece in inputs)
        return Piece(ref, value, mark, may_fail, is_once, is_boxed=False)

    def _inputs(self) -> list[Piece]:
        """Some of what there is; what is in a box is looked at by the driver alone."""
        fitting = [piece for piece in self._pieces[-40:] if not piece.is_boxed]
        return self._random.sample(
            fitting, min(len(fitting), self._random.randrange(_INPUTS_MAX + 1))
        )

    def _options(self, is_once: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"max_retries": 0 if is_once else _ALWAYS}
        if self._random.random() < 0.6:
            found["scheduling_strategy"] = "SPREAD"
        return found

    def _is_once(self) -> bool:
        return self._random.random() < 0.2

    def _seed(self) -> int:
        return self._random.randrange(1 << 30)

    def _mark(self, is_once: bool) -> Path:
        self._count += 1
        return self._marks / f"{'once' if is_once else 'more'}-{self._name}-{self._count}"

    def _check(self, piece: Piece) -> None:
        name = piece.mark.name
        try:
            found = detray.get(piece.ref, timeout=PATIENCE_S)
            if piece.is_boxed:
                found = detray.get(found[0], timeout=PATIENCE_S)
        except GetTimeoutError:
            raise Wrong(f"{name}: {piece.ref} is not there after {PATIENCE_S:.0f} s") from None
        except WorldError as error:
            if not piece.may_fail:
                raise Wrong(f"{name}: {piece.ref} must not fail: {error!r}") from error
            if not _CAUSE.search(str(error)):
                raise Wrong(f"{name}: {piece.ref} does not say why: {error!r}") from error
            self.failed[type(error).__name__] += 1
            return self._check_begun(piece, 0)
        if digest(found) != piece.value:
            raise Wrong(f"{name}: {piece.ref} is {digest(found)}, a serial run has {piece.value}")
        return self._check_begun(piece, 1)

    def _check_begun(self, piece: Piece, least: int) -> None:
        times = begun.count(piece.mark)
        if times < least:
            raise Wrong(f"{piece.mark.name} has a value and never began")
        if piece.is_once and times > 1:
            raise Wrong(f"{piece.mark.name} may begin once and began {times} times")
