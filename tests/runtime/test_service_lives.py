"""Real processes: whoever dies, the right ones hear of it and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import detray
from detray import startup
from detray.core.stimuli import ObjectPut, StatusRequested
from detray.ids import ClientID, ObjectID
from detray.runtime.frames import FrameReader, frame
from tests.support.processes import lives

PATIENCE_S = 20.0

PROLOGUE = """
import os, signal, sys, time
import detray
from detray import startup
detray.init(num_cpus=2)
service = startup.running().session.service

@detray.remote
def sleep(seconds):
    time.sleep(seconds)

pending = [sleep.remote(1000) for _ in range(4)]
while not any(row["worker"] for row in startup.running().session.client.status("tasks")):
    time.sleep(0.01)
print(service.session_dir, service.pid, flush=True)
"""


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def processes_of(session_dir: str) -> list[int]:
    """Service, zygote and workers of a session: its directory is in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(session_dir) in command.split(b"\0"):
                found.append(int(entry))
    return found


def named(session_dir: str, name: str) -> list[int]:
    """The processes of a session that are called `detray:<name>`."""
    pids = []
    for pid in processes_of(session_dir):
        try:
            comm = Path("/proc", str(pid), "comm").read_text().strip()
        except OSError:
            continue
        if comm == f"detray:{name}":
            pids.append(pid)
    return pids


class TestEnds:
    """A driver with running tasks; `epilogue` is how the story ends."""

    @pytest.mark.parametrize(
        "epilogue",
        [
            "",
            "detray.shutdown()",
            "os.kill(os.getpid(), signal.SIGKILL)",
            "os.kill(service.pid, signal.SIGKILL); time.sleep(0.5)",
            "os.kill(service.pid, signal.SIGKILL); os.kill(os.getpid(), signal.SIGKILL)",
            "os.kill(os.getpid(), signal.SIGTERM)",
            "os._exit(0)",
        ],
        ids=["returns", "shuts-down", "killed", "service", "both", "terminated", "_exit"],
    )
    def test_nothing_is_left(self, epilogue: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + epilogue],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        session_dir, _ = done.stdout.split()
        until(lambda: not processes_of(session_dir), "all processes had ended")
        until(lambda: not os.path.exists(session_dir), "the directory was gone")

    def test_a_driver_that_dies_before_the_welcome_leaves_no_traceback(
        self, tmp_path: Path
    ) -> None:
        """The service finds nobody at the other end of its socket, and goes."""
        program = """
import os
from detray.process_engine import boot_config
from detray.runtime.boot import tell_service
from detray.runtime.spawn import begin_service
from detray.settings import read_settings
settings = read_settings(None, {})
service = begin_service(settings.sys_path)
service.client_socket.close()
tell_service(service, boot_config(settings))
print(service.wait(30))
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert done.stderr == ""
        until(lambda: not list(tmp_path.glob("*/*/lock")), "the directory was gone")

    def test_a_driver_hears_of_the_death_of_its_service(self) -> None:
        epilogue = """
os.kill(service.pid, signal.SIGKILL)
try:
    detray.get(pending)
except Exception as error:
    print(type(error).__name__)
