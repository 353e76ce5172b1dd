"""Workers in the service's eyes: retraction, leftover runs, last words, and what outlives them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from detray.core.stimuli import (
    LocalStimulus,
    ProcessGone,
    RunsRetracted,
    WorkerLost,
    WorkerReady,
    WorkerStartFailed,
)
from detray.ids import ClientID, JobNumber, TaskID
from detray.runtime.children import kill_group
from detray.runtime.connections import ClientConnection, Inbox
from detray.runtime.frames import FrameReader, frame
from detray.runtime.log_channel import Answer, DriverChannels, LogChannel
from detray.runtime.processes import Workers
from detray.runtime.wakeups import Wakeups
from detray.runtime.worker_logs import WorkerLogs
from detray.runtime.zygote_link import ZygoteLink

NUMBER = ClientID(1)
DRIVER = ClientID(-1)
PATIENCE_S = 20.0


class FakeZygote(ZygoteLink):
    """Forks children that run a function of the test with their six descriptors."""

    def __init__(self) -> None:
        self.body: Callable[[socket.socket, int, int], None] = lambda *_: None
        self.pid_of: dict[int, int] = {}
        self.reaped: set[int] = set()
        self.refuses = False

    def start(self, number: int, job: int, fds: list[int]) -> None:
        if self.refuses:
            raise BlockingIOError(11, "the zygote is busy")
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            low = 3
            for fd in sorted(fds):
                os.closerange(low, fd) if low < fd else None
                low = fd + 1
            try:
                self.body(socket.socket(fileno=fds[0]), fds[1], fds[2])
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self.pid_of[number] = pid

    def reap(self, pid: int) -> None:
        os.waitpid(pid, 0)
        self.reaped.add(pid)


class NoRequests:
    """Answers nothing: nobody asks here."""

    def read_trace(self) -> bytes:
        return b""

    def shut_down(self, client: ClientID) -> None:
        pass

    def ask(self, topic: str, arguments: list[Any], answer: Answer) -> None:
        pass


class Bench:
    """Workers whose zygote is the test."""

    def __init__(self) -> None:
        self.wakeups = Wakeups()
        self.inbox = Inbox()
        self.notes: list[str] = []
        log_end, self.driver_end = socket.socketpair()
        self.drivers = drivers = DriverChannels()
        drivers.add(
            LogChannel(DRIVER, log_end, self.wakeups, wants_lines=True, requests=NoRequests())
        )
        drivers.note_job(DRIVER, JobNumber(1))
        self.logs = WorkerLogs(self.wakeups, drivers)
        self.zygote = FakeZygote()
        self.workers = Workers(
            inbox=self.inbox,
            payloads={},
            wakeups=self.wakeups,
            zygote=self.zygote,
            logs=self.logs,
            note=lambda level, text: self.notes.append(text),
        )

    def start(self, body: Callable[[socket.socket, int, int], None]) -> int:
        self.zygote.body = body
        self.workers.start(NUMBER, JobNumber(1))
        pid = self.zygote.pid_of[NUMBER]
        self.workers.on_started(NUMBER, pid)
        return pid

    @property
    def connection(self) -> ClientConnection:
        return self.workers.connections[NUMBER]

    def end(self, status: int = -signal.SIGKILL) -> None:
        """Kill the worker and report it, as the zygote does."""
        pid = self.zygote.pid_of[NUMBER]
        kill_group(pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.workers.on_exited(pid, status)

    def facts(self, count: int) -> list[LocalStimulus]:
        """The next facts, waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.inbox.facts) < count:
            assert time.monotonic() < deadline, self.inbox.facts
            self.wakeups.dispatch(time.monotonic_ns() + 10_000_000)
        return self.inbox.take()[2]

    def hear(self) -> None:
        """Wait for a message of the worker."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.inbox.said:
            assert time.monotonic() < deadline, "the worker says nothing"
            self.wakeups.dispatch(time.monotonic_ns() + 10_000_000)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for pid in set(bench.zygote.pid_of.values()) - bench.zygote.reaped:
        kill_group(pid)
        os.waitpid(pid, 0)


def read_tokens(token_fd: int, count: int) -> bytes:
    """A worker's tokens, waited for: they are granted when the frame was sent, not before."""
    tokens = select.poll()
    tokens.register(token_fd, select.POLLIN)
    assert tokens.poll(PATIENCE_S * 1000), "no token"
    return os.read(token_fd, count)


