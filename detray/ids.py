"""Names of things: minted by arithmetic from the name of their maker, never drawn at random.

A child task, a put and an exported function are named by (parent task, parent attempt, stream,
index), so a program whose tasks submit in an order that depends on their inputs only names
everything alike on every run (docs/architecture.md, "Names"). A return is named by (task, index)
without the attempt: a retry fills the same returns.

======  =====  ==========================================================================
bytes   TaskID  FunctionID                                       ObjectID
======  =====  ==========================================================================
0-3     job number, big endian                                   the same
4-11    blake2b-8 of (parent path, parent attempt, stream)       the same
12-15   index of the child within that stream (definitions: top bit) the same
16-19   (absent)                                                 kind bits and return index
======  =====  ==========================================================================

The job number stays outside the hash, so two runs of one script compare equal from byte 4 on.
"""

from __future__ import annotations

from typing import NewType

try:
    from _blake2 import blake2b  # what hashlib gives, without the 3 ms that OpenSSL takes to load
except ImportError:
    from hashlib import blake2b

JobNumber = NewType("JobNumber", int)
TaskID = NewType("TaskID", bytes)
FunctionID = NewType("FunctionID", bytes)
ObjectID = NewType("ObjectID", bytes)
NodeID = NewType("NodeID", int)
"""Number of a node within its cluster, given by the head in the order of joining."""
ClientID = NewType("ClientID", int)
"""A process that talks to a node's service: workers count up from 1, drivers down from -1."""
TemplateID = NewType("TemplateID", int)
"""Number of a task template within the client that defined it."""

TASK_ID_BYTES = 16
OBJECT_ID_BYTES = 20
NO_TASK = TaskID(b"")
NO_OBJECT = ObjectID(b"")
NO_CLIENT = ClientID(0)

_PUT_KIND = b"\x80\x00\x00\x00"
_FIRST_RETURN = bytes(4)
_RETURNS = tuple(index.to_bytes(4, "big") for index in range(64))
MAX_RETURNS = 1 << 16
"""Below so many values a task returns: each is a row of its own from the moment of the call. Kind
bits live far above in the last four bytes of an ObjectID.
"""


def root_task(job: JobNumber) -> TaskID:
    """The task that stands for a driver's own program."""
    return TaskID(job.to_bytes(4, "big") + bytes(12))


def child_prefix(parent: TaskID, attempt: int, stream: int) -> bytes:
    """The first twelve bytes of everything that one stream of one attempt creates.

    Hashed once for a running parent; each child then costs a concatenation.
    """
    path = parent[4:] + attempt.to_bytes(4, "big") + stream.to_bytes(4, "big")
    return parent[:4] + blake2b(path, digest_size=8).digest()


def child_task(prefix: bytes, index: int) -> TaskID:
    """The id of the child task number `index` (from 0) under `prefix`."""
    return TaskID(prefix + index.to_bytes(4, "big"))


def function_id(prefix: bytes, index: int) -> FunctionID:
    """The id of the exported definition number `index`; counted apart from tasks and puts.

    Its highest index bit is set: no task under the same prefix has the same id.
    """
    return FunctionID(prefix + (index | 1 << 31).to_bytes(4, "big"))


def put_object(prefix: bytes, index: int) -> ObjectID:
    """The id of the put number `index` under `prefix`."""
    return ObjectID(prefix + index.to_bytes(4, "big") + _PUT_KIND)


def return_object(task: TaskID, index: int) -> ObjectID:
    """The id of a task's return value number `index`."""
    suffix = _RETURNS[index] if index < 64 else index.to_bytes(4, "big")
    return ObjectID(task + suffix)


def first_return(task: TaskID) -> ObjectID:
    """The id of return value number 0; most tasks have no other."""
    return task + _FIRST_RETURN  # type: ignore[return-value]  # a NewType call for each is felt


def task_of(item: ObjectID) -> TaskID:
    """The sixteen bytes of an object's id that name its producer (or, for a put, its own slot)."""
    return TaskID(item[:TASK_ID_BYTES])


def producer_of(item: ObjectID) -> TaskID | None:
    """The task that returns an object; None for a put, which shares its first bytes with a task."""
    return None if item[16] >= 0x80 else TaskID(item[:TASK_ID_BYTES])


def is_put(item: ObjectID) -> bool:
    """True for objects that no task returned."""
    return item[16] >= 0x80


def node_name(node: int) -> str:
    """A node's id as users see it: 56 hexadecimal digits."""
    return f"{node:056x}"


def job_of(item: bytes) -> JobNumber:
    """The job that any task, function or object id belongs to."""
    return JobNumber(int.from_bytes(item[:4], "big"))
