"""The lives of tasks, objects, workers, nodes and heads: rows of a `history.History`.

`core` is always the number of the core where it happened; times are of its clock, until
`History.use_dates` puts all of them on one line. A time is -1 where it is not known.

Rows are many and refer to each other by id only, never in a circle: the collector need not look at
them, or gathering a million would take four times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from detray.ids import NO_OBJECT, ClientID, JobNumber, NodeID, ObjectID, TaskID

WAITING, SENT, FINISHED = "waiting", "sent", "finished"
FAILED, CANCELLED = "failed", "cancelled"
LOST = "lost"
"""An attempt whose worker, or node, ended."""
UNKNOWN_CORE = -1
"""Where a thing of which only others speak has its place: in no core of the trace."""
NO_NODE = NodeID(-1)

# ------------------------------------------------------------------ what moved

ASKED = "asked"
"""The owner asked the head for a place."""
PLACED = "placed"
"""The head's answer reached the owner: `node`, and the lease in `text` ("" if none)."""
INFEASIBLE = "infeasible"
"""The head's answer reached the owner: no node can ever run it; `text`: what the largest has."""
REFUSED = "refused"
"""The head's answer reached the owner: the one node that may run it cannot; `text`: why."""
WITHDRAWN = "withdrawn"
"""The owner needs no place any more, or not the one that was named (`node`)."""
DELIVERED = "delivered"
"""The owner handed the attempt to `node`; `text` is "leased" if without the head's word."""
RECEIVED = "received"
"""The attempt reached `node`."""
RETURNED = "returned"
"""The owner has the attempt back from `node`, which never began it: `text` says why."""
TAKEN_BACK = "taken back"
"""It was sent to worker `client`, which had not begun it; `since_ns`: when it had been sent."""
RECURSIVELY = "with all that it submitted"
CANCEL_ASKED = "cancel asked"
"""Client `client` (0: node `node`) wants it cancelled; `text`: how."""
TASK_MOVES = (
    ASKED, PLACED, INFEASIBLE, REFUSED, WITHDRAWN, DELIVERED, RECEIVED, RETURNED, TAKEN_BACK,
    CANCEL_ASKED,
)  # fmt: skip

MADE_AGAIN = "made again"
"""A later attempt of its producer made it at this core."""
KNOWN = "known"
"""This core learned that there is a value, and that `node` has it (-1: it has it itself)."""
ARRIVED = "arrived"
"""The bytes came to this core from `node`."""
SPILLED = "spilled"
"""The bytes went from memory to disk."""
CORRUPT = "corrupt"
"""The bytes on disk are not what was written there."""
EVICTED = "evicted"
"""`node` needed the room, its copy is gone; told to its owner, which is this core."""
MISSING = "missing"
"""`node` has no copy, as this core was told."""
PROMOTED = "promoted"
"""The copy of this core is the primary one from now on."""
FREED = "freed"
"""Nobody can reach it any more; the copy of this core is gone, or may go."""
OBJECT_MOVES = (
    MADE_AGAIN, KNOWN, ARRIVED, SPILLED, CORRUPT, EVICTED, MISSING, PROMOTED, FREED,
)  # fmt: skip


class LifeMove(msgspec.Struct, gc=False):
    """A task, or an object, got on: `kind` is one of the names above, which say what it means."""

    kind: str
    at_ns: int
    core: int
    attempt: int = 0
    node: NodeID = NO_NODE
    client: ClientID = ClientID(0)
    text: str = ""
    since_ns: int = -1
    size_bytes: int = -1


# ------------------------------------------------------------------ tasks


