"""What the head tells people: its own tables, and the newest summary of each node.

Rules
-----
- Plain data in, plain data out; the clock is an argument. Nothing here decides, and no core reads
  any of it back.
- A report is made anew each time and never changed afterwards: other threads may read it.
- What a node says of itself is another process's word: it is checked for shape when it comes and
  cut to a bounded length when it is shown.
- Every fact that ages carries its age. A node that was never heard has age None.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from detray.core.durable import Job
from detray.core.head_tables import GlobalTables
from detray.core.placement import Node
from detray.core.resources import UNIT
from detray.ids import node_name

S = 1_000_000_000
DEAD_MAX = 100
"""Dead nodes that are remembered, the newest."""
FAILURES_MAX = 100
UNPLACED_MAX = 20
JOBS_MAX = 1_000
RUNNING_NAMES_MAX = 8
"""Names of running functions shown per node, the most frequent first."""
KINDS_MAX = 32
"""States, resources and counters shown of one node: there are never so many, unless it lies."""
TEXT_MAX = 300
_MERGE_NS = 10 * S
_MERGE_AMONG = 20
"""Equal failures are one with a count if they are among the newest, and this close."""

Page = dict[str, Any]  # Any: JSON
TROUBLES = {
    "failed": "tasks failed",
    "workers lost": "workers died",
    "objects lost": "objects lost",
    "transfers failed": "transfers failed",
    "spills failed": "writes to disk failed",
    "corrupted": "spilled objects unreadable",
    "deadlocks": "deadlocks broken",
}
"""Counters of a node (`status.summary`, totals) whose growth is a failure, and its name."""


class StoreUse(msgspec.Struct, frozen=True):
    """Memory and disk that objects take at a node."""

    size_bytes: int = 0
    used_bytes: int = 0
    inline_bytes: int = 0
    segments: int = 0
    segment_bytes: int = 0


class WorkerLine(msgspec.Struct, frozen=True):
    """A worker, as far as a summary tells."""

    state: str = ""
    task: str = ""


class DriverLine(msgspec.Struct, frozen=True):
    """A driver that is connected to a node."""

    pid: int = 0
    job: int = 0
    entrypoint: str = ""


class TransferUse(msgspec.Struct, frozen=True):
    """Blocks between this node and others: now under way, and since it started."""

    incoming: int = 0
    outgoing: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    received: int = 0
    sent: int = 0


class LinkUse(msgspec.Struct, frozen=True):
    """A node's links: how many there are, and what went wrong on them since it started."""

    up: int = 0
    down: int = 0
    resent_messages: int = 0
    reconnects: int = 0


class NodeSummary(msgspec.Struct, frozen=True):
    """A node's answer to "status": `detray.core.status.summary`, and what its process adds.

    The process adds `pid`, `transfers`, `links`, and `head`: it was started together with the head.
    """

    total: dict[str, int] = {}
    available: dict[str, int] = {}
    tasks: dict[str, int] = {}
    totals: dict[str, int] = {}
    objects: dict[str, int] = {}
    store: StoreUse = StoreUse()
    workers: tuple[WorkerLine, ...] = ()
    drivers: tuple[DriverLine, ...] = ()
    pid: int = 0
    head: bool = False
    transfers: TransferUse = TransferUse()
    links: LinkUse = LinkUse()


class HeadFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a head's process knows of itself; replaced as a whole when something changes."""

    cluster: str
    version: str
    pid: int
    address: str
    epoch: int
    started_ns: int
    """On the clock whose `now_ns` is given to `Overview`."""
    store: str = ""
    """Where its log is, without passwords."""
    web: str = ""


class StoreState(msgspec.Struct, frozen=True):
    """How far a second copy of the log is behind the first; all zero without one."""

    is_reachable: bool = True
    lag_records: int = 0
    lag_ns: int = 0
    problem: str = ""


class Identity(msgspec.Struct, frozen=True):
    """Who a node is, or was."""

    number: int
    incarnation: int = 0
    name: str = ""
    address: str = ""


class Dead(msgspec.Struct, frozen=True):
    """A node that was buried, or left."""

    who: Identity
    pid: int
    head: bool
    reason: str
    at_ns: int


class Trouble(msgspec.Struct):
    """Something that went wrong, and how often of late."""

    kind: str
    text: str
    node: int
    at_ns: int
    count: int = 1


class Heard(msgspec.Struct, frozen=True):
    """The newest summary of a node, and when it came."""

    summary: NodeSummary
    at_ns: int


