"""The zygote: a small single-threaded process from which workers are forked.

Rules
-----
- It imports what workers need once and never runs user code, so a worker costs about 2 ms and
  inherits nobody's threads, locks or modules.
- It keeps dead workers as zombies until the service says `reap`: as long as the service may signal
  a pid or its process group, the number cannot become somebody else's.
- When the service is gone, it kills the workers' process groups, removes the session directory and
  ends. (The other way round the service adopts the workers, `processes.py`.)

Messages on the control socket (SEQPACKET, msgpack arrays):

    to the zygote      ["setup"] + arena, file with the BootConfig
                       ["start", worker, job] + 6 descriptors, ["reap", pid]
    from the zygote    ["started", worker, pid], ["failed", worker, reason], ["exited", pid, status]

The descriptors of a worker: stream socket, token pipe, interrupt pipe, standard output and error,
and the file for its stack if a fatal signal ends it.
`status` is an exit code or the negative number of a signal.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback
import types
from typing import Any, NoReturn

import cloudpickle  # noqa: F401  # for the workers: imported once, here
import msgspec

from detray.runtime import worker
from detray.runtime.boot import BootConfig
from detray.runtime.children import CONTROL_BYTES_MAX, exit_status, kill_group, rename_process
from detray.runtime.session import remove_session

WORKER_FDS = 6


def main(control_fd: int, session_dir: str) -> NoReturn:
    """Serve until the service is gone."""
    rename_process("detray:zygote")
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    zygote = Zygote(control)
    try:
        zygote.serve()
    except BaseException:
        # A bug of ours must not cost workers: the service adopts them.
        traceback.print_exc()
        os._exit(1)
    zygote.kill_workers()
    remove_session(session_dir)
    os._exit(0)


class Zygote:
    """Forks on request and reports every exit."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._boot: BootConfig
        self._arena_fd = -1
        self._pids: set[int] = set()
        """Children whose exit was not reported yet."""
        self._zombies: set[int] = set()
        self._child_died_fd, wakeup_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Handle messages and exits until the control socket ends."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._child_died_fd, select.POLLIN)
        # Nothing allocated so far is garbage, and looking at it would unshare its pages in workers.
        gc.freeze()
        while True:
            for fd, _ in poll.poll():
                if fd == self._child_died_fd:
                    os.read(fd, 1 << 12)
                    self._report_exits()
                elif not self._handle_message():
                    return

    def kill_workers(self) -> None:
        """SIGKILL what is left and wait for it."""
        for pid in self._pids:
            kill_group(pid)
        for pid in self._pids:
            os.waitpid(pid, 0)

    def _become_program(self) -> None:
        """Look like the driver's program to code that will run in the workers."""
        sys.argv = list(self._boot.argv)
        sys.modules["__main__"] = types.ModuleType("__main__")
        os.environ["DETRAY_WORKER"] = "1"
        try:
            os.chdir(self._boot.cwd)
        except OSError:
            pass  # It was removed: workers stay where the driver was when it started us.

    def _handle_message(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, CONTROL_BYTES_MAX, WORKER_FDS)
        except ConnectionError:
            return False
        if not data:
            return False
        message: list[Any] = msgspec.msgpack.decode(data)  # the service is trusted
        for fd in fds:
            os.set_inheritable(fd, False)
        if message[0] == "start":
            self._start(message[1], message[2], fds)
        elif message[0] == "reap":
            os.waitpid(message[1], 0)
            self._zombies.discard(message[1])
        else:
            self._set_up(*fds)
        return True

    def _set_up(self, arena_fd: int, boot_fd: int) -> None:
        self._arena_fd = arena_fd
        with open(boot_fd, "rb") as file:
            file.seek(0)
            self._boot = msgspec.msgpack.decode(file.read(), type=BootConfig)
        if self._boot.digests:
            import detray.serialization.digests  # noqa: F401  # once, here
        self._become_program()

    def _start(self, number: int, job: int, fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._report(["failed", number, f"fork: {error}"])
        else:
            if pid == 0:
                self._run_worker(number, job, fds)
            self._pids.add(pid)
            # Both sides do it: whoever signals the group first must find it.
            _make_group(pid)
            self._report(["started", number, pid])
        finally:
            for fd in fds:
                os.close(fd)

    def _report_exits(self) -> None:
        for pid in sorted(self._pids):
            status = exit_status(pid)
            if status is not None:
                self._pids.discard(pid)
                self._zombies.add(pid)
                self._report(["exited", pid, status])

    def _report(self, message: list[Any]) -> None:
        try:
            self._control.send(msgspec.msgpack.encode(message))
        except OSError:
            pass  # The service is gone: the next receive ends everything.

    def _run_worker(self, number: int, job: int, fds: list[int]) -> NoReturn:
        try:
            _make_group(0)
            sock_fd, token_fd, interrupt_fd, out_fd, err_fd, crash_fd = fds
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(out_fd, 1)
            os.dup2(err_fd, 2)
            kept = {0, 1, 2, sock_fd, token_fd, interrupt_fd, crash_fd, self._arena_fd}
            _close_all_but(kept)
            # Not to close descriptors that are no longer ours when it is collected.
            self._control.detach()
            rename_process("detray:worker")
            worker.main(
                number,
                socket.socket(fileno=sock_fd),
                token_fd,
                interrupt_fd,
                crash_fd,
                self._arena_fd,
                self._boot.local.arena_bytes,
                self._boot.session_dir,
                job,
                self._boot.local.policy.inline_bytes_max,
                self._boot.digests,
            )
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)


def _make_group(pid: int) -> None:
    try:
        os.setpgid(pid, pid)
    except OSError:
        pass  # It is gone already, or the other side was first.


def _close_all_but(kept: set[int]) -> None:
    low = 0
    for fd in sorted(kept):
        if low < fd:  # closerange(0, 0) closes everything
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
