"""Chance is a function of its name, the same on every machine."""

from __future__ import annotations

import math
import statistics

import pytest

from detray_sim.draws import Draws, draw, exp, ln, normal_quantile

DRAWS = Draws(7, "test")


def test_a_draw_is_what_it_always_was() -> None:
    """Kept values: a workload of last year"s seed is last year"s workload."""
    assert [draw(1, "grid", "duration", k) for k in range(3)] == KEPT_INTEGERS
    assert [DRAWS.exponential("gap", k).hex() for k in range(3)] == KEPT_EXPONENTIALS
    assert [DRAWS.lognormal("size", k, 1.0, 0.5).hex() for k in range(3)] == KEPT_LOGNORMALS


KEPT_INTEGERS = [18327215582104066160, 11170512989698169214, 10312272749378659092]
KEPT_EXPONENTIALS = ["0x1.aa32c077bac43p+0", "0x1.31509eac37888p-1", "0x1.efda03952d684p-2"]
KEPT_LOGNORMALS = ["0x1.edc6bd5801da5p-1", "0x1.85679707f9a17p-1", "0x1.a3cbe060aa70ep-1"]


def test_seed_stream_purpose_and_number_all_matter() -> None:
    """Names that only look alike when glued together differ."""
    names = [(1, "ab", "c", 0), (1, "a", "bc", 0), (2, "ab", "c", 0), (1, "ab", "c", 1)]
    names += [(1, "ab", "", 0), (1, "", "ab", 0), (12, "", "", 0), (1, "2", "", 0)]
    assert len({draw(*name) for name in names}) == len(names)


@pytest.mark.parametrize("x", [1e-300, 1e-9, 0.3, 0.99999999, 1.0, 1.5, 2.0, 1e9, 1e300])
def test_the_logarithm_is_one(x: float) -> None:
    """Beside the C library"s."""
    assert ln(x) == pytest.approx(math.log(x), rel=1e-15, abs=1e-16)


@pytest.mark.parametrize("x", [-600.0, -20.5, -1e-9, 0.0, 0.4, 1.0, 33.3, 600.0])
def test_the_exponential_is_one(x: float) -> None:
    """Beside the C library"s."""
    assert exp(x) == pytest.approx(math.exp(x), rel=1e-15)


@pytest.mark.parametrize("p", [1e-15, 1e-6, 0.02, 0.4, 0.5, 0.6, 0.98, 1 - 1e-9])
def test_the_normal_quantile_is_one(p: float) -> None:
    """Beside the standard library"s."""
    assert normal_quantile(p) == pytest.approx(statistics.NormalDist().inv_cdf(p), rel=1e-12)


@pytest.mark.parametrize(
    ("law", "cv"), [("constant", 0.0), ("uniform", 0.4), ("exponential", 1.0), ("lognormal", 0.7)]
)
def test_a_law_has_the_mean_1_and_its_spread(law: str, cv: float) -> None:
    """Within four standard errors, and never negative."""
    values = [DRAWS.spread(law, k, law, cv) for k in range(20_000)]
    assert min(values) >= 0
    assert statistics.mean(values) == pytest.approx(1.0, abs=4 * cv / math.sqrt(20_000) + 1e-12)
    assert statistics.pstdev(values) == pytest.approx(cv, rel=0.05, abs=1e-12)


def test_integers_stay_in_their_bounds_and_reach_them() -> None:
    """All seven days come up."""
    assert {DRAWS.integer("day", k, 7) for k in range(200)} == set(range(7))


@pytest.mark.parametrize(("bound", "count"), [(1, 1), (5, 5), (10, 3), (10, 0)])
def test_a_sample_is_distinct_and_ascending(bound: int, count: int) -> None:
    """Every time."""
    for k in range(50):
        sample = DRAWS.sample("some", k, bound, count)
        assert sample == sorted(set(sample)) and len(sample) == count
        assert all(0 <= item < bound for item in sample)


def test_an_unknown_law_is_refused() -> None:
    """With the known ones."""
    with pytest.raises(ValueError, match=r"gauss.*constant, uniform, exponential, lognormal"):
        DRAWS.spread("x", 0, "gauss", 1.0)
