"""The format of payload files: what stands beside a trace so that its tasks can run again.

    magic      8 bytes
    version    u32
    frame *    as in a trace (`detray/trace/format.py`)

A trace holds decisions, a payload file holds what the cores never see: function definitions,
arguments and values, as the clients pickled them. It says by itself which task each of them belongs
to, because it keeps the messages that brought them. The first frame is a header, which names the
lives of the processes that recorded; they are those of the trace. A frame of messages:

    u16 process (a place in the header), u32 count, then for each:
    u32 bytes of messages, u32 bytes of payload, a msgpack array of messages, their payload

The payload is laid out as `detray/core/payloads.py` says. A frame of a block is a piece of a large
value, which lay in shared memory:

    u16 process, 20 bytes object, u32 attempt, u64 size of the value, u64 where the piece begins

and the piece. Looking at such a file never unpickles anything: these are bytes.
"""

from __future__ import annotations

import struct

import msgspec

PAYLOAD_MAGIC = b"\x89detpay\n"
PAYLOAD_VERSION = 1
SUFFIX = ".payloads"
"""What the name of a payload file has after that of its trace."""

HEADER_FRAME = 1
SAID_FRAME = 2
BLOCK_FRAME = 3
END_FRAME = 4

PREAMBLE = struct.Struct("<8sI")
CHUNK_HEAD = struct.Struct("<HI")
ENTRY_HEAD = struct.Struct("<II")
BLOCK_HEAD = struct.Struct("<H20sIQQ")
PROCESSES_MAX = 1 << 16
PIECE_BYTES = 16 << 20
"""A large value is cut into pieces of this much: a crash costs one of them."""


class PayloadProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A service that recorded. `life` is that of its trace (`format.ProcessInfo`).

    `session` is the name of its session, or cluster, as pickled references have it. `cwd`, `argv`
    and `sys_path` are what its workers had; `note` says what its recording lacks. With
    `virtual_time` its clock was the simulator's: to sleep took no time.
    """

    life: str
    wall_ns: int
    session: str = ""
    cwd: str = ""
    argv: tuple[str, ...] = ()
    sys_path: tuple[str, ...] = ()
    python_version: str = ""
    note: str = ""
    virtual_time: bool = False


class PayloadHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Whose payloads these are."""

    format_version: int = PAYLOAD_VERSION
    detray_version: str
    processes: tuple[PayloadProcess, ...]


class PayloadEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last frame of a recording that ended in order; `note` says what it lacks."""

    reason: str
    note: str = ""


def payloads_path(trace_path: str) -> str:
    """Where the payloads of a trace are."""
    return f"{trace_path}{SUFFIX}"
