"""The tables of a local scheduler: plain data, ids instead of pointers.

Everything a node knows is in one `Tables` struct that msgpack can write and read back
(`snapshot.py`); order that matters is the order of a list or a number in a row. Only `core/`
writes here, and a derived index changes in the function that changes what it derives from.

=============== ======================= =========================================================
table           rows                    derived indexes
=============== ======================= =========================================================
clients         Client                  Client.held, Client.pins (of workers), Client.gets
functions       Function
templates       Template
shapes          Shape                   ready queues in Shape.ready
tasks           Task                    Task.children, Object.takers, Object.uses
objects         Object                  Object.getters, inline_order, arena_order
workers         Worker                  idle (by lane), starting, Shape.open
segments        Segment                 filling (the one that spilled objects go to)
peers           Peer
pulls           Pull                    pulling_bytes
pasts           Past                    Shared.lineage, past_bytes
parked          RunDone
=============== ======================= =========================================================
"""

from __future__ import annotations

import msgspec

from detray.core.arena import Arena
from detray.core.config import LocalConfig
from detray.core.peer_messages import PeerMessage, RunDone
from detray.core.resources import Amounts, Demand, Pool, Units
from detray.core.states import ObjectState, TaskState
from detray.core.stimuli import TaskSubmitted
from detray.core.strategy import Strategy
from detray.ids import ClientID, FunctionID, JobNumber, NodeID, ObjectID, TaskID

GetKey = tuple[ClientID, int]
HERE = NodeID(-1)
"""Instead of a node's number: this node."""
DRIVER, WORKER, OBSERVER = "driver", "worker", "observer"


class Get(msgspec.Struct, gc=False):
    """A client's wait for objects (`GetRequested`), until it is answered.

    `remaining` of `objects` must still become available. `worker`: the worker whose executing
    thread stands still (0: nobody's). `answered`: only a CPU to go on is missing.
    """

    client: ClientID
    request: int
    number: int
    objects: tuple[ObjectID, ...]
    needed: int
    remaining: int
    fail_fast: bool
    fetch: bool
    deadline_ns: int
    worker: ClientID
    failed: bool = False
    also: tuple[ObjectID, ...] = ()
    counted: tuple[ObjectID, ...] = ()
    """Objects whose `Shared.needed` count this get: they stay in memory until it is answered."""


class Client(msgspec.Struct):
    """A process that talks to this service, until the kernel says that it is gone.

    `held` counts nothing: it lists the objects in whose `Object` row this client has grants; only
    workers have it (a lost driver is rare enough for a scan, a lost worker is not).
    `pins` counts zero-copy views by object. `blocks` are asked for or granted, and unsealed.
    """

    id: ClientID
    kind: str
    pid: int = 0
    job: JobNumber = JobNumber(0)
    connected: bool = True
    entrypoint: str = ""
    namespace: str = ""
    held: dict[ObjectID, None] | None = None
    pins: dict[ObjectID, int] = {}
    blocks: dict[ObjectID, Block] = {}
    gets: dict[int, Get] = {}


class Block(msgspec.Struct, gc=False):
    """A block being written; `segment` is -1 while there is no room for it yet."""

    size_bytes: int
    segment: int = -1
    offset: int = 0


class Function(msgspec.Struct, gc=False):
    """An exported definition: it and the references in its closure live as long as its job.

    With a `home` (HERE: none) it was only asked for there, and `takers` wait for it.
    """

    id: FunctionID
    name: str
    size_bytes: int
    refs: tuple[ObjectID, ...]
    home: NodeID = HERE
    takers: tuple[TaskID, ...] = ()


class Template(msgspec.Struct, gc=False):
    """What many submissions share; `duration_ns` is a moving mean of run times, -1 if unknown."""

    number: int
    function: FunctionID
    name: str
    num_returns: int
    demand: Demand
    shape: int
    max_retries: int
    retry_application_errors: bool
    max_calls: int
    size_bytes: int
    duration_ns: int = -1
    strategy: Strategy | None = None
    waits: bool = False
    """Its function is not here yet."""


