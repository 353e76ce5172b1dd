"""What `faults=` may say, as a plan of faults that spares the driver's own machine.

A program cannot survive the death of its own driver, so machine 0, where it runs, is left alone by
whatever may cost a node its life. The kinds and what they do are `detray_sim.faults`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from detray.errors import Failure
from detray_sim.draws import Draws
from detray_sim.faults import KINDS, Fault, plan_faults
from detray_sim.tape import Tape

SECOND = 1_000_000_000
OF_PROGRAMS = (
    "worker_killed",
    "workers_killed",
    "worker_hangs",
    "finalizers_late",
    "node_crashes",
    "node_restarts",
    "node_reboots",
    "node_pauses",
    "node_slow",
    "disk_slow",
    "link_delays",
    "link_doubles",
    "link_reorders",
    "transfer_corrupt",
)
"""What "all" stands for: trouble that a program with retries is promised to survive."""
ALIASES = {
    "worker_crash": "worker_killed",
    "node_crash": "node_restarts",
    "slow_node": "node_slow",
    "worker_hang": "worker_hangs",
}
_FAULTS_MAX = 6
_STREAM_MAX = 1_000


def plan(given: Any, *, seed: int, nodes: int, span_ns: int) -> tuple[Fault, ...]:
    """The faults of one run, in order of time. (Any: what the user said.)

    Raises ValueError for kinds that there are not, TypeError for anything else.
    """
    if not given:
        return ()
    if given == "all":
        return _drawn(OF_PROGRAMS, seed, nodes, span_ns)
    if isinstance(given, str):
        return _drawn([_kind(given)], seed, nodes, span_ns)
    if isinstance(given, Mapping):
        return _streams(given, seed, nodes, span_ns)
    if isinstance(given, Iterable):
        items = list(given)
        if all(isinstance(item, Fault) for item in items):
            return tuple(sorted(items, key=lambda fault: fault.at_ns))
        if all(isinstance(item, str) for item in items):
            return _drawn([_kind(item) for item in items], seed, nodes, span_ns)
    raise TypeError(
        "faults must be None, 'all', the name of a kind, a list of names, a dict of name to how "
        f"often in a second, or a list of detray_sim.faults.Fault, not {given!r}"
    )


def needs_sessions(planned: Iterable[Fault]) -> bool:
    """True if links must put up with what these do."""
    return any(KINDS[fault.kind].needs_sessions for fault in planned)


def needs_store(planned: Iterable[Fault]) -> bool:
    """True if the head may die, so that another must find its log."""
    return any(KINDS[fault.kind].needs_store for fault in planned)


def _kind(name: str) -> str:
    name = ALIASES.get(name, name)
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise ValueError(f"no kind of fault is called {name!r}; there are {known}")
    return name


def _drawn(kinds: Iterable[str], seed: int, nodes: int, span_ns: int) -> tuple[Fault, ...]:
    tape = Tape(seed)
    most = tape.between("faults/most", 1, _FAULTS_MAX)
    found = plan_faults(tape, list(kinds), most=most, span_ns=span_ns, nodes=nodes)
    return tuple(_spare(fault, nodes) for fault in found)


def _streams(rates: Mapping[str, float], seed: int, nodes: int, span_ns: int) -> tuple[Fault, ...]:
    """Faults of each kind at its own pace, one after the other for ever, as far as the span."""
    found: list[Fault] = []
    for name, rate in rates.items():
        kind = KINDS[_kind(name)]
        if rate <= 0 or kind.needs_nodes > nodes:
            continue
        draws = Draws(seed, f"mishaps/{kind.name}")
        at_ns = 0
        for number in range(_STREAM_MAX):
            at_ns += int(draws.exponential("gap", number, SECOND / rate))
            if at_ns > span_ns:
                break
            low, high = kind.amounts
            fault = Fault(
                kind=kind.name,
                at_ns=at_ns,
                node=draws.integer("node", number, nodes),
                peer=draws.integer("peer", number, nodes),
                for_ns=draws.integer("for", number, kind.longest_ns),
                amount=low + draws.integer("amount", number, high - low + 1),
            )
            found.append(_spare(fault, nodes))
    return tuple(sorted(found, key=lambda fault: fault.at_ns))


def _spare(fault: Fault, nodes: int) -> Fault:
    """The same fault, but not on the driver's machine if it may cost a node its life."""
    if nodes > 1 and Failure.NODE_DIED in KINDS[fault.kind].excuses:
        return msgspec.structs.replace(fault, node=1 + fault.node % (nodes - 1))
    return fault
