"""Starting a service: what it is told, and how the driver spawns it.

`os.posix_spawn` does not copy the driver's page tables (a fork of a 1 GB heap costs 23 to 54 ms) and
runs no code of ours between fork and exec. The service goes on in `entry.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import msgspec

from detray.core.config import GlobalConfig, LocalConfig
from detray.runtime.session import Session, create_session, remove_session, sweep

_ENTRY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "entry.py")
_FLIGHT_BYTES = 64 << 20


class BootConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that a service and its zygote are told before their first message."""

    sys_path: list[str]
    cwd: str
    argv: list[str]
    local: LocalConfig
    global_: GlobalConfig = GlobalConfig()
    session_dir: str = ""
    """Left empty by whoever boots: `spawn_service` makes the directory."""
    driver_pid: int = 0
    record: str = ""
    """The trace file that keeps everything; "" for the ring in memory."""
    flight_bytes: int = _FLIGHT_BYTES
    namespace: str = ""
    entrypoint: str = ""
    log_to_driver: bool = True


class SpawnedService:
    """The driver's end of the service that it started."""

    def __init__(
        self, *, pid: int, session: Session, client_socket: socket.socket, log_socket: socket.socket
    ) -> None:
        self.pid = pid
        self.session_dir = session.directory
        self.client_socket = client_socket
        self.log_socket = log_socket
        self.status: int | None = None
        """Exit code, or the negative number of the signal that killed it; None while it lives."""

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
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)


def spawn_service(boot: BootConfig) -> SpawnedService:
    """Start a service and return at once; what comes first on the client socket is the arena.

    Raises OSError if no session directory or process can be made.
    """
    if not sys.executable:
        raise RuntimeError("sys.executable is empty: detray cannot start its service process")
    session = create_session()
    boot = msgspec.structs.replace(
        boot, session_dir=session.directory, driver_pid=os.getpid(), record=_absolute(boot.record)
    )
    ours, theirs = socket.socketpair()
    log_ours, log_theirs = socket.socketpair()
    read_fd, write_fd = os.pipe()
    try:
        inherited = (theirs.fileno(), log_theirs.fileno(), read_fd, session.lock_fd)
        pid = spawn_entry(["service", session.directory], inherited)
    except BaseException:
        for end in (ours, log_ours):
            end.close()
        os.close(write_fd)
        remove_session(session.directory)
        raise
    finally:
        theirs.close()
        log_theirs.close()
        os.close(read_fd)
        os.close(session.lock_fd)
    write_boot(write_fd, boot.sys_path, msgspec.msgpack.encode(boot))
    return SpawnedService(pid=pid, session=session, client_socket=ours, log_socket=log_ours)


def spawn_entry(arguments: list[str], inherited: tuple[int, ...]) -> int:
    """Spawn `entry.py` with copies of `inherited`, whose numbers follow `arguments`; the pid.

    Its standard error is ours, so that a crash is seen; its input and output are empty.
    """
    # Numbers above all of these: no copy can overwrite another's source.
    base = max(inherited) + 1
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    actions += [(os.POSIX_SPAWN_DUP2, fd, base + i) for i, fd in enumerate(inherited)]
    numbers = [str(base + i) for i in range(len(inherited))]
    command = [sys.executable, *_interpreter_options(), "-P", _ENTRY, *arguments, *numbers]
    return os.posix_spawn(
        sys.executable,
        command,
        os.environ,
        file_actions=actions,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP),
    )


def write_boot(write_fd: int, sys_path: list[str], config: bytes) -> None:
    """Write the boot pipe and close it (`entry.read_boot` reads it)."""
    paths = b"\0".join(os.fsencode(path) for path in sys_path)
    rest = memoryview(len(paths).to_bytes(4, "little") + paths + config)
    try:
        while rest:
            rest = rest[os.write(write_fd, rest) :]
    except BrokenPipeError:
        pass  # It died: the client socket tells, too.
    finally:
        os.close(write_fd)


def _interpreter_options() -> list[str]:
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


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""
