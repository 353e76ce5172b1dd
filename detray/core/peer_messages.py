"""What one node's local scheduler says to another's, in the past tense.

Rules (PROTOCOL N3 to N7, D 1 to 32)
------------------------------------
- `link_seq` numbers the messages of the ordered link from `node` (the sender) from 1; the session
  layer under it (`session.py`) uses the same numbers.
- A reference that crosses nodes is a `Ref`: its object and its owner. A node number names one
  incarnation and is never given out twice, so it says which life of a machine is meant.
- The owner of a reference counts a grant for the receiver as it sends. Anybody else keeps an
  in-flight hold until the receiver says that the owner confirmed its own borrow (`RefsSettled`).
- Payload bytes follow the message as `payloads.py` says.
"""

from __future__ import annotations

import msgspec

from detray.core.strategy import Strategy
from detray.ids import FunctionID, JobNumber, NodeID, ObjectID, TaskID

Ref = tuple[ObjectID, NodeID]
"""An object and the node that owns it."""
Demand = tuple[tuple[str, int], ...]


# ------------------------------------------------------------------ owner to executor


class FunctionShipped(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=300):
    """A definition that a later run needs; payload: `size_bytes` of it. Kept until its job ends."""

    link_seq: int
    node: NodeID
    function: FunctionID
    name: str
    size_bytes: int
    refs: tuple[Ref, ...] = ()


class TemplateShipped(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=301):
    """A template that a later run needs, under the owner's number for it; as `TemplateDefined`."""

    link_seq: int
    node: NodeID
    template: int
    function: FunctionID
    name: str
    num_returns: int
    demand: Demand
    max_retries: int
    retry_application_errors: bool
    max_calls: int
    size_bytes: int = 0
    strategy: Strategy | None = None


class Argument(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A top-level argument: its value as payload (`is_inline`), or where copies of `attempt` lie.

    Without either the executor asks `owner`. The task's owner holds it until the run is over, so
    the executor need not borrow it.
    """

    object: ObjectID
    owner: NodeID
    size_bytes: int = 0
    attempt: int = 0
    is_inline: bool = False
    nodes: tuple[NodeID, ...] = ()
    refs: tuple[Ref, ...] = ()


class RunDelivered(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=302):
    """Owner to executor: run this attempt. Payload: pickled arguments, then inline values.

    `wanted` are the indexes of the returns to store (a re-run replaces no value that is alive).
    `refusals`: how often nodes gave this attempt back already; after one, it must be queued.
    `is_leased`: the head named this place for an earlier run; without room it goes back at once.
    Answered by RunDone, RunErred, RunLost or RunReturned, once.
    """

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    template: int
    parent: TaskID
    depth: int
    size_bytes: int
    args: tuple[Argument, ...] = ()
    refs: tuple[Ref, ...] = ()
    packed: bool = False
    wanted: tuple[int, ...] = ()
    refusals: int = 0
    is_leased: bool = False


class RunCancelled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=303):
    """Owner to executor: end this attempt if it has not ended."""

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    force: bool
    recursive: bool


# ------------------------------------------------------------------ executor to owner


class Returned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One return: inline as payload, kept by the executor (`is_kept`), or not wanted (-1 bytes)."""

    size_bytes: int
    is_kept: bool = False
    refs: tuple[Ref, ...] = ()


class RunDone(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=304):
    """The attempt finished; `returns` in order of index, inline bytes as payload."""

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    duration_ns: int
    returns: tuple[Returned, ...]


class RunErred(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=305):
    """The attempt ended without a value, as `RunFailed` or for a reason the executor's core knows.

    Payload: `size_bytes` of pickled error.
    """

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    kind: int
    retryable: bool
    summary: str
    size_bytes: int
    refs: tuple[Ref, ...] = ()


class RunLost(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=306):
    """The worker that had begun the attempt died; `kind` and `reason` as an error would say it."""

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    kind: int
    reason: str


class RunReturned(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=307):
    """The attempt never began here and goes back to its owner, for a stated reason."""

    link_seq: int
    node: NodeID
    task: TaskID
    attempt: int
    reason: str


# ------------------------------------------------------------------ holds


class BorrowClaimed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=308):
    """A third node gave the sender a reference: may it borrow? Counts as one grant if confirmed.

    Answered by BorrowConfirmed or BorrowRefused.
    """

    link_seq: int
    node: NodeID
    object: ObjectID


class BorrowConfirmed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=309):
    """Owner to borrower: the object stays while you hold it."""

    link_seq: int
    node: NodeID
    object: ObjectID


