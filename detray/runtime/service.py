"""The service: one thread that feeds the cores and performs what they order.

Theory of operation
-------------------
A wake-up reads everything that has arrived into the inbox and takes one step with all of it. What
that step orders can be answered at once (a retraction, a failed start) and the two cores of this
process talk to each other: further steps follow in the same wake-up until nobody has anything to
say. Every `handle` of either core is one recorded step.

Deadlines come after stimuli (PROTOCOL T4): before a step that a deadline caused, whatever has
arrived meanwhile is read to the last byte, however long this process was stopped.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from time import monotonic_ns
from typing import Any, NoReturn

import msgspec

from detray.core.effects import ExitWorker
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.ids import ClientID
from detray.runtime.boot import BootConfig
from detray.runtime.children import rename_process
from detray.runtime.connections import Inbox
from detray.runtime.drivers import Guests
from detray.runtime.frames import frame
from detray.runtime.log_channel import LogChannel
from detray.runtime.perform import SPAWNING_DRIVER, Performer
from detray.runtime.processes import Workers
from detray.runtime.recording import Recording
from detray.runtime.segments import Segments
from detray.runtime.session import SOCKET_NAME, remove_session
from detray.runtime.wakeups import Wakeups
from detray.runtime.worker_logs import WorkerLogs
from detray.runtime.zygote_link import ZygoteLink

NODE, HEAD = 0, 1
"""The numbers of the two cores in a trace."""
_ROUNDS_MAX = 10_000
_READS_BEFORE_DEADLINE_MAX = 1_000
_EXIT_NS = 200_000_000
_KILL_ROUNDS = 10
_LAST_LINES_S = 2.0
_GC_ALLOCATIONS = 100_000

_encode = msgspec.msgpack.Encoder().encode


def main(
    *,
    client_fd: int,
    log_fd: int,
    boot_fd: int,
    lock_fd: int,
    control_fd: int,
    zygote_pid: int,
) -> NoReturn:
    """Be the service until a core says stop. The descriptors are those of `entry.py`."""
    for fd in (client_fd, log_fd, lock_fd, control_fd):
        os.set_inheritable(fd, False)
    rename_process("detray:service")
    boot = read_boot(boot_fd)
    try:
        service = Service(
            boot,
            client=socket.socket(fileno=client_fd),
            log=socket.socket(fileno=log_fd),
            lock_fd=lock_fd,
            zygote=(control_fd, zygote_pid),
        )
    except ConnectionError:
        os._exit(1)  # The driver died meanwhile; the zygote cleans up.
    # Nothing here makes garbage in cycles; looking for it among a million tasks would be felt.
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 50, 100)
    try:
        service.run()
    except BaseException:
        import traceback  # 5 ms that only a crash needs

        # A bug of ours. Without us the zygote kills the workers and cleans up.
        service.tell_crash(traceback.format_exc())
        os._exit(1)
    service.end()
    os._exit(0)


class Service:
    """A node's processes, connections and cores."""

    def __init__(
        self,
        boot: BootConfig,
        *,
        client: socket.socket,
        log: socket.socket,
        lock_fd: int,
        zygote: tuple[int, int],
    ) -> None:
        self._boot = boot
        self._stop_reason: str | None = None
        self._inbox = inbox = Inbox()
        self._wakeups = wakeups = Wakeups()
        arena_fd = make_arena(boot.local.arena_bytes)
        payloads: dict[bytes, bytes] = {}
        self._zygote = ZygoteLink(
            *zygote, boot=boot, arena_fd=arena_fd, lock_fd=lock_fd, wakeups=wakeups
        )
        self._log = LogChannel(
            log,
            wakeups,
            wants_lines=boot.log_to_driver,
            read_trace=lambda: self._recording.read(),
            shut_down=self._on_shutdown_request,
        )
        self._worker_logs = WorkerLogs(wakeups, self._log)
        self._workers = Workers(
            inbox=inbox,
            payloads=payloads,
            wakeups=wakeups,
            zygote=self._zygote,
            logs=self._worker_logs,
            note=self._note,
        )
        self._zygote.report_to(self._workers)
        self._guests = Guests(
            inbox=inbox,
            payloads=payloads,
            wakeups=wakeups,
            connections=self._workers.connections,
            arena_fd=arena_fd,
            note=self._note,
        )
        self._segments = Segments(boot.session_dir, arena_fd, wakeups, inbox)
        self._cores: tuple[LocalScheduler, GlobalScheduler] = (
            LocalScheduler(boot.local),
            GlobalScheduler(boot.global_),
        )
        self._recording = Recording(
            boot,
            self._cores,
            wakeups=wakeups,
            log=self._log,
            in_background=self._segments.run,
        )
        self._performer = self._make_performer(payloads)
        self._guests.add_driver(client, boot.driver_pid, boot.namespace, boot.entrypoint)

    def _make_performer(self, payloads: dict[bytes, bytes]) -> Performer:
        return Performer(
            payloads=payloads,
            connections=self._workers.connections,
            workers=self._workers,
            segments=self._segments,
            log=self._log,
            dump=self._recording.dump,
            stop=self._stop,
            cut_off=self._cut_off,
        )

    def run(self) -> None:
        """Serve until a core orders the end."""
        self._guests.listen(os.path.join(self._boot.session_dir, SOCKET_NAME))
        self._settle()
        # The first workers are under way, the driver is welcome: now what would have delayed them.
        self._zygote.adopt_orphans()
        self._workers.watch_oom()
        allow_many_descriptors()
        core, inbox, wakeups = self._cores[NODE], self._inbox, self._wakeups
        while self._stop_reason is None:
            deadline_ns = core.next_deadline_ns
            wakeups.dispatch(deadline_ns)
            if deadline_ns is not None and monotonic_ns() >= deadline_ns:
                self._read_everything()
                self._take_step()
            elif not inbox.is_empty:
                self._take_step()

    # -------------------------------------------------------------- steps

    def _take_step(self) -> None:
        """One step with what arrived (perhaps nothing: a deadline), and what follows from it."""
        metas, said, facts = self._inbox.take()
        if facts:
            metas.append(_encode(facts))
        self._handle(NODE, metas, [*said, *facts])
        self._settle()
        self._recording.keep_fresh()

    def _settle(self) -> None:
        """Further steps until neither core has anything left to hear."""
        performer, inbox = self._performer, self._inbox
        for _ in range(_ROUNDS_MAX):
            if performer.to_head:
                for_head, performer.to_head = performer.to_head, []
                self._handle(HEAD, [_encode(for_head)], for_head)
            elif performer.to_node:
                for_node, performer.to_node = performer.to_node, []
                self._handle(NODE, [_encode(for_node)], for_node)
            elif not inbox.is_empty:
                metas, said, facts = inbox.take()
                self._handle(NODE, [*metas, _encode(facts)], [*said, *facts])
            else:
                return
        raise RuntimeError(f"the cores did not come to rest in {_ROUNDS_MAX} steps")

    # Any: the two cores take different unions, and each gets what is meant for it.
    def _handle(self, number: int, metas: list[bytes], stimuli: list[Any]) -> None:
        now_ns = monotonic_ns()
        try:
            effects = self._cores[number].handle(*stimuli, now_ns=now_ns)
        except Exception as error:
            self._recording.step_raised(number, now_ns, metas, f"{type(error).__name__}: {error}")
            raise
        self._recording.step(number, now_ns, metas, self._performer.perform(effects))

    def _read_everything(self) -> None:
        for _ in range(_READS_BEFORE_DEADLINE_MAX):
            if not self._wakeups.dispatch_arrived():
                return

    # -------------------------------------------------------------- notes and ends

    def _note(self, level: str, text: str) -> None:
        self._log.notify(level, "service", text)

    def _cut_off(self, number: ClientID, reason: str) -> None:
        """End the connection of a client that misbehaves."""
        self._note("error", f"client {number} is cut off: {reason}")
        self._workers.kill(number)
        self._guests.cut_off(number, reason)

    def _on_shutdown_request(self) -> None:
        self._guests.part(SPAWNING_DRIVER, "it shut down")

    def _stop(self, reason: str) -> None:
        self._stop_reason = reason

    def tell_crash(self, story: str) -> None:
        """Say what went wrong wherever somebody may look, and save the flight recorder."""
        print(f"detray service: {story}", file=sys.stderr, flush=True)
        try:
            path = self._recording.dump_now("the service crashed")
            self._log.notify("error", "crash", f"{story}\nThe flight recorder is in {path}")
            self._log.flush_to_end(_LAST_LINES_S)
        except Exception as error:
            print(f"detray service: {error}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the workers, pass on their last lines, leave nothing behind."""
        for worker in self._workers.living:
            message = _encode([ExitWorker(worker.number)])
            worker.connection.queue.send(frame(message))
        until_ns = monotonic_ns() + _EXIT_NS
        while self._workers.living and monotonic_ns() < until_ns:
            self._wakeups.dispatch(until_ns)
        # Bounded: a process in an uninterruptible wait cannot be killed, and must not keep us.
        for _ in range(_KILL_ROUNDS):
            if not self._workers.living:
                break
            for worker in self._workers.living:
                worker.kill()
            self._wakeups.dispatch(monotonic_ns() + _EXIT_NS)
        self._worker_logs.drain()
        self._recording.close(self._stop_reason or "")
        self._log.flush_to_end(_LAST_LINES_S)
        self._zygote.close()
        remove_session(self._boot.session_dir)


def read_boot(fd: int) -> BootConfig:
    """What the driver tells us; it may still be importing what it needs to say it."""
    with open(fd, "rb") as pipe:
        data = pipe.read()
    if not data:
        os._exit(1)  # The driver died first; the zygote cleans up.
    return msgspec.msgpack.decode(data, type=BootConfig)


def allow_many_descriptors() -> None:
    """Each worker costs six. Workers themselves keep the limit that the driver had."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # We stay where we are: starting a worker beyond it fails with the reason.


def make_arena(size_bytes: int) -> int:
    """The descriptor of nameless shared memory: it goes with the last process that has it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("detray-arena", os.MFD_CLOEXEC)
    else:
        import tempfile

        fd, path = tempfile.mkstemp(prefix="detray-arena-")
        os.unlink(path)
    os.ftruncate(fd, size_bytes)
    return fd
