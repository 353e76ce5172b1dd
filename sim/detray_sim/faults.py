"""Faults: what is done to a simulated cluster, each kind by name, each a few integers on the tape.

A `Fault` says what, when, to whom and for how long. Its kind knows how to do it with the verbs of
`SimCluster` and how it ends; what has a duration is undone by itself. A kind also says which
failures of tasks and objects it may cause (`excuses`): the oracle takes no other explanation.
Whom a fault meets is found when it strikes: node 5 of a cluster of 4 is node 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from detray.errors import Failure
from detray_sim.tape import Tape

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster

HEAD = -1
"""The head's machine."""
US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, as it is planned. Nodes are indexes of machines, taken modulo their number."""

    kind: str
    at_ns: int
    node: int = 0
    peer: int = 1
    for_ns: int = 0
    amount: int = 0
    """What the kind makes of it: a share in permille, a shift in nanoseconds, a count."""

    def __str__(self) -> str:
        """For the header of a report."""
        return (
            f"{self.at_ns / MS:.3f}ms {self.kind} node={self.node} peer={self.peer}"
            f" for={self.for_ns / MS:.3f}ms amount={self.amount}"
        )


Act = Callable[["Strike"], None]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of fault: how it strikes, how it is undone, what it may cause."""

    name: str
    strike: Act
    undo: Act | None = None
    excuses: tuple[Failure, ...] = ()
    amounts: tuple[int, int] = (0, 0)
    """The range that `amount` is drawn from."""
    longest_ns: int = 50 * MS
    """Durations are drawn from 200 us to this, by their order of magnitude."""
    needs_nodes: int = 1
    """In smaller clusters it makes no sense."""
    needs_store: bool = False
    """Only where the head keeps a log."""
    needs_sessions: bool = False
    """Only where links put up with it."""
    loses_data: bool = False
    """May destroy the only copy of a value, or the owner of one."""


class Strike:
    """A fault that strikes now: where, with what was drawn."""

    __slots__ = ("cluster", "fault", "node", "peer")

    def __init__(self, cluster: SimCluster, fault: Fault) -> None:
        nodes = len(cluster.nodes)
        self.cluster = cluster
        self.fault = fault
        self.node = fault.node % nodes
        peer = fault.peer % nodes
        self.peer = peer if peer != self.node else (self.node + 1) % nodes

    def later(self, ns: int, call: Callable[..., object], *args: object) -> None:
        """Do something in `ns`."""
        self.cluster.clock.after(ns, call, *args)


def strike(cluster: SimCluster, fault: Fault, log: FaultLog) -> None:
    """Let a fault strike, and plan how it ends."""
    kind = KINDS[fault.kind]
    hit = Strike(cluster, fault)
    log.note(fault, cluster.clock.now_ns)
    kind.strike(hit)
    if kind.undo is not None:
        hit.later(fault.for_ns, _undo, kind.undo, hit, log)


def _undo(undo: Act, hit: Strike, log: FaultLog) -> None:
    if not log.is_over:
        undo(hit)


# ---------------------------------------------------------------------------------- processes


def _kill_worker(s: Strike) -> None:
    s.cluster.kill_worker(s.node, s.fault.amount)


def _kill_all_workers(s: Strike) -> None:
    while s.cluster.kill_worker(s.node):
        pass


def _hang_worker(s: Strike) -> None:
    s.cluster.hang_worker(s.node, s.fault.amount, s.fault.for_ns)


def _oom(s: Strike) -> None:
    s.cluster.oom_kill(s.node)


def _fail_starts(s: Strike) -> None:
    s.cluster.fail_worker_starts(s.node, 1 + s.fault.amount)


def _late_finalizers(s: Strike) -> None:
    s.cluster.late_finalizers(s.node, s.fault.for_ns)


def _kill_driver(s: Strike) -> None:
    if s.cluster.drivers:
        s.cluster.kill_driver(s.fault.node % len(s.cluster.drivers))


def _hang_driver(s: Strike) -> None:
    if s.cluster.drivers:
        s.cluster.hang_driver(s.fault.node % len(s.cluster.drivers), s.fault.for_ns)


# ---------------------------------------------------------------------------------- machines


def _crash(s: Strike) -> None:
    s.cluster.crash_node(s.node)


def _restart(s: Strike) -> None:
    s.cluster.restart_node(s.node)


