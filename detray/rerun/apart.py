"""Running in a child process what may end its process."""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, NamedTuple, NoReturn

import msgspec

from detray.rerun.keepers import fork_kept
from detray.runtime.deaths import OomWatch, death_reason

_BROKEN_STATUS = 70
_MUTE_STATUS = 251
_STACK_BYTES_MAX = 16 << 10
_PIECE_BYTES = 1 << 20
_LENGTH_BYTES = 8
_MESSAGE_BYTES_MAX = 8 << 30
_BROKEN = ("broken",)
"""Sent last by a child that failed: its status could be that of the work."""
MUTE = "wrote to, or closed, descriptors that are not its own, and was ended"
"""What is said of a child that can tell nothing any more, or nothing that makes sense."""

private: set[int] = set()
"""Descriptors of this process that no child of it shall have: what goes there is ours to say."""

Send = Callable[..., None]
"""Sends a message, a word and plain facts, from a child to its parent."""


class Ended(NamedTuple):
    """How a child ended: with `data`, or `died` in words, with the stacks that it left.

    `is_broken` if it was not the work that ended it but an error of ours, whose traceback it wrote.
    """

    data: bytes | None
    died: str = ""
    stack: str = ""
    is_broken: bool = False


def run_apart(work: Callable[[], bytes]) -> Ended:
    """Run `work` in a fork of this process, and wait for what it returns.

    The fork ends with us, and what it started with it. Raises KeyboardInterrupt if it was
    interrupted.
    """
    _flush()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as stacks:

        def be_the_child() -> None:
            os.close(reading)
            _be_the_child(work, writing, stacks)

        kept = fork_kept(be_the_child, is_apart=False)
        os.close(writing)
        try:
            with open(reading, "rb") as pipe:
                data = pipe.read()
        except BaseException:
            kept.kill()
            kept.wait()
            raise
        status = kept.wait()
        if status == -signal.SIGINT:
            raise KeyboardInterrupt
        if data[:8] == len(data[8:]).to_bytes(8, "big"):
            return Ended(data[8:])
        if status == _BROKEN_STATUS and data == b"broken":
            raise RuntimeError("the child process of a rerun failed; its traceback is above")
        stacks.seek(0)
        stack = _of_the_user(stacks.read(_STACK_BYTES_MAX).decode(errors="replace").strip())
        return Ended(None, death_reason(status, struck_by_oom=False), stack)


class Garbled(Exception):
    """What a child sent is no message: its work wrote to descriptors that it did not open."""


class Child:
    """A fork that works, and sends messages meanwhile. It ends with us, whatever ends us.

    It has a process group of its own, so Ctrl-C is for this process alone. All that it started ends
    with it. What it would read from the terminal is empty.
    """

    def __init__(self, work: Callable[[Send], None], memory_bytes: int = 0) -> None:
        """Have `work` done with a function that sends; with `memory_bytes`, it may have so much
        memory more than this process has. Raises OSError."""
        _flush()
        self._oom = OomWatch()
        self._stacks = tempfile.TemporaryFile()  # noqa: SIM115  # until the child has ended
        self._buffer = bytearray()
        self._ended: int | None = None
        self._is_open = True
        self._is_broken = False
        self._reading, writing = os.pipe()

        def be_the_sender() -> None:
            os.close(self._reading)
            _be_the_sender(work, writing, self._stacks, memory_bytes)

        self._kept = fork_kept(be_the_sender, is_apart=True)
        os.close(writing)
        os.set_blocking(self._reading, False)
        self._end = os.pidfd_open(self._kept.pid)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)
        self._poll.register(self._end, select.POLLIN)

    @property
    def keeper(self) -> int:
        """The process of ours above it, which ends when nothing of it is left."""
        return self._kept.pid

    def receive(self, patience_s: float | None = None) -> tuple[Any, ...] | None:
        """The next message; None if there are no more, () if none came in time. (Any: plain.)

        Raises Garbled.
        """
        until = None if patience_s is None else time.monotonic() + patience_s
        while (message := self._next()) is None or message == _BROKEN:
            self._is_broken = self._is_broken or message is not None
            if self._ended is not None:
                return None
            left_ms = None if until is None else max(0, (until - time.monotonic()) * 1e3)
            ready = dict(self._poll.poll(left_ms))
            if self._end in ready:
                # Not the end of the pipe: who was forked in there may hold it open for ever.
                self._ended = self._kept.wait()
            if not self._read() and not ready:
                return ()
        return message

    def end(self, why: str = "") -> Ended:
        """How it ended; or `why`, for which it is killed, whether it has ended meanwhile or not."""
        if why or self._ended is None:
            self.kill()
            return Ended(None, why or MUTE)
        status = self._ended
        self._stacks.seek(0)
        stack = _of_the_user(self._stacks.read(_STACK_BYTES_MAX).decode(errors="replace").strip())
        struck = status == -signal.SIGKILL and self._oom.struck()
        died = MUTE if status == _MUTE_STATUS else death_reason(status, struck_by_oom=struck)
        return Ended(None, died, stack, is_broken=self._is_broken)

    def kill(self) -> None:
        """Nothing of it is left. Nothing if nothing is."""
        if self._reading < 0:
            return
        if self._ended is None:
            self._kept.kill()
            self._ended = self._kept.wait()
        os.close(self._reading)
        os.close(self._end)
        self._reading = -1
        self._stacks.close()

    def _read(self) -> bool:
        """Take what the pipe has; False if that is nothing."""
        is_more = False
        with suppress(BlockingIOError):
            while piece := os.read(self._reading, _PIECE_BYTES):
                self._buffer += piece
                is_more = True
                if self._ended is None:
                    return True  # Messages first: what was sent may be long.
            if self._is_open:
                # The child has closed it, and may go on all the same; this end is ready for ever.
                self._is_open = False
                self._poll.unregister(self._reading)
        return is_more

    def _next(self) -> tuple[Any, ...] | None:
        size = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big") + _LENGTH_BYTES
        if len(self._buffer) < max(size, _LENGTH_BYTES):
            if size > _MESSAGE_BYTES_MAX:
                raise Garbled
            return None
        try:
            message = msgspec.msgpack.decode(self._buffer[_LENGTH_BYTES:size], type=tuple[Any, ...])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Garbled from None
        del self._buffer[:size]
        return message


