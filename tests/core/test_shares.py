"""Shares of jobs that compete."""

from __future__ import annotations

import random

import pytest

from detray.core import shares
from detray.ids import JobNumber


def _cpus(count: int) -> tuple[tuple[str, int], ...]:
    return (("CPU", count * 10_000),) if count else ()


@pytest.mark.parametrize("seed", range(10))
def test_no_two_jobs_are_further_apart_than_one_task_of_each(seed: int) -> None:
    """The promise of fair queuing, whatever the tasks ask for."""
    generator = random.Random(seed)
    jobs = [JobNumber(number) for number in range(1, 5)]
    table: shares.Shares = {}
    given = dict.fromkeys(jobs, 0)
    now = 0
    for _ in range(500):
        shares.join(table, now, jobs)
        job = shares.choose(table, jobs)
        cpus = generator.choice((1, 2, 8))
        now = shares.charge(table, job, _cpus(cpus))
        given[job] += cpus
        assert max(given.values()) - min(given.values()) <= 2 * 8


def test_who_was_away_starts_where_the_others_are() -> None:
    """Being idle earns nothing: a late job does not catch up, and does not wait either."""
    early, late = JobNumber(1), JobNumber(2)
    table: shares.Shares = {}
    now = 0
    for _ in range(1_000):
        shares.join(table, now, [early])
        now = shares.charge(table, early, _cpus(1))
    turns = []
    for _ in range(6):
        shares.join(table, now, [early, late])
        turns.append(shares.choose(table, [early, late]))
        now = shares.charge(table, turns[-1], _cpus(1))
    assert turns == [late, early, late, early, late, early]


def test_what_asks_for_no_cpu_takes_turns_as_well() -> None:
    """Or a job with a million of such tasks would go before everybody else."""
    jobs = [JobNumber(1), JobNumber(2)]
    table: shares.Shares = {}
    turns = []
    for _ in range(4):
        shares.join(table, 0, jobs)
        turns.append(shares.choose(table, jobs))
        shares.charge(table, turns[-1], ())
    assert turns == [1, 2, 1, 2]