def _pause(s: Strike) -> None:
    s.cluster.pause(s.node, s.fault.for_ns)


def _pause_head(s: Strike) -> None:
    s.cluster.pause(HEAD, s.fault.for_ns)


def _crash_head(s: Strike) -> None:
    """At once, or in the next step that is persisted: after the commit, or before it."""
    s.cluster.crash_head(s.fault.amount)


def _restart_head(s: Strike) -> None:
    s.cluster.restart_head()


def _replace_head(s: Strike) -> None:
    """Somebody starts a second head while the first one lives."""
    s.cluster.replace_head()


def _roll(s: Strike) -> None:
    """Machines crash and come back one after the other."""
    cluster = s.cluster
    for number in range(min(len(cluster.nodes) - s.node, 1 + s.fault.amount)):
        machine = s.node + number
        s.later(number * s.fault.for_ns, cluster.crash_node, machine)
        s.later(number * s.fault.for_ns + s.fault.for_ns // 2, cluster.restart_node, machine)


def _slow(s: Strike) -> None:
    s.cluster.slow_node(s.node, 1 + s.fault.amount)


def _fast_again(s: Strike) -> None:
    s.cluster.slow_node(s.node, 1000)


def _jump_clock(s: Strike) -> None:
    s.cluster.jump_clock(s.node, s.fault.amount * MS)


def _drift(s: Strike) -> None:
    s.cluster.set_clock(s.node, drift_ppm=s.fault.amount * 1000)


def _no_drift(s: Strike) -> None:
    s.cluster.set_clock(s.node)


def _jump_head_clock(s: Strike) -> None:
    s.cluster.jump_clock(HEAD, s.fault.amount * MS)


# ---------------------------------------------------------------------------------- disks


def _disk_full(s: Strike) -> None:
    s.cluster.set_disk(s.node, free_bytes=0)


def _disk_slow(s: Strike) -> None:
    s.cluster.set_disk(s.node, slow_permille=1000 * (1 + s.fault.amount))


def _disk_fails(s: Strike) -> None:
    s.cluster.set_disk(s.node, fail_permille=1 + s.fault.amount)


def _disk_lies(s: Strike) -> None:
    s.cluster.set_disk(s.node, corrupt=True)


def _disk_well(s: Strike) -> None:
    s.cluster.set_disk(s.node, free_bytes=s.cluster.costs.disk_bytes)


# ---------------------------------------------------------------------------------- network


def _cut(s: Strike) -> None:
    s.cluster.cut(s.node, s.peer)


def _cut_one_way(s: Strike) -> None:
    s.cluster.cut(s.node, s.peer, one_way=True)


def _cut_head(s: Strike) -> None:
    s.cluster.cut(s.node, HEAD)


def _isolate(s: Strike) -> None:
    s.cluster.cut_group((s.node,))


def _split(s: Strike) -> None:
    """Every second machine is cut off from the others, and from the head."""
    s.cluster.cut_group(range(s.node % 2, len(s.cluster.nodes), 2))


def _clog(s: Strike) -> None:
    """The links of a machine are cut one by one, and heal in another order (swizzle)."""
    cluster, step_ns = s.cluster, max(1, s.fault.for_ns // (2 * len(s.cluster.nodes)))
    others = [n for n in range(len(cluster.nodes)) if n != s.node]
    for place, other in enumerate(others):
        s.later(place * step_ns, cluster.cut, s.node, other)
        back = (place * 3 + s.fault.amount) % len(others)
        s.later(s.fault.for_ns + back * step_ns, cluster.heal, s.node, other)


def _heal(s: Strike) -> None:
    s.cluster.heal(s.node, s.peer)


def _heal_head(s: Strike) -> None:
    s.cluster.heal(s.node, HEAD)


def _heal_node(s: Strike) -> None:
    for other in range(HEAD, len(s.cluster.nodes)):
        if other != s.node:
            s.cluster.heal(s.node, other)


def _heal_all(s: Strike) -> None:
    s.cluster.heal_all()


def _delay(s: Strike) -> None:
    s.cluster.set_link(s.node, s.peer, delay_ns=s.fault.amount * 10 * US)


def _lose(s: Strike) -> None:
    s.cluster.set_link(s.node, s.peer, loss_permille=1 + s.fault.amount)


def _double(s: Strike) -> None:
    s.cluster.set_link(s.node, s.peer, duplicate_permille=1 + s.fault.amount)


def _reorder(s: Strike) -> None:
    s.cluster.set_link(s.node, s.peer, reorder_permille=1 + s.fault.amount)


def _lossy_head(s: Strike) -> None:
    s.cluster.set_link(s.node, HEAD, loss_permille=1 + s.fault.amount, duplicate_permille=200)


def _corrupt_transfer(s: Strike) -> None:
    s.cluster.corrupt_next_transfer(1 + s.fault.amount)


# ---------------------------------------------------------------------------------- all kinds

_WORKER = (Failure.WORKER_CRASHED, Failure.START_FAILED)
"""A worker may be met while it starts: after a few of these the task is given up."""
_DEAD = (Failure.NODE_DIED, Failure.OWNER_DIED, Failure.OBJECT_LOST, Failure.WORKER_CRASHED)
"""What the death of a node may cause, and so whatever may make the head bury one."""
_DISK = (Failure.OUT_OF_DISK, Failure.STORE_FULL)
_ALL = tuple(failure for failure in Failure if failure)


def _kind(
    name: str,
    act: Act,
    undo: Act | None = None,
    excuses: tuple[Failure, ...] = (),
    amounts: tuple[int, int] = (0, 0),
    longest_ns: int = 50 * MS,
    needs_nodes: int = 1,
) -> Kind:
    return Kind(
        name=name,
        strike=act,
        undo=undo,
        excuses=excuses,
        amounts=amounts,
        longest_ns=longest_ns,
        needs_nodes=needs_nodes,
        needs_sessions=name in _LOSSY,
        needs_store=name in _MORTAL,
        loses_data=Failure.OBJECT_LOST in excuses,
    )


_LOSSY = ("link_loses", "link_doubles", "link_reorders", "head_link_lossy")
_MORTAL = ("head_restarts", "head_replaced")
_LONG = 8 * SECOND

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("worker_killed", _kill_worker, None, _WORKER, (0, 3)),
        _kind("workers_killed", _kill_all_workers, None, _WORKER),
        _kind("worker_hangs", _hang_worker, None, (), (0, 3)),
        _kind("worker_oom", _oom, None, (Failure.OUT_OF_MEMORY, *_WORKER)),
        _kind("starts_fail", _fail_starts, None, (Failure.START_FAILED,), (0, 7)),
        _kind("finalizers_late", _late_finalizers),
        _kind("driver_killed", _kill_driver, None, _ALL),
        _kind("driver_hangs", _hang_driver),
        _kind("node_crashes", _crash, None, _DEAD, needs_nodes=2),
        _kind("node_restarts", _crash, _restart, _DEAD, longest_ns=_LONG, needs_nodes=2),
        _kind("node_reboots", _restart, None, _DEAD, needs_nodes=2),
        _kind("node_pauses", _pause, None, _DEAD, longest_ns=_LONG, needs_nodes=2),
        _kind("head_pauses", _pause_head, None, _DEAD, longest_ns=_LONG),
        _kind("head_restarts", _crash_head, _restart_head, (), (0, 2), longest_ns=_LONG),
        _kind("head_replaced", _replace_head),
        _kind("nodes_roll", _roll, None, _DEAD, (0, 7), longest_ns=SECOND, needs_nodes=2),
        _kind("node_slow", _slow, _fast_again, (), (20, 800), longest_ns=SECOND),
        _kind("clock_jumps", _jump_clock, None, _DEAD, (-20, 6000)),
        _kind("head_clock_jumps", _jump_head_clock, None, _DEAD, (-20, 6000)),
        _kind("clock_drifts", _drift, _no_drift, _DEAD, (-500, 500), longest_ns=_LONG),
        _kind("disk_full", _disk_full, _disk_well, _DISK),
        _kind("disk_slow", _disk_slow, _disk_well, (), (0, 99)),
        _kind("disk_fails", _disk_fails, _disk_well, _DISK, (0, 999)),
        _kind("disk_lies", _disk_lies, _disk_well, (Failure.OBJECT_LOST,)),
        _kind("link_cut", _cut, _heal, _DEAD, longest_ns=_LONG, needs_nodes=2),
        _kind("link_cut_one_way", _cut_one_way, _heal, _DEAD, longest_ns=_LONG, needs_nodes=2),
        _kind("head_cut", _cut_head, _heal_head, _DEAD, longest_ns=_LONG),
        _kind("node_isolated", _isolate, _heal_node, _DEAD, longest_ns=_LONG, needs_nodes=2),
        _kind("cluster_split", _split, _heal_all, _DEAD, longest_ns=_LONG, needs_nodes=3),
        _kind("links_clog", _clog, None, _DEAD, (0, 7), longest_ns=_LONG, needs_nodes=2),
        _kind("link_delays", _delay, _heal, _DEAD, (0, 999), longest_ns=SECOND, needs_nodes=2),
        _kind("link_loses", _lose, _heal, _DEAD, (0, 500), longest_ns=SECOND, needs_nodes=2),
        _kind("link_doubles", _double, _heal, (), (0, 999), longest_ns=SECOND, needs_nodes=2),
        _kind("link_reorders", _reorder, _heal, (), (0, 999), longest_ns=SECOND, needs_nodes=2),
        _kind("head_link_lossy", _lossy_head, _heal_head, _DEAD, (0, 500), longest_ns=SECOND),
        # A few corrupt transfers in a row, and the source's copy counts as lost.
        _kind(
            "transfer_corrupt",
            _corrupt_transfer,
            None,
            (Failure.OBJECT_LOST,),
            (0, 5),
            needs_nodes=2,
        ),
    )
}
"""By name. What may end with a burial excuses the death of a node."""