class Overview:
    """Collects what is known and makes reports of it. `facts` may be replaced at any time."""

    def __init__(self, facts: HeadFacts) -> None:
        self.facts = facts
        self._heard: dict[int, Heard] = {}
        self._last: dict[int, Identity] = {}
        """Who lived at the last report: who is missing in the next one has died."""
        self._dead: dict[int, Dead] = {}
        self._troubles: deque[Trouble] = deque(maxlen=FAILURES_MAX)

    def heard(self, node: int, body: object, now_ns: int) -> None:
        """Take a node's answer to "status".

        Raises ValueError, naming node and field, if it is none; then nothing has changed.
        """
        try:
            summary = msgspec.convert(body, NodeSummary)
        except (msgspec.ValidationError, OverflowError, RecursionError) as error:
            raise ValueError(f"node {node} sent a status that is none: {error}") from None
        before = self._heard.get(node)
        if before is not None:
            self._compare(node, before.summary, summary, now_ns)
        self._heard[node] = Heard(summary, now_ns)

    def buried(
        self, node: int, reason: str, now_ns: int, *, name: str = "", address: str = ""
    ) -> None:
        """A node is dead. Name and address are known here if it was in a report while it lived."""
        known = self._dead.get(node)
        who = self._last.pop(node, None) or (known.who if known else Identity(node))
        who = Identity(node, who.incarnation, name or who.name, address or who.address)
        heard = self._heard.pop(node, None)
        if known is not None:
            self._dead[node] = Dead(who, known.pid, known.head, reason, known.at_ns)
            return
        said = heard.summary if heard else NodeSummary()
        self._dead[node] = Dead(who, said.pid, said.head, reason, now_ns)
        while len(self._dead) > DEAD_MAX:
            del self._dead[next(iter(self._dead))]
        self.note("node died", f"{who.name}: {reason}" if who.name else reason, now_ns, node=node)

    def note(self, kind: str, text: str, now_ns: int, *, node: int = -1, count: int = 1) -> None:
        """Remember a failure. `kind` is two or three words; -1 stands for the head itself."""
        for row in self._recent():
            if (row.kind, row.text, row.node) == (kind, text, node):
                if now_ns - row.at_ns >= _MERGE_NS:
                    break
                self._troubles.remove(row)
                row.count += count
                row.at_ns = now_ns
                self._troubles.append(row)
                return
        self._troubles.append(Trouble(kind, text, node, now_ns, count))

    def report(self, tables: GlobalTables, now_ns: int, store: StoreState | None = None) -> Page:
        """Everything, for `detray status`, the page and the metrics: {"head", "nodes", "jobs",
        "failures"}. Amounts of resources as users give them, sizes in bytes, ages in seconds.
        """
        self._follow(tables, now_ns)
        living = [self._living(row, now_ns) for _, row in sorted(tables.nodes.items())]
        dead = [_dead(row, now_ns) for row in reversed(self._dead.values())]
        return {
            "head": self._head(tables, now_ns, store or StoreState()),
            "nodes": living + dead,
            "jobs": [self._job(job) for job in list(tables.jobs.values())[:JOBS_MAX]],
            "failures": [_trouble(row, now_ns) for row in reversed(self._troubles)],
        }

    # -------------------------------------------------------------- nodes

    def _follow(self, tables: GlobalTables, now_ns: int) -> None:
        """Whoever is gone from the head's tables without a word to us is dead all the same."""
        for number in [number for number in self._last if number not in tables.nodes]:
            self.buried(number, "it left the cluster", now_ns)
        for number in [number for number in self._heard if number not in tables.nodes]:
            del self._heard[number]
        self._last = {
            number: Identity(number, row.incarnation, row.name, row.address)
            for number, row in tables.nodes.items()
        }

    def _living(self, row: Node, now_ns: int) -> Page:
        heard = self._heard.get(row.id)
        said = heard.summary if heard else NodeSummary(total=row.totals, available=row.free)
        workers = _count(worker.state for worker in said.workers)
        running = _count(worker.task for worker in said.workers if worker.task)
        return {
            **_identity(Identity(row.id, row.incarnation, row.name, row.address)),
            "pid": said.pid,
            "head": said.head,
            "alive": True,
            "reason": "",
            "age_s": _age_s(heard.at_ns, now_ns) if heard else None,
            "silent_s": _age_s(row.heard_ns, now_ns) if row.heard_ns >= 0 else None,
            "labels": {_short(key): _short(value) for key, value in row.labels[:KINDS_MAX]},
            "resources": {"total": _amounts(said.total), "available": _amounts(said.available)},
            "backlog": row.backlog,
            "tasks": _counts(said.tasks),
            "totals": _counts(said.totals),
            "objects": _counts(said.objects),
            "store": msgspec.structs.asdict(said.store),
            "transfers": msgspec.structs.asdict(said.transfers),
            "links": msgspec.structs.asdict(said.links),
            "workers": _counts(workers),
            "running": _most_frequent(running),
            "drivers": [
                {"pid": d.pid, "job": d.job, "entrypoint": _short(d.entrypoint)}
                for d in said.drivers[:JOBS_MAX]
            ],
        }

    def _compare(self, node: int, old: NodeSummary, new: NodeSummary, now_ns: int) -> None:
        for counter, text in TROUBLES.items():
            more = new.totals.get(counter, 0) - old.totals.get(counter, 0)
            if more > 0:
                self.note(text, "", now_ns, node=node, count=more)

    def _recent(self) -> list[Trouble]:
        return list(self._troubles)[: -_MERGE_AMONG - 1 : -1]

    # ------------------------------------------------------- head and jobs

    def _head(self, tables: GlobalTables, now_ns: int, store: StoreState) -> Page:
        facts = self.facts
        return {
            "cluster": facts.cluster,
            "version": facts.version,
            "pid": facts.pid,
            "address": facts.address,
            "epoch": facts.epoch,
            "web": facts.web,
            "up_s": _age_s(facts.started_ns, now_ns),
            "store": {
                "url": facts.store,
                "reachable": store.is_reachable,
                "lag_records": store.lag_records,
                "lag_s": round(store.lag_ns / S, 3),
                "problem": _short(store.problem),
            },
            "counts": _counts(tables.counts),
            "placing": len(tables.requests),
            "unreachable_pairs": len(tables.unreachable),
            "unplaceable": len(tables.unplaced),
            "unplaced": [
                {
                    "task": request.task.hex(),
                    "name": _short(request.name),
                    "node": request.node,
                    "demand": _amounts(dict(request.demand)),
                }
                for request in list(tables.unplaced.values())[:UNPLACED_MAX]
            ],
        }

    def _job(self, job: Job) -> Page:
        heard = self._heard.get(job.node)
        drivers = heard.summary.drivers if heard else ()
        return {
            "number": job.number,
            "node": job.node,
            "namespace": _short(job.namespace),
            "entrypoint": _short(job.entrypoint),
            "pid": next((d.pid for d in drivers if d.job == job.number), 0),
        }