class Shape(msgspec.Struct):
    """Submissions that compete for the same: equal demand, job, kind of worker and strategy.

    `feasible`: this node meets the demand and the labels, and the strategy names no other.
    `is_bound`: the strategy names this node; nothing of it is offered to others.
    `ready` holds task ids by depth, oldest first; stale entries (cancelled tasks) are skipped when
    they come up. `count` of entries are real. `open` lists busy workers that may get more runs.
    `was_asked`: some of it may wait at the head for a place.
    """

    number: int
    lane: int
    demand: Demand
    amounts: Amounts
    feasible: bool
    ready: dict[int, list[TaskID]] = {}
    heads: dict[int, int] = {}
    """By depth, how many entries at the front of its list are taken already."""
    count: int = 0
    passed_over: int = 0
    is_bound: bool = False
    moved_ns: int = 0
    """When one of the queue last began, or since when there is one; 0: it is empty."""
    was_asked: bool = False
    promised: int = 0
    """Tasks of it whose arguments are on their way: the head must not give away their room."""


class Away(msgspec.Struct, gc=False):
    """What only tasks need that are handed between nodes, or run again for a lost value.

    `wanted`: indexes of the returns to store (none: all). `stays`: the head said that this node is
    the place. `counted`: its arguments' `Shared.needed` count it. `refusals` of this attempt.
    `promised`: what it will take counts as taken, since its arguments are on their way here.
    """

    wanted: tuple[int, ...] = ()
    stays: bool = False
    counted: bool = False
    refusals: int = 0
    promised: bool = False


class Task(msgspec.Struct, gc=False):
    """A task owned by this node, until it is done."""

    spec: TaskSubmitted
    template: int
    number: int
    state: TaskState
    retries: int
    missing: int = 0
    attempt: int = 0
    cancelled: bool = False
    cancelled_below: bool = False
    """Cancelled recursively: what it still submits is born cancelled (PROTOCOL T3)."""
    forced: bool = False
    children: list[TaskID] | None = None
    owner: NodeID = HERE
    """The node that submitted it; for HERE all decisions about its end are made here."""
    away: Away | None = None
    entered_ns: int = 0
    """When it was submitted, or reached this node: for people."""


class Object(msgspec.Struct, gc=False):
    """An object owned by this node, while somebody can reach it (or its producer is unfinished).

    Holds: `granted` to `holder` (and `others`), `uses` by unfinished tasks, `containers` (values,
    definitions and job-long pins that hold it). `pins`: views and transfers that read its block.
    """

    id: ObjectID
    state: ObjectState
    holder: ClientID
    granted: int
    others: dict[ClientID, int] | None = None
    uses: int = 0
    containers: int = 0
    pins: int = 0
    moving: bool = False
    refs: tuple[ObjectID, ...] = ()
    takers: tuple[TaskID, ...] = ()
    getters: tuple[GetKey, ...] = ()
    shared: Shared | None = None


class Shared(msgspec.Struct):
    """What only objects need that other nodes know of.

    Of an object owned here: `lent` counts grants to nodes; `keeper` has the primary copy (HERE: we
    have); `copies` were told where to find it and may have a copy; `watchers` wait for the value;
    `lineage` counts the records that need it to run a task again.

    Of a foreign one: `home` is its owner; `received` grants go back when nothing here holds it;
    `claims`: 0 it is not borrowed, 1 the owner was asked, 2 borrowed; `settle` are the nodes to be
    told of the owner's answer, with counts; `copies` are where the owner said the value is;
    `is_primary`: we keep the copy for the owner; `is_wanted`: the owner was asked for the value.

    Of both: `attempt` made the value; `in_flight` counts references sent to third nodes; `needed`
    counts tasks here that must find it in memory; `orphan`: its owner, or its end, is gone;
    `is_unlisted`: the owner does not count on the copy here, which goes when nothing here holds it;
    `is_forgotten`: how it was made would have taken too much room to remember.
    """

    home: NodeID = HERE
    attempt: int = 0
    lent: dict[NodeID, int] = {}
    keeper: NodeID = HERE
    copies: list[NodeID] = []
    watchers: dict[NodeID, None] = {}
    lineage: int = 0
    received: int = 0
    claims: int = 0
    settle: dict[NodeID, int] = {}
    is_primary: bool = False
    is_wanted: bool = False
    in_flight: dict[NodeID, int] = {}
    needed: int = 0
    orphan: bool = False
    is_unlisted: bool = False
    is_forgotten: bool = False
    served: int = 0
    """Nodes told where to find it: the next one is sent to one of them (a tree, not a hot spot)."""
    broken: dict[NodeID, int] | None = None
    """How many pulls in a row came to nothing at a node, because transfers from there broke off."""


