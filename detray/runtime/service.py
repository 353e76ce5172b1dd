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
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

from detray.core.effects import ExitWorker
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.core.stimuli import NodeStopping
from detray.ids import ClientID
from detray.runtime.answers import NodeAnswers
from detray.runtime.boot import BootConfig, ClusterBoot
from detray.runtime.children import rename_process
from detray.runtime.connections import Inbox
from detray.runtime.drivers import Guests
from detray.runtime.frames import FrameReader, frame
from detray.runtime.log_channel import Answer, DriverChannels, LogChannel
from detray.runtime.log_files import LogFiles
from detray.runtime.perform import SPAWNING_DRIVER, Performer
from detray.runtime.processes import Workers
from detray.runtime.recording import Recording
from detray.runtime.segments import Segments
from detray.runtime.session import SOCKET_NAME, remove_session
from detray.runtime.wakeups import Wakeups
from detray.runtime.worker_logs import WorkerLogs
from detray.runtime.zygote_link import ZygoteLink

if TYPE_CHECKING:
    # Loaded only by the nodes of clusters.
    from detray.runtime.daemon import Daemon
    from detray.runtime.member import Member

NODE, HEAD = 0, 1
"""The numbers of the two cores in a trace."""
_ROUNDS_MAX = 10_000
_READS_BEFORE_DEADLINE_MAX = 1_000
_EXIT_NS = 200_000_000
_KILL_ROUNDS = 10
_LAST_LINES_S = 2.0
_GC_ALLOCATIONS = 100_000

