"""Session directories: where the files of one service live, and how others find them.

    <tmp>/detray-<uid>/<pid>-<n>/     one session, mode 0700, made by the driver `pid`
        lock                          flock'ed from before the directory has its name until the end
        service.sock                  where observers and later drivers connect
        cluster.json, token           of a process of a cluster: where it is, and its secret
        segment-<n>                   large values that did not fit into the arena
    <tmp>/detray-<uid>/flights/       flight recorders written out after something went wrong

A directory whose lock is free belongs to nobody: whoever finds it removes it. The lock belongs to
the open file that driver, service and zygote share, so it is free exactly when all three are gone.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

LOCK_NAME = "lock"
SOCKET_NAME = "service.sock"
INFO_NAME = "cluster.json"
TOKEN_NAME = "token"
GREETING, GREETING_DIGESTS = b"A", b"D"
"""What comes with the arena to a new driver: a service that records to a file wants digests."""
_FLIGHTS_NAME = "flights"
_NEW = ".new-"
_SOCKET_PATH_MAX = 100
"""The kernel takes 108 bytes; the rest is for what follows the directory's name."""


class Session(NamedTuple):
    """A fresh session: its directory and the descriptor that keeps its lock."""

    directory: str
    lock_fd: int


class LiveSession(NamedTuple):
    """A session in use, as another process sees it."""

    directory: str
    driver_pid: int

    @property
    def socket_path(self) -> str:
        """Where its service listens."""
        return os.path.join(self.directory, SOCKET_NAME)


def home() -> str:
    """The directory that holds all sessions of this user; made if missing.

    Raises PermissionError if somebody else owns it or others may enter it.
    """
    name = f"detray-{os.getuid()}"
    path = os.path.join(os.environ.get("TMPDIR") or "/tmp", name)
    if len(os.fsencode(path)) + len(f"/{1 << 22}-99/{SOCKET_NAME}") > _SOCKET_PATH_MAX:
        path = os.path.join("/tmp", name)
    path = os.path.abspath(path)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        facts = os.lstat(path)
        mode = stat.S_IMODE(facts.st_mode)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or mode & 0o077:
            raise PermissionError(
                f"{path} is not a directory that only you can enter; remove it or set TMPDIR"
            ) from None
    return path


def create_session() -> Session:
    """Make a session directory, locked by the caller. Sweeps what dead sessions left."""
    base = home()
    sweep(base)
    pid = os.getpid()
    fresh = os.path.join(base, f"{_NEW}{pid}-{os.urandom(4).hex()}")
    os.mkdir(fresh, 0o700)
    lock_fd = os.open(os.path.join(fresh, LOCK_NAME), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    for number in range(1, 1 << 20):
        directory = os.path.join(base, f"{pid}-{number}")
        try:
            # Locked before it has its name: no sweeper ever sees it unlocked.
            os.rename(fresh, directory)
        except OSError:  # not empty: another session of ours
            continue
        return Session(directory, lock_fd)
    raise RuntimeError(f"{base} is full")


def session_name(directory: str) -> str:
    """What tells a session from all others: its cluster's id, or, of a private one, its directory's
    name and birth (process numbers come again). Any process of the session finds the same.

    Raises FileNotFoundError if the session is over.
    """
    try:
        with open(os.path.join(directory, INFO_NAME), "rb") as file:
            import msgspec  # here: whoever starts a service has no time for it yet

            return str(msgspec.json.decode(file.read())["cluster"])
    except FileNotFoundError:
        # Nobody writes into the lock: it is as old as the session.
        born_ns = os.stat(os.path.join(directory, LOCK_NAME)).st_mtime_ns
        return f"{os.path.basename(directory)}-{born_ns}"


def session_node(directory: str) -> int:
    """The number of the node whose session this is; of a private one, 0."""
    try:
        with open(os.path.join(directory, INFO_NAME), "rb") as file:
            import msgspec  # as above

            return int(msgspec.json.decode(file.read())["node"])
    except FileNotFoundError:
        return 0


def session_ip(directory: str) -> str:
    """The host at which others find the node whose session this is; of a private one, 127.0.0.1."""
    try:
        with open(os.path.join(directory, INFO_NAME), "rb") as file:
            import msgspec  # as above

            address = str(msgspec.json.decode(file.read())["address"])
    except FileNotFoundError:
        return "127.0.0.1"
    return address.rpartition(":")[0].strip("[]")


def remove_session(directory: str) -> None:
    """Remove a session directory and the files in it; not an error if it is gone already."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if name != LOCK_NAME:
            _remove_file(os.path.join(directory, name))
    # Last: a sweeper that comes by meanwhile takes the lock or leaves us alone.
    _remove_file(os.path.join(directory, LOCK_NAME))
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass


def sweep(base: str) -> None:
    """Remove the directories under `base` whose sessions are dead."""
    for name, directory in _sessions(base):
        if name.startswith(_NEW):
            if not _is_alive(name[len(_NEW) :]):
                remove_session(directory)
            continue
        lock_fd = _take_lock(directory, fcntl.LOCK_EX)
        if lock_fd is not None:
            remove_session(directory)
            os.close(lock_fd)


def live_sessions() -> list[LiveSession]:
    """Sessions of this user that are in use, newest first."""
    found = []
    for name, directory in _sessions(home()):
        if name.startswith(_NEW):
            continue
        # Shared, so that two who look at the same time do not take each other for the owner.
        lock_fd = _take_lock(directory, fcntl.LOCK_SH)
        if lock_fd is None:
            try:
                born_ns = os.stat(directory).st_mtime_ns
            except FileNotFoundError:
                continue  # Its owner has just removed it.
            found.append((born_ns, directory, int(name.split("-")[0])))
        else:
            os.close(lock_fd)
    found.sort(reverse=True)
    return [LiveSession(directory, pid) for _, directory, pid in found]


def flight_path(session_dir: str, number: int, keep: int = 20) -> str:
    """Where flight recorder `number` of a session is written; all but the newest `keep` go."""
    base, name = os.path.split(session_dir)
    flights = os.path.join(base, _FLIGHTS_NAME)
    os.makedirs(flights, 0o700, exist_ok=True)
    # What lies beside a trace goes with it.
    paths = [os.path.join(flights, file) for file in os.listdir(flights)]
    traces = [path for path in paths if path.endswith(".trace")]
    traces.sort(key=lambda path: (_changed_ns(path), path))
    for trace in traces[: max(len(traces) - keep + 1, 0)]:
        for path in paths:
            if path.startswith(trace):
                _remove_file(path)
    return os.path.join(flights, f"{name}-{number}.trace")


def _sessions(base: str) -> Iterator[tuple[str, str]]:
    for name in sorted(os.listdir(base)):
        if name.startswith(_NEW) or name.replace("-", "", 1).isdigit():
            yield name, os.path.join(base, name)


def _take_lock(directory: str, how: int) -> int | None:
    """The lock of a dead session; None if the session lives, or is being removed by its owner."""
    try:
        lock_fd = os.open(os.path.join(directory, LOCK_NAME), os.O_RDWR)
    except FileNotFoundError:
        _remove_if_empty(directory)
        return None
    try:
        fcntl.flock(lock_fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_fd)
        return None
    return lock_fd


def _remove_if_empty(directory: str) -> None:
    """What remains if a remover died between the lock and the directory itself."""
    try:
        os.rmdir(directory)
    except OSError:
        pass


def _changed_ns(path: str) -> int:
    """When a file was changed last; long ago if another session has just removed it."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _is_alive(name: str) -> bool:
    try:
        os.kill(int(name.split("-")[0]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True
