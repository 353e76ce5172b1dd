"""Fetching what the processes of a running cluster have recorded, through its head.

Nothing is unpickled here: what comes are bytes, which are written to files without names, so that
nothing is left of them, however this process ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Any, NamedTuple

from xxhash import xxh3_64

from detray.cli.asking.heads import HeadAt, connect_head
from detray.errors import EngineError
from detray.trace.format import TraceError
from detray.trace.quantities import size_text

ASK_S = 12.0
"""A head waits 10 s for a node; what it says then is better than silence."""
TRIES = 2
"""So often a piece is asked for: an answer that waits behind too many others is dropped."""
TRACE_PIECE_BYTES = 1 << 18
TRACE_BYTES_MAX = 4 << 30
"""Of one process; what comes is kept in memory."""
PAYLOAD_PIECE_BYTES = 1 << 20
LIMIT_BYTES = 1 << 30

Told = Callable[[str, int, int], None]
"""Shows how far it is: what, bytes that came, all of them."""


class FetchedPayloads(NamedTuple):
    """The payloads of one node, in a file without a name."""

    node: int
    file: IO[bytes]
    directory: str


class RunningCluster:
    """A connection to a head, and who is there. Close it."""

    def __init__(self, head: HeadAt) -> None:
        """Raises EngineError if the head cannot be asked."""
        self._tool = connect_head(head)
        self._head = head
        self.notes: list[str] = []
        """What could not be fetched, and why."""
        try:
            rows = self._ask("list", "nodes", 0)
            self.nodes = [int(row["number"]) for row in rows if row["alive"]]
            self.dead = [int(row["number"]) for row in rows if not row["alive"]]
        except (TypeError, KeyError, ValueError):
            self.close()
            raise EngineError(f"the head at {head.address} lists nodes in an unknown way") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._tool.close()

    def __enter__(self) -> RunningCluster:
        return self

    def __exit__(self, *end: object) -> None:
        self.close()

    # -------------------------------------------------------------- traces

    def traces(self) -> list[tuple[str, bytes]]:
        """The recordings so far, as (name, bytes of a trace). Raises EngineError: no head's.

        A node that does not answer is left out, now and later.
        """
        found = []
        for node in list(self.nodes):
            try:
                data = self._trace(node)
                if not data:
                    raise EngineError("what it recorded cannot be read there; its log says why")
                found.append((f"node {node}", data))
            except EngineError as problem:
                self.nodes.remove(node)
                self.notes.append(f"node {node} is left out: {problem}")
        # The head last: what it was told and has answered is then in what the nodes recorded,
        # mostly.
        return [*found, ("head", self._trace(-1))]

    def _trace(self, node: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        reader = int.from_bytes(os.urandom(6), "big")
        while piece := self._piece("trace", node, size, TRACE_PIECE_BYTES, reader):
            parts.append(piece)
            size += len(piece)
            if len(piece) > TRACE_PIECE_BYTES or size > TRACE_BYTES_MAX:
                raise EngineError(
                    f"it sent more than was asked for, or than {size_text(TRACE_BYTES_MAX)}; copy "
                    "its file here, and name that"
                )
        return b"".join(parts)

    # -------------------------------------------------------------- payloads

    def payload_sizes(self) -> dict[int, int]:
        """About how many bytes of payloads each node has; those that have none are noted."""
        sizes: dict[int, int] = {}
        for node in self.nodes:
            try:
                size = self._ask("payloads", node, "size")
            except EngineError as problem:
                self.notes.append(f"no payloads of node {node}: {problem}")
                continue
            if type(size) is int:
                sizes[node] = size
            else:
                self.notes.append(
                    f"node {node} records no payloads: it was started without --record-payloads"
                )
        for node in self.dead:
            self.notes.append(
                f"no payloads of node {node}: it is dead; what it wrote is on its machine"
            )
        return sizes

    def payloads(
        self, nodes: Sequence[int], directory: str, limit_bytes: int, tell: Told
    ) -> list[FetchedPayloads]:
        """The payloads of these nodes, in files of `directory` that have no names.

        A node that goes away is noted, and what came of its payloads is dropped. Raises OSError if
        they cannot be written, TraceError if they are more than `limit_bytes` together.
        """
        fetched: list[FetchedPayloads] = []
        room = limit_bytes
        try:
            for node in nodes:
                fetched.append(FetchedPayloads(node, _nameless(directory), directory))
                try:
                    room -= self._payloads(fetched[-1], room, tell)
                except EngineError as problem:
                    fetched.pop().file.close()
                    self.notes.append(f"no payloads of node {node}: {problem}")
        except BaseException:
            for each in fetched:
                each.file.close()
            raise
        return fetched

    def _payloads(self, fetched: FetchedPayloads, room: int, tell: Told) -> int:
        """Fetch one node's; how many bytes. What it says is not believed more than needed."""
        node = fetched.node
        match self._ask("payloads", node, "begin"):
            case [int() as number, int() as size] if size >= 0:
                pass
            case _:
                raise EngineError("it answered in an unknown way")
        if size > room:
            raise TraceError(
                f"the payloads of node {node} have become {size_text(size)}, and are too much now: "
                "say more with --payloads-limit"
            )
        digest = xxh3_64()
        done = 0
        while done < size:
            piece = self._piece("payloads", node, number, done, PAYLOAD_PIECE_BYTES)
            if not 0 < len(piece) <= size - done:
                raise EngineError("it sent another number of bytes than it said")
            digest.update(piece)
            _write(fetched, piece)
            done += len(piece)
            tell(f"payloads of node {node}", done, size)
        if self._ask("payloads", node, "end", number) != digest.hexdigest():
            raise EngineError("what came is not what it sent: collect once more")
        return size

    # -------------------------------------------------------------- questions

    def _piece(self, topic: str, *arguments: Any) -> bytes:
        """Bytes of a recording. Raises EngineError. (Any: plain data.)"""
        for left in range(TRIES - 1, -1, -1):
            try:
                piece = self._ask(topic, *arguments)
            except EngineError:
                if not left:
                    raise
            else:
                if not isinstance(piece, bytes):
                    raise EngineError("it answered in an unknown way")
                return piece
        raise AssertionError("unreachable")

    def _ask(self, topic: str, *arguments: Any) -> Any:  # Any: plain data
        """Raises EngineError: there is no answer. ConnectionError: there is no head any more."""
        try:
            return self._tool.ask(topic, *arguments, timeout=ASK_S)
        except TimeoutError as problem:
            raise EngineError(str(problem)) from None
        except OSError as problem:
            text = f"the head at {self._head.address} cannot be asked any more: {problem}"
            raise ConnectionError(text) from None


def _nameless(directory: str) -> IO[bytes]:
    """Unbuffered: what does not fit on the disk must not come back when the file is closed."""
    return tempfile.TemporaryFile(dir=directory, buffering=0)


def _write(fetched: FetchedPayloads, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[fetched.file.write(rest) :]
    except OSError as problem:
        text = f"there is no room for the payloads: {problem.strerror}; nothing was written"
        raise OSError(problem.errno, text, fetched.directory) from None


def check_sizes(sizes: dict[int, int], limit_bytes: int) -> str:
    """What there is to fetch, in words. Raises TraceError if it is more than `limit_bytes`."""
    total = sum(sizes.values())
    each = ", ".join(f"{size_text(size)} at node {node}" for node, size in sizes.items())
    text = f"payloads: {each or 'none'}; at most {size_text(limit_bytes)} (--payloads-limit)"
    if total > limit_bytes:
        raise TraceError(
            f"{text}: {size_text(total)} together are too much. Nothing was written; say "
            "--payloads-limit with a larger size, or leave --payloads out"
        )
    return text


def directory_of(path: str) -> str:
    """Where a file will be."""
    return os.path.dirname(os.path.abspath(path))
