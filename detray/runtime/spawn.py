"""Spawning a service, as early as a driver can: nothing here needs msgspec.

`os.posix_spawn` does not copy the driver's page tables (a fork of a 1 GB heap costs 23 to 54 ms),
and no code of ours runs between fork and exec. The new process goes on in `entry.py`; while it
imports, the driver does, and tells it the rest when it can (`boot.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from detray.runtime.session import create_session, remove_session, sweep

ENTRY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "entry.py")
_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)


class SpawnedService:
    """The driver's end of the service that it started."""

    def __init__(
        self,
        *,
        pid: int,
        session_dir: str,
        client_socket: socket.socket,
        log_socket: socket.socket,
        boot_fd: int,
    ) -> None:
        self.pid = pid
        self.session_dir = session_dir
        self.client_socket = client_socket
        self.log_socket = log_socket
        self.status: int | None = None
        """Exit code, or the negative number of the signal that killed it; None while it lives."""
        self._boot_fd = boot_fd

    def tell(self, boot: bytes) -> None:
        """Send the encoded BootConfig, which it waits for; once."""
        boot_fd, self._boot_fd = self._boot_fd, -1
        write_all(boot_fd, boot)
        os.close(boot_fd)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; the status, None if it still lives."""
        deadline = time.monotonic() + timeout_s
        pause = 0.0002
        while self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # Somebody else in this process waits for all children, or SIGCHLD is ignored.
                pid, status = self.pid, 0
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                # If it died before it had a zygote, nobody else removes the directory.
                sweep(os.path.dirname(self.session_dir))
            elif time.monotonic() >= deadline:
                break
            else:
                time.sleep(pause)
                pause = min(pause * 2, 0.01)
        return self.status

    def kill(self) -> None:
        """End it the hard way; its zygote cleans up."""
        if self._boot_fd >= 0:
            os.close(self._boot_fd)
            self._boot_fd = -1
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)


def begin_service(sys_path: list[str], mode: str = "service", log_name: str = "") -> SpawnedService:
    """Start a process that imports from `sys_path` and then waits to be told the rest.

    `mode` is "service", or "head" for the head of a cluster. With `log_name` its standard error is
    that file in its session directory, and it holds nothing of ours.

    Raises OSError if no session directory or process can be made.
    """
    session = create_session()
    ours, theirs = socket.socketpair()
    log_ours, log_theirs = socket.socketpair()
    read_fd, write_fd = os.pipe()
    try:
        inherited = (theirs.fileno(), log_theirs.fileno(), read_fd, session.lock_fd)
        log_path = os.path.join(session.directory, log_name) if log_name else ""
        pid = spawn_entry([mode, session.directory], inherited, log_path)
    except BaseException:
        ours.close()
        log_ours.close()
        os.close(write_fd)
        remove_session(session.directory)
        raise
    finally:
        theirs.close()
        log_theirs.close()
        os.close(read_fd)
        os.close(session.lock_fd)
    write_all(write_fd, encode_paths(sys_path))
    return SpawnedService(
        pid=pid,
        session_dir=session.directory,
        client_socket=ours,
        log_socket=log_ours,
        boot_fd=write_fd,
    )


def spawn_entry(arguments: list[str], inherited: tuple[int, ...], log_path: str = "") -> int:
    """Spawn `entry.py` with copies of `inherited`, whose numbers follow `arguments`; the pid.

    Its standard error is `log_path`, or ours, so that a crash is seen; its input and output are
    empty.
    """
    if not sys.executable:
        raise RuntimeError("sys.executable is empty: detray cannot start its service process")
    # Numbers above all of these: no copy can overwrite another's source.
    base = max(inherited) + 1
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    if log_path:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions.append((os.POSIX_SPAWN_OPEN, 2, log_path, flags, 0o600))
    actions += [(os.POSIX_SPAWN_DUP2, fd, base + i) for i, fd in enumerate(inherited)]
    numbers = [str(base + i) for i in range(len(inherited))]
    command = [sys.executable, *interpreter_options(), "-P", ENTRY, *arguments, *numbers]
    return os.posix_spawn(
        sys.executable,
        command,
        os.environ,
        file_actions=actions,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )


def encode_paths(sys_path: list[str]) -> bytes:
    """How `entry.read_paths` wants the module search path."""
    paths = b"\0".join(os.fsencode(path) for path in sys_path)
    return len(paths).to_bytes(4, "little") + paths


def write_all(fd: int, data: bytes) -> None:
    """Write to a pipe whose reader may have died: its sockets tell, too."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BrokenPipeError:
        pass


def interpreter_options() -> list[str]:
    """What the driver's interpreter was told on its command line and a child should hear, too."""
    options = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    if sys.flags.dont_write_bytecode:
        options.append("-B")
    options += [f"-W{option}" for option in sys.warnoptions]
    options += [
        f"-X{name}" if value is True else f"-X{name}={value}"
        for name, value in sys._xoptions.items()
    ]
    return options
