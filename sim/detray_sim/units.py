"""Durations, sizes and bandwidths as people write them, to and from integers.

====================  ====================================  =====================================
what                  written                               becomes
====================  ====================================  =====================================
a duration            "10ms", "1.5 s", 2 (seconds)          nanoseconds
a size                "1GiB", "64 MiB", "10kB", 512 (B)     bytes
a bandwidth           "1Gbit", "100MiB/s", 125000000 (B/s)  bytes per second
====================  ====================================  =====================================

Fractions are read exactly and rounded once, half to even: "0.1us" is 100 ns everywhere.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

LIMIT = 1 << 62
"""No time, size or rate is larger: 146 years in nanoseconds."""

_DURATIONS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 24 * 3600 * 10**9,
}
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_BITS = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "Tbit": 10**12}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-zµ]+)\s*")

Written = int | float | str
"""What a file may say for a quantity: a number of the base unit, or a number and its unit."""


def duration_ns(written: object) -> int:
    """A duration in nanoseconds; bare numbers are seconds. Raises ValueError."""
    return _quantity(written, _DURATIONS, 10**9, "a duration", "10ms, 1.5s, 2min")


def size_bytes(written: object) -> int:
    """A size in bytes; bare numbers are bytes. Raises ValueError."""
    return _quantity(written, _SIZES, 1, "a size", "64MiB, 10kB, 1GiB")


def bytes_per_s(written: object) -> int:
    """A bandwidth in bytes per second; bare numbers are bytes per second. Raises ValueError."""
    units = {unit: Fraction(factor) for unit, factor in _SIZES.items()}
    units |= {unit: Fraction(factor, 8) for unit, factor in _BITS.items()}
    if isinstance(written, str):
        written = re.sub(r"\s*/\s*s\s*$", "", written)
    return _quantity(written, units, 1, "a bandwidth", "1Gbit, 100MiB/s")


def _quantity(
    written: object, units: dict[str, int] | dict[str, Fraction], bare: int, what: str, like: str
) -> int:
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise ValueError(f"{what} is a number or a text like {like}, not {written!r}")
    if isinstance(written, str):
        amount = _parsed(written, units, what, like)
    elif written != written or written in (float("inf"), float("-inf")):
        raise ValueError(f"{what} is finite, not {written!r}")
    else:
        # The shortest decimal that means this float is what the file said.
        amount = Fraction(Decimal(repr(written))) * bare
    if amount < 0:
        raise ValueError(f"{what} is not negative: {written!r}")
    if amount > LIMIT:
        raise ValueError(f"{what} is too large: {written!r}")
    return round(amount)


def _parsed(
    written: str, units: dict[str, int] | dict[str, Fraction], what: str, like: str
) -> Fraction:
    match = _QUANTITY.fullmatch(written)
    if match is None:
        raise ValueError(f"{what} is a number or a text like {like}, not {written!r}")
    number, unit = match.groups()
    if unit not in units:
        known = ", ".join(units)
        raise ValueError(f"{what} has no unit {unit!r} (in {written!r}); known: {known}")
    return Fraction(Decimal(number)) * units[unit]
