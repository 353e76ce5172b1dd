"""A simulated node: a local scheduler, its processes, their memory and the machine's disk.

One `SimNode` is one incarnation: after a crash, or after it left the cluster, the same machine gets
a new one with a new core and nothing in it. Nothing is decided here; each effect is performed as
the runtime performs it, and answered as its docstring says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from detray.core import effects as ef
from detray.core import local
from detray.core import stimuli as st
from detray.core.config import LocalConfig
from detray.core.effects import INLINE, ClientMessage, Effect
from detray.core.head_messages import NodeBuried
from detray.core.local import LocalScheduler
from detray.core.outbox import CLIENT_MESSAGES
from detray.core.payloads import INCOMING, OUTGOING
from detray.core.session import Goodbye
from detray.ids import ClientID, NodeID
from detray_sim.behaviour import Got
from detray_sim.disk import Disk
from detray_sim.draws import draw
from detray_sim.driver import SimDriver
from detray_sim.head import HEAD_MACHINE, SimHead
from detray_sim.process import SimProcess
from detray_sim.server import CoreServer
from detray_sim.transport import Sent
from detray_sim.values import Blob, BlockMemory, Corruption, Value
from detray_sim.worker import SimWorker

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster

FULL = 1000
OOM_REASON = "killed by the kernel's out-of-memory killer"


class SimNode(CoreServer):
    """An incarnation of a machine."""

    def __init__(self, cluster: SimCluster, machine: int, config: LocalConfig) -> None:
        super().__init__(cluster, config.node_name, machine, LocalScheduler(config))
        self.config = config
        self.payloads: dict[bytes, Value] = {}
        self._brought: list[tuple[bytes, Value]] = []
        """Payloads of the inbox: an order that is still to be performed does not mean them."""
        self.memory = BlockMemory()
        self.disk: Disk = cluster.disks[machine]
        self.processes: dict[ClientID, SimProcess] = {}
        """Those whose stream is open: until their loss is reported."""
        self.speed_permille = FULL * cluster.shape(machine).speed_permille // FULL
        self.stopped = ""
        """Why the core ordered the end of the service."""
        self.failing_starts = 0
        self.late_finalizers_ns = 0
        self._drivers = 0
        self._buried: set[NodeID] = set()
        self._draws = 0
        self.head: SimHead = cluster.head
        """Whom it tells what it has to tell a head; dead, perhaps."""
        self._next_head: SimHead | None = None
        """Who greeted since, and is listened to from then on."""
        self._epoch = cluster.head.epoch
        if st.NodeStarted in local._HANDLERS:
            self.clock.after(cluster.costs.boot_ns, self.tell, st.NodeStarted())

    # -------------------------------------------------------------- for processes

    def cpu_ns(self, ns: int) -> int:
        """How long `ns` of computing take on this machine as it is now."""
        return ns if self.speed_permille == FULL else ns * FULL // max(1, self.speed_permille)

    def finalizer_delay_ns(self) -> int:
        """How late the finalizers of a body that ended now run."""
        bound = self.late_finalizers_ns
        return self.drawn("finalizer", bound + 1) if bound else 0

    def drawn(self, purpose: str, bound: int) -> int:
        """A number in [0, bound) by lot."""
        self._draws += 1
        return (
            draw(self.cluster.config.seed, f"node{self.number}", purpose, self._draws) * bound >> 64
        )

    def saw(self, gots: Iterable[Got]) -> None:
        """A process read values: for whoever checks that all readers see the same."""
        reads = self.cluster.reads
        if reads is not None:
            for got in gots:
                if not got.failure and reads.setdefault(got.object, got.value) != got.value:
                    raise Corruption(f"{got!r} was read as {reads[got.object]!r} before")

    def began(self, worker: SimWorker, message: ef.RunTask) -> None:
        """A worker began a run."""
        listener = self.cluster.listener
        if listener is not None:
            listener(self, worker, message)

    def note(self, text: str) -> None:
        """Something worth reading after the run."""
        self.cluster.note(f"{self!r}: {text}")

    def hear(self, process: SimProcess, messages: Sequence[Any], payloads: Sequence[Value]) -> None:
        """A frame of a process arrived. (Any: client messages of all kinds.)"""
        if not self.is_alive or process.client not in self.processes:
            return
        if payloads:
            self._keep(messages, payloads)
        if self.cluster.tap is not None:
            self.cluster.tap(self, messages, payloads)
        self.inbox += messages
        self.wake()

    def _keep(self, messages: Iterable[Any], values: Sequence[Value]) -> None:
        """Keep the payload of messages under its keys, until the next step in `_brought`."""
        brought = self._brought
        at = 0
        for message in messages:
            keys_of = INCOMING.get(type(message))
            if keys_of is not None:
                for key, size in keys_of(message):
                    value = values[at]
                    at += 1
                    if (value.size_bytes if type(value) is Blob else len(value)) != size:
                        raise Corruption(f"{message} came with {value!r}")
                    brought.append((key, value))
        if at != len(values):
            raise Corruption(f"{len(values) - at} values came with no message: {values[at:]!r}")

    def begin_step(self) -> None:
        """What was brought belongs to what is handled now; what is there already stays.

        What follows from the step that hears of another head goes to that one.
        """
        if self._next_head is not None:
            wire = self.wires.pop(self.head, None)
            if wire is not None:
                wire.close()
            self.head, self._next_head = self._next_head, None
        if self._brought:
            for key, value in self._brought:
                self.payloads.setdefault(key, value)
            self._brought.clear()

    # -------------------------------------------------------------- drivers

    def connect(self, make: Callable[[SimNode, ClientID], SimDriver]) -> SimDriver:
        """A driver program begins on this machine and connects."""
        self._drivers += 1
        client = ClientID(-self._drivers)
        driver = make(self, client)
        self.processes[client] = driver
        self.clock.after(
            self.costs.ipc_ns,
            self.tell,
            st.DriverConnected(client, 100 - client, "", driver.entrypoint),
        )
        return driver

    def kill(self, process: SimProcess, reason: str, *, delay_ns: int | None = None) -> None:
        """A process dies now. Its last words are heard, then its loss, then that it is gone."""
        if not process.is_alive:
            return
        process.die()
        delay_ns = self.costs.death_ns if delay_ns is None else delay_ns
        self.clock.after(self.costs.ipc_ns + delay_ns, self._report_death, process, reason)

    def _report_death(self, process: SimProcess, reason: str) -> None:
        if self.processes.pop(process.client, None) is None or not self.is_alive:
            return
        client = process.client
        if isinstance(process, SimWorker):
            expected = process.was_told_to_exit
            self.inbox.append(st.WorkerLost(client, len(process.tokens), expected, reason))
        else:
            self.inbox.append(st.ClientLost(client, reason))
        gone_ns = self.costs.gone_ns + self.finalizer_delay_ns()
        if gone_ns:
            self.clock.after(gone_ns, self._report_gone, process)
        else:
            process.gone()
            self.inbox.append(st.ProcessGone(client))
        self.wake()

    def _report_gone(self, process: SimProcess) -> None:
        process.gone()
        self.tell(st.ProcessGone(process.client))

    # -------------------------------------------------------------- effects

    def perform(self, effects: Sequence[Effect]) -> None:
        """Copies of payloads, one frame to each client, then all other orders, as they come."""
        frames: dict[ClientID, list[ClientMessage]] = {}
        orders: list[Any] = []
        for effect in effects:
            kind = type(effect)
            if kind in CLIENT_MESSAGES:
                client = effect.client  # type: ignore[union-attr]  # the table says so
                frame = frames.get(client)
                if frame is None:
                    frames[client] = [effect]  # type: ignore[list-item]  # the table says so
                else:
                    frame.append(effect)  # type: ignore[arg-type]  # the table says so
            elif kind is ef.CopyPayload:
                self.payloads.setdefault(effect.target, self._payload(effect.source))  # type: ignore[union-attr]
            else:
                orders.append(effect)
        for client, frame in frames.items():
            process = self.processes.get(client)
            if process is not None:
                self._send_frame(process, frame)
        packets: dict[CoreServer, list[Sent]] = {}
        for order in orders:
            kind = type(order)
            if kind is ef.SendToPeer:
                self._post(packets, self.cluster.members[order.node], order.message)
            elif kind is ef.SendToHead:
                self._post(packets, self.head, order.message)
            else:
                _PERFORM[kind](self, order)
        for remote, packet in packets.items():
            self.cluster.messages += len(packet)
            self.wire_to(remote).send(packet)

    def _payload(self, key: bytes) -> Value:
        value = self.payloads.get(key)
        if value is None:
            raise Corruption(f"{self!r} has no payload {key.hex()}")
        return value

    def _post(
        self,
        packets: dict[CoreServer, list[Sent]],
        remote: CoreServer,
        message: Any,  # Any: messages of all kinds
    ) -> None:
        keys_of = OUTGOING.get(type(message))
        values: tuple[Value, ...] = ()
        if keys_of is not None:
            values = tuple([self._payload(key) for key in keys_of(message)])
        packet = packets.get(remote)
        if packet is None:
            packets[remote] = [(message, values)]
        else:
            packet.append((message, values))

    def _send_frame(self, process: SimProcess, frame: list[ClientMessage]) -> None:
        values: list[Value] = []
        runs = 0
        for message in frame:
            kind = type(message)
            if kind is ef.RunTask:
                runs += 1
            elif kind is ef.GrantBlock:
                self._open_block(process, message)  # type: ignore[arg-type]  # its kind says so
            elif kind is ef.ExitWorker:
                process.was_told_to_exit = True  # type: ignore[attr-defined]  # a worker
            keys_of = OUTGOING.get(kind)
            if keys_of is not None:
                for key in keys_of(message):
                    values.append(self._payload(key))
        if runs:
            process.grant(runs)  # type: ignore[attr-defined]  # only workers get runs
        self.clock.after(self.costs.ipc_ns, process.receive, frame, values)

    def _open_block(self, process: SimProcess, grant: ef.GrantBlock) -> None:
        block = self.core.tables.clients[process.client].blocks.get(grant.object)
        if block is not None:  # else it was given back in the same step
            self.memory.open(grant.segment, grant.offset, block.size_bytes, grant.object)

    def _start_worker(self, order: ef.StartWorker) -> None:
        costs = self.costs
        client = order.client
        if self.failing_starts:
            self.failing_starts -= 1
            self.clock.after(
                costs.worker_start_ns, self.tell, st.WorkerStartFailed(client, "no processes left")
            )
            return
        worker = SimWorker(self, client, order.job)
        self.processes[client] = worker
        start_ns = self.cpu_ns(costs.worker_start_ns)
        if costs.worker_start_spread_ns:
            start_ns += self.drawn("worker start", costs.worker_start_spread_ns + 1)
        self.clock.after(start_ns, worker.get_ready)

    def _kill_worker(self, order: ef.KillWorker) -> None:
        process = self.processes.get(order.client)
        if process is not None:
            self.kill(process, "killed by signal 9 (SIGKILL)")

    def _retract_runs(self, order: ef.RetractRuns) -> None:
        worker = self.processes.get(order.client)
        taken = 0
        if worker is not None:
            taken = worker.take_back(order.count)  # type: ignore[attr-defined]  # a worker
        self.inbox.append(st.RunsRetracted(order.client, taken))

    def _drop_payloads(self, order: ef.DropPayloads) -> None:
        payloads = self.payloads
        for key in order.keys:
            if payloads.pop(key, None) is None:
                raise Corruption(f"{self!r} drops payload {key.hex()}, which is not there")

    def _free_block(self, order: ef.FreeBlock) -> None:
        self.memory.close(order.segment, order.offset)
        self.disk.shrink(self, order.segment, order.size_bytes)

    def _open_segment(self, order: ef.OpenSegment) -> None:
        self.clock.after(self.costs.disk_open_ns, self._segment_opened, order)

    def _segment_opened(self, order: ef.OpenSegment) -> None:
        reason = self.disk.open(self, order.segment, order.size_bytes)
        if reason:
            self.tell(st.SegmentFailed(order.segment, reason, self.disk.free_bytes))
        else:
            self.tell(st.SegmentOpened(order.segment))

    def _close_segment(self, order: ef.CloseSegment) -> None:
        self.memory.close_segment(order.segment)
        self.disk.close(self, order.segment)

    def _move_object(self, order: ef.MoveObject) -> None:
        """Copy a value into a file, beside the loop."""
        source = None
        if order.segment == INLINE:
            value = self._payload(order.object)
        else:
            source = self.memory.read(order.segment, order.offset, order.object)
            source.users += 1
            value = source.value  # type: ignore[assignment]  # `read` saw to it
        cell = self.memory.open(order.to_segment, order.to_offset, order.size_bytes, order.object)
        cell.users += 1

        def moved() -> None:
            cell.users -= 1
            if source is not None:
                source.users -= 1
            where = (order.object, order.to_segment, order.to_offset)
            if self.disk.strikes():
                self.tell(st.ObjectMoveFailed(*where, "input/output error"))
                return
            if self.is_alive:
                self.memory.write(cell, value)
                cell.is_corrupt = self.disk.corrupts
            self.tell(st.ObjectMoved(*where))

        self.clock.after(self.disk.time_of(order.size_bytes), moved)

    def _stop_node(self, order: ef.StopNode) -> None:
        self.stopped = order.reason

    def _send_object(self, order: ef.SendObject) -> None:
        self.cluster.flows.send(self, order)

    def _receive_object(self, order: ef.ReceiveObject) -> None:
        self.cluster.flows.receive(self, order)

    def _abort_receive(self, order: ef.AbortReceive) -> None:
        self.cluster.flows.abort(self, order)

    def _leave_cluster(self, order: ef.LeaveCluster) -> None:
        self.cluster.leave(self, order.reason)

    def _dump(self, order: ef.DumpRecorder) -> None:
        self.note(f"recorder dumped: {order.reason}")

    # -------------------------------------------------------------- other cores

    def deliver(self, source: CoreServer, message: Any, values: Sequence[Any]) -> None:
        """A message of the head or of another node. (Any: all kinds.)"""
        if values:
            self._keep((message,), values)
        if self.cluster.tap is not None and source.machine != HEAD_MACHINE:
            self.cluster.tap(self, (message,), values)
        if type(message) is NodeBuried:
            self._buried.add(message.node)
            node = self.cluster.members.get(message.node)
            if node in self.wires and node.node_id == message.node:
                self.wires[node].close()
        self.inbox.append(message)

    def hailed(self, source: CoreServer, epoch: int) -> None:
        """A head greets: a later one than all before is the head from now on."""
        if epoch > self._epoch:
            self._epoch = epoch
            self._next_head = source  # type: ignore[assignment]  # only heads hail
            self.tell(st.HeadRestarted(epoch))

    def refuses(self, source: CoreServer) -> bool:
        """True for a node that the head has buried, and for all heads but the last that greeted."""
        if source.machine == HEAD_MACHINE:
            return source is not (self._next_head or self.head)
        return bool(self._buried) and source.node_id in self._buried

    def refused(self, source: CoreServer, goodbye: Goodbye) -> None:
        """The head's goodbye is final; another node only stops talking to us."""
        if source.machine == HEAD_MACHINE:
            if source is (self._next_head or self.head) and goodbye.is_receiver_buried:
                self.tell(st.Fenced("the head does not know this incarnation any more"))
        elif source in self.wires:
            self.wires[source].close()

    # -------------------------------------------------------------- ends

    def end(self) -> None:
        """The machine stopped, or leaves: nothing of this incarnation is left."""
        super().end()
        for process in self.processes.values():
            process.die()
            process.gone()
        self.processes.clear()
        self.disk.forget(self)


# Any: each entry takes the effect type that is its key.
_PERFORM: dict[type, Callable[[SimNode, Any], None]] = {
    ef.StartWorker: SimNode._start_worker,
    ef.KillWorker: SimNode._kill_worker,
    ef.RetractRuns: SimNode._retract_runs,
    ef.DropPayloads: SimNode._drop_payloads,
    ef.FreeBlock: SimNode._free_block,
    ef.OpenSegment: SimNode._open_segment,
    ef.CloseSegment: SimNode._close_segment,
    ef.MoveObject: SimNode._move_object,
    ef.DumpRecorder: SimNode._dump,
    ef.StopNode: SimNode._stop_node,
    ef.SendObject: SimNode._send_object,
    ef.ReceiveObject: SimNode._receive_object,
    ef.AbortReceive: SimNode._abort_receive,
    ef.LeaveCluster: SimNode._leave_cluster,
}
