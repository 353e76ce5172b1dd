"""What a node has and what runs take of it, in integer units of 1/10,000.

A `Demand` is compiled once per shape into (index, amount) pairs over the pool's resource list, so
that checking and taking cost a few list reads. Index 0 is the process slot every run takes; it
bounds processes that demand little or nothing. Index 1 is CPU. These two a blocked run gives back
(PROTOCOL N10); all others it keeps. Indivisible devices (GPU) are also assigned by number.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

UNIT = 10_000
SLOT, CPU = 0, 1
_SLOT_NAME = "(process)"
SLOTS_MIN = 64

Demand = tuple[tuple[str, int], ...]
Amounts = tuple[tuple[int, int], ...]
Units = tuple[tuple[str, tuple[int, ...]], ...]


class Pool(msgspec.Struct):
    """A node's totals and what is free of them; `available` below zero means overcommitted CPU."""

    names: list[str]
    total: list[int]
    available: list[int]
    devices: dict[int, list[int]]
    """By resource index, the free amount of each numbered device."""


def new_pool(totals: Demand) -> Pool:
    """A pool of these totals plus the process slots."""
    amounts = dict(totals)
    cpus = amounts.pop("CPU", 0)
    slots = max(SLOTS_MIN, 4 * (cpus // UNIT)) * UNIT
    names = [_SLOT_NAME, "CPU", *sorted(amounts)]
    total = [slots, cpus, *(amounts[name] for name in names[2:])]
    devices = {}
    if "GPU" in amounts:
        devices[names.index("GPU")] = [UNIT] * (amounts["GPU"] // UNIT)
    return Pool(names, total, list(total), devices)


def compile_demand(pool: Pool, demand: Demand) -> tuple[Amounts, bool]:
    """(index, amount) pairs including the slot, and whether this node could ever meet them."""
    amounts = [(SLOT, UNIT)]
    feasible = True
    for name, amount in demand:
        if name in pool.names:
            index = pool.names.index(name)
            amounts.append((index, amount))
            feasible = feasible and amount <= pool.total[index]
        else:
            feasible = False
    return tuple(sorted(amounts)), feasible


def has_room(pool: Pool, amounts: Amounts) -> bool:
    """True if all of `amounts` is free now, devices included."""
    available = pool.available
    for index, amount in amounts:
        if available[index] < amount:
            return False
    if pool.devices:
        return all(
            index not in pool.devices or _find_devices(pool.devices[index], amount) is not None
            for index, amount in amounts
        )
    return True


def count_fitting(pool: Pool, amounts: Amounts, limit: int) -> int:
    """How many times `amounts` fits into what is free, at most `limit`."""
    for index, amount in amounts:
        limit = min(limit, max(0, pool.available[index]) // amount)
    return limit


def count_fitting_ever(pool: Pool, amounts: Amounts) -> int:
    """How many times `amounts` fits into the totals."""
    return min((pool.total[index] // amount for index, amount in amounts), default=0)


def left_over(pool: Pool, waiting: Iterable[tuple[Amounts, int]]) -> tuple[list[int], int]:
    """What is free once as many of these demands as fit have theirs, and how many do not fit.

    `waiting`: amounts, and how many want them. Nothing is free where no process slot is.
    """
    devices = {index: list(free) for index, free in pool.devices.items()}
    rest = Pool(pool.names, pool.total, list(pool.available), devices)
    free = rest.available
    unmet = 0
    for amounts, count in waiting:
        if devices and any(index in devices for index, _ in amounts):
            while count and has_room(rest, amounts):
                take(rest, amounts)
                count -= 1
        else:
            fitting = count_fitting(rest, amounts, count)
            for index, amount in amounts if fitting else ():
                free[index] -= amount * fitting
            count -= fitting
        unmet += count
    if free[SLOT] < UNIT:
        free[:] = [min(amount, 0) for amount in free]
    return free, unmet


def cpu_of(amounts: Amounts) -> int:
    """The CPU among `amounts`."""
    return next((amount for index, amount in amounts if index == CPU), 0)


def take(pool: Pool, amounts: Amounts) -> Units:
    """Take `amounts`, which must have room; the numbered devices that were assigned."""
    for index, amount in amounts:
        pool.available[index] -= amount
    if not pool.devices:
        return ()
    units = []
    for index, amount in amounts:
        if index in pool.devices:
            free = pool.devices[index]
            chosen = _find_devices(free, amount)
            assert chosen is not None, "take() without room on the devices"
            for device in chosen:
                free[device] -= min(amount, UNIT)
            units.append((pool.names[index], chosen))
    return tuple(units)


def give_back(pool: Pool, amounts: Amounts, units: Units, *, except_cpu: bool) -> None:
    """Return what a run holds; `except_cpu` if it gave back its CPU and slot already."""
    for index, amount in amounts:
        if not (except_cpu and index <= CPU):
            pool.available[index] += amount
    for name, chosen in units:
        index = pool.names.index(name)
        amount = next(a for i, a in amounts if i == index)
        for device in chosen:
            pool.devices[index][device] += min(amount, UNIT)


def release_cpu(pool: Pool, amounts: Amounts) -> None:
    """A run blocked: its CPU and slot are free for others."""
    for index, amount in amounts:
        if index <= CPU:
            pool.available[index] += amount


def has_cpu(pool: Pool, amounts: Amounts) -> bool:
    """True if a blocked run's CPU and slot are free again."""
    return all(pool.available[i] >= amount for i, amount in amounts if i <= CPU)


def retake_cpu(pool: Pool, amounts: Amounts) -> None:
    """A blocked run goes on; it may overcommit (a timeout is a promise about time)."""
    for index, amount in amounts:
        if index <= CPU:
            pool.available[index] -= amount


def totals_of(pool: Pool) -> Demand:
    """The totals as (name, amount), without the process slots."""
    return tuple(zip(pool.names[1:], pool.total[1:], strict=True))


def _find_devices(free: list[int], amount: int) -> tuple[int, ...] | None:
    """Whole devices, lowest numbers first; for a fraction the fullest device that has it."""
    if amount < UNIT:
        fitting = [(left, device) for device, left in enumerate(free) if left >= amount]
        return (min(fitting)[1],) if fitting else None
    whole = [device for device, left in enumerate(free) if left == UNIT]
    count = amount // UNIT
    return tuple(whole[:count]) if len(whole) >= count else None


def format_demand(demand: tuple[tuple[str, int], ...]) -> str:
    """A demand as users write it: {CPU: 0.5, GPU: 1}; whole bytes for memory."""
    parts = []
    for name, amount in demand:
        whole, rest = divmod(amount, 10_000)
        text = str(whole) if not rest else f"{whole}.{rest:04d}".rstrip("0")
        parts.append(f"{name}: {text}")
    return "{" + ", ".join(parts) + "}"