def _be_the_sender(
    work: Callable[[Send], None],
    writing: int,
    stacks: IO[bytes],
    memory_bytes: int,
) -> NoReturn:
    """Work and end, whatever comes."""
    here, lock = os.getpid(), threading.RLock()

    def send(*message: object) -> None:
        if os.getpid() != here:
            os._exit(0)  # A child of a task ends where the task's function returns.
        data = packed(message)
        whole = len(data).to_bytes(_LENGTH_BYTES, "big") + data
        with lock:
            try:
                if len(whole) <= select.PIPE_BUF:
                    os.write(writing, whole)  # All of it or nothing, whatever signal comes.
                else:
                    _write_all(writing, whole)
            except OSError:
                os._exit(_MUTE_STATUS)

    status = 0
    try:
        for descriptor in private:
            os.close(descriptor)
        _bound_memory(memory_bytes)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        faulthandler.enable(stacks)
        work(send)
        _flush()
    except BaseException:
        status = _BROKEN_STATUS
        if os.getpid() == here:
            traceback.print_exc()
            _flush()
            send(*_BROKEN)
    finally:
        os._exit(status)


def _write_all(writing: int, data: bytes) -> None:
    """Write in pieces; a signal's handler that raises must not leave half of them."""
    left = memoryview(data)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        while left:
            left = left[os.write(writing, left) :]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _bound_memory(memory_bytes: int) -> None:
    """Let the kernel take this process first when memory ends; and give it no more than that."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if memory_bytes:
        with open("/proc/self/status") as file:
            has = next((int(line.split()[1]) << 10 for line in file if line[:7] == "VmData:"), 0)
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (has + memory_bytes, most))


def packed(facts: object) -> bytes:
    """As msgpack; a user's text with what no text may have, as of a file name, is escaped."""
    try:
        return msgspec.msgpack.encode(facts)
    except UnicodeEncodeError:
        return msgspec.msgpack.encode(escaped(msgspec.to_builtins(facts, builtin_types=(bytes,))))


def escaped(facts: Any) -> Any:  # Any: plain data
    """Its texts, as they can be printed and sent: halves of characters become \\udcff."""
    if isinstance(facts, str):
        return facts.encode("utf-8", "backslashreplace").decode()
    if isinstance(facts, dict):
        return {escaped(key): escaped(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [escaped(each) for each in facts]
    return facts


def _flush() -> None:
    """What is printed appears once, and in order. A task may have closed what it printed to."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _be_the_child(work: Callable[[], bytes], writing: int, stacks: IO[bytes]) -> NoReturn:
    """Do it and end, whatever comes."""
    status = 0
    try:
        faulthandler.enable(stacks)
        data = work()
        with open(writing, "wb", closefd=False) as pipe:
            pipe.write(len(data).to_bytes(8, "big") + data)
        _flush()
    except KeyboardInterrupt:
        faulthandler.disable()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        _flush()
        os.write(writing, b"broken")
        status = _BROKEN_STATUS
    finally:
        os._exit(status)


def _of_the_user(stack: str) -> str:
    """Without the frames of a rerun and of who called it, which are the same each time."""
    kept = []
    is_ours = False
    for line in stack.splitlines():
        is_ours = bool(line) and (is_ours or _HERE in line)
        if not is_ours:
            kept.append(line)
    return "\n".join(kept)


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