def _identity(who: Identity) -> Page:
    return {
        "id": node_name(who.number),
        "number": who.number,
        "incarnation": who.incarnation,
        "name": _short(who.name),
        "address": _short(who.address),
    }


def _dead(row: Dead, now_ns: int) -> Page:
    """The same keys as a living node has, so that nobody need ask which there are."""
    return {
        **_identity(row.who),
        "pid": row.pid,
        "head": row.head,
        "alive": False,
        "reason": _short(row.reason),
        "age_s": _age_s(row.at_ns, now_ns),
        "silent_s": None,
        "labels": {},
        "resources": {"total": {}, "available": {}},
        "backlog": 0,
        "tasks": {},
        "totals": {},
        "objects": {},
        "store": msgspec.structs.asdict(StoreUse()),
        "transfers": msgspec.structs.asdict(TransferUse()),
        "links": msgspec.structs.asdict(LinkUse()),
        "workers": {},
        "running": {},
        "drivers": [],
    }


def _trouble(row: Trouble, now_ns: int) -> Page:
    return {
        "kind": _short(row.kind),
        "text": _short(row.text),
        "node": row.node,
        "age_s": _age_s(row.at_ns, now_ns),
        "count": row.count,
    }


def _count(words: Any) -> dict[str, int]:  # Any: an iterable of strings
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return counts


def _counts(counts: dict[str, int]) -> dict[str, int]:
    return {_short(name): count for name, count in list(counts.items())[:KINDS_MAX]}


def _most_frequent(counts: dict[str, int]) -> dict[str, int]:
    first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {_short(name): count for name, count in first[:RUNNING_NAMES_MAX]}


def _amounts(units: dict[str, int]) -> dict[str, float]:
    """As users give them: 10,000 units are 1."""
    return {_short(name): amount / UNIT for name, amount in list(units.items())[:KINDS_MAX]}


def _age_s(then_ns: int, now_ns: int) -> float:
    return round(max(0, now_ns - then_ns) / S, 3)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"