def descriptors() -> set[str]:
    """What is open here; others of this process may close something at any moment."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def idle(sock: socket.socket, token_fd: int, interrupt_fd: int) -> None:
    time.sleep(1000)


def test_runs_that_were_not_begun_come_back(bench: Bench) -> None:
    bench.start(idle)
    bench.connection.queue.send(b"frame", runs=5)
    bench.workers.retract(NUMBER, 2)
    bench.workers.retract(NUMBER, 9)
    bench.workers.retract(NUMBER, 1)
    assert bench.facts(3) == [RunsRetracted(NUMBER, count) for count in (2, 3, 0)]


def test_a_retraction_marks_the_stream_and_the_tokens_after_it(bench: Bench) -> None:
    def report(sock: socket.socket, token_fd: int, interrupt_fd: int) -> None:
        data = b""
        while len(data) < 5 + len(marker) + 5:
            data += sock.recv(1000)
        told = data == b"first" + marker + b"again" and read_tokens(token_fd, 9) == b"\1"
        os._exit(7 if told else 8)

    marker = frame(msgspec.msgpack.encode([["retracted", 2]]))
    pid = bench.start(report)
    bench.connection.queue.send(b"first", runs=2)
    bench.workers.retract(NUMBER, 2)
    bench.connection.queue.send(b"again", runs=1)
    facts = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert facts is not None
    assert facts.si_status == 7


def test_the_dead_give_back_what_they_never_began(bench: Bench) -> None:
    def begin_one(sock: socket.socket, token_fd: int, interrupt_fd: int) -> None:
        while not sock.recv(1000):
            pass
        read_tokens(token_fd, 1)
        sock.sendall(frame(msgspec.msgpack.encode([WorkerReady(NUMBER, os.getpid())])))
        time.sleep(1000)

    bench.start(begin_one)
    bench.connection.queue.send(b"frame", runs=4)
    bench.hear()
    # Never read by the worker, so its runs have no token yet.
    bench.connection.queue.send(b"x" * (8 << 20), runs=2)
    bench.end()
    lost = WorkerLost(NUMBER, 5, False, "killed by signal 9 (SIGKILL)")
    assert bench.facts(2) == [lost, ProcessGone(NUMBER)]


def test_last_words_come_before_the_loss(bench: Bench) -> None:
    def speak(sock: socket.socket, token_fd: int, interrupt_fd: int) -> None:
        word = frame(msgspec.msgpack.encode([WorkerReady(NUMBER, 1)]))
        sock.sendall(word * 3 + word[:5])

    pid = bench.start(speak)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    bench.workers.note_told_to_exit(NUMBER)
    bench.workers.on_exited(pid, 0)
    assert bench.inbox.said == [WorkerReady(NUMBER, 1)] * 3
    lost = WorkerLost(NUMBER, 0, True, "exited with status 0")
    assert bench.facts(2) == [lost, ProcessGone(NUMBER)]


def test_a_fork_that_outlives_its_worker_keeps_its_pins(bench: Bench) -> None:
    def fork_away(sock: socket.socket, token_fd: int, interrupt_fd: int) -> None:
        if os.fork() == 0:
            os.setsid()
            sock.sendall(frame(msgspec.msgpack.encode([WorkerReady(NUMBER, os.getpid())])))
        time.sleep(1000)

    bench.start(fork_away)
    bench.hear()
    ready = bench.inbox.said[0]
    assert isinstance(ready, WorkerReady)
    bench.end()
    assert [type(fact) for fact in bench.facts(1)] == [WorkerLost]
    assert not bench.wakeups.dispatch(time.monotonic_ns() + 50_000_000)
    os.kill(ready.pid, signal.SIGKILL)
    assert bench.facts(1) == [ProcessGone(NUMBER)]


def test_garbage_costs_the_worker_its_life(bench: Bench) -> None:
    def babble(sock: socket.socket, token_fd: int, interrupt_fd: int) -> None:
        sock.sendall(b"\xff" * 100)
        time.sleep(1000)

    pid = bench.start(babble)
    while not bench.notes:
        assert bench.wakeups.dispatch(time.monotonic_ns() + int(PATIENCE_S * 1e9))
    facts = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert facts is not None
    assert facts.si_status == signal.SIGKILL
    bench.workers.on_exited(pid, -signal.SIGKILL)
    assert [type(fact) for fact in bench.facts(2)] == [WorkerLost, ProcessGone]


def test_an_interrupt_names_its_attempt(bench: Bench) -> None:
    def wait_for_it(sock: socket.socket, token_fd: int, interrupt_fd: int) -> None:
        def on_interrupt(*_: object) -> None:
            data = os.read(interrupt_fd, 100)
            os._exit(7 if data == bytes(16) + b"\0\0\0\2" else 8)

        signal.signal(signal.SIGINT, on_interrupt)
        sock.sendall(frame(msgspec.msgpack.encode([WorkerReady(NUMBER, 1)])))
        while True:
            time.sleep(1)

    pid = bench.start(wait_for_it)
    bench.hear()
    bench.workers.interrupt(NUMBER, TaskID(bytes(16)), 2)
    facts = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert facts is not None
    assert facts.si_status == 7


def test_a_worker_killed_before_its_fork_is_known_dies_then(bench: Bench) -> None:
    bench.zygote.body = idle
    bench.workers.start(NUMBER, JobNumber(1))
    bench.workers.kill(NUMBER)
    pid = bench.zygote.pid_of[NUMBER]
    bench.workers.on_started(NUMBER, pid)
    facts = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert facts is not None
    assert facts.si_status == signal.SIGKILL


def test_a_start_that_is_impossible_is_an_answer(bench: Bench) -> None:
    bench.zygote.refuses = True
    before = descriptors()
    bench.workers.start(NUMBER, JobNumber(1))
    (failed,) = bench.facts(1)
    assert isinstance(failed, WorkerStartFailed)
    assert "the zygote is busy" in failed.reason
    bench.wakeups.dispatch_arrived()
    assert descriptors() <= before


def test_orders_for_workers_that_are_gone_are_harmless(bench: Bench) -> None:
    bench.workers.kill(NUMBER)
    bench.workers.interrupt(NUMBER, TaskID(bytes(16)), 0)
    bench.workers.note_told_to_exit(NUMBER)
    bench.workers.retract(NUMBER, 3)
    assert bench.facts(1) == [RunsRetracted(NUMBER, 0)]


def test_a_dead_zygote_starts_nobody_any_more(bench: Bench) -> None:
    bench.zygote.body = idle
    bench.workers.start(NUMBER, JobNumber(1))
    assert bench.workers.on_zygote_gone() == set()
    assert bench.facts(1) == [WorkerStartFailed(NUMBER, "the zygote process died")]


def test_a_driver_that_does_not_read_stops_the_printing_not_the_service(bench: Bench) -> None:
    line = b"x" * 99 + b"\n"
    total = 200_000

    out_end, err_end = bench.logs.open(NUMBER, JobNumber(1))
    pid = os.fork()
    if pid == 0:
        rest = memoryview(line * total)
        while rest:
            rest = rest[os.write(out_end, rest) :]
        os._exit(0)
    os.close(out_end)
    os.close(err_end)
    deadline = time.monotonic() + PATIENCE_S
    while not bench.drivers.is_congested:
        assert time.monotonic() < deadline, "all is read, though nobody hears it"
        bench.wakeups.dispatch(time.monotonic_ns() + 10_000_000)
    assert not bench.wakeups.dispatch_arrived()
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    reader = FrameReader()
    heard = 0
    bench.driver_end.setblocking(False)
    deadline = time.monotonic() + PATIENCE_S
    while heard < total:
        assert time.monotonic() < deadline, f"{heard} lines came"
        bench.wakeups.dispatch(time.monotonic_ns() + 10_000_000)
        with contextlib.suppress(BlockingIOError):
            reader.receive(bench.driver_end)
        while (parts := reader.next()) is not None:
            ((_, number, _, _, stream, lines, _),) = msgspec.msgpack.decode(parts[0])
            assert (number, stream, set(lines)) == (NUMBER, "stdout", {"x" * 99})
            heard += len(lines)
    assert os.waitpid(pid, 0) == (pid, 0)