class Attempt(msgspec.Struct, gc=False):
    """One run of a task; times are -1 where they are not known. `state`: a task's, or LOST."""

    number: int
    worker: ClientID
    sent_ns: int = -1
    started_ns: int = -1
    ended_ns: int = -1
    state: str = SENT
    error: str = ""
    core: int = UNKNOWN_CORE
    node: NodeID = NO_NODE
    """Where it was sent; -1 where that is not known."""
    delivered_ns: int = -1
    """When its owner handed it to another node, by the owner's clock."""
    received_ns: int = -1
    """When it reached that node, by that node's clock, as the times of the run are."""
    closed_ns: int = -1
    """When its owner learned of its end, by the owner's clock."""
    failure: int = 0
    """An `errors.Failure` value, 0 if it did not fail."""
    traceback: str = ""
    """Where user code raised, if the trace has it."""


class TaskLife(msgspec.Struct, gc=False):
    """A task from its submission on. `core` is its owner's; `attempts` are in order of number."""

    id: TaskID
    name: str
    parent: TaskID
    submitted_ns: int
    num_returns: int = 1
    args: tuple[ObjectID, ...] = ()
    refs: tuple[ObjectID, ...] = ()
    attempts: list[Attempt] = []
    state: str = WAITING
    error: str = ""
    cancel_asked: bool = False
    core: int = UNKNOWN_CORE
    demand: tuple[tuple[str, int], ...] = ()
    """In 1/10,000 units."""
    max_retries: int = 0
    retries_errors: bool = False
    """Errors of user code are retried, too."""
    depth: int = 0
    moves: Sequence[LifeMove] = ()
    """What happened to it beside runs, in the order of the trace."""
    ready_ns: int = -1
    """When its owner knew a value of every top-level argument; its submission's if it has none."""
    last_arg: ObjectID = NO_OBJECT
    """The argument that came last, b"" if none was missing when it was submitted."""
    parent_attempt: int = -1
    """The attempt of its parent that submitted it; -1 if not known, or a driver did."""
    over_ns: int = -1
    """When it ended, where no report of an attempt says so (`endings.py`)."""
    over_core: int = UNKNOWN_CORE

    @property
    def last(self) -> Attempt | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    def attempt(self, number: int, worker: ClientID) -> Attempt:
        """The attempt of that number, made if it was not known."""
        place = len(self.attempts)
        for known in reversed(self.attempts):
            if known.number == number:
                return known
            if known.number < number:
                break
            place -= 1
        made = Attempt(number, worker)
        self.attempts.insert(place, made)
        return made

    def note(self, move: LifeMove) -> None:
        """Add what happened."""
        if isinstance(self.moves, list):
            self.moves.append(move)
        else:
            self.moves = [move]

    def moved(self, *kinds: str) -> Iterator[LifeMove]:
        """What happened of these kinds, in order."""
        return (move for move in self.moves if move.kind in kinds)


# ------------------------------------------------------------------ objects


class ObjectLife(msgspec.Struct, gc=False):
    """A value. `producer` is the task that returned or put it, b"" if not known.

    `core` is where it was made first. Of one that was made elsewhere than in the trace,
    `created_ns` is -1 and `moves` say when it was heard of.
    """

    id: ObjectID
    producer: TaskID
    size_bytes: int
    created_ns: int
    is_put: bool = False
    refs: tuple[ObjectID, ...] = ()
    core: int = UNKNOWN_CORE
    in_block: bool = False
    """In the store, not in the service's own memory."""
    sealed_ns: int = -1
    """When the node where it was made knew of it: a little after `created_ns`."""
    client: ClientID = ClientID(0)
    """Who made it, 0 if not known."""
    moves: Sequence[LifeMove] = ()
    """What happened to it since, in the order of the trace."""
    dropped_ns: int = -1
    """When a client last said that it needs it no more."""
    dropped_by: ClientID = ClientID(0)
    dropped_core: int = UNKNOWN_CORE
    freed_ns: int = -1
    """When its owner, the node of `freed_core`, forgot a value that was in no block."""
    freed_core: int = UNKNOWN_CORE

    def note(self, move: LifeMove) -> None:
        """Add what happened."""
        if isinstance(self.moves, list):
            self.moves.append(move)
        else:
            self.moves = [move]


