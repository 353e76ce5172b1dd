"""Effects: orders from a core to whoever drives it, in the imperative.

Rules
-----
- Frozen Structs with the same field types as stimuli; nothing mutable is shared.
- Effects with a first field `client` and a tag below 100 are messages: the driver encodes them
  into that client's next frame, appending the payload bytes that `payloads.py` lists for it.
- Within one step the driver performs `CopyPayload` first, then messages, then the other orders in
  the order given (so payloads are dropped and runs retracted after the messages are on their way).
- Each other effect names the stimuli that can answer it, failure included (PROTOCOL N22).
"""

from __future__ import annotations

import msgspec

from detray.core.durable import DurableEvent
from detray.core.head_messages import (
    HeadMessage,
    NodeMessage,
)
from detray.core.peer_messages import PeerMessage
from detray.ids import ClientID, FunctionID, JobNumber, NodeID, ObjectID, TaskID

INLINE = -1
"""The `segment` of a place whose bytes travel as payload of the message."""
ARENA = 0
"""The `segment` of the node's shared-memory arena; others are numbered files."""

# ------------------------------------------------------------------ messages to clients (wire)


class Welcome(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A driver or observer may begin: its job (0: none), its node, how this node does things."""

    client: ClientID
    job: JobNumber
    node: NodeID
    incarnation: int
    inline_bytes_max: int
    arena_bytes: int


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the value of an object is.

    `failure` 0: a value of `size_bytes`, inline in the payload or in a block (a view pin is granted
    with it). Else an `errors.Failure`: the pickled error is `size_bytes` of payload (0: there is
    none, `text` says all). `refs`: the references inside, granted once each by this message.
    """

    object: ObjectID
    failure: int
    size_bytes: int
    segment: int = INLINE
    offset: int = 0
    refs: tuple[ObjectID, ...] = ()
    text: str = ""


class DefineFunction(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Teach a worker a function; payload: `size_bytes` of pickled definition.

    Precedes the first run that needs it. `refs` inside it are granted once by this message.
    """

    client: ClientID
    function: FunctionID
    name: str
    size_bytes: int
    refs: tuple[ObjectID, ...] = ()


class DefineTemplate(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Teach a worker a template under the node-wide number `template`.

    Payload: `size_bytes` of pickled exception classes for `retry_exceptions` (0: all, if
    `retry_application_errors`, else none).
    """

    client: ClientID
    template: int
    function: FunctionID
    name: str
    num_returns: int
    demand: tuple[tuple[str, int], ...]
    retry_application_errors: bool
    size_bytes: int = 0


class RunTask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Run an attempt. Payload: `size_bytes` of pickled arguments, then the inline values of `args`.

    Joins the end of the worker's queue; the worker claims a token before it begins (runtime docs).
    `refs` (nested in the arguments) are granted once each. `units` are assigned device ids of
    indivisible resources, as (name, ids). Answered by RunFinished, RunFailed, RunsRetracted or
    WorkerLost.
    """

    client: ClientID
    task: TaskID
    attempt: int
    template: int
    depth: int
    size_bytes: int
    args: tuple[Place, ...] = ()
    refs: tuple[ObjectID, ...] = ()
    packed: bool = False
    units: tuple[tuple[str, tuple[int, ...]], ...] = ()


class InterruptRun(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """Raise the cancellation in this attempt if it is, or when it gets, in user code.

    Also sends the worker's process the signal that makes it look. Answered like RunTask.
    """

    client: ClientID
    task: TaskID
    attempt: int


class GetAnswered(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """Answers GetRequested: the places of what is ready, inline bytes as payload.

    With `more`, further messages for the same request follow at once. Without `fetch` the places
    carry no bytes, pins or grants, and all that is available is told, needed or not. `places` are
    in the order of the request.
    """

    client: ClientID
    request: int
    timed_out: bool
    more: bool
    places: tuple[Place, ...]
    also: tuple[Place, ...] = ()
    """Inline values that were there of what the request would also take; bytes after the others."""


class GrantBlock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """Write the object there; seal or abandon. Answered by BlockSealed, RunFinished,
    BlockAbandoned.
    """

    client: ClientID
    object: ObjectID
    segment: int
    offset: int


class RefuseBlock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """There is no room, not even on disk; `failure` and `text` (with the sizes) say why."""

    client: ClientID
    object: ObjectID
    failure: int
    text: str


class ReportStatus(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """Answers StatusRequested: msgpack bytes of plain dicts, lists, strings and integers."""

    client: ClientID
    request: int
    body: bytes


class ExitWorker(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """Leave after what was begun; nothing more will be sent. Answered by WorkerLost(expected)."""

    client: ClientID


class Notify(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    """Tell the user something on the driver's terminal; `level` is "warning" or "error"."""

    client: ClientID
    level: str
    kind: str
    text: str


class FailRequest(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """A client's message made no sense: which, and why. The client raises it as its own bug."""

    client: ClientID
    what: str
    text: str


class ConfirmPin(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=13):
    """Answers RefPinned: the object is held here for the job; `owner` is the node that owns it.

    -1: nobody here knows the object, so nothing is held.
    """

    client: ClientID
    request: int
    owner: NodeID


# ------------------------------------------------------------------ orders to the driver


class StartWorker(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=100):
    """Fork a worker process. Answered by WorkerReady, WorkerStartFailed, WorkerLost."""

    client: ClientID
    job: JobNumber


class KillWorker(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=101):
    """Kill the worker's process group at once. Answered by WorkerLost."""

    client: ClientID


class RetractRuns(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=102):
    """Take back up to `count` unbegun runs, from the last. Always answered by RunsRetracted."""

    client: ClientID
    count: int


class DropPayloads(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=103):
    """Forget payload bytes kept under these ids. Cannot fail."""

    keys: tuple[bytes, ...]


class CopyPayload(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=104):
    """Keep the payload of `source` under `target` too (one error, many returns). Cannot fail."""

    source: bytes
    target: bytes


class FreeBlock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=105):
    """Nobody can see this block any more; file segments punch a hole. Cannot fail."""

    segment: int
    offset: int
    size_bytes: int


class OpenSegment(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=106):
    """Make file segment `segment` of `size_bytes`. Answered by SegmentOpened, SegmentFailed."""

    segment: int
    size_bytes: int


class CloseSegment(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=107):
    """Remove a file segment that holds nothing. Cannot fail."""

    segment: int


class MoveObject(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=108):
    """Copy an object's bytes into a file segment, off the loop.

    From (`segment`, `offset`), or from its payload if `segment` is INLINE. Answered by ObjectMoved,
    ObjectMoveFailed.
    """

    object: ObjectID
    size_bytes: int
    segment: int
    offset: int
    to_segment: int
    to_offset: int


class DumpRecorder(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=109):
    """Something went wrong for a system reason: write out the flight recorder. Cannot fail."""

    reason: str


class StopNode(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=110):
    """Nothing is left to do here: end the workers and the service. Cannot fail."""

    reason: str


class SendToHead(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=111):
    """Deliver to the global scheduler on this node's ordered link. Cannot fail within a process."""

    message: NodeMessage


class SendToNode(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=112):
    """Deliver to that node's local scheduler on its ordered link. Cannot fail within a process."""

    node: NodeID
    message: HeadMessage


class SendToPeer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=113):
    """Deliver to another node's local scheduler on the ordered link, with its payload bytes.

    Cannot fail; a link that carries nothing is answered by PeerSilent, in the end by NodeBuried.
    """

    node: NodeID
    message: PeerMessage


class SendObject(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=114):
    """Send the bytes of a block to a node that asked for them. Always answered by ObjectSent."""

    node: NodeID
    object: ObjectID
    attempt: int
    segment: int
    offset: int
    size_bytes: int


class ReceiveObject(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=115):
    """Write the bytes that `node` will send of that attempt into this block.

    Answered by ObjectArrived, ObjectArrivalFailed, once.
    """

    node: NodeID
    object: ObjectID
    attempt: int
    segment: int
    offset: int
    size_bytes: int


class AbortReceive(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=116):
    """Stop writing: the source refused or is dead. Answered by ObjectArrivalFailed, or it came."""

    object: ObjectID
    attempt: int


class LeaveCluster(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=117):
    """This incarnation was buried: kill its processes, wait for the kernel, start anew.

    Cannot fail; nothing follows.
    """

    reason: str


class Persist(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=118):
    """Commit these events to the head's store before any other effect of this step leaves.

    Always the first effect of its step. Cannot fail: a head whose store does not take them stops,
    and nothing of this step was said; what it decided is decided anew by the next head.
    """

    events: tuple[DurableEvent, ...]


ClientMessage = (
    Welcome
    | DefineFunction
    | DefineTemplate
    | RunTask
    | InterruptRun
    | GetAnswered
    | GrantBlock
    | RefuseBlock
    | ReportStatus
    | ExitWorker
    | Notify
    | FailRequest
    | ConfirmPin
)
Order = (
    StartWorker
    | KillWorker
    | RetractRuns
    | DropPayloads
    | CopyPayload
    | FreeBlock
    | OpenSegment
    | CloseSegment
    | MoveObject
    | DumpRecorder
    | StopNode
    | SendToHead
    | SendToNode
    | SendToPeer
    | SendObject
    | ReceiveObject
    | AbortReceive
    | LeaveCluster
    | Persist
)
Effect = ClientMessage | Order
