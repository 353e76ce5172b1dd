"""What workers print: read from their pipes, cut into lines, passed on to the driver.

Rules
-----
- Nothing is dropped: if the driver does not keep up, pipes are not read, and printing blocks.
- A line is passed on when it is complete, or longer than `LINE_CHARS_MAX`, or its stream has ended.
- A pipe is read until its last writer is gone, which may be a process that the worker started.
- The line `\\0detray-name:NAME`, written by the worker, names who prints from here on.
"""

from __future__ import annotations

import codecs
import os
from functools import partial

from detray.ids import ClientID, JobNumber
from detray.runtime.log_channel import DriverChannels
from detray.runtime.log_files import LogFiles
from detray.runtime.wakeups import Wakeups

LINE_CHARS_MAX = 1 << 16
_READ_BYTES = 1 << 16
_DRAIN_READS_MAX = 1 << 10
_NAME_MARK = "\0detray-name:"
_STREAMS = ("stdout", "stderr")


class LineCutter:
    """Cuts one stream into lines, with the name under which each was printed."""

    __slots__ = ("_decoder", "_name", "_rest")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._name = ""

    def cut(self, data: bytes, *, final: bool = False) -> list[tuple[str, list[str]]]:
        """The complete lines so far as (name, lines) in order; with `final` also the last one."""
        lines = (self._rest + self._decoder.decode(data, final)).split("\n")
        self._rest = lines.pop()
        if final or len(self._rest) >= LINE_CHARS_MAX:
            if self._rest:
                lines.append(self._rest)
            self._rest = ""
        groups: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith(_NAME_MARK):
                self._name = line[len(_NAME_MARK) :]
            elif groups and groups[-1][0] == self._name:
                groups[-1][1].append(line)
            else:
                groups.append((self._name, [line]))
        return groups


class _Pipe:
    """One stream of one worker."""

    __slots__ = ("cutter", "fd", "job", "number", "stream")

    def __init__(self, number: ClientID, job: JobNumber, stream: str, fd: int) -> None:
        self.number = number
        self.job = job
        self.stream = stream
        self.fd = fd
        self.cutter = LineCutter()


class WorkerLogs:
    """All pipes of all workers."""

    def __init__(
        self,
        wakeups: Wakeups,
        channel: DriverChannels,
        files: LogFiles | None = None,
    ) -> None:
        self._wakeups = wakeups
        self._channel = channel
        self._files = files
        self._pipes: dict[int, _Pipe] = {}
        self._pids: dict[ClientID, int] = {}
        self._is_paused = False

    def open(self, number: ClientID, job: JobNumber) -> tuple[int, int]:
        """Make a worker's two pipes; its ends, for output and error. Raises OSError."""
        out_fd, out_end = os.pipe2(os.O_CLOEXEC)
        try:
            err_fd, err_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(out_fd)
            os.close(out_end)
            raise
        for stream, fd in zip(_STREAMS, (out_fd, err_fd), strict=True):
            os.set_blocking(fd, False)
            pipe = self._pipes[fd] = _Pipe(number, job, stream, fd)
            if not self._is_paused:
                self._watch(pipe)
        return out_end, err_end

    def name_process(self, number: ClientID, pid: int) -> None:
        """Tell the pid that belongs to a worker's lines."""
        self._pids[number] = pid

    def add(self, number: ClientID, job: JobNumber, pid: int, lines: list[str]) -> None:
        """Have lines about a dead worker follow what it wrote to its standard error."""
        for pipe in list(self._pipes.values()):
            if pipe.number == number and pipe.stream == "stderr":
                self._read(pipe)  # All that there is: a pipe holds no more.
        self._pass_on(job, number, pid, "stderr", [("", lines)])

    def drain(self) -> None:
        """Read everything that was written until now."""
        for pipe in list(self._pipes.values()):
            # Bounded: something that outlived its worker may go on writing for ever.
            for _ in range(_DRAIN_READS_MAX):
                if not self._read(pipe):
                    break

    def _on_readable(self, pipe: _Pipe, _mask: int) -> None:
        self._read(pipe)
        if self._channel.is_congested and not self._is_paused:
            self._is_paused = True
            for fd in self._pipes:
                self._wakeups.forget(fd)
            self._channel.call_when_relieved(self._resume)

    def _resume(self) -> None:
        self._is_paused = False
        for pipe in self._pipes.values():
            self._watch(pipe)

    def _watch(self, pipe: _Pipe) -> None:
        self._wakeups.watch(pipe.fd, partial(self._on_readable, pipe))

    def _read(self, pipe: _Pipe) -> bool:
        """Read once and pass on; False if there is nothing (more) to read."""
        try:
            data = os.read(pipe.fd, _READ_BYTES)
        except BlockingIOError:
            return False
        pid = self._pids.get(pipe.number, 0)
        groups = pipe.cutter.cut(data, final=not data)
        self._pass_on(pipe.job, pipe.number, pid, pipe.stream, groups)
        if not data:
            self._close(pipe)
        return bool(data)

    def _pass_on(
        self,
        job: JobNumber,
        number: ClientID,
        pid: int,
        stream: str,
        groups: list[tuple[str, list[str]]],
    ) -> None:
        for name, lines in groups:
            self._channel.lines(job, number, pid, name, stream, lines)
            if self._files is not None:
                self._files.write(number, pid, name, stream, lines)

    def _close(self, pipe: _Pipe) -> None:
        self._wakeups.forget(pipe.fd)
        os.close(pipe.fd)
        del self._pipes[pipe.fd]
        if all(other.number != pipe.number for other in self._pipes.values()):
            self._pids.pop(pipe.number, None)