class Copy(msgspec.Struct, frozen=True):
    """The bytes of an object at one node, for a time. `until_ns` -1: to the end of the trace."""

    core: int
    node: NodeID
    since_ns: int
    until_ns: int = -1
    why: str = ""
    """Why it ended: a kind of move, or "the node died"."""


class Transfer(msgspec.Struct, gc=False):
    """Bytes of an object on their way from `source` to the node of `core`, by that one's clock.

    `ended_ns` is -1 if the trace does not show the end; `reason` says why it failed.
    """

    object: ObjectID
    attempt: int
    source: NodeID
    core: int
    began_ns: int
    size_bytes: int
    ended_ns: int = -1
    reason: str = ""


class Ruin(msgspec.Struct, frozen=True):
    """An object that a client was told there will be no value of: `failure` is `errors.Failure`."""

    object: ObjectID
    failure: int
    text: str
    at_ns: int
    core: int


class RoomWait(msgspec.Struct, gc=False):
    """A client waited for room in the store to write an object."""

    client: ClientID
    object: ObjectID
    size_bytes: int
    started_ns: int
    core: int
    ended_ns: int = -1
    refusal: str = ""


# ------------------------------------------------------------------ processes and nodes


class WorkerLife(msgspec.Struct, gc=False):
    """A worker process; times are -1 where they are not known. `reason` "": it left as told."""

    id: ClientID
    core: int
    pid: int = 0
    ready_ns: int = -1
    lost_ns: int = -1
    reason: str = ""
    asked_ns: int = -1
    """When its process was ordered."""
    job: JobNumber = JobNumber(0)
    exit_ns: int = -1
    """When it was told to leave."""
    killed_ns: int = -1
    """When it was ordered to be killed."""
    unclaimed: int = 0
    """Runs that it had been sent and had not begun when it was lost."""
    lost_runs: tuple[tuple[TaskID, int], ...] = ()
    """Those that it had begun: tasks and attempts."""


class NodeLife(msgspec.Struct):
    """A node of a cluster. `core` is its own, `buried_core` the first that heard of its death."""

    node: NodeID
    core: int = UNKNOWN_CORE
    name: str = ""
    totals: tuple[tuple[str, int], ...] = ()
    joined_ns: int = -1
    joined_core: int = UNKNOWN_CORE
    buried_ns: int = -1
    buried_core: int = UNKNOWN_CORE
    reason: str = ""
    """Why it was buried."""
    stopped_ns: int = -1
    """When it was told to stop, by its own clock."""
    stop_reason: str = ""
    fenced_ns: int = -1
    """When it learned that it had been buried, by its own clock."""
    last_ns: int = -1
    """Its last step in the trace, by its own clock."""


class HeadLife(msgspec.Struct):
    """One life of the head. Its epoch is 0 if it has no store."""

    core: int
    epoch: int
    first_ns: int
    last_ns: int


class HeadChange(msgspec.Struct):
    """A node learned that another head speaks."""

    core: int
    epoch: int
    at_ns: int


# ------------------------------------------------------------------ clients


class Wait(msgspec.Struct, gc=False):
    """A client's `get` or `wait`. `task`: the run that stood still meanwhile (b"": the driver)."""

    client: ClientID
    task: TaskID
    started_ns: int
    ended_ns: int
    count: int
    core: int
    objects: tuple[ObjectID, ...] = ()
    needed: int = 0
    """How many of `objects` had to be there."""
    timed_out: bool = False
    is_abandoned: bool = False
    request: int = 0
    failed: ObjectID = NO_OBJECT
    """The first object of the answer that has failed."""
    refusal: str = ""
    """Why it was failed where no object is to blame: a deadlock, no room for what it fetched."""


class Program(msgspec.Struct, gc=False):
    """A driver: `job` is 0 until the head has given it a number."""

    client: ClientID
    job: JobNumber
    entrypoint: str
    pid: int
    started_ns: int
    core: int
    lost_ns: int = -1
    reason: str = ""
    """Why its connection ended."""