class BorrowRefused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=310):
    """Owner to borrower: there is no such object any more."""

    link_seq: int
    node: NodeID
    object: ObjectID


class RefsSettled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=311):
    """Receiver to a third-party sender: the owners have answered; `counts` in-flight holds end."""

    link_seq: int
    node: NodeID
    objects: tuple[ObjectID, ...]
    counts: tuple[int, ...]


class BorrowDropped(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=312):
    """Borrower to owner: nothing here holds `objects` any more; `counts` of grants go back."""

    link_seq: int
    node: NodeID
    objects: tuple[ObjectID, ...]
    counts: tuple[int, ...]


# ------------------------------------------------------------------ values and copies


class ValueWanted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=313):
    """To the owner: tell me when the value is there. Answered by ValueSent, -Found or -Failed."""

    link_seq: int
    node: NodeID
    object: ObjectID


class ValueSent(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=314):
    """From the owner: the value itself, as payload."""

    link_seq: int
    node: NodeID
    object: ObjectID
    attempt: int
    size_bytes: int
    refs: tuple[Ref, ...] = ()


class ValueFound(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=315):
    """From the owner: the value is there, and these nodes have it or are about to, best first."""

    link_seq: int
    node: NodeID
    object: ObjectID
    attempt: int
    size_bytes: int
    nodes: tuple[NodeID, ...]
    refs: tuple[Ref, ...] = ()


class ValueFailed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=316):
    """From the owner: there will be no value. Payload: `size_bytes` of pickled error."""

    link_seq: int
    node: NodeID
    object: ObjectID
    failure: int
    text: str
    size_bytes: int = 0
    refs: tuple[Ref, ...] = ()


class CopyMissing(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=317):
    """To the owner: `nodes` have no copy of that attempt.

    With `is_wanted` the sender still wants the value and is answered like ValueWanted.
    """

    link_seq: int
    node: NodeID
    object: ObjectID
    attempt: int
    nodes: tuple[NodeID, ...]
    is_wanted: bool


class CopyEvicted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=318):
    """To the owner: the sender needed the room; it has no copy of this attempt any more."""

    link_seq: int
    node: NodeID
    object: ObjectID
    attempt: int


class CopyPromoted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=319):
    """Owner to holder: your copy is the primary one from now on. CopyMissing refuses the title."""

    link_seq: int
    node: NodeID
    object: ObjectID
    attempt: int


class CopiesFreed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=320):
    """Owner to holder: nobody can reach these objects any more."""

    link_seq: int
    node: NodeID
    objects: tuple[ObjectID, ...]


class PullRequested(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=321):
    """To a holder: send the bytes of that attempt. Answered by the bytes, or PullRefused.

    `is_patient`: also if the holder must still receive them itself. Only a first try may wait so:
    a chain of nodes that wait for each other then always leads to one that has the bytes.
    """

    link_seq: int
    node: NodeID
    object: ObjectID
    attempt: int
    is_patient: bool = True


class PullRefused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=322):
    """From a holder: it has no copy of that attempt, and none is on its way."""

    link_seq: int
    node: NodeID
    object: ObjectID
    attempt: int


class FunctionWanted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=323):
    """To the node that exported a function: its name came here, its definition did not.

    Answered by FunctionShipped or FunctionRefused.
    """

    link_seq: int
    node: NodeID
    function: FunctionID


class FunctionRefused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=324):
    """From there: it is no more, its job is over."""

    link_seq: int
    node: NodeID
    function: FunctionID


class NoticeSent(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=325):
    """To the node of a job's driver: what its user should hear, as `Notify` says it.

    With a `demand` that no node can meet, with that `strategy`, it is told once in that job.
    """

    link_seq: int
    node: NodeID
    job: JobNumber
    level: str
    kind: str
    text: str
    demand: Demand = ()
    strategy: Strategy | None = None


PeerMessage = (
    FunctionShipped
    | TemplateShipped
    | RunDelivered
    | RunCancelled
    | RunDone
    | RunErred
    | RunLost
    | RunReturned
    | BorrowClaimed
    | BorrowConfirmed
    | BorrowRefused
    | RefsSettled
    | BorrowDropped
    | ValueWanted
    | ValueSent
    | ValueFound
    | ValueFailed
    | CopyMissing
    | CopyEvicted
    | CopyPromoted
    | CopiesFreed
    | PullRequested
    | PullRefused
    | FunctionWanted
    | FunctionRefused
    | NoticeSent
)
