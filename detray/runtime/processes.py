"""Worker processes as the service holds them: starting, pre-sent runs, interrupts, and death.

Theory of operation
-------------------
A worker's death has an order. The zygote (or the kernel, for adopted ones) reports the exit; what
the worker wrote before is read to the end of its socket, so that its last words become stimuli
first; the tokens left in its pipe are the runs it never began; what Python wrote about a fatal
signal is the end of the reason; then `WorkerLost`. Its process group
is killed and only then its pid is given up. `ProcessGone` follows when the last copy of its socket
is closed: forks of the worker hold copies (programs that it executed do not), and with them perhaps
views.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic_ns

import msgspec

from detray.core.stimuli import ProcessGone, RunsRetracted, WorkerLost, WorkerStartFailed
from detray.ids import ClientID, JobNumber, TaskID
from detray.runtime.children import kill_group
from detray.runtime.connections import ClientConnection, Garbage, Inbox
from detray.runtime.deaths import OomWatch, crash_stack, death_reason
from detray.runtime.frames import frame
from detray.runtime.tokens import TokenPipe
from detray.runtime.wakeups import WRITE, Wakeups
from detray.runtime.worker_logs import WorkerLogs
from detray.runtime.zygote_link import ZygoteLink

_EXIT_GRACE_NS = 1_000_000_000
"""A process that closed its stream and lives on after this long is of no use any more."""

_encode = msgspec.msgpack.Encoder().encode


class WorkerProcess:
    """One worker, from the order to start it until the kernel says that nothing of it is left."""

    __slots__ = (
        "connection",
        "crash_fd",
        "has_exited",
        "has_hung_up",
        "interrupt_fd",
        "is_doomed",
        "job",
        "number",
        "pid",
        "tokens",
        "was_told_to_exit",
    )

    def __init__(
        self,
        number: ClientID,
        job: JobNumber,
        connection: ClientConnection,
        tokens: TokenPipe,
        interrupt_fd: int,
        crash_fd: int,
    ) -> None:
        self.number = number
        self.job = job
        self.connection = connection
        self.tokens = tokens
        self.interrupt_fd = interrupt_fd
        self.crash_fd = crash_fd
        """A file in memory to which Python writes its stack as a fatal signal ends it."""
        self.pid = 0
        """0 until the zygote said."""
        self.is_doomed = False
        """To be killed as soon as the pid is known."""
        self.was_told_to_exit = False
        self.has_exited = False
        self.has_hung_up = False

    def kill(self) -> None:
        """SIGKILL its process group, now or as soon as there is one."""
        self.is_doomed = True
        if self.pid and not self.has_exited:
            kill_group(self.pid)

    def close_channels(self) -> None:
        """Everything but its stream, which forks of it may still hold."""
        self.tokens.close()
        os.close(self.interrupt_fd)
        os.close(self.crash_fd)


class Workers:
    """All workers of this node by number; hears the zygote's reports."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        payloads: dict[bytes, bytes],
        wakeups: Wakeups,
        zygote: ZygoteLink,
        logs: WorkerLogs,
        note: Callable[[str, str], None],
    ) -> None:
        self._inbox = inbox
        self._payloads = payloads
        self._wakeups = wakeups
        self._logs = logs
        self._note = note
        self._zygote = zygote
        self._oom: OomWatch | None = None
        self._workers: dict[ClientID, WorkerProcess] = {}
        self._by_pid: dict[int, WorkerProcess] = {}
        self.connections: dict[ClientID, ClientConnection] = {}
        """Streams of the workers that live, by number; the loop's other clients join them here."""

    @property
    def living(self) -> list[WorkerProcess]:
        """Workers whose exit was not reported yet."""
        return [worker for worker in self._workers.values() if not worker.has_exited]

    def watch_oom(self) -> None:
        """From now on tell kills by the out-of-memory killer apart."""
        self._oom = OomWatch()

    # -------------------------------------------------------------- orders

    def start(self, number: ClientID, job: JobNumber) -> None:
        """Order a worker from the zygote."""
        theirs: list[int] = []
        try:
            worker = self._open(number, job, theirs)
            self._enter(worker)
            sock_fd, interrupt_end, out_fd, err_fd = theirs
            fds = [sock_fd, worker.tokens.worker_end, interrupt_end, out_fd, err_fd]
            self._zygote.start(number, job, [*fds, worker.crash_fd])
        except OSError as error:
            self._fail_start(number, str(error))
        finally:
            for fd in theirs:
                os.close(fd)

    def kill(self, number: ClientID) -> None:
        """Kill a worker's process group; its loss is reported as any other."""
        worker = self._workers.get(number)
        if worker is not None:
            worker.kill()

    def retract(self, number: ClientID, count: int) -> None:
        """Take back up to `count` runs that the worker has not begun; reports how many."""
        worker = self._workers.get(number)
        taken = 0
        if worker is not None and not worker.has_exited:
            queue = worker.connection.queue
            taken = queue.take_back(count)
            taken += worker.tokens.take(count - taken)
            if taken:
                queue.send(frame(_encode([["retracted", taken]])))
                worker.tokens.advance()
        self._inbox.facts.append(RunsRetracted(number, taken))

    def interrupt(self, number: ClientID, task: TaskID, attempt: int) -> None:
        """Make a worker look which attempt is to be interrupted."""
        worker = self._workers.get(number)
        if worker is None or worker.has_exited or not worker.pid:
            return
        try:
            os.write(worker.interrupt_fd, task + attempt.to_bytes(4, "big"))
        except BlockingIOError:
            pass  # Thousands of names are unread in there; the signal makes it read them.
        os.kill(worker.pid, signal.SIGINT)

    def note_told_to_exit(self, number: ClientID) -> None:
        """`ExitWorker` was sent: its end is expected."""
        worker = self._workers.get(number)
        if worker is not None:
            worker.was_told_to_exit = True

    # -------------------------------------------------------------- reports of the zygote

    def on_started(self, number: int, pid: int) -> None:
        """The worker was forked."""
        worker = self._workers[ClientID(number)]
        worker.pid = pid
        self._by_pid[pid] = worker
        self._logs.name_process(worker.number, pid)
        if worker.is_doomed:
            worker.kill()

    def on_start_failed(self, number: int, reason: str) -> None:
        """The worker could not be forked."""
        self._fail_start(ClientID(number), reason)

    def on_zygote_gone(self) -> set[int]:
        """Workers that were not forked yet never will be; the others live on.

        One may have been forked and not reported: its socket closes here, which ends it.
        """
        self._note("warning", "the zygote process died; a new one starts with the next worker")
        for worker in self.living:
            if not worker.pid:
                self._fail_start(worker.number, "the zygote process died")
        return {worker.pid for worker in self.living}

    def on_exited(self, pid: int, status: int | None) -> None:
        """The worker is dead: last words, leftover runs, loss, and its group with it."""
        worker = self._by_pid.pop(pid)
        worker.has_exited = True
        struck = status == -signal.SIGKILL and self._oom is not None and self._oom.struck()
        reason = death_reason(status, struck_by_oom=struck and not worker.is_doomed)
        connection = worker.connection
        del self.connections[worker.number]
        try:
            if not worker.has_hung_up and not connection.drain(self._inbox):
                worker.has_hung_up = True
        except Garbage as error:
            reason = f"{reason}, after it sent garbage: {error}"
        unclaimed = worker.tokens.take_all() + connection.queue.withheld
        expected = worker.was_told_to_exit
        if status is not None and status < 0 and (stack := crash_stack(worker.crash_fd)):
            reason = f"{reason}\n{stack}"
            self._logs.add(worker.number, worker.job, pid, stack.split("\n"))
        self._inbox.facts.append(WorkerLost(worker.number, unclaimed, expected, reason))
        worker.close_channels()
        # While it is a zombie, the number of its group is nobody else's.
        kill_group(pid)
        self._zygote.reap(pid)
        if worker.has_hung_up:
            self._end(worker)
        else:
            self._await_hang_up(worker)

    # -------------------------------------------------------------- its stream

    def _on_stream(self, worker: WorkerProcess, mask: int) -> None:
        connection = worker.connection
        if mask & WRITE:
            connection.queue.flush()
        if mask & ~WRITE:
            try:
                if not connection.receive(self._inbox):
                    self._on_hang_up(worker)
            except Garbage as error:
                self._note("error", f"worker {worker.number} is killed: {error}")
                self._wakeups.forget(connection.sock.fileno())
                worker.kill()

    def _on_hang_up(self, worker: WorkerProcess) -> None:
        """It closed its stream: usually it is ending, and its exit follows at once."""
        worker.has_hung_up = True
        self._wakeups.forget(worker.connection.sock.fileno())
        self._wakeups.call_at(monotonic_ns() + _EXIT_GRACE_NS, worker.kill)

    def _await_hang_up(self, worker: WorkerProcess) -> None:
        """Forks of the dead worker may hold its socket, and what it had mapped."""
        fd = worker.connection.sock.fileno()
        self._wakeups.forget(fd)
        self._wakeups.watch(fd, lambda _mask: self._end(worker), 0)

    def _end(self, worker: WorkerProcess) -> None:
        """Nothing of the process is left."""
        self._close(worker)
        self._inbox.facts.append(ProcessGone(worker.number))

    # -------------------------------------------------------------- making one

    def _open(self, number: ClientID, job: JobNumber, theirs: list[int]) -> WorkerProcess:
        """Make a worker's channels; `theirs` receives the ends that the process gets.

        Raises OSError, everything of ours closed.
        """
        with contextlib.ExitStack() as undo:
            tokens = TokenPipe()
            undo.callback(tokens.close)
            ours, sock = socket.socketpair()
            undo.callback(ours.close)
            theirs.append(sock.detach())
            interrupt_end, interrupt_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            theirs.append(interrupt_end)
            undo.callback(os.close, interrupt_fd)
            crash_fd = os.memfd_create("crash")
            undo.callback(os.close, crash_fd)
            theirs += self._logs.open(number, job)
            undo.pop_all()
        ours.setblocking(False)
        connection = ClientConnection(number, ours, self._wakeups, self._payloads, tokens=tokens)
        return WorkerProcess(number, job, connection, tokens, interrupt_fd, crash_fd)

    def _enter(self, worker: WorkerProcess) -> None:
        self._workers[worker.number] = worker
        self.connections[worker.number] = worker.connection
        fd = worker.connection.sock.fileno()
        self._wakeups.watch(fd, partial(self._on_stream, worker))

    def _fail_start(self, number: ClientID, reason: str) -> None:
        worker = self._workers.get(number)
        if worker is not None:
            del self.connections[number]
            worker.close_channels()
            self._close(worker)
        self._inbox.facts.append(WorkerStartFailed(number, reason))

    def _close(self, worker: WorkerProcess) -> None:
        sock = worker.connection.sock
        self._wakeups.forget(sock.fileno())
        sock.close()
        del self._workers[worker.number]
