"""The service's side of the zygote: orders, reports, and what to do when it dies.

A dead zygote costs no worker: they become our children (we are their subreaper), and a fresh zygote
is spawned when the next worker is needed.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, Protocol

import msgspec

from detray.runtime.boot import BootConfig
from detray.runtime.children import CONTROL_BYTES_MAX, exit_status
from detray.runtime.spawn import encode_paths, spawn_entry, write_all
from detray.runtime.wakeups import Wakeups

_PR_SET_CHILD_SUBREAPER = 36


class ZygoteReports(Protocol):
    """Who hears what the zygote, or the kernel in its place, has to say."""

    def on_started(self, number: int, pid: int) -> None:
        """Worker `number` was forked."""

    def on_start_failed(self, number: int, reason: str) -> None:
        """Worker `number` could not be forked."""

    def on_exited(self, pid: int, status: int | None) -> None:
        """A worker died; it stays a zombie until `reap`."""

    def on_zygote_gone(self) -> set[int]:
        """The zygote died; the pids of the workers that are ours now."""


class ZygoteLink:
    """The control socket of the current zygote, if there is one."""

    def __init__(
        self,
        control_fd: int,
        pid: int,
        *,
        boot: BootConfig,
        arena_fd: int,
        lock_fd: int,
        wakeups: Wakeups,
    ) -> None:
        self._boot = boot
        self._arena_fd = arena_fd
        self._lock_fd = lock_fd
        self._wakeups = wakeups
        self._reports: ZygoteReports
        self._adopted: set[int] = set()
        self._control: socket.socket | None = None
        self._pid = 0
        self._connect(socket.socket(fileno=control_fd), pid)
        self._child_died_fd, wakeup_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        wakeups.watch(self._child_died_fd, self._on_child_died)

    @property
    def pid(self) -> int:
        """The current zygote's, 0 if there is none."""
        return self._pid

    def report_to(self, reports: ZygoteReports) -> None:
        """From the first wake-up on, tell `reports` what happens to workers."""
        self._reports = reports

    def adopt_orphans(self) -> None:
        """Ask the kernel to make us the parent of workers whose zygote dies."""
        import ctypes  # 5 to 20 ms: not before the first workers are under way

        libc = ctypes.CDLL(None)
        if hasattr(libc, "prctl"):
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, number: int, job: int, fds: list[int]) -> None:
        """Order a worker. Raises OSError if that is impossible now."""
        if self._control is None:
            self._spawn()
        assert self._control is not None
        message = msgspec.msgpack.encode(["start", number, job])
        socket.send_fds(self._control, [message], fds)

    def reap(self, pid: int) -> None:
        """Let go of a dead worker's pid: it must not be signalled any more."""
        if pid in self._adopted:
            self._adopted.discard(pid)
            os.waitpid(pid, 0)
        elif self._control is not None:
            try:
                self._control.send(msgspec.msgpack.encode(["reap", pid]))
            except OSError:
                pass  # It is dying: its zombies come to us and go with `_reap_strangers`.

    def close(self) -> None:
        """End the zygote. All it could still do, kill and clean up, is done by its service."""
        if self._control is not None:
            self._control.close()
            self._control = None
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read_fd, write_fd = os.pipe()
        try:
            inherited = (theirs.fileno(), read_fd, self._lock_fd)
            pid = spawn_entry(["zygote", self._boot.session_dir], inherited)
        except OSError:
            ours.close()
            os.close(write_fd)
            raise
        finally:
            theirs.close()
            os.close(read_fd)
        write_all(write_fd, encode_paths(self._boot.sys_path))
        os.close(write_fd)
        self._connect(ours, pid)

    def _connect(self, control: socket.socket, pid: int) -> None:
        control.setblocking(False)
        self._control = control
        self._pid = pid
        self._wakeups.watch(control.fileno(), self._on_readable)
        setup = msgspec.msgpack.encode(["setup"])
        # By descriptor: a command line may be longer than a message.
        boot_fd = os.memfd_create("detray-boot", os.MFD_CLOEXEC)
        write_all(boot_fd, msgspec.msgpack.encode(self._boot))
        socket.send_fds(control, [setup], [self._arena_fd, boot_fd])
        os.close(boot_fd)

    def _on_readable(self, _mask: int) -> None:
        """Read all there is: reports must not overtake each other in different wake-ups."""
        while self._control is not None:
            try:
                data = self._control.recv(CONTROL_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._on_end()
                return
            message: list[Any] = msgspec.msgpack.decode(data)  # the zygote is ours
            kind, first, second = message
            if kind == "started":
                self._reports.on_started(first, second)
            elif kind == "exited":
                self._reports.on_exited(first, second)
            else:
                self._reports.on_start_failed(first, second)

    def _on_end(self) -> None:
        assert self._control is not None
        self._wakeups.forget(self._control.fileno())
        self._control.close()
        self._control = None
        # Its end of the socket can close a little before its children are handed to us.
        os.waitpid(self._pid, 0)
        self._pid = 0
        self._adopted |= self._reports.on_zygote_gone()
        self._report_adopted()

    def _on_child_died(self, _mask: int) -> None:
        os.read(self._child_died_fd, 1 << 12)
        self._report_adopted()
        self._reap_strangers()

    def _report_adopted(self) -> None:
        for pid in sorted(self._adopted):
            try:
                status = exit_status(pid)
            except ChildProcessError:
                # Its zygote died before we were its subreaper, or had reaped it.
                self._adopted.discard(pid)
                self._watch_stranger(pid)
            else:
                if status is not None:
                    self._reports.on_exited(pid, status)

    def _watch_stranger(self, pid: int) -> None:
        """Report the end of a process that is not our child; its status stays unknown."""
        try:
            pid_fd = os.pidfd_open(pid)
        except OSError:
            self._reports.on_exited(pid, None)
            return

        def on_end(_mask: int) -> None:
            self._wakeups.forget(pid_fd)
            os.close(pid_fd)
            self._reports.on_exited(pid, None)

        self._wakeups.watch(pid_fd, on_end)

    def _reap_strangers(self) -> None:
        """Wait for what workers left behind and the kernel handed to us."""
        ours = self._adopted | {self._pid}
        while True:
            try:
                facts = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if facts is None or facts.si_pid in ours:
                return  # that one is waited for where its end is handled
            os.waitpid(facts.si_pid, 0)
