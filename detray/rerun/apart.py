"""Running in a child process what may end its process."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import IO, NamedTuple

from detray.runtime.deaths import death_reason

_PR_SET_PDEATHSIG = 1
_BROKEN_STATUS = 70
_STACK_BYTES_MAX = 16 << 10


class Ended(NamedTuple):
    """How a child ended: with `data`, or `died` in words, with the stacks that it left."""

    data: bytes | None
    died: str = ""
    stack: str = ""


def run_apart(work: Callable[[], bytes]) -> Ended:
    """Run `work` in a fork of this process, and wait for what it returns.

    The fork ends with us. Raises KeyboardInterrupt if it was interrupted.
    """
    _flush()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as stacks:
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _be_the_child(work, writing, stacks, parent)
        os.close(writing)
        try:
            with open(reading, "rb") as pipe:
                data = pipe.read()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        if status == -signal.SIGINT:
            raise KeyboardInterrupt
        if data[:8] == len(data[8:]).to_bytes(8, "big"):
            return Ended(data[8:])
        if status == _BROKEN_STATUS and data == b"broken":
            raise RuntimeError("the child process of a rerun failed; its traceback is above")
        stacks.seek(0)
        stack = _of_the_user(stacks.read(_STACK_BYTES_MAX).decode(errors="replace").strip())
        return Ended(None, death_reason(status, struck_by_oom=False), stack)


def _flush() -> None:
    """What is printed appears once, and in order. A task may have closed what it printed to."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _be_the_child(work: Callable[[], bytes], writing: int, stacks: IO[bytes], parent: int) -> None:
    """Do it and end, whatever comes."""
    status = 0
    try:
        _end_with(parent)
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


def _end_with(parent: int) -> None:
    """Have the kernel kill us when our parent ends, whatever ends it."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # It ended before we had asked.
            os._exit(1)