"""
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + epilogue],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.split()[-1] == "ServiceDiedError"


@pytest.fixture
def session_dir() -> Iterator[str]:
    detray.init(num_cpus=2)
    directory = startup.running().session.service.session_dir
    yield directory
    detray.shutdown()
    assert not os.path.exists(directory)
    assert not processes_of(directory)


class TestWorkers:
    @pytest.mark.parametrize(
        ("end", "words"),
        [
            ("os.kill(os.getpid(), 11)", "killed by signal 11 (SIGSEGV)"),
            ("os.kill(os.getpid(), 9)", "killed by signal 9 (SIGKILL)"),
            ("os._exit(3)", "exited with status 3"),
        ],
    )
    def test_a_death_is_reported_in_words(self, session_dir: str, end: str, words: str) -> None:
        @detray.remote(max_retries=0)
        def die() -> None:
            exec(end, {"os": os})
            time.sleep(PATIENCE_S)

        with pytest.raises(detray.errors.WorkerCrashedError) as caught:
            detray.get(die.remote())
        assert words in str(caught.value)

    def test_what_a_worker_started_dies_with_it(self, session_dir: str) -> None:
        @detray.remote(max_retries=0)
        def start() -> int:
            return subprocess.Popen(["sleep", "1000"]).pid

        child = detray.get(start.remote())
        for worker in named(session_dir, "worker"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        until(lambda: not lives(child), "the grandchild was killed")

    def test_a_worker_that_closes_all_descriptors_is_replaced(self, session_dir: str) -> None:
        @detray.remote(max_retries=0)
        def close() -> None:
            os.closerange(3, 1000)

        with pytest.raises(detray.errors.WorkerCrashedError):
            detray.get(close.remote())

    def test_results_written_before_death_count(self, session_dir: str) -> None:
        @detray.remote(max_retries=0)
        def fine(number: int) -> int:
            return number

        @detray.remote(max_retries=0)
        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        for _ in range(10):
            before = [fine.remote(number) for number in range(50)]
            death = die.remote()
            after = [fine.remote(number) for number in range(50)]
            assert detray.get(before) == list(range(50))
            with pytest.raises(detray.errors.WorkerCrashedError):
                detray.get(death)
            # Pre-sent behind the killer and never begun: nobody charges them.
            assert detray.get(after) == list(range(50))


class TestZygote:
    def test_its_death_costs_no_worker_and_a_new_one_serves(self, session_dir: str) -> None:
        @detray.remote(max_retries=0)
        def wait_for(path: str) -> int:
            while not os.path.exists(path):
                time.sleep(0.01)
            return os.getpid()

        @detray.remote(max_retries=0)
        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        path = os.path.join(session_dir, "go")
        detray.get([wait_for.remote(session_dir) for _ in range(2)])
        running = wait_for.remote(path)
        zygotes: list[int] = []

        def is_alone() -> bool:
            zygotes[:] = named(session_dir, "zygote")
            return len(zygotes) == 1

        # A worker that was forked a moment ago still bears its parent's name.
        until(is_alone, "every worker has a name of its own")
        (zygote,) = zygotes
        os.kill(zygote, signal.SIGKILL)
        until(lambda: not lives(zygote), "the zygote was reaped")
        Path(path).touch()
        assert lives(detray.get(running))
        for _ in range(3):
            # Adopted workers die under the service's eyes, new ones under the new zygote's.
            with pytest.raises(detray.errors.WorkerCrashedError, match="SIGKILL"):
                detray.get(die.remote())
        until(lambda: len(named(session_dir, "zygote")) == 1, "there was a new zygote")


class Guest:
    """A raw connection to the listening socket."""

    def __init__(self, session_dir: str, kind: str, version: str = detray.__version__) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(os.path.join(session_dir, "service.sock"))
        self.reader = FrameReader()
        self.say_raw([["hello", kind, os.getpid(), "", "test", version]])

    def wait_for_welcome(self) -> ClientID:
        """Our number, which every message has to name."""
        (welcome,) = self.hear() or [None]
        assert isinstance(welcome, list)
        return ClientID(welcome[1])

    def say_raw(self, messages: object) -> None:
        self.sock.sendall(frame(msgspec.msgpack.encode(messages)))

    def hear(self) -> list[object] | None:
        """The messages of the next frame; None at the end."""
        while (parts := self.reader.next()) is None:
            if not self.reader.receive(self.sock):
                return None
        messages: list[object] = msgspec.msgpack.decode(parts[0])
        return messages


class TestGuests:
    def test_an_observer_is_answered(self, session_dir: str) -> None:
        observer = Guest(session_dir, "observer")
        number = observer.wait_for_welcome()
        observer.say_raw([StatusRequested(number, 7, "summary")])
        (answer,) = observer.hear() or [None]
        assert isinstance(answer, list)
        assert answer[:3] == [9, number, 7]
        observer.sock.close()

    def test_an_observer_that_wants_more_is_cut_off(self, session_dir: str) -> None:
        observer = Guest(session_dir, "observer")
        observer.say_raw([ObjectPut(observer.wait_for_welcome(), ObjectID(bytes(20)), 0)])
        assert observer.hear() is None
        observer.sock.close()

    @pytest.mark.parametrize(
        ("kind", "version"), [("emperor", detray.__version__), ("observer", "0.0.0")]
    )
    def test_strangers_are_refused(self, session_dir: str, kind: str, version: str) -> None:
        assert Guest(session_dir, kind, version).hear() is None

    def test_garbage_ends_only_its_sender(self, session_dir: str) -> None:
        driver = Guest(session_dir, "driver")
        data, fds, _, _ = socket.recv_fds(driver.sock, 1, 1)
        assert (data, len(fds)) == (b"A", 1)
        os.close(fds[0])
        driver.wait_for_welcome()
        driver.sock.sendall(b"\xff" * 100)
        assert driver.hear() is None
        driver.sock.close()

        @detray.remote
        def fine() -> int:
            return 1

        assert detray.get(fine.remote()) == 1

    def test_silence_before_hello_harms_nobody(self, session_dir: str) -> None:
        silent = []
        for _ in range(80):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(os.path.join(session_dir, "service.sock"))
            silent.append(sock)
        for sock in silent:
            sock.close()
        observer = Guest(session_dir, "observer")
        observer.say_raw([StatusRequested(observer.wait_for_welcome(), 1, "summary")])
        assert observer.hear() is not None
        observer.sock.close()


def test_every_line_reaches_the_driver(tmp_path: Path) -> None:
    """Prints of many tasks, long lines, lines without an end: nothing is dropped."""
    program = """
import os, sys, detray
detray.init(num_cpus=2)

@detray.remote
def chatter(number):
    for index in range(500):
        print(f"line {number} {index}")
    os.write(2, b"x" * 200000 + b"\\n")
    print(f"last {number}", end="", flush=True)

detray.get([chatter.remote(number) for number in range(8)])
detray.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    everything = done.stdout + done.stderr
    for number in range(8):
        assert f"last {number}" in everything
        assert sum(f"line {number} {index}\n" in everything for index in range(500)) == 500
    assert everything.count("x") >= 8 * 200_000


def test_an_idle_service_uses_no_cpu() -> None:
    """Without deadlines and messages it does not wake up at all."""
    detray.init(num_cpus=2)
    try:
        pid = startup.running().session.service.pid
        until(lambda: _is_at_rest(pid), "it came to rest")
    finally:
        detray.shutdown()


def _is_at_rest(pid: int) -> bool:
    before = _switches(pid)
    time.sleep(1.5)
    return _switches(pid) == before


def _switches(pid: int) -> int:
    """How often the process gave up its core."""
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("no such count")
