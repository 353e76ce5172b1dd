"""The newest trace of the whole cluster, for whoever asks the page for it.

The recordings are fetched piece by piece in the head's loop, which goes on meanwhile, and brought
together in a thread: nothing of that holds up a placement. (`detray trace collect` does the same
from outside.)
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from detray.ids import NodeID
from detray.runtime.log_channel import Answer

PIECE_BYTES = 1 << 20
TRACE_BYTES_MAX = 512 << 20
"""More than this, of all processes together, is fetched by `detray trace collect` only."""

AskNode = Callable[[NodeID, int, Answer], None]
"""Ask a node for the piece of its recording at an offset."""


def begin(
    nodes: list[NodeID],
    ask: AskNode,
    own: Callable[[], bytes],
    answer: Callable[[bytes | str], None],
) -> None:
    """Fetch, collect, and give `answer` the bytes of the trace, or why there are none; once.

    `own` reads the head's recording. A node that does not answer is left out, and the trace says
    whose messages are missing.
    """
    parts: dict[NodeID, list[bytes]] = {node: [] for node in nodes}
    waiting = list(nodes)

    def fetch_next() -> None:
        if waiting:
            ask(waiting[0], _size(parts[waiting[0]]), take)
            return
        named = [(f"node {node}", b"".join(pieces)) for node, pieces in parts.items() if pieces]
        named.append(("head", own()))
        threading.Thread(target=_collect, args=(named, answer), daemon=True).start()

    def take(piece: Any, problem: str) -> None:  # Any: plain data, from a node
        node = waiting[0]
        if problem or not isinstance(piece, bytes):
            parts[node].clear()
            waiting.pop(0)
        elif piece:
            parts[node].append(piece)
            if sum(map(_size, parts.values())) > TRACE_BYTES_MAX:
                answer(
                    f"the recordings are larger than {TRACE_BYTES_MAX >> 20} MiB together: "
                    "use detray trace collect"
                )
                return
        else:
            waiting.pop(0)
        fetch_next()

    fetch_next()


def _size(pieces: list[bytes]) -> int:
    return sum(map(len, pieces))


def _collect(named: list[tuple[str, bytes]], answer: Callable[[bytes | str], None]) -> None:
    from detray.trace.collecting import collect
    from detray.trace.format import TraceError
    from detray.trace.reading import Trace

    try:
        with tempfile.TemporaryDirectory(prefix="detray-trace-") as directory:
            path = os.path.join(directory, "cluster.trace")
            collect([Trace(data, name, salvage=True) for name, data in named], path)
            with open(path, "rb") as file:
                answer(file.read())
    except (TraceError, OSError) as problem:
        answer(f"the recordings cannot be brought together: {problem}")
