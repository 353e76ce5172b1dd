"""What `detray.init(engine="sim", ...)` takes beyond what every engine takes."""

from __future__ import annotations

import difflib
import os
from typing import Any

import msgspec

from detray_sim.costs import Costs

SEED_VARIABLE = "DETRAY_SIM_SEED"
MS, SECOND = 1_000_000, 1_000_000_000


class SimOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The world of a program. All times are virtual."""

    nodes: int = 1
    cpus: int | None = None
    """Of each node; `num_cpus` says the same."""
    seed: int = 0
    """Of the order of everything that may come in several orders, and of planned faults."""
    faults: Any = None
    """None, "all", names of kinds, {kind: how often in a second}, or a plan (`mishaps.py`)."""
    fault_span_ns: int = 2 * SECOND
    """Faults that are drawn strike within this time."""
    jitter_ns: int = 2 * MS
    """A task begins, and goes on after it waited, up to this much later, by lot."""
    delays: int | None = None
    """At most so many of these delays (None: any number)."""
    task_ns: int = 100_000
    """What a task's own code takes, whatever it does."""
    patch_time: bool = False
    """`time.sleep`, `time.time`, `time.monotonic` and `time.perf_counter` show virtual time."""
    seed_random: bool = False
    """Every task, and the program, has a state of `random` of its own, by the seed."""
    patience_ns: int = 120 * SECOND
    """A program that nothing happens to for so long is deadlocked."""
    costs: Costs = Costs()
    records: bool | None = None
    """Keep every step, for `timeline()` and `graph()` (None: with one node)."""
    sessions: Any = None
    """A list that sessions enter themselves in: for tools."""


def read_options(given: dict[str, Any]) -> SimOptions:  # Any: as given to `init`
    """Check the keywords. Raises RuntimeError for unknown ones, TypeError or ValueError."""
    known = [name for name in SimOptions.__struct_fields__ if name != "sessions"]
    unknown = sorted(set(given) - set(SimOptions.__struct_fields__))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise RuntimeError(
            f"Unknown keyword argument(s): {', '.join(unknown)}. {meant}With engine='sim' there "
            f"are also {', '.join(known)}"
        )
    if "seed" not in given and os.environ.get(SEED_VARIABLE):
        given = {**given, "seed": int(os.environ[SEED_VARIABLE])}
    try:
        options = msgspec.convert(given, SimOptions)
    except msgspec.ValidationError as error:
        raise TypeError(f"init(engine='sim'): {error}") from None
    for name, least in (("nodes", 1), ("jitter_ns", 0), ("task_ns", 0), ("patience_ns", SECOND)):
        if getattr(options, name) < least:
            raise ValueError(f"{name} must be at least {least}, not {getattr(options, name)}")
    return options
