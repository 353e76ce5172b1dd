"""File segments and the bulk copying into them, off the loop (PROTOCOL T8).

One helper thread does everything that waits for a disk: its calls (`posix_fallocate`, `preadv`,
`pwrite`, `fallocate`, `unlink`) release the GIL. It takes jobs from a queue in order and leaves
facts for the loop. A hole may be punched late: a segment's blocks are never given out twice.
"""

from __future__ import annotations

import errno
import mmap
import os
from _queue import SimpleQueue
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable

from detray.core.effects import ARENA, INLINE, MoveObject
from detray.core.stimuli import (
    LocalStimulus,
    ObjectMoved,
    ObjectMoveFailed,
    SegmentFailed,
    SegmentOpened,
)
from detray.runtime.connections import Inbox
from detray.runtime.wakeups import Wakeups

_PIECE_BYTES = 4 << 20
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2


class Segments:
    """The arena's descriptor, the files beside it, and the thread that copies between them."""

    def __init__(
        self,
        directory: str,
        arena_fd: int,
        wakeups: Wakeups,
        inbox: Inbox,
    ) -> None:
        self._directory = directory
        self._fds: dict[int, int] = {ARENA: arena_fd}
        self._jobs: SimpleQueue[Callable[[], LocalStimulus | None]] = SimpleQueue()
        self._facts: deque[LocalStimulus] = deque()
        self._inbox = inbox
        self._has_thread = False
        self._bug: BaseException | None = None
        self._mapped: dict[int, memoryview] = {}
        """Segments that blocks were sent from, or received into."""
        self._punch_hole: Callable[[int, int, int, int], int] | None = None
        self._done_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        wakeups.watch(self._done_fd, self._on_done)

    # -------------------------------------------------------------- called by the loop

    def open(self, segment: int, size_bytes: int) -> None:
        """Make file `segment` with all its bytes reserved; answered by a fact."""
        self.run(lambda: self._make_file(segment, size_bytes))

    def close(self, segment: int) -> None:
        """Remove file `segment`."""
        self._mapped.pop(segment, None)
        self.run(lambda: self._remove_file(segment))

    def free(self, segment: int, offset: int, size_bytes: int) -> None:
        """Give the disk space of a block back. In the arena nothing: warm pages are wanted."""
        if segment != ARENA:
            self.run(lambda: self._punch(segment, offset, size_bytes))

    def move(self, order: MoveObject, payload: bytes | None) -> None:
        """Copy an object's bytes into a file; answered by a fact."""
        self.run(lambda: self._copy(order, payload))

    def view(self, segment: int, offset: int, size_bytes: int) -> memoryview:
        """A block's bytes, to be read or written while the core keeps it pinned. Raises OSError."""
        mapped = self._mapped.get(segment)
        if mapped is None:
            fd = self._fds[segment]
            mapped = self._mapped[segment] = memoryview(mmap.mmap(fd, os.fstat(fd).st_size))
        return mapped[offset : offset + size_bytes]

    def run(self, job: Callable[[], LocalStimulus | None]) -> None:
        """Run `job` in the helper thread and deliver the fact it returns, if any."""
        if not self._has_thread:
            self._has_thread = True
            start_new_thread(self._work, ())
        self._jobs.put(job)

    def _on_done(self, _mask: int) -> None:
        os.eventfd_read(self._done_fd)
        if self._bug is not None:
            raise self._bug
        while self._facts:
            self._inbox.facts.append(self._facts.popleft())

    # -------------------------------------------------------------- in the helper thread

    def _work(self) -> None:
        while self._bug is None:
            try:
                fact = self._jobs.get()()
            except BaseException as error:
                # The loop raises it: silence here would be waited for for ever.
                self._bug = error
                fact = None
            if fact is not None:
                self._facts.append(fact)
            if fact is not None or self._bug is not None:
                os.eventfd_write(self._done_fd, 1)

    def _punch(self, segment: int, offset: int, size_bytes: int) -> None:
        fd = self._fds.get(segment)
        if fd is not None:
            punch = self._punch_hole or self._load_punch_hole()
            punch(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, size_bytes)

    def _load_punch_hole(self) -> Callable[[int, int, int, int], int]:
        import ctypes  # slow to import, and rarely needed

        offset_type = ctypes.c_int64
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = (ctypes.c_int, ctypes.c_int, offset_type, offset_type)
        # A file system that cannot do it keeps the space until the segment is closed.
        self._punch_hole = fallocate
        return fallocate

    def _path(self, segment: int) -> str:
        return os.path.join(self._directory, f"segment-{segment}")

    def _make_file(self, segment: int, size_bytes: int) -> LocalStimulus:
        path = self._path(segment)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size_bytes)
            except OSError:
                os.close(fd)
                os.unlink(path)
                raise
        except OSError as error:
            return SegmentFailed(segment, f"{path}: {error.strerror}", self._free_bytes())
        self._fds[segment] = fd
        return SegmentOpened(segment)

    def _remove_file(self, segment: int) -> None:
        fd = self._fds.pop(segment, None)
        if fd is not None:
            os.unlink(self._path(segment))
            os.close(fd)

    def _copy(self, order: MoveObject, payload: bytes | None) -> LocalStimulus:
        try:
            target_fd = self._fds[order.to_segment]
            if order.segment == INLINE:
                assert payload is not None
                _write(target_fd, memoryview(payload), order.to_offset)
            else:
                self._copy_block(target_fd, order)
        except OSError as error:
            reason = error.strerror or str(error)
            return ObjectMoveFailed(order.object, order.to_segment, order.to_offset, reason)
        return ObjectMoved(order.object, order.to_segment, order.to_offset)

    def _copy_block(self, target_fd: int, order: MoveObject) -> None:
        source_fd = self._fds[order.segment]
        buffer = memoryview(bytearray(min(_PIECE_BYTES, order.size_bytes)))
        done = 0
        while done < order.size_bytes:
            piece = buffer[: order.size_bytes - done]
            count = os.preadv(source_fd, [piece], order.offset + done)
            if not count:
                raise OSError(errno.EIO, "the block ends early")
            _write(target_fd, piece[:count], order.to_offset + done)
            done += count

    def _free_bytes(self) -> int:
        try:
            facts = os.statvfs(self._directory)
        except OSError:
            return 0
        return facts.f_bavail * facts.f_frsize


def _write(fd: int, rest: memoryview, offset: int) -> None:
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest = rest[written:]
        offset += written
