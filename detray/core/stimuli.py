"""Stimuli: facts that reach a core, in the past tense.

Rules
-----
- A stimulus is a frozen Struct of integers, bounded strings, ids and tuples of these. The message
  on the wire, the record in a trace and the literal in a test are the same object.
- Times are integer nanoseconds of the node's monotonic clock, sizes are bytes, resources are units
  of 1/10,000 (`detray.core.resources`).
- What a client sends names the client that sends it; the service drops a connection that lies.
- Payload bytes (pickled arguments, values, definitions) never come here: a message that brings some
  says how many (`size_bytes`, `sizes`), and the driver keeps the bytes by id (`payloads.py`).
- A `digest` is of such bytes (`serialization/digests.py`): 8 bytes in sessions that are recorded to
  a file, b"" in others. It is for who reads the recording; no core looks at it.
- Tags below 100 travel from clients, 100 and up are made by the driver, 200 and up by other cores
  (`head_messages.py`, `peer_messages.py`).
"""

from __future__ import annotations

import msgspec

from detray.core.head_messages import HeadMessage, NodeMessage
from detray.core.peer_messages import PeerMessage
from detray.core.strategy import Strategy
from detray.ids import ClientID, FunctionID, NodeID, ObjectID, TaskID, TemplateID

# ------------------------------------------------------------------ from clients (wire)


