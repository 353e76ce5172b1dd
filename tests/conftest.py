"""For every test run: a scratch TMPDIR for detray's sessions, and a search for what it left.

Whatever a test starts inherits a mark in its environment. After the last test no marked process may
live, no session directory and no shared memory may be left.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.__main__ import BESIDE

_MARK = "DETRAY_TEST_RUN"
_OF_THE_USER = (
    "DETRAY_ADDRESS",
    "RAY_ADDRESS",
    "DETRAY_TOKEN",
    "DETRAY_TOKEN_FILE",
    "DETRAY_TLS_CERT",
    "DETRAY_TLS_KEY",
    "DETRAY_TLS_CA",
)
_files_of_failures: set[Path] = set()
_PATIENCE_S = 5.0
"""What a service that was just told to stop may need for it."""


def pytest_configure() -> None:
    # Slow days are no failures. (In CI hypothesis also draws the same examples every time.)
    settings.register_profile("detray", settings(), deadline=None)
    settings.load_profile("detray")
    # Whoever runs this in the background has it ignore Ctrl-C; some tests send themselves one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.gettempdir()  # pytest's own temporary files stay where they were
    # A short path: a unix socket's name has room for 107 bytes.
    scratch = tempfile.mkdtemp(prefix="dt-", dir="/tmp")
    os.environ["TMPDIR"] = os.environ[_MARK] = scratch
    # Whatever cluster the user works with is none of ours.
    for name in _OF_THE_USER:
        os.environ.pop(name, None)


def pytest_unconfigure() -> None:
    scratch = os.environ.get(_MARK, "")
    if scratch.startswith("/tmp/dt-"):
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember in which files tests failed."""
    report = yield
    if report.failed:
        _files_of_failures.add(item.path)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """A cluster that outlived a failure is not joined by the tests of all other files."""
    yield
    is_last = nextitem is None or nextitem.path != item.path
    if is_last and item.path in _files_of_failures:
        from detray import launch
        from detray.nearby import find_local

        for process in find_local():
            launch.stop_process(process, timeout_s=_PATIENCE_S, force=True)
            launch.remove_default_stores(process.cluster)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the run if detray left a process, a session directory or shared memory."""
    memory_before = set(_shared_memory())
    yield
    from detray import is_initialized, shutdown

    still_running = is_initialized()
    shutdown()
    deadline = time.monotonic() + _PATIENCE_S
    while (left := _left_behind(memory_before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not still_running, "a test left detray initialized"
    assert not left, "left behind after the last test:\n  " + "\n  ".join(left)
    if BESIDE in os.environ and _home().exists():
        warnings.warn("a test here starts processes: name it in tests/__main__.py", stacklevel=1)


def _left_behind(memory_before: set[str]) -> list[str]:
    left = [f"process {pid}: {command}" for pid, command in _marked_processes()]
    home = _home()
    if home.is_dir():
        left += [f"session {path}" for path in home.iterdir() if path.name != "flights"]
    return left + [f"/dev/shm/{name}" for name in _shared_memory() if name not in memory_before]


def _home() -> Path:
    """Where the sessions of this run are, if there was one."""
    return Path(os.environ[_MARK]) / f"detray-{os.getuid()}"


def _marked_processes() -> list[tuple[int, str]]:
    """Processes with this run's mark in their environment; our own was set after we began."""
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ")
                if command:  # a zombie has none: its parent has only to look
                    found.append((int(entry), command.decode(errors="replace")[:150]))
        except OSError:
            continue
    return found


def _shared_memory() -> list[str]:
    try:
        return [name for name in os.listdir("/dev/shm") if "detray" in name]
    except FileNotFoundError:
        return []
