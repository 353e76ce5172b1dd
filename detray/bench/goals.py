"""What detray sets out to reach, and whether a run reached it.

A goal compares a median of detray's with a number, with a peer's median, or with another row of
its own. It is *met*, *missed*, or *open* when what it compares with was not measured.

**Source**: the budgets of the first design, set from a measured prototype
(docs/performance.md, "Goals").
"""

from __future__ import annotations

from typing import NamedTuple

Medians = dict[str, dict[str, float]]
"""Engine name to row name to median."""


class Goal(NamedTuple):
    """`row` must be at least (or at most) `factor` times what it is compared with.

    Compared with `reference` of the engine `engine`, or with 1 if `reference` is empty.
    """

    row: str
    text: str
    at_least: bool
    factor: float
    engine: str = "detray"
    reference: str = ""

    def verdict(self, medians: Medians) -> str:
        """ "met", "missed", or "open" if a number is missing."""
        value = medians.get("detray", {}).get(self.row)
        base = medians.get(self.engine, {}).get(self.reference) if self.reference else 1.0
        if value is None or base is None:
            return "open"
        bound = self.factor * base
        return "met" if (value >= bound if self.at_least else value <= bound) else "missed"


def _times(row: str, factor: float, engine: str, reference: str = "") -> Goal:
    name = {"ray": "Ray", "pool": "Pool"}[engine]
    return Goal(row, f">= {factor:g} x {name}", True, factor, engine, reference or row)


def _at_most(row: str, bound: float, text: str) -> Goal:
    return Goal(row, text, False, bound)


GOALS = (
    _at_most("start", 200, "<= 200 ms, idle machine"),
    _times("single", 20, "ray"),
    _times("single", 2, "pool"),
    *(
        goal
        for row in ("batch", "fan_in", "nested", "wait_all")
        for goal in (_times(row, 30, "ray"), _times(row, 2, "pool", "batch"))
    ),
    _times("chain", 20, "ray"),
    _times("get_cached", 50, "ray"),
    _times("put_small", 50, "ray"),
    Goal("put_100mb", ">= 0.5 x memcpy", True, 0.5, "detray", "memcpy_100mb"),
    Goal("get_1gb", "<= 3 x get of 1 MB", False, 3, "detray", "get_1mb"),
    _at_most("cpu_service", 10, "<= 10 us"),
    _at_most("record_cost", 3, "<= 3 %"),
    _at_most("record_bytes", 150, "<= 150 B"),
    Goal("core", ">= 100,000 /s", True, 100_000),
    _at_most("pending_bytes", 1024, "<= 1 KB"),
    _at_most("growth", 1.5, "<= 1.5 x"),
    Goal("remote_one", "<= 2 x at the driver's", False, 2, "detray", "local_one"),
    *(
        Goal(f"fetch_{size}", ">= 70 % of plain sockets", True, 0.7, "detray", f"plain_{size}")
        for size in ("100mb", "1gb")
    ),
    Goal("broadcast", "<= half of one by one", False, 0.5, "detray", "pulls"),
    *(
        Goal(f"{row}_4", ">= 80 % of 1 node", True, 0.8, "detray", f"{row}_1")
        for row in ("empty", "busy")
    ),
)


def goals_of(row: str) -> list[Goal]:
    """The goals of a row, mostly none or one."""
    return [goal for goal in GOALS if goal.row == row]
