"""Resources: integers that are conserved, devices that are never given twice."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass

import pytest

from detray.core import resources
from detray.core.resources import Amounts, Pool, Units, compile_demand, new_pool

TOTALS = (("CPU", 40_000), ("GPU", 30_000), ("door", 10_000))
DEMANDS = (
    (), (("CPU", 10_000),), (("CPU", 2_500),), (("CPU", 10_000), ("GPU", 10_000)),
    (("GPU", 2_500),), (("GPU", 7_500),), (("GPU", 20_000),), (("CPU", 5_000), ("door", 10_000)),
)  # fmt: skip


@dataclass
class Holder:
    """Somebody who holds an allocation, without its CPU while blocked."""

    amounts: Amounts
    units: Units
    blocked: bool = False


@pytest.mark.parametrize("seed", range(20))
def test_what_is_free_and_what_is_held_add_up(seed: int) -> None:
    generator = random.Random(seed)
    pool = new_pool(TOTALS)
    holders: list[Holder] = []
    for _ in range(300):
        move = generator.randrange(4)
        holder = generator.choice(holders) if holders else None
        if move == 0 or holder is None:
            amounts, _ = compile_demand(pool, generator.choice(DEMANDS))
            if resources.has_room(pool, amounts):
                holders.append(Holder(amounts, resources.take(pool, amounts)))
        elif move == 1:
            holders.remove(holder)
            resources.give_back(pool, holder.amounts, holder.units, except_cpu=holder.blocked)
        elif move == 2 and not holder.blocked:
            holder.blocked = True
            resources.release_cpu(pool, holder.amounts)
        elif holder.blocked:  # perhaps without a CPU to spare: a timeout overcommits
            holder.blocked = False
            resources.retake_cpu(pool, holder.amounts)
        check(pool, holders)
    for holder in holders:
        resources.give_back(pool, holder.amounts, holder.units, except_cpu=holder.blocked)
    assert pool == new_pool(TOTALS)


def check(pool: Pool, holders: list[Holder]) -> None:
    """Totals are conserved; a device has no more users than it can hold."""
    held = [0] * len(pool.names)
    devices = [10_000] * 3
    for holder in holders:
        for index, amount in holder.amounts:
            if not (holder.blocked and index <= resources.CPU):
                held[index] += amount
        for _, chosen in holder.units:
            amount = dict(holder.amounts)[pool.names.index("GPU")]
            for device in chosen:
                devices[device] -= min(amount, 10_000)
    assert [free + used for free, used in zip(pool.available, held, strict=True)] == pool.total
    assert [*pool.devices.values()] == [devices]
    assert min(devices) >= 0


@pytest.mark.parametrize("seed", range(40))
def test_nothing_waits_for_what_is_left_over(seed: int) -> None:
    """What ready tasks will take is not free, and who does not find room finds none in the rest."""
    generator = random.Random(seed)
    pool = new_pool(TOTALS)
    for _ in range(generator.randrange(80)):
        amounts, _ = compile_demand(pool, generator.choice(DEMANDS))
        if resources.has_room(pool, amounts):
            resources.take(pool, amounts)
    before = copy.deepcopy(pool)
    waiting = [
        (compile_demand(pool, demand)[0], generator.randrange(1, 30))
        for demand in generator.sample(DEMANDS, generator.randrange(len(DEMANDS)))
    ]
    free, unmet = resources.left_over(pool, waiting)
    assert pool == before
    taken = [0] * len(free)
    placed = 0
    for amounts, count in waiting:
        while count and resources.has_room(pool, amounts):
            resources.take(pool, amounts)
            for index, amount in amounts:
                taken[index] += amount
            placed, count = placed + 1, count - 1
        assert not count or not _fits(free, pool, amounts)
    assert unmet == sum(count for _, count in waiting) - placed
    if free[resources.SLOT]:
        assert [rest + used for rest, used in zip(free, taken, strict=True)] == before.available
    else:
        assert not any(free)


def _fits(free: list[int], after: Pool, amounts: Amounts) -> bool:
    """True if the amounts are free, on the devices too that are left `after` all took theirs."""
    after.available[:], kept = free, after.available[:]
    try:
        return resources.has_room(after, amounts)
    finally:
        after.available[:] = kept


def test_cpu_without_a_process_slot_is_not_free() -> None:
    pool = new_pool(TOTALS)
    nothing, _ = compile_demand(pool, ())
    one, _ = compile_demand(pool, (("CPU", 10_000),))
    assert resources.left_over(pool, [(nothing, resources.SLOTS_MIN - 1), (one, 2)]) == (
        [0, 0, 0, 0],
        1,
    )


def test_room_on_paper_is_not_room_on_a_device() -> None:
    """Two halves are free, on different devices: no whole one."""
    pool = new_pool((("GPU", 20_000),))
    three_quarters, _ = compile_demand(pool, (("GPU", 7_500),))
    half, _ = compile_demand(pool, (("GPU", 5_000),))
    for _ in range(2):
        resources.take(pool, three_quarters)
    assert pool.available[pool.names.index("GPU")] == 5_000
    assert not resources.has_room(pool, half)


def test_a_fraction_goes_to_the_fullest_device_and_whole_ones_are_the_lowest() -> None:
    pool = new_pool((("GPU", 30_000),))
    quarter, _ = compile_demand(pool, (("GPU", 2_500),))
    whole, _ = compile_demand(pool, (("GPU", 10_000),))
    taken = [resources.take(pool, amounts) for amounts in (whole, quarter, quarter, whole)]
    assert [units[0][1] for units in taken] == [(0,), (1,), (1,), (2,)]


def test_a_demand_beyond_the_totals_is_infeasible() -> None:
    pool = new_pool(TOTALS)
    assert [compile_demand(pool, demand)[1] for demand in DEMANDS] == [True] * len(DEMANDS)
    for demand in ((("CPU", 40_001),), (("TPU", 1),)):
        assert not compile_demand(pool, demand)[1]


def test_processes_without_demand_are_bounded() -> None:
    """Every run takes a process slot, so that zero CPUs do not mean processes without end."""
    pool = new_pool((("CPU", 20_000),))
    nothing, _ = compile_demand(pool, ())
    assert resources.count_fitting(pool, nothing, 1_000_000) == resources.SLOTS_MIN
