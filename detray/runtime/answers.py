"""What a node answers when it is asked about itself: by its head, or by a driver of its own."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from detray.core.local import LocalScheduler
from detray.runtime.log_channel import Answer
from detray.runtime.log_files import LogFiles
from detray.runtime.recording import Recording

if TYPE_CHECKING:
    # Loaded only where somebody wants the plain keys of a Redis server.
    from detray.runtime.changes import Changes, RowBatch

ROWS_MAX = 10_000
PIECE_BYTES_MAX = 1 << 20


class NodeAnswers:
    """Topics: "status", "rows" of a table, "changes" since a number, "logs", and what was recorded:
    "trace", "payloads"."""

    def __init__(
        self,
        core: LocalScheduler,
        recording: Recording,
        files: LogFiles,
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        """`facts` is the page about the node. (Any: plain data, here and below.)"""
        self._core = core
        self._recording = recording
        self._files = files
        self._facts = facts
        self._changes: Changes | None = None

    def answer(self, topic: str, arguments: list[Any], answer: Answer) -> None:
        """Answer one question, at once; one that makes no sense with a reason."""
        match topic, arguments:
            case "status", []:
                answer(self._facts(), "")
            case "rows", [str() as kind, int() as limit]:
                answer(self._core.describe(kind, min(limit, ROWS_MAX)), "")
            case "changes", [int() as seen]:
                answer(self._tell_changes(seen), "")
            case "logs", []:
                answer(self._files.names(), "")
            case "logs", [str() as name, int() as offset, int() as size_bytes]:
                try:
                    piece = self._files.read(name, offset, min(size_bytes, PIECE_BYTES_MAX))
                except OSError as problem:
                    answer(None, str(problem))
                else:
                    answer(piece, "")
            case "trace", [int() as offset, int() as size_bytes, int() as reader]:
                size_bytes = min(size_bytes, PIECE_BYTES_MAX)
                answer(self._recording.piece(offset, size_bytes, reader), "")
            case "payloads", _:
                self._hand_out(arguments, answer)
            case _:
                answer(None, f"a node cannot answer {topic!r:.40} with these arguments")

    def _hand_out(self, arguments: list[Any], answer: Answer) -> None:
        """Payloads: how many bytes (None: none are recorded); a copy, its pieces, its digest."""
        recording = self._recording
        try:
            match arguments:
                case ["size"]:
                    answer(recording.payloads_size(), "")
                case ["begin"]:
                    answer(recording.copies.begin(recording.copy_payloads), "")
                case [int() as number, int() as offset, int() as size_bytes]:
                    size_bytes = min(size_bytes, PIECE_BYTES_MAX)
                    answer(recording.copies.piece(number, offset, size_bytes), "")
                case ["end", int() as number]:
                    answer(recording.copies.end(number), "")
                case _:
                    answer(None, "a node cannot hand out payloads with these arguments")
        except OSError as problem:
            answer(None, f"its payloads cannot be handed out: {problem}")

    def _tell_changes(self, seen: int) -> RowBatch:
        """What is new for the plain keys (PROTOCOL N19)."""
        if self._changes is None:
            from detray.runtime.changes import Changes

            self._changes = Changes()
        return self._changes.since(seen, self._core.tables, monotonic_ns())