class Peer(msgspec.Struct):
    """Another living node; without a name the head has not announced it here yet."""

    id: NodeID
    name: str = ""
    totals: tuple[tuple[str, int], ...] = ()
    address: str = ""
    sent: int = 0
    received: int = 0
    functions: dict[FunctionID, None] = {}
    """Definitions it has of us."""
    templates: dict[int, None] = {}
    known_templates: dict[int, int] = {}
    """Its number of a template: ours."""
    silent: bool = False


class Pull(msgspec.Struct):
    """A copy on its way here. `source` HERE: it waits for quota or room. `tried` did not do.

    `due_ns`: it pauses until then, since all that is known of has failed before (0: it does not).
    """

    object: ObjectID
    attempt: int
    size_bytes: int
    priority: int
    number: int
    source: NodeID = HERE
    has_room: bool = False
    tried: list[NodeID] = []
    followers: list[NodeID] = []
    """Nodes that asked us for it meanwhile."""
    promote: bool = False
    aborted: bool = False
    due_ns: int = 0


class Past(msgspec.Struct, gc=False):
    """Lineage: a finished task of ours whose value lies elsewhere, and can be made again."""

    spec: TaskSubmitted
    template: int
    attempt: int
    retries: int
    size_bytes: int


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A place at another node that the head named for a run that has ended since."""

    node: NodeID
    until_ns: int


class Run(msgspec.Struct, gc=False):
    """One attempt of a task at a worker."""

    task: TaskID
    attempt: int
    template: int
    expected_ns: int
    interrupted: bool = False


class Worker(msgspec.Struct):
    """A worker process. `runs` were sent to it, oldest first; the first may have begun.

    It holds one allocation, `shape` (-1: none), which passes from run to run while pre-sent runs of
    that shape follow. `blocked` names the request its executing thread waits in (0: none).
    """

    id: ClientID
    lane: int
    ready: bool = False
    leaving: bool = False
    runs: list[Run] = []
    shape: int = -1
    units: Units = ()
    expected_ns: int = 0
    blocked: int = 0
    retracting: bool = False
    is_open: bool = False
    """Listed in `Tables.open_workers` under its shape."""
    stalled: bool = False
    """Gave back its queue and has finished nothing since: gets no more for now."""
    spent: bool = False
    """Was sent the last run that some template's `max_calls` allows it."""
    progress_ns: int = 0
    started_ns: int = 0
    """When its process was ordered: for people."""
    functions: dict[FunctionID, None] = {}
    templates: dict[int, int] = {}
    """Templates the worker knows, with how many runs of each it was sent."""


class Segment(msgspec.Struct, gc=False):
    """A file of blocks. `top`: bytes given out so far; `live`: bytes still in use.

    `waiting` names (client, object) of a direct block, or nothing for a segment of spilled objects.
    """

    number: int
    size_bytes: int
    is_open: bool = False
    top: int = 0
    live: int = 0
    client: ClientID = ClientID(0)
    object: ObjectID = ObjectID(b"")


class Move(msgspec.Struct, gc=False):
    """An object's way to disk; `offset` -1 until its segment is open."""

    size_bytes: int
    segment: int
    offset: int = -1


