"""Sizes and lengths of time for people, to three digits."""

from __future__ import annotations


def size_text(size_bytes: int) -> str:
    """A number of bytes for people."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:  # more would be rounded to 1e+03
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.3g} TB"


def time_text(length_ns: int) -> str:
    """A length of time for people; seconds stay seconds, however many."""
    if length_ns >= 99_950_000_000:
        return f"{length_ns / 1e9:,.0f} s"
    for unit, name in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")):
        if length_ns >= 0.9995 * unit:  # less would be rounded to 1e+03 of the next smaller
            return f"{length_ns / unit:.3g} {name}"
    return f"{length_ns} ns"