def plan_faults(
    tape: Tape,
    kinds: Sequence[str],
    *,
    most: int,
    span_ns: int,
    nodes: int,
    first_ns: int = 100 * US,
    spares_home: bool = False,
) -> tuple[Fault, ...]:
    """A list of faults of these kinds, drawn from the tape, within `span_ns`, in order of time.

    `spares_home`: what may cost a machine its life does not meet machine 0, the driver's.
    """
    kinds = [name for name in kinds if KINDS[name].needs_nodes <= nodes]
    if not kinds:
        return ()
    planned: list[Fault] = []
    for number in range(most):
        label = f"faults/{number}"
        if not tape.flag(f"{label}/is", 850):
            continue
        kind = KINDS[tape.pick(f"{label}/kind", kinds)]
        planned.append(
            Fault(
                kind=kind.name,
                at_ns=tape.log_between(f"{label}/at", first_ns, max(2 * first_ns, span_ns)),
                node=_whom(tape, label, kind, nodes, spares_home),
                peer=tape.choose(f"{label}/peer", nodes),
                for_ns=tape.log_between(f"{label}/for", 200 * US, kind.longest_ns),
                amount=tape.between(f"{label}/amount", *kind.amounts),
            )
        )
    return tuple(sorted(planned, key=lambda fault: fault.at_ns))


