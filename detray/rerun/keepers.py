"""Forking a process of which nothing is left when it ends, whatever it did and whoever is killed.

Theory of operation
-------------------
What a task starts may leave its group and its session and outlive its parents. The kernel gives
such orphans to the nearest process above them that asked for it (a subreaper), so below one nobody
can hide. This process cannot ask: it may have children that are nobody's business. So there are two
*keepers* between it and the process that works. A keeper only waits. When the process below it has
ended, or the one above it, it kills whoever is below it until nobody is, and ends.

Two, as a keeper may be killed like everybody else. If the inner one is, all that it kept comes to
the outer one; if the outer one is, the kernel tells the inner one, as it tells the outer one of the
end of this process. Who kills both at once keeps what is theirs.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KEEPERS = 2
_BROKEN_STATUS = 70
_TOLD = struct.Struct("=?i")
"""Whether the end of the process that works is known, and its status."""
_TRIES = 100
_PAUSE_S = 0.01
_ENDS = (signal.SIGCHLD, signal.SIGTERM)
_libc = ctypes.CDLL(None, use_errno=True)


class Kept:
    """The process that works, seen from above: `pid` is the outer keeper, which ends last."""

    def __init__(self, pid: int, told: mmap.mmap) -> None:
        self.pid = pid
        self._told = told

    def kill(self) -> None:
        """Have it end, and all that it started. To be followed by `wait`."""
        os.kill(self.pid, signal.SIGTERM)
        os.kill(self.pid, signal.SIGCONT)  # It may have been stopped.

    def wait(self) -> int:
        """Its exit code, or the negative number of the signal that ended it, once all is gone."""
        own = -signal.SIGKILL
        with suppress(ChildProcessError):  # This program ignores how its children end.
            own = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        is_told, status = _TOLD.unpack(self._told[: _TOLD.size])
        self._told.close()
        return status if is_told else own


def fork_kept(work: Callable[[], None], *, is_apart: bool) -> Kept:
    """Have `work` done in a fork, which does not go on from here, and has a group of its own if it
    `is_apart`: Ctrl-C is for that group. Raises OSError.
    """
    told = mmap.mmap(-1, _TOLD.size)
    # No handler of this process runs in a keeper.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    above = os.getpid()
    try:
        pid = os.fork()
        if not pid:
            _begin(work, above, told, before, is_apart)
    except OSError:
        told.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    kept = Kept(pid, told)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BaseException:  # The interrupt that waited.
        kept.kill()
        kept.wait()
        raise
    return kept


def _begin(
    work: Callable[[], None],
    above: int,
    told: mmap.mmap,
    before: Iterable[int],
    is_apart: bool,
) -> NoReturn:
    """Be the keepers, and below them the process that works."""
    try:
        if is_apart:
            _leave_group()  # All of us: no Ctrl-C waits for the one that works.
        for _ in range(_KEEPERS):
            above = _descend(above, told, is_apart)
        if is_apart:
            _leave_group()
        told.close()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Who has ended already has told our keeper.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        work()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(_BROKEN_STATUS)


def _prctl(option: int, value: int) -> None:
    if hasattr(_libc, "prctl"):
        _libc.prctl(option, value, 0, 0, 0)


def _descend(above: int, told: mmap.mmap, is_apart: bool) -> int:
    """Be a keeper; in a new process below it, return its pid."""
    here = os.getpid()
    for number in _ENDS:
        signal.signal(number, signal.SIG_DFL)  # Of a child whose end is ignored nobody is told.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != above:  # It ended before we had asked.
        signal.raise_signal(signal.SIGTERM)
    if child := os.fork():
        _keep(child, told, is_apart)
    return here


def _keep(child: int, told: mmap.mmap, is_apart: bool) -> NoReturn:
    """Wait for the end below or above, and end with nothing left."""
    status: int | None = 0
    try:
        _leave_group()
        status = _end_of(child)
        if status is not None and not told[0]:
            told[: _TOLD.size] = _TOLD.pack(True, status)
        if is_apart:
            with suppress(OSError):
                # All at once, as long as nobody else can have its number.
                os.killpg(child, signal.SIGKILL)
        _end_all()
    except BaseException:
        traceback.print_exc()
    finally:
        if status is None:
            # Whoever is above sees that nobody knows how the work would have ended.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            signal.raise_signal(signal.SIGTERM)
        os._exit(0)


def _end_of(child: int) -> int | None:
    """The status of the child, which is not reaped; other orphans are, meanwhile.

    None if this keeper was told to end before.
    """
    while signal.sigwaitinfo(_ENDS).si_signo == signal.SIGCHLD:
        while (end := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if end.si_pid == child:
                is_exit = end.si_code == os.CLD_EXITED
                return end.si_status if is_exit else -end.si_status
            os.waitpid(end.si_pid, 0)
    return None


def _end_all() -> None:
    """Kill and reap until nobody is below: the children of who was killed are ours then."""
    tries = 0
    while tries < _TRIES:
        struck = [child.pid for child in psutil.Process().children() if _strike(child.pid)]
        try:
            # Who was struck ends. If nobody was, one began to be ours just now, or has other
            # rights than we, as `sudo` gives.
            end = os.waitid(os.P_ALL, 0, os.WEXITED | (0 if struck else os.WNOHANG))
        except ChildProcessError:
            return
        if end is None:
            tries += 1
            time.sleep(_PAUSE_S)


def _leave_group() -> None:
    with suppress(OSError):
        os.setpgid(0, 0)


def _strike(pid: int) -> bool:
    with suppress(PermissionError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
