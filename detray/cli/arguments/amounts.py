"""Sizes, times and counts as people write them: types of options for argparse."""

from __future__ import annotations

import argparse

_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS_MAX = 1e9


def size(text: str) -> int:
    """A number of bytes: 500M, 8G. Raises argparse.ArgumentTypeError."""
    digits = text.upper().removesuffix("IB").removesuffix("B")
    unit = digits[-1:] if digits[-1:] in _SIZES else ""
    try:
        return int(float(digits.removesuffix(unit)) * _SIZES[unit])
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500M or 8G") from None


def seconds(text: str) -> float:
    """A time above 0, in seconds: 30, 0.5. Raises argparse.ArgumentTypeError."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < _SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: seconds above 0, as 30 or 0.5")
    return found


def positive(text: str) -> int:
    """A whole number above 0. Raises argparse.ArgumentTypeError."""
    try:
        found = int(text)
    except ValueError:
        found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return found