class Tables(msgspec.Struct):
    """All state of a `LocalScheduler` between two steps."""

    config: LocalConfig
    pool: Pool
    arena: Arena
    now_ns: int = 0
    node: NodeID = NodeID(-1)
    incarnation: int = 0
    epoch: int = 0
    """The highest that a head spoke under; 0 before, and if the head has no store."""
    link_seq: int = 0
    """Messages sent to the head of that epoch."""
    head_seq: int = 0
    """Messages received from it."""
    next_number: int = 1
    """Submissions and gets, in order of arrival; ties and 'youngest' are decided by it."""
    next_worker: int = 1
    next_segment: int = 1

    clients: dict[ClientID, Client] = {}
    functions: dict[FunctionID, Function] = {}
    templates: dict[int, Template] = {}
    shapes: list[Shape] = []
    shape_numbers: dict[str, int] = {}
    shares: dict[JobNumber, int] = {}
    """What jobs were charged while tasks of several were ready; `share`: where the last stood."""
    share: int = 0
    tasks: dict[TaskID, Task] = {}
    objects: dict[ObjectID, Object] = {}
    workers: dict[ClientID, Worker] = {}
    idle: dict[int, list[ClientID]] = {}
    """By lane, idle workers; the last to become idle is the first to be used (warm caches)."""
    idle_since: dict[ClientID, int] = {}
    starting: dict[ClientID, None] = {}
    open_workers: dict[int, list[ClientID]] = {}
    """By shape, busy workers to try next for pre-sending, round robin."""
    resuming: list[GetKey] = []
    """Answered gets of blocked runs that wait for their CPU, oldest first."""
    blocked_count: int = 0
    job_pins: dict[JobNumber, dict[ObjectID, None]] = {}

    block_queue: list[tuple[ClientID, ObjectID]] = []
    """Requests for blocks that found no room yet, oldest first."""
    segments: dict[int, Segment] = {}
    filling: int = 0
    moves: dict[ObjectID, Move] = {}
    """Copies to disk under way, and those that wait for their segment."""
    arena_order: dict[ObjectID, None] = {}
    """Sealed arena objects, oldest first: the order of spilling."""
    inline_order: dict[ObjectID, None] = {}
    inline_bytes: int = 0

    timers: list[tuple[int, int, ClientID, int]] = []
    """Heap of (deadline, get number, client, request) of gets with a timeout."""
    stall_ns: int = 0
    idle_ns: int = 0
    infeasible_ns: int = 0
    deadlock_ns: int = 0
    start_retry_ns: int = 0
    start_failures: int = 0
    placing: dict[TaskID, None] = {}
    leases: dict[int, list[Lease]] = {}
    """By shape, places of runs that have ended, the last one at the end."""
    reported: list[tuple[JobNumber, Demand, Strategy | None]] = []
    peers: dict[NodeID, Peer] = {}
    highest_node: NodeID = NodeID(-1)
    """Of all nodes announced so far: a lower number that is no peer's is a dead node's."""
    pulls: dict[ObjectID, Pull] = {}
    pull_queue: dict[int, list[ObjectID]] = {}
    """By priority, pulls that wait to be admitted, oldest first."""
    pulling_bytes: int = 0
    """Of pulls that were admitted."""
    pull_ns: int = 0
    """When the first of the pulls that pause goes on; 0: none pauses."""
    pasts: dict[TaskID, Past] = {}
    """Lineage, oldest first."""
    past_bytes: int = 0
    parked: dict[TaskID, RunDone] = {}
    """Results that wait for the owners of the references in them."""
    jobs_elsewhere: dict[JobNumber, NodeID] = {}
    """Jobs whose drivers are at other nodes, and where."""
    closed_jobs: dict[JobNumber, None] = {}
    jobs_before: JobNumber = JobNumber(0)
    """What a head that restarted said: a job below that is not known to be open is over."""
    next_shipped: int = 1
    received: int = 0
    """Placements that reached this node."""
    stalled_at: int = -1
    stalled_ns: int = 0
    """What had happened here when runs were found blocked, and when the head is told of it if
    nothing more has."""
    offer_ns: int = 0
    """When tasks that wait will have waited long enough to be offered to other nodes."""
    report_ns: int = 0
    reported_ns: int = 0
    reported_load: tuple[int, ...] = ()
    run_ns: int = -1
    """How long a run for another node takes, as a moving mean (-1: none has ended)."""
    halted_ns: int = 0
    """Since when more tasks wait than a round, and none began (0: not so)."""
    early: list[PeerMessage] = []
    """What peers said before the head admitted this node."""
    reporting: bool = False
    """This node is part of a cluster and tells the head how it is."""
    fenced: bool = False
    finished: int = 0
    """Runs that ended well here, and tasks of ours that did elsewhere."""
    finished_for_others: int = 0
    """Of these, runs whose task is another node's, which counts it, too."""
    counts: dict[str, int] = {}
    """Totals since the start: failed, retried, stale reports, spilled bytes..."""