_encode = msgspec.msgpack.Encoder().encode
Order = TypeVar("Order", bound=msgspec.Struct)


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
    boot = read_order(boot_fd, BootConfig)
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
    if service.is_to_return:
        service.come_back()
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
        self._given = boot
        self._stop_reason: str | None = None
        self._is_stopping = False
        self._inbox = inbox = Inbox()
        self._wakeups = wakeups = Wakeups()
        payloads: dict[bytes, bytes] = {}
        self._daemon: Daemon | None = None
        self._member: Member | None = None
        if boot.cluster is not None:
            made = self._make_member(boot, boot.cluster, payloads, client, log)
            self._daemon, self._member = made
        self._boot = boot = _with_address(boot, self._member)
        arena_fd = make_arena(boot.local.arena_bytes)
        self._zygote = ZygoteLink(
            *zygote, boot=boot, arena_fd=arena_fd, lock_fd=lock_fd, wakeups=wakeups
        )
        self._log = DriverChannels(self._member.forward_lines if self._member else None)
        self._files = files = LogFiles(boot.session_dir)
        self._worker_logs = WorkerLogs(wakeups, self._log, files if self._member else None)
        self._workers = Workers(
            inbox=inbox,
            payloads=payloads,
            wakeups=wakeups,
            zygote=self._zygote,
            logs=self._worker_logs,
            note=self._note,
        )
        self._zygote.report_to(self._workers)
        self._guests = self._make_guests(payloads, arena_fd)
        self._segments = Segments(boot.session_dir, arena_fd, wakeups, inbox)
        self._local = LocalScheduler(boot.local)
        self._cores = (self._local, GlobalScheduler(boot.global_))
        self._recording = Recording(
            boot,
            self._cores,
            life=self._member.life if self._member else "",
            wakeups=wakeups,
            log=self._log,
            in_background=self._segments.run,
            view=self._segments.view,
        )
        inbox.tap = self._recording.tap
        self._answers = NodeAnswers(self._local, self._recording, self._files, self._facts)
        self._performer = self._make_performer(payloads)
        self._begin(client, log)

    def _begin(self, client: socket.socket, log: socket.socket) -> None:
        """Join the cluster, or take in the driver that started us."""
        boot = self._boot
        if self._member is not None:
            self._join(self._member)
        else:
            self._open_log(SPAWNING_DRIVER, log)
            self._guests.add_driver(client, boot.driver_pid, boot.namespace, boot.entrypoint)

    def _make_guests(self, payloads: dict[bytes, bytes], arena_fd: int) -> Guests:
        return Guests(
            inbox=self._inbox,
            payloads=payloads,
            wakeups=self._wakeups,
            connections=self._workers.connections,
            arena_fd=arena_fd,
            digests=self._boot.digests,
            note=self._note,
            open_log=self._open_log,
        )

    def _make_performer(self, payloads: dict[bytes, bytes]) -> Performer:
        return Performer(
            payloads=payloads,
            connections=self._workers.connections,
            workers=self._workers,
            segments=self._segments,
            log=self._log,
            member=self._member,
            dump=self._recording.dump,
            stop=self._stop,
            cut_off=self._cut_off,
        )

    def run(self) -> None:
        """Serve until a core orders the end."""
        self._guests.listen(os.path.join(self._boot.session_dir, SOCKET_NAME))
        if self._member is not None:
            self._take_step()
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
            if self._daemon is not None and self._member is not None:
                self._look_after_membership(self._daemon, self._member)

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
                if self._member is not None:
                    self._member.after_step()
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
        if self._daemon is None:
            self._log.notify(level, "service", text)
        else:
            print(f"{level}: {text}", file=sys.stderr, flush=True)

    def _cut_off(self, number: ClientID, reason: str) -> None:
        """End the connection of a client that misbehaves."""
        self._note("error", f"client {number} is cut off: {reason}")
        self._workers.kill(number)
        self._guests.cut_off(number, reason)

    # -------------------------------------------------------------- what drivers ask

    def _open_log(
        self, client: ClientID, sock: socket.socket, reader: FrameReader | None = None
    ) -> None:
        channel = LogChannel(
            client,
            sock,
            self._wakeups,
            wants_lines=self._boot.log_to_driver,
            requests=self,
            on_end=self._log.remove,
            reader=reader,
        )
        self._log.add(channel)
        channel.answer_first()

    def read_trace(self) -> bytes:
        """The recording so far."""
        return self._recording.read()

    def shut_down(self, client: ClientID) -> None:
        """A driver says good-bye."""
        self._guests.part(client, "it shut down")

    def ask(self, topic: str, arguments: list[Any], answer: Answer) -> None:
        """A driver's question: a cluster's head knows, or this node, which is all there is."""
        if self._member is not None:
            self._member.ask_head(topic, arguments, answer)
        else:
            self._answers.answer(topic, arguments, answer)

    # -------------------------------------------------------------- clusters

    def _join(self, member: Member) -> None:
        member.on_lines = self._log.lines_from
        member.on_question = self._answers.answer
        member.begin(self._local, self._segments)

    def _make_member(
        self,
        boot: BootConfig,
        cluster: ClusterBoot,
        payloads: dict[bytes, bytes],
        starter: socket.socket,
        lifeline: socket.socket,
    ) -> tuple[Daemon, Member]:
        """What a node of a cluster has besides. Ends the process if its address is taken."""
        from detray.runtime.daemon import Daemon
        from detray.runtime.member import Member

        daemon = Daemon(
            cluster,
            boot.session_dir,
            starter=starter,
            lifeline=lifeline,
            wakeups=self._wakeups,
        )
        try:
            member = Member(
                cluster,
                name=boot.local.node_name,
                inbox=self._inbox,
                payloads=payloads,
                wakeups=self._wakeups,
                note=self._note,
            )
        except OSError as problem:
            daemon.tell_not_ready(str(problem))
            os._exit(1)  # There is nothing here yet; the zygote cleans up.
        return daemon, member

    def _facts(self) -> dict[str, Any]:
        if self._member is not None:
            return self._member.facts()
        summary = self._local.describe("summary")
        assert isinstance(summary, dict)
        return summary

    def _look_after_membership(self, daemon: Daemon, member: Member) -> None:
        """Be found once we are a member; end when we are none any more, or are told to."""
        if not daemon.is_told and member.node >= 0:
            daemon.tell_ready(member.info())
        if member.left and self._stop_reason is None:
            self._note("error", f"this node leaves the cluster: {member.left}")
            daemon.tell_not_ready(member.left)
            self._stop(member.left)
        elif daemon.stop_asked and not self._is_stopping:
            self._is_stopping = True
            self._inbox.facts.append(NodeStopping(daemon.stop_asked))
            self._take_step()

    @property
    def is_to_return(self) -> bool:
        """True for a node that was declared dead and is not: it comes back as a new one."""
        return self._member is not None and self._member.is_fenced

    def come_back(self) -> NoReturn:
        """Be a fresh service in this process, with the boot order of this one."""
        from detray.runtime.rebirth import come_back

        assert self._daemon is not None
        come_back(self._given, self._daemon.lifeline)

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
        if self._member is not None:
            self._member.say_last_words()
        self._recording.close(self._stop_reason or "")
        self._log.flush_to_end(_LAST_LINES_S)
        self._zygote.close()
        remove_session(self._boot.session_dir)


def read_order(fd: int, kind: type[Order]) -> Order:
    """What whoever started us tells; it may still be importing what it needs to say it."""
    with open(fd, "rb") as pipe:
        data = pipe.read()
    if not data:
        os._exit(1)  # The driver died first; the zygote cleans up.
    return msgspec.msgpack.decode(data, type=kind)


def _with_address(boot: BootConfig, member: Member | None) -> BootConfig:
    """The boot order, once it is known where the node listens."""
    if member is None:
        return boot
    local = msgspec.structs.replace(boot.local, address=str(member.address), life=member.life)
    return msgspec.structs.replace(boot, local=local)


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
