"""Max-min fair rates by the book, in fractions: slow, and obviously right."""

from __future__ import annotations

from fractions import Fraction


def fair_rates(capacities: dict[str, Fraction], paths: dict[int, list[str]]) -> dict[int, Fraction]:
    """Each flow's rate; `paths` say which capacities a flow uses."""
    left, rates = dict(capacities), dict[int, Fraction]()
    while len(rates) < len(paths):
        growing = {flow: path for flow, path in paths.items() if flow not in rates}
        users = {
            name: sum(name in path for path in growing.values())
            for name in {name for path in growing.values() for name in path}
        }
        level = min(left[name] / users[name] for name in users)
        full = {name for name in users if left[name] / users[name] == level}
        for flow, path in growing.items():
            if full & set(path):
                rates[flow] = level
                for name in path:
                    left[name] -= level
    return rates
