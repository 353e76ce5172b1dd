"""What the head must not forget: tables that outlive its process, and the events that make them.

Rules (PROTOCOL N8, D 1, 35, 39)
--------------------------------
- Durable tables change through events only, and events alone determine them: `apply` is all there
  is. The step that makes an event orders `Persist` before anything else it says, so a number, an
  incarnation or a verdict is on disk before anybody hears of it.
- What is logged is the verdict, not the stimulus behind it: a burial comes of time that passed, an
  admission of a number that the tables had. Whoever reads the log needs no rule of this release.
- Events look like the messages that tell nodes of them (`Admitted` like `NodeAnnounced`), and stay
  classes of their own: a log is read by later releases, whatever has become of the messages.
- All else that the head knows (load, queues, placements, who cannot reach whom) is soft: returning
  nodes tell it again.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from detray.core.head_messages import Labels
from detray.ids import JobNumber, NodeID

DURABLE_FORMAT = 1
"""Of snapshots and events; raised when an older release could not read them any more."""

# ------------------------------------------------------------------ events


class EpochRaised(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=400):
    """A head began to speak under this epoch; it gives out numbers from these on.

    They are further on than the tables say if the log may lack its end (`GlobalScheduler.recover`).
    """

    epoch: int
    next_node: NodeID
    next_job: JobNumber


class Admitted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=401):
    """A node became a member. `totals` in 1/10,000 units, sorted by name."""

    node: NodeID
    incarnation: int
    name: str
    totals: tuple[tuple[str, int], ...]
    address: str = ""
    labels: Labels = ()
    life: str = ""


class Buried(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=402):
    """A member is dead for everybody, for this reason."""

    node: NodeID
    reason: str


class JobBegan(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=403):
    """A driver at that node got a job number."""

    job: JobNumber
    node: NodeID
    entrypoint: str
    namespace: str = ""


class JobOver(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=404):
    """The job's driver is gone, or its node is."""

    job: JobNumber


DurableEvent = EpochRaised | Admitted | Buried | JobBegan | JobOver

# ------------------------------------------------------------------ tables


class MemberRecord(msgspec.Struct, frozen=True):
    """A node that was admitted and is not buried."""

    incarnation: int
    name: str
    totals: tuple[tuple[str, int], ...]
    address: str = ""
    labels: Labels = ()
    life: str = ""
    """Of its process: one that asks again, since it did not hear the answer, is still this one."""


class Job(msgspec.Struct, frozen=True):
    """A driver's program, while it lasts."""

    number: JobNumber
    node: NodeID
    entrypoint: str
    namespace: str = ""


class DurableTables(msgspec.Struct):
    """All that recovery starts from. Rows stand in the order of their numbers."""

    epoch: int = 0
    """Of the head that speaks; 0: none ever had a log."""
    next_node: NodeID = NodeID(0)
    next_job: JobNumber = JobNumber(1)
    members: dict[NodeID, MemberRecord] = {}
    lives: dict[str, int] = {}
    """By name, how often a node of that name was admitted."""
    jobs: dict[JobNumber, Job] = {}


def apply(tables: DurableTables, event: DurableEvent) -> None:
    """Let an event take effect on `tables`; nothing but the two decides what comes of it."""
    match event:
        case EpochRaised():
            tables.epoch = event.epoch
            tables.next_node = NodeID(max(tables.next_node, event.next_node))
            tables.next_job = JobNumber(max(tables.next_job, event.next_job))
        case Admitted(node=node):
            tables.next_node = NodeID(max(tables.next_node, node + 1))
            tables.lives[event.name] = event.incarnation
            tables.members[node] = MemberRecord(
                event.incarnation,
                event.name,
                event.totals,
                event.address,
                event.labels,
                event.life,
            )
        case Buried(node=node):
            tables.members.pop(node, None)
        case JobBegan(job=job):
            tables.next_job = JobNumber(max(tables.next_job, job + 1))
            tables.jobs[job] = Job(job, event.node, event.entrypoint, event.namespace)
        case JobOver(job=job):
            tables.jobs.pop(job, None)


# ------------------------------------------------------------------ as bytes


def encode_snapshot(tables: DurableTables) -> bytes:
    """The tables in canonical order: equal tables give equal bytes."""
    members, jobs = sorted(tables.members.items()), sorted(tables.jobs.items())
    counters = (tables.epoch, tables.next_node, tables.next_job)
    return _encode((DURABLE_FORMAT, *counters, members, sorted(tables.lives.items()), jobs))


def decode_snapshot(data: bytes) -> DurableTables:
    """The tables that `encode_snapshot` wrote.

    Raises msgspec.DecodeError on other bytes, msgspec.ValidationError on those of a newer format.
    """
    found = _decode_snapshot(data)
    if found[0] != DURABLE_FORMAT:
        raise msgspec.ValidationError(f"snapshot format {found[0]}, not {DURABLE_FORMAT}")
    _, epoch, next_node, next_job, members, lives, jobs = found
    return DurableTables(epoch, next_node, next_job, dict(members), dict(lives), dict(jobs))


def digest(tables: DurableTables) -> str:
    """Of the tables, whatever way they came about: 32 hex digits (PROTOCOL N8)."""
    return blake2b(encode_snapshot(tables), digest_size=16).hexdigest()


def encode_event(event: DurableEvent) -> bytes:
    """One event, to be kept."""
    return _encode(event)


def decode_event(data: bytes) -> DurableEvent:
    """The event that `encode_event` wrote. Raises msgspec.DecodeError on other bytes."""
    event: DurableEvent = _decode_event(data)
    return event


_Snapshot = tuple[
    int, int, NodeID, JobNumber, list[tuple[NodeID, MemberRecord]], list[tuple[str, int]],
    list[tuple[JobNumber, Job]],
]  # fmt: skip
_encode = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(DurableEvent).decode
_decode_snapshot = msgspec.msgpack.Decoder(_Snapshot).decode
