"""Exploring: one test under many seeds, each another order of events and other faults.

    @detray_sim.explore(seeds=500, faults="all")
    def test_the_sum_is_right():
        assert detray.get(total.remote()) == 4950

The test runs in simulated clusters, whatever it says to `detray.init`. When it fails, what the
failure needs is found by leaving things out: faults, delays, nodes, CPUs. The error then names the
smallest world in which the test still fails in the same way, as a token for `replay`.
"""

from __future__ import annotations

import base64
import functools
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

import msgspec

from detray import startup
from detray_sim.engine import mishaps
from detray_sim.engine.options import SEED_VARIABLE
from detray_sim.engine.session import SimSession
from detray_sim.faults import Fault
from detray_sim.shrink import Signature, sign
from detray_sim.tape import Tape

P = ParamSpec("P")
R = TypeVar("R")
REPLAY_VARIABLE, SEEDS_VARIABLE = "DETRAY_SIM_REPLAY", "DETRAY_SIM_SEEDS"
SHRINK_RUNS, SHRINK_SECONDS = 80, 30.0
MS, SECOND = 1_000_000, 1_000_000_000
_LINES_MAX = 12


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One world to run a test in, whole: what a token says."""

    seed: int
    nodes: int = 1
    cpus: int = 1
    jitter_ns: int = 0
    delays: int | None = None
    """At most so many delays (None: all)."""
    faults: tuple[Fault, ...] = ()
    options: dict[str, Any] = {}
    """Further keywords of `init`. (Any: theirs.)"""

    @property
    def token(self) -> str:
        """The case as text, for `replay`."""
        packed = zlib.compress(msgspec.json.encode(self), 9)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def from_token(cls, token: str) -> Case:
        """The case again. Raises ValueError for what is none."""
        try:
            packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            return msgspec.json.decode(zlib.decompress(packed), type=cls)
        except (ValueError, zlib.error, msgspec.MsgspecError) as problem:
            raise ValueError(f"{token!r} is no token of detray_sim.explore: {problem}") from None

    @property
    def lines(self) -> list[str]:
        """For the reader."""
        if not self.jitter_ns or self.delays == 0:
            order = "first in, first out"
        elif self.delays is None:
            order = f"delays of up to {self.jitter_ns / MS:g} ms, by the seed"
        else:
            order = f"{self.delays} delays of up to {self.jitter_ns / MS:g} ms, by the seed"
        found = [f"world: {self.nodes} nodes with {self.cpus} CPUs each; order: {order}"]
        found.append(f"faults: {len(self.faults) or 'none'}")
        found += [f"  {fault}" for fault in self.faults[:_LINES_MAX]]
        return found


class ExplorationFailed(AssertionError):
    """A test fails in some simulated world; `case` is the smallest that was found."""

    def __init__(self, text: str, case: Case, error: BaseException) -> None:
        super().__init__(text)
        self.case = case
        self.error = error


class Ran:
    """What came of a test in one world."""

    def __init__(self, case: Case, error: Exception | None, sessions: list[SimSession]) -> None:
        self.error = error
        self.duration_ns = max((s.now_ns - s.origin_ns for s in sessions), default=0)
        self.signature: Signature | None = None
        if error is not None:
            self.signature = sign(type(error).__name__, str(error).partition("\n")[0])


def explore(
    seeds: int = 100,
    *,
    faults: Any = None,  # Any: as `init` takes it
    nodes: int | tuple[int, int] = (1, 3),
    cpus: int | tuple[int, int] = (1, 4),
    jitter_ns: int = 2 * MS,
    first: int = 0,
    shrinks: bool = True,
    **options: Any,  # Any: as above
) -> Callable[[Callable[P, R]], Callable[P, None]]:
    """Run a test under `seeds` seeds, from `first` on; raise ExplorationFailed if it fails.

    `nodes` and `cpus` are numbers, or ranges that the seeds draw from. Further keywords are those
    of `init(engine="sim")`. The first run of all has no faults and no delays. A `tmp_path` that the
    test takes is another directory in every run.
    """

    def decorate(test: Callable[P, R]) -> Callable[P, None]:
        explorer = _Explorer(test, faults, nodes, cpus, jitter_ns, options, shrinks)

        @functools.wraps(test)
        def explored(*args: P.args, **kwargs: P.kwargs) -> None:
            explorer.explore(first, seeds, args, kwargs)

        return explored

    return decorate


def replay(token: str) -> Callable[[Callable[P, R]], Callable[P, None]]:
    """Run a test in the one world that a token of `explore` names: a decorator in its place."""
    case = Case.from_token(token)

    def decorate(test: Callable[P, R]) -> Callable[P, None]:
        @functools.wraps(test)
        def replayed(*args: P.args, **kwargs: P.kwargs) -> None:
            ran = run_case(test, case, args, kwargs)
            if ran.error is not None:
                raise ran.error

        return replayed

    return decorate


# Any: the test's own arguments.
def run_case(
    test: Callable[..., object], case: Case, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Ran:
    """Run a test in one world. Exceptions that are none of a test (a skip) pass through."""
    sessions: list[SimSession] = []
    given = {
        "records": False,
        **case.options,
        "engine": "sim",
        "seed": case.seed,
        "nodes": case.nodes,
        "cpus": case.cpus,
        "jitter_ns": case.jitter_ns,
        "delays": case.delays,
        "faults": case.faults,
        "sessions": sessions,
        "local_mode": False,
        "ignore_reinit_error": True,
    }
    startup.shutdown()
    error: Exception | None = None
    with startup.imposing(**given):
        try:
            test(*args, **_fresh(kwargs))
        except Exception as problem:
            error = problem
        finally:
            startup.shutdown()
    return Ran(case, error, sessions)


def _fresh(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a test, with an empty `tmp_path`."""
    base = kwargs.get("tmp_path")
    if not isinstance(base, Path):
        return kwargs
    number = sum(1 for _ in base.iterdir())
    fresh = base / f"run{number}"
    fresh.mkdir()
    return {**kwargs, "tmp_path": fresh}