def _whom(tape: Tape, label: str, kind: Kind, nodes: int, spares_home: bool) -> int:
    node = tape.choose(f"{label}/node", nodes)
    if spares_home and nodes > 1 and Failure.NODE_DIED in kind.excuses:
        # Every second machine is split off from 1; others are what they are, but for the driver's.
        return 1 if kind.name == "cluster_split" else max(1, node)
    return node


class FaultLog:
    """What struck in one seed, and so what may be blamed."""

    def __init__(self) -> None:
        self.struck: Counter[str] = Counter()
        self.times: list[tuple[int, str]] = []
        self.is_over = False
        """What was broken is well, or broken for good: nothing is undone any more."""

    def note(self, fault: Fault, now_ns: int) -> None:
        """A fault struck."""
        self.struck[fault.kind] += 1
        self.times.append((now_ns, fault.kind))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The kinds that struck, two by two."""
        names = sorted(self.struck)
        return [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]

    @property
    def excuses(self) -> dict[Failure, list[str]]:
        """Which failures may be explained, and by which kinds."""
        found: dict[Failure, list[str]] = {}
        for name in self.struck:
            for failure in KINDS[name].excuses:
                found.setdefault(failure, []).append(name)
        return found

    @property
    def is_beyond_repair(self) -> bool:
        """True if the driver, or what only its own node has, may be lost."""
        return any(name in self.struck for name in ("driver_killed", "disk_lies"))

    @property
    def loses_data(self) -> bool:
        """True if a value may have been made twice."""
        return any(KINDS[name].loses_data for name in self.struck)
