"""A made-up program: random operations on detray, each with what a serial run would give.

Workers are killed while it runs, so an operation has an *outcome*: the value it must have, and the
exceptions that are right as well (a task with `max_retries=0` may meet the killer). Whatever takes
the result of another inherits its exceptions. Everything random comes from the seed; which worker
is killed when does not change any right answer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import detray
from detray.exceptions import GetTimeoutError, TaskCancelledError, WorkerCrashedError
from tests.stress import tasks

PATIENCE_S = 120.0
"""A result that is not there by then will not come."""
KEPT_MAX = 150
ARRAY_WORDS_MAX = 4_000_000

_mix = detray.remote(max_retries=-1)(tasks.mix)
_pause = detray.remote(max_retries=-1)(tasks.pause_and_mix)
_array = detray.remote(max_retries=-1)(tasks.make_array)
_checksum = detray.remote(max_retries=-1)(tasks.checksum)
_split = detray.remote(max_retries=-1)(tasks.split)
_fail = detray.remote(tasks.fail)


class Outcome(NamedTuple):
    """The right value, and which exceptions are right as well."""

    value: Any
    errors: tuple[type[BaseException], ...] = ()


class Wrong(AssertionError):
    """detray gave something else than the serial run."""


class Kept(NamedTuple):
    """A result that later operations may use."""

    ref: Any
    outcome: Outcome
    is_array: bool


class Program:
    """One round: `run(steps)` performs operations, `finish()` checks every result still kept."""

    def __init__(self, seed: str, scratch: Path) -> None:
        self._random = random.Random(seed)
        self._scratch = scratch
        self._kept: list[Kept] = []
        self._views: list[tuple[Any, int]] = []
        self._markers = 0
        self.performed: Counter[str] = Counter()

    def run(self, steps: int) -> None:
        """Perform random operations. Raises Wrong at the first result that is not right."""
        operations, weights = zip(*_OPERATIONS, strict=True)
        for operation in self._random.choices(operations, weights, k=steps):
            operation(self)
            self.performed[operation.__name__.strip("_")] += 1
            while len(self._kept) > KEPT_MAX:
                self._check(self._kept.pop(self._random.randrange(len(self._kept))))

    def finish(self) -> None:
        """Check everything, then forget it: nothing of this round stays in the store."""
        for view, checksum in self._views:
            if tasks.checksum(view) != checksum:
                raise Wrong("an array changed under the eyes of its reader")
        for kept in self._kept:
            self._check(kept)
        self._kept.clear()
        self._views.clear()

    # ------------------------------------------------------------------ operations

    def _leaf(self) -> None:
        number = self._number()
        self._keep(_mix.remote(number), Outcome(tasks.mix(number)))

    def _one_by_one(self) -> None:
        """Each waited for before the next is submitted: the service never batches."""
        for _ in range(self._random.randrange(50, 1500)):
            number = self._number()
            if detray.get(_mix.remote(number), timeout=PATIENCE_S) != tasks.mix(number):
                raise Wrong(f"mix({number}) is not what a serial run gives")

    def _join(self) -> None:
        """A task that takes results of others, late ones and failed ones among them."""
        inputs = self._some(8, arrays=False)
        number = self._number()
        ref = _mix.remote(number, *(kept.ref for kept in inputs))
        value = tasks.mix(number, *(kept.outcome.value for kept in inputs))
        self._keep(ref, Outcome(value, _errors(inputs)))

    def _chain(self) -> None:
        number = self._number()
        ref, value = _mix.remote(number), tasks.mix(number)
        for _ in range(self._random.randrange(1, 60)):
            ref, value = _mix.remote(ref), tasks.mix(value)
        self._keep(ref, Outcome(value))

    def _wide(self) -> None:
        """Hundreds of results into one task."""
        numbers = [self._number() for _ in range(self._random.randrange(50, 800))]
        ref = _mix.remote(*[_mix.remote(number) for number in numbers])
        self._keep(ref, Outcome(tasks.mix(*map(tasks.mix, numbers))))

    def _tree(self) -> None:
        depth, width = self._random.choice([(2, 6), (3, 4), (5, 2), (12, 1)])
        self._keep(tasks.tree.remote(depth, width), Outcome(tasks.tree_size(depth, width)))

    def _relay(self) -> None:
        """A reference inside a list, carried through tasks that do not open it."""
        inputs = self._some(1, arrays=False)
        if inputs:
            ref = tasks.relay.remote([inputs[0].ref], self._random.randrange(4))
            self._keep(ref, Outcome(inputs[0].outcome.value, _errors(inputs)))

    def _returns(self) -> None:
        count, seed = self._random.randrange(2, 6), self._number()
        refs = _split.options(num_returns=count).remote(count, seed)
        for ref, value in zip(refs, tasks.split(count, seed), strict=True):
            self._keep(ref, Outcome(value))

    def _put_array(self) -> None:
        array = tasks.make_array(*self._array_arguments())
        self._keep(detray.put(array), Outcome(tasks.checksum(array)), is_array=True)

    def _make_array(self) -> None:
        arguments = self._array_arguments()
        value = tasks.checksum(tasks.make_array(*arguments))
        self._keep(_array.remote(*arguments), Outcome(value), is_array=True)

    def _hoard(self) -> None:
        """More arrays at once than a small store holds: some must go to disk and come back."""
        count, words = self._random.randrange(8, 20), 1 << 20
        seeds = [self._random.randrange(1 << 20) for _ in range(count)]
        refs = [_array.remote(seed, words) for seed in seeds]
        for seed, ref in zip(seeds, refs, strict=True):
            value = tasks.checksum(tasks.make_array(seed, words))
            self._keep(ref, Outcome(value), is_array=True)

    def _inner_put(self) -> None:
        """A put of a worker outlives the worker's task."""
        seed, size = self._array_arguments()
        [inner] = detray.get(tasks.put_inside.remote(seed, size), timeout=PATIENCE_S)
        value = tasks.checksum(tasks.make_array(seed, size))
        self._keep(inner, Outcome(value), is_array=True)

    def _read_arrays(self) -> None:
        """Arrays as arguments: read in place by another process."""
        inputs = self._some(3, arrays=True)
        if len(inputs) == 1:
            ref = _checksum.remote(inputs[0].ref)
            self._keep(ref, Outcome(inputs[0].outcome.value, _errors(inputs)))

    def _view(self) -> None:
        """Keep looking at an array whose reference is dropped."""
        for kept in self._some(1, arrays=True):
            self._kept.remove(kept)
            try:
                view = detray.get(kept.ref, timeout=PATIENCE_S)
            except kept.outcome.errors:
                continue
            self._views.append((view, kept.outcome.value))
            if len(self._views) > 6:
                view, checksum = self._views.pop(0)
                if tasks.checksum(view) != checksum:
                    raise Wrong("an array changed under the eyes of its reader")

    def _retried_error(self) -> None:
        times, number = self._random.randrange(1, 4), self._number()
        flaky = detray.remote(max_retries=-1, retry_exceptions=[ValueError])(tasks.fail_until)
        self._keep(flaky.remote(self._marker(), times, number), Outcome(number))

    def _retried_death(self) -> None:
        times, number = self._random.randrange(1, 3), self._number()
        deadly = detray.remote(max_retries=-1)(tasks.die_until)
        self._keep(deadly.remote(self._marker(), times, number), Outcome(number))

    def _death(self) -> None:
        """Without retries the first death is the outcome."""
        deadly = detray.remote(max_retries=0)(tasks.die_until)
        ref = deadly.remote(self._marker(), 1, 0)
        self._expect_error(ref, WorkerCrashedError)

    def _error(self) -> None:
        """An exception of user code arrives as what it was, through tasks that depend on it."""
        ref = _fail.options(max_retries=-1).remote(str(self._number()))
        for _ in range(self._random.randrange(3)):
            ref = _mix.remote(ref)
        self._expect_error(ref, LookupError)

    def _once(self) -> None:
        """`max_retries=0`: the value, or the killer was there."""
        number = self._number()
        ref = _pause.options(max_retries=0).remote(0.002, number)
        self._keep(ref, Outcome(tasks.mix(number), (WorkerCrashedError,)))

    def _timeout(self) -> None:
        """A `get` that gives up does not harm the task."""
        number = self._number()
        ref = _pause.remote(0.05, number)
        try:
            detray.get(ref, timeout=self._random.choice([0, 0.001, 0.02]))
        except GetTimeoutError:
            pass
        self._keep(ref, Outcome(tasks.mix(number)))

    def _wait(self) -> None:
        kept = self._some(20, arrays=False)
        if kept:
            refs = list(dict.fromkeys(item.ref for item in kept))
            wanted = self._random.randrange(1, len(refs) + 1)
            ready, rest = detray.wait(refs, num_returns=wanted, timeout=PATIENCE_S)
            if len(ready) != wanted or len(ready) + len(rest) != len(refs):
                raise Wrong(f"wait for {wanted} of {len(refs)} gave {len(ready)} and {len(rest)}")

    def _cancel(self) -> None:
        """Cancelled waiting, running or too late: the value or the cancellation."""
        number = self._number()
        refs = [_pause.remote(0.02, number) for _ in range(self._random.randrange(1, 12))]
        victim = self._random.choice(refs)
        force = self._random.random() < 0.2
        detray.cancel(victim, force=force)
        errors = (TaskCancelledError, WorkerCrashedError) if force else (TaskCancelledError,)
        for ref in refs:
            may = errors if ref == victim else ()
            self._keep(ref, Outcome(tasks.mix(number), may))

    def _cancel_tree(self) -> None:
        ref = tasks.tree.remote(3, 3)
        detray.cancel(ref, recursive=True)
        self._keep(ref, Outcome(tasks.tree_size(3, 3), (TaskCancelledError,)))

    def _forget(self) -> None:
        """References dropped without a look, finished or not."""
        for kept in self._some(5, arrays=self._random.random() < 0.5):
            if kept in self._kept:
                self._kept.remove(kept)

    # ------------------------------------------------------------------ inside

    def _number(self) -> int:
        return self._random.randrange(1 << 30)

    def _marker(self) -> str:
        self._markers += 1
        return str(self._scratch / f"{self._random.randrange(1 << 60):x}-{self._markers}")

    def _array_arguments(self) -> tuple[int, int]:
        words = int(ARRAY_WORDS_MAX ** self._random.uniform(0.3, 1.0))
        return self._random.randrange(1 << 20), words

    def _some(self, most: int, *, arrays: bool) -> list[Kept]:
        fitting = [kept for kept in self._kept if kept.is_array == arrays]
        count = min(len(fitting), self._random.randrange(1, most + 1))
        return self._random.sample(fitting, count)

    def _keep(self, ref: Any, outcome: Outcome, *, is_array: bool = False) -> None:
        self._kept.append(Kept(ref, outcome, is_array))

    def _check(self, kept: Kept) -> None:
        try:
            value = detray.get(kept.ref, timeout=PATIENCE_S)
        except GetTimeoutError:
            raise Wrong(f"{kept.ref} is not there after {PATIENCE_S:.0f} s") from None
        except Exception as error:
            if isinstance(error, kept.outcome.errors):
                return
            raise Wrong(f"{kept.ref}: {type(error).__name__}, allowed {kept.outcome}") from error
        if kept.is_array:
            value = tasks.checksum(value)
        if value != kept.outcome.value:
            raise Wrong(f"{kept.ref} is {value!r}, a serial run gives {kept.outcome.value!r}")

    def _expect_error(self, ref: Any, kind: type[BaseException]) -> None:
        try:
            value = detray.get(ref, timeout=PATIENCE_S)
        except kind:
            return
        except Exception as error:
            raise Wrong(f"{ref}: {type(error).__name__} instead of {kind.__name__}") from error
        raise Wrong(f"{ref} is {value!r} instead of {kind.__name__}")


def _errors(inputs: list[Kept]) -> tuple[type[BaseException], ...]:
    return tuple(dict.fromkeys(kind for kept in inputs for kind in kept.outcome.errors))


_OPERATIONS: tuple[tuple[Callable[[Program], None], int], ...] = (
    (Program._leaf, 20),
    (Program._one_by_one, 2),
    (Program._join, 20),
    (Program._chain, 4),
    (Program._wide, 2),
    (Program._tree, 3),
    (Program._relay, 4),
    (Program._returns, 4),
    (Program._put_array, 4),
    (Program._make_array, 4),
    (Program._hoard, 1),
    (Program._inner_put, 2),
    (Program._read_arrays, 6),
    (Program._view, 3),
    (Program._retried_error, 2),
    (Program._retried_death, 1),
    (Program._death, 1),
    (Program._error, 3),
    (Program._once, 4),
    (Program._timeout, 3),
    (Program._wait, 4),
    (Program._cancel, 3),
    (Program._cancel_tree, 1),
    (Program._forget, 4),
)
"""What a program does, and how often relative to the rest."""
