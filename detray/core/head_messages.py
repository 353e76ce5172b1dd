"""What nodes say to the head and the head to them, in the past tense.

`link_seq` numbers the messages of one ordered link from 1 (PROTOCOL T15). A node number names one
incarnation of a machine and is never given out twice.
"""

from __future__ import annotations

import msgspec

from detray.core.strategy import Strategy
from detray.ids import ClientID, JobNumber, NodeID, ObjectID, TaskID

Labels = tuple[tuple[str, str], ...]
"""Labels of a node, sorted by key."""


class NodeJoined(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=200):
    """Node to head: a node with these totals (1/10,000 units, sorted by name) wants to join.

    With `is_reporting` it will report its load now and then: its silence means its death.
    `address` is where other nodes reach it; cores only pass it on. `life` names its process: a head
    that restarted may have admitted it already.
    """

    link_seq: int
    name: str
    totals: tuple[tuple[str, int], ...]
    is_reporting: bool = False
    address: str = ""
    labels: Labels = ()
    life: str = ""


class NodeAdmitted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=201):
    """Head to node: joined, under this number and incarnation, by the head of this epoch."""

    link_seq: int
    node: NodeID
    incarnation: int
    epoch: int = 0


class JobRequested(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=202):
    """Node to head: a driver connected and needs a job number."""

    link_seq: int
    node: NodeID
    client: ClientID
    entrypoint: str
    namespace: str = ""


class JobAdmitted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=203):
    """Head to node: the driver `client` of that node is job `job`."""

    link_seq: int
    client: ClientID
    job: JobNumber


class JobEnded(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=204):
    """Node to head: the job's driver is gone."""

    link_seq: int
    node: NodeID
    job: JobNumber


class PlacementRequested(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=205):
    """Node to head: this attempt cannot run on its own node; where should it run?

    Idempotent by (task, attempt). `hints`: bytes of its arguments that lie at a node already.
    """

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    name: str
    demand: tuple[tuple[str, int], ...]
    hints: tuple[tuple[NodeID, int], ...] = ()
    strategy: Strategy | None = None
    is_surplus: bool = False
    """It could run at its own node, which has no room for it now, whatever that reported last."""
    is_returned: bool = False
    """A node gave it back: it is not sent ahead again, to wait behind more than one task a slot."""


class PlacementWithdrawn(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=206):
    """Node to head: the attempt needs no place any more (begun at home, cancelled, job ended).

    `declined` is the node that the head had named (-1: none yet).
    """

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    declined: NodeID = NodeID(-1)


class Placed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=207):
    """Head to owner: run this attempt there. The owner takes the first answer per attempt.

    For `lease_ns` from now on it may use the place again (`leases.py`).
    """

    link_seq: int
    task: TaskID
    attempt: int
    node: NodeID
    incarnation: int
    lease_ns: int = 0


class DemandInfeasible(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=208):
    """Head to owner: no node of the cluster can ever meet this demand as the cluster stands.

    `offers` lists the largest node's totals, so that the report can say what there is.
    """

    link_seq: int
    task: TaskID
    attempt: int
    offers: tuple[tuple[str, int], ...]


class PlacementRefused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=230):
    """Head to owner: the node that the task's strategy insists on cannot run it; the task fails."""

    link_seq: int
    task: TaskID
    attempt: int
    reason: str


class NodeAnnounced(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=209):
    """Head to node: another node is a member."""

    link_seq: int
    node: NodeID
    incarnation: int
    name: str
    totals: tuple[tuple[str, int], ...]
    address: str = ""
    labels: Labels = ()


class NodeBuried(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=210):
    """Head to every other node: this one is dead, whatever it says from now on."""

    link_seq: int
    node: NodeID
    reason: str


class JobClosed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=211):
    """Head to every node: the job is over; what belonged to it ends."""

    link_seq: int
    job: JobNumber


class JobOpened(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=220):
    """Head to every other node: a driver at `node` is job `job`. A later joiner hears it, too."""

    link_seq: int
    job: JobNumber
    node: NodeID
    namespace: str


class NodeLeft(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=221):
    """Node to head: it ends, in order; nothing more comes from it."""

    link_seq: int
    node: NodeID
    reason: str


class KnownJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job whose driver is connected to the node that says so."""

    job: JobNumber
    entrypoint: str
    namespace: str = ""


class NodeReturned(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=222):
    """Node to a head that restarted: what it forgot (PROTOCOL D 39). The first on its link.

    `epoch` is the highest that the node saw before this head's. `free`, `backlog` and `received` as
    in LoadReported. `jobs` of its own drivers; `jobs_elsewhere`: others that it knows of or has
    anything of. `peers` it takes for alive, `highest_node` is the highest number announced to it.
    What it wants follows: places, job numbers, who cannot be reached. Answered by NodeReadmitted,
    or by the refusal of its link.
    """

    link_seq: int
    node: NodeID
    epoch: int
    free: tuple[int, ...]
    backlog: int
    received: int
    jobs: tuple[KnownJob, ...] = ()
    jobs_elsewhere: tuple[JobNumber, ...] = ()
    peers: tuple[NodeID, ...] = ()
    highest_node: NodeID = NodeID(-1)


class NodeReadmitted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=223):
    """Head to node: you are a member as before; what happened meanwhile was told before this.

    So a node number up to `highest_node` that was not announced is a dead one's, and a job below
    `jobs_before` that was not opened is over.
    """

    link_seq: int
    epoch: int
    highest_node: NodeID
    jobs_before: JobNumber


class RunsRecalled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=212):
    """Head to node: others idle; give up to `count` runs that have not begun back to be placed."""

    link_seq: int
    count: int


class LoadReported(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=213):
    """Node to head: what is free and what waits here; also the sign of life.

    `free` in the order of the totals it joined with, without what ready tasks will take as soon as
    they have workers; `backlog` more are ready and find no room; `received` placements have reached
    this node since it joined. `run_ns`: how long a run for another node takes here, as a moving
    mean that rises fast and falls slowly (-1: none has ended).
    """

    link_seq: int
    node: NodeID
    free: tuple[int, ...]
    backlog: int
    received: int
    run_ns: int = -1


class PeerUnreachable(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=214):
    """Node to head: nothing comes through to that member."""

    link_seq: int
    node: NodeID
    peer: NodeID


class PeerReachable(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=215):
    """Node to head: it comes through again."""

    link_seq: int
    node: NodeID
    peer: NodeID


class WaitsAsked(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=216):
    """Head to node: somebody may be stuck; what waits at your place? Answered by WaitsReported."""

    link_seq: int
    round: int


class GetDoomed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=217):
    """Head to node: this get is part of a proven deadlock and fails, so that others can go on."""

    link_seq: int
    client: ClientID
    request: int
    text: str


class StallNoticed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=218):
    """Node to head: runs are blocked here, and what they wait for is not known here alone."""

    link_seq: int
    node: NodeID


class WaitingGet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A blocked run and its get: it holds `kept`, and needs `remaining` of what is `missing`."""

    client: ClientID
    request: int
    number: int
    task: TaskID
    name: str
    kept: tuple[tuple[str, int], ...]
    remaining: int
    fail_fast: bool
    missing: tuple[ObjectID, ...]


class WaitingTask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that has not begun: it needs `kept` beside CPU, and what is `missing` first.

    `leaves`: the head was not asked for it yet, and may be; then `demand` (with CPU) and `strategy`
    say where it could go.
    """

    task: TaskID
    name: str
    kept: tuple[tuple[str, int], ...]
    is_placing: bool
    missing: tuple[ObjectID, ...]
    leaves: bool = False
    demand: tuple[tuple[str, int], ...] = ()
    strategy: Strategy | None = None


class WaitsReported(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=219):
    """Node to head: what waits here. `links` are (node, messages sent to it, received from it).

    `free` beside CPU, supposing that the runs of `finishing` tasks end; `has_process`: another
    worker could be started.
    """

    link_seq: int
    node: NodeID
    round: int
    links: tuple[tuple[NodeID, int, int], ...]
    free: tuple[tuple[str, int], ...]
    has_process: bool
    finishing: tuple[TaskID, ...]
    gets: tuple[WaitingGet, ...]
    tasks: tuple[WaitingTask, ...]


HeadMessage = (
    NodeAdmitted
    | NodeReadmitted
    | JobAdmitted
    | Placed
    | DemandInfeasible
    | PlacementRefused
    | NodeAnnounced
    | NodeBuried
    | JobOpened
    | JobClosed
    | RunsRecalled
    | WaitsAsked
    | GetDoomed
)
"""From the global scheduler to a node."""
NodeMessage = (
    NodeJoined
    | NodeReturned
    | NodeLeft
    | JobRequested
    | JobEnded
    | PlacementRequested
    | PlacementWithdrawn
    | LoadReported
    | PeerUnreachable
    | PeerReachable
    | StallNoticed
    | WaitsReported
)
"""From a node to the global scheduler."""