class _Explorer:
    """One decorated test."""

    def __init__(
        self,
        test: Callable[..., object],
        faults: Any,
        nodes: int | tuple[int, int],
        cpus: int | tuple[int, int],
        jitter_ns: int,
        options: dict[str, Any],
        shrinks: bool,
    ) -> None:
        self._test = test
        self._faults = faults
        self._nodes = (nodes, nodes) if isinstance(nodes, int) else nodes
        self._cpus = (cpus, cpus) if isinstance(cpus, int) else cpus
        self._jitter_ns = jitter_ns
        self._options = options
        self._shrinks = shrinks

    def explore(
        self, first: int, seeds: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Run the plain case, then one for each seed; raise what fails."""
        token = os.environ.get(REPLAY_VARIABLE)
        if token:
            replay(token)(self._test)(*args, **kwargs)
            return
        if os.environ.get(SEED_VARIABLE):
            first, seeds = int(os.environ[SEED_VARIABLE]), 1
        seeds = int(os.environ.get(SEEDS_VARIABLE) or seeds)
        plain = Case(
            seed=first, nodes=self._nodes[0], cpus=self._cpus[0], options=dict(self._options)
        )
        ran = run_case(self._test, plain, args, kwargs)
        if ran.error is not None:
            self._fail(plain, ran, 1, seeds, args, kwargs)
        span_ns = max(ran.duration_ns * 3 // 2, MS)
        for number in range(seeds):
            case = self._case(first + number, span_ns)
            ran = run_case(self._test, case, args, kwargs)
            if ran.error is not None:
                self._fail(case, ran, number + 1, seeds, args, kwargs)

    def _case(self, seed: int, span_ns: int) -> Case:
        tape = Tape(seed)
        nodes = tape.between("world/nodes", *self._nodes)
        return Case(
            seed=seed,
            nodes=nodes,
            cpus=tape.between("world/cpus", *self._cpus),
            jitter_ns=self._jitter_ns,
            faults=mishaps.plan(self._faults, seed=seed, nodes=nodes, span_ns=span_ns),
            options=dict(self._options),
        )

    def _fail(
        self,
        case: Case,
        ran: Ran,
        number: int,
        seeds: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        before = len(case.faults)
        runs = 0
        if self._shrinks:
            case, ran, runs = _Shrinker(self._test, args, kwargs).shrink(case, ran)
        error = ran.error
        assert error is not None
        name = self._test.__name__
        token = case.token
        lines = [
            f"{name} failed under seed {case.seed} (run {number} of {seeds}): "
            f"{type(error).__name__}: {error}",
            *case.lines,
            f"left out in {runs} further runs: {before - len(case.faults)} of {before} faults",
            f'again, so: @detray_sim.replay("{token}")',
            f"or: {REPLAY_VARIABLE}={token} python -m pytest -k {name}",
            f"or, before anything was left out: {SEED_VARIABLE}={case.seed}",
        ]
        raise ExplorationFailed("\n  ".join(lines), case, error) from error


class _Shrinker:
    """Leaves out of a failing world what the failure does not need."""

    def __init__(
        self, test: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._test = test
        self._args = args
        self._kwargs = kwargs
        self._began = perf_counter()
        self._runs = 0

    def shrink(self, case: Case, ran: Ran) -> tuple[Case, Ran, int]:
        """The smallest case found, what came of it, and how many runs that took."""
        progress = True
        while progress:
            progress = False
            for smaller in _smaller(case):
                if self._runs >= SHRINK_RUNS or perf_counter() - self._began > SHRINK_SECONDS:
                    return case, ran, self._runs
                self._runs += 1
                tried = run_case(self._test, smaller, self._args, self._kwargs)
                if tried.signature == ran.signature:
                    case, ran, progress = smaller, tried, True
                    break
        return case, ran, self._runs


def _smaller(case: Case) -> Iterator[Case]:
    """Cases with less in them, those that save most first."""
    replace = msgspec.structs.replace
    faults = case.faults
    if len(faults) > 1:
        yield replace(case, faults=())
    for place in reversed(range(len(faults))):
        yield replace(case, faults=faults[:place] + faults[place + 1 :])
    if case.jitter_ns and case.delays != 0:
        yield replace(case, jitter_ns=0, delays=None)
        most = case.delays if case.delays is not None else 1 << 10
        for few in (most // 8, most // 2, most - 1):
            if 0 < few < most:
                yield replace(case, delays=few)
    for count in range(1, case.nodes):
        yield replace(case, nodes=count)
    for count in range(1, case.cpus):
        yield replace(case, cpus=count)
