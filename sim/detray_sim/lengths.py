"""How long a random program may take where nothing fails: so that faults strike while it runs.

An estimate from the script alone: the longest chain of the driver's calls or the work for each CPU,
whichever is more, and the start of workers. Wrong by a factor now and then, which is good enough.
"""

from __future__ import annotations

from detray_sim.costs import Costs
from detray_sim.scripts import Await, Call, Let, Nap, Program, Read, Script, Spend, Store

LEAST_NS = 300_000


def expected_ns(program: Program, costs: Costs, cpus: int) -> int:
    """About so long does `program` take on a healthy cluster of so many CPUs."""
    each = costs.run_ns + 2 * costs.ipc_ns + 3 * (costs.step_ns + costs.stimulus_ns)
    serial, work = _of_scripts(program.scripts, each)
    chain = _of_driver(program.scripts, serial, 2 * costs.latency_ns)
    starts = costs.worker_start_ns + costs.worker_start_spread_ns // 2
    return max(LEAST_NS, starts + max(chain, work // max(1, cpus)))


def _of_scripts(scripts: tuple[Script, ...], each: int) -> tuple[list[int], int]:
    """By script: how long a run of it takes; and the work of the whole program."""
    serial, work = [0] * len(scripts), [0] * len(scripts)
    for number in range(len(scripts) - 1, -1, -1):
        length = each
        below = inside = 0
        waits = False
        for step in scripts[number].steps:
            kind = type(step)
            if kind is Call:
                below = max(below, serial[step.script])  # type: ignore[union-attr]  # it is
                inside += work[step.script]  # type: ignore[union-attr]  # as its type says
            elif kind is Spend or kind is Nap:
                length += step.ns  # type: ignore[union-attr]  # as its type says
            elif kind is Read or kind is Await:
                waits = True
        work[number] = length + inside
        serial[number] = length + below if waits else length
    return serial, work[0]


def _of_driver(scripts: tuple[Script, ...], serial: list[int], hop: int) -> int:
    """The longest chain of the driver's calls through their arguments, and its own time."""
    now = 0
    ends: list[int] = []
    last = 0
    for step in scripts[0].steps:
        match step:
            case Call():
                begin = max([now, *(ends[n % len(ends)] for n in step.args if ends)])
                end = begin + serial[step.script] + hop
                last = max(last, end)
                ends += [end] * len(scripts[step.script].returns)
            case Spend() | Nap():
                now += step.ns
            case Store():
                ends.append(now)
            case Let() if ends:
                ends.pop(step.slot % len(ends))
            case Read() if ends:
                now = max([now, *(ends[n % len(ends)] for n in step.slots)])
            case _:
                pass
    return max(now, last)
