"""Durations, sizes and bandwidths as people write them."""

from __future__ import annotations

import pytest

from detray_sim.units import bytes_per_s, duration_ns, size_bytes


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("10ms", 10_000_000),
        ("0.1us", 100),
        ("1.5 s", 1_500_000_000),
        ("2min", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1e3ns", 1000),
        (2, 2_000_000_000),
        (0.1, 100_000_000),
        (0, 0),
    ],
)
def test_durations(written: object, expected: int) -> None:
    """Numbers are seconds."""
    assert duration_ns(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("1GiB", 1 << 30), ("0.5MiB", 1 << 19), ("10kB", 10_000), (" 3 B ", 3), (512, 512)],
)
def test_sizes(written: object, expected: int) -> None:
    """Numbers are bytes."""
    assert size_bytes(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1Gbit", 125_000_000),
        ("1Gbit/s", 125_000_000),
        ("100MiB/s", 104_857_600),
        ("100 MiB / s", 104_857_600),
        ("8bit", 1),
        (1000, 1000),
    ],
)
def test_bandwidths(written: object, expected: int) -> None:
    """Bits or bytes per second; numbers are bytes per second."""
    assert bytes_per_s(written) == expected


NO_DURATIONS = [
    *["", "10", "ms", "10 parsecs", "-1s", "1,5s", "٣s", "1_000s", "0x10s", "1..5s"],
    *["1e999s", "1e30s", 1e300, -1, -0.5, float("nan"), float("inf"), True, None, [1]],
]


@pytest.mark.parametrize("written", NO_DURATIONS)
def test_what_is_no_duration_is_a_value_error(written: object) -> None:
    """And nothing else."""
    with pytest.raises(ValueError, match="a duration"):
        duration_ns(written)
