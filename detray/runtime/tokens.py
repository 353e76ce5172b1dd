"""Tokens: whose run it is, the worker's or still the service's, decided by the kernel.

One byte in the pipe for each run that was sent and neither begun nor taken back. Reading it is what
begins a run, or what takes it back; no byte is read twice. The byte says how many retractions came
before it (modulo 256), so that a worker that holds a fresh token knows which markers it has to see
first (docs/architecture.md, "Tokens").
"""

from __future__ import annotations

import os

_READ_BYTES = 1 << 16
_BYTES = [bytes([generation]) for generation in range(256)]


class TokenPipe:
    """The service's ends of one worker's token pipe; the worker has a copy of the read end."""

    __slots__ = ("_read_fd", "_write_fd", "generation")

    def __init__(self) -> None:
        """Raises OSError if descriptors have run out."""
        # The flag belongs to the pipe's end, not to the descriptor: the worker's reads do not block
        # either.
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.generation = 0
        """Retractions that took something, modulo 256."""

    @property
    def worker_end(self) -> int:
        """The descriptor to hand to the worker."""
        return self._read_fd

    def grant(self, count: int, generation: int) -> None:
        """Allow the worker to begin `count` more runs."""
        written = os.write(self._write_fd, _BYTES[generation] * count)
        # Pre-sending is bounded far below the 64 KiB of a pipe (Policy.pipeline_depth_max).
        assert written == count, f"a token pipe took {written} of {count} tokens"

    def take(self, count: int) -> int:
        """Take up to `count` tokens away from the worker; how many there were."""
        try:
            return len(os.read(self._read_fd, count)) if count else 0
        except BlockingIOError:
            return 0

    def take_all(self) -> int:
        """Take what a dead worker left."""
        return self.take(_READ_BYTES)

    def advance(self) -> None:
        """Mark the tokens that follow as granted after one more retraction."""
        self.generation = (self.generation + 1) % 256

    def close(self) -> None:
        """Close both ends."""
        os.close(self._read_fd)
        os.close(self._write_fd)