class FunctionExported(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A client exported a function; `size_bytes` of pickled definition follow as payload.

    `refs` are the references captured in its closure: the definition holds them until its job ends.
    """

    client: ClientID
    function: FunctionID
    name: str
    size_bytes: int
    refs: tuple[ObjectID, ...] = ()
    digest: bytes = b""


class TemplateDefined(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """A client fixed the options that many submissions share.

    `demand` is sorted by name, amounts in 1/10,000 units, zero amounts left out; "memory" is bytes
    times 10,000 like any other. `max_retries` -1 means for ever. `max_calls` 0 means no limit.
    `size_bytes` of payload (0 = none) are the pickled exception classes of `retry_exceptions`; the
    worker evaluates them and reports `retryable` (PROTOCOL T18).
    """

    client: ClientID
    template: TemplateID
    function: FunctionID
    name: str
    num_returns: int
    demand: tuple[tuple[str, int], ...]
    max_retries: int
    retry_application_errors: bool
    max_calls: int
    size_bytes: int = 0
    strategy: Strategy | None = None
    home: NodeID = NodeID(-1)
    """The node that exported the function, if not the client's own (-1)."""


class TaskSubmitted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """A client called a remote function; `size_bytes` of pickled arguments follow as payload.

    `args` are the top-level references in the order of their placeholders: the task waits for them.
    `refs` are references nested in the arguments: the task holds them and does not wait.
    If `packed`, the pickled arguments are themselves the object `args[0]` (too large for inline).
    """

    client: ClientID
    task: TaskID
    template: TemplateID
    parent: TaskID
    depth: int
    size_bytes: int
    args: tuple[ObjectID, ...] = ()
    refs: tuple[ObjectID, ...] = ()
    packed: bool = False
    digest: bytes = b""


class ObjectPut(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """A client put a small value; its `size_bytes` follow as payload, `refs` are inside it."""

    client: ClientID
    object: ObjectID
    size_bytes: int
    refs: tuple[ObjectID, ...] = ()
    digest: bytes = b""


class BlockRequested(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """A client wants `size_bytes` of the store to write `object` (a put or a return) into."""

    client: ClientID
    object: ObjectID
    size_bytes: int


class BlockSealed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """A client finished writing a put into the block it was granted. (Returns: `RunFinished`.)"""

    client: ClientID
    object: ObjectID
    refs: tuple[ObjectID, ...] = ()
    digest: bytes = b""


class BlockAbandoned(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """A client gave up on a block that it had asked for, granted already or not."""

    client: ClientID
    object: ObjectID


class GetRequested(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """A client waits for objects.

    Answered by `GetAnswered` when `needed` of `objects` are available (a failed object counts), or
    one failed and `fail_fast`, or `timeout_ns` (-1: never, 0: now) ran out. With `fetch` the answer
    carries values (grants of inner references and view pins included), else only which are ready.
    `blocks` names the run whose executing thread stands still meanwhile (b"": none): it gives back
    its CPU. `objects` are distinct. Small values of `also` come along if they are there: a client
    that gets one after the other reads ahead.
    """

    client: ClientID
    request: int
    objects: tuple[ObjectID, ...]
    needed: int
    fail_fast: bool
    fetch: bool
    timeout_ns: int
    blocks: TaskID
    also: tuple[ObjectID, ...] = ()


class GetAbandoned(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """A client no longer waits; it ignores an answer under way, but counts its grants."""

    client: ClientID
    request: int


class RefsDropped(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """A client has no reference to `objects` left; `counts` of grants received are returned."""

    client: ClientID
    objects: tuple[ObjectID, ...]
    counts: tuple[int, ...]


class ViewsDropped(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    """A process has no zero-copy view into `objects` left; `counts` of view pins are returned."""

    client: ClientID
    objects: tuple[ObjectID, ...]
    counts: tuple[int, ...]


class CancelRequested(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """A client wants the producer of `object` cancelled."""

    client: ClientID
    object: ObjectID
    force: bool
    recursive: bool


class Return(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One sealed return: inline (its bytes are payload) or in the block granted for it."""

    size_bytes: int
    in_block: bool = False
    refs: tuple[ObjectID, ...] = ()
    digest: bytes = b""


class RunFinished(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=13):
    """A worker finished an attempt; `returns` in order of index, inline bytes as payload."""

    client: ClientID
    task: TaskID
    attempt: int
    started_ns: int
    ended_ns: int
    returns: tuple[Return, ...]


class RunFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=14):
    """User code raised (or its result could not be stored); the pickled error follows as payload.

    `kind` is an `errors.Failure` value: APPLICATION, CANCELLED (the worker raised the interrupt
    that was asked for) and so on. `summary` is the error's type and message, at most 200
    characters. `retryable` is the worker's verdict on `retry_exceptions`. `refs` are references
    inside the error. `traceback` is text, at most 4,000 characters of it; only recordings keep it.
    """

    client: ClientID
    task: TaskID
    attempt: int
    started_ns: int
    ended_ns: int
    kind: int
    retryable: bool
    summary: str
    size_bytes: int
    refs: tuple[ObjectID, ...] = ()
    traceback: str = ""


class RefPinned(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=15):
    """A client pickled a reference by itself: the object is held until the job ends (rule 14).

    Answered by `ConfirmPin`, unless `request` is 0: nobody waits.
    """

    client: ClientID
    object: ObjectID
    request: int = 0


class RefClaimed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=16):
    """A client unpickled a reference that no message granted; it counts one grant as received.

    `owner` is the node that owns it, as the pickled reference says (-1: it does not say).
    """

    client: ClientID
    object: ObjectID
    owner: NodeID = NodeID(-1)


class StatusRequested(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=17):
    """A client asks what the node knows: a page, or rows of a table (topics: `status.py`)."""

    client: ClientID
    request: int
    topic: str
    limit: int = 1000


class WorkerReady(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=18):
    """A worker process is up and waits for its first run."""

    client: ClientID
    pid: int


# ------------------------------------------------------------------ from the driver of a core


class DriverConnected(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=100):
    """A driver program connected; it is welcomed once the head has given its job a number."""

    client: ClientID
    pid: int
    namespace: str
    entrypoint: str


class ObserverConnected(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=101):
    """A process connected that only asks for status."""

    client: ClientID
    pid: int


class ClientLost(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=102):
    """A driver's or observer's connection ended; its last complete frame was delivered before.

    Its grants end here, its pins and unsealed blocks with `ProcessGone`.
    """

    client: ClientID
    reason: str


class ProcessGone(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=103):
    """The kernel says that a client's process and all its forks are gone: its pins end."""

    client: ClientID


class WorkerStartFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=104):
    """A worker that was ordered could not be started. Answers `StartWorker`."""

    client: ClientID
    reason: str


class WorkerLost(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=105):
    """A worker's process ended; everything it said was delivered before.

    `unclaimed` is how many of the runs sent to it, counted from the last, it provably never began.
    `expected`: it had been told to exit. `reason` tells how it died ("killed by signal SIGSEGV");
    further lines are the Python stack of the thread that a fatal signal hit, 2,000 characters at
    most.
    """

    client: ClientID
    unclaimed: int
    expected: bool
    reason: str


class RunsRetracted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=106):
    """`count` runs, counted from the last sent, were taken back unbegun. Answers `RetractRuns`."""

    client: ClientID
    count: int


class ObjectMoved(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=107):
    """An object's bytes were copied to a block in a file segment. Answers `MoveObject`."""

    object: ObjectID
    segment: int
    offset: int


class ObjectMoveFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=108):
    """Copying an object's bytes failed (disk full, I/O error). Answers `MoveObject`."""

    object: ObjectID
    segment: int
    offset: int
    reason: str


class SegmentOpened(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=109):
    """A file segment exists and has its full size reserved on disk. Answers `OpenSegment`."""

    segment: int


class SegmentFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=110):
    """A file segment could not be made. Answers `OpenSegment`. `free_bytes`: what the disk has."""

    segment: int
    reason: str
    free_bytes: int


class NodeStarted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=111):
    """The node's service is up and part of a cluster: it joins without waiting for a driver."""


class NodeStopping(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=119):
    """Somebody told the node's service to end, in order: it leaves the cluster."""

    reason: str


class HeadRestarted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=120):
    """The link to the head has another head at its end, which speaks under this epoch.

    The driver began a new session with it: nothing that the old one was told or said counts. What
    comes out of the step that has this stimulus goes to the new one. An epoch that is not higher
    than all seen before is an old head's, and ignored.
    """

    epoch: int


class Fenced(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=112):
    """The head refuses this incarnation: it was buried. Nothing it still says counts."""

    reason: str


class PeerSilent(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=113):
    """The link to another node carries nothing, though there is something to say."""

    node: NodeID


class PeerHeard(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=114):
    """A link that was silent carries messages again."""

    node: NodeID


class ObjectArrived(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=115):
    """All bytes of a transfer are in their block, and right. Answers `ReceiveObject`."""

    object: ObjectID
    attempt: int


class ObjectArrivalFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=116):
    """A transfer ended without its bytes; nothing writes the block any more.

    Answers `ReceiveObject`; follows `AbortReceive`.
    """

    object: ObjectID
    attempt: int
    reason: str


class ObjectSent(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=117):
    """Nothing reads the object's block for that node now, sent or not. Answers `SendObject`."""

    object: ObjectID
    node: NodeID


class ObjectCorrupted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=118):
    """The bytes of an object in a file segment are not what was written there."""

    object: ObjectID


ClientStimulus = (
    FunctionExported
    | TemplateDefined
    | TaskSubmitted
    | ObjectPut
    | BlockRequested
    | BlockSealed
    | BlockAbandoned
    | GetRequested
    | GetAbandoned
    | RefsDropped
    | ViewsDropped
    | CancelRequested
    | RunFinished
    | RunFailed
    | RefPinned
    | RefClaimed
    | StatusRequested
    | WorkerReady
)
"""What a connection may say. Anything else on it is garbage and ends the connection."""

DriverStimulus = (
    DriverConnected
    | ObserverConnected
    | ClientLost
    | ProcessGone
    | WorkerStartFailed
    | WorkerLost
    | RunsRetracted
    | ObjectMoved
    | ObjectMoveFailed
    | SegmentOpened
    | SegmentFailed
    | NodeStarted
    | NodeStopping
    | HeadRestarted
    | Fenced
    | PeerSilent
    | PeerHeard
    | ObjectArrived
    | ObjectArrivalFailed
    | ObjectSent
    | ObjectCorrupted
)
LocalStimulus = ClientStimulus | DriverStimulus | HeadMessage | PeerMessage
GlobalStimulus = NodeMessage
Stimulus = ClientStimulus | DriverStimulus | HeadMessage | NodeMessage | PeerMessage
