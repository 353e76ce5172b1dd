"""Effects become actions.

Order within a step: copies of payloads first (the frames may already attach the copies), then one
frame for each client that is told something, then the other orders as they come; a drop of payloads
is the last thing a core says in a step. Nothing here decides anything: an effect that names a
client who has gone is skipped, because the core has been told, or will be in the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from detray.core.effects import (
    INLINE,
    AbortReceive,
    ClientMessage,
    CloseSegment,
    CopyPayload,
    DropPayloads,
    DumpRecorder,
    Effect,
    ExitWorker,
    FreeBlock,
    InterruptRun,
    KillWorker,
    LeaveCluster,
    MoveObject,
    Notify,
    OpenSegment,
    ReceiveObject,
    RetractRuns,
    RunTask,
    SendObject,
    SendToHead,
    SendToNode,
    SendToPeer,
    StartWorker,
    StopNode,
    Welcome,
)
from detray.core.head_messages import (
    HeadMessage,
    NodeMessage,
)
from detray.core.outbox import Outbox
from detray.core.payloads import OUTGOING
from detray.ids import ClientID
from detray.runtime.connections import UNREAD_BYTES_MAX, ClientConnection
from detray.runtime.frames import frame
from detray.runtime.log_channel import DriverChannels
from detray.runtime.processes import Workers
from detray.runtime.segments import Segments

if TYPE_CHECKING:
    from detray.runtime.member import Member

SPAWNING_DRIVER = ClientID(-1)
"""The driver that started the service and reads its log channel."""

_encode = msgspec.msgpack.Encoder().encode


class Performer:
    """Performs what the cores of this process order."""

    def __init__(
        self,
        *,
        payloads: dict[bytes, bytes],
        connections: dict[ClientID, ClientConnection],
        workers: Workers,
        segments: Segments,
        log: DriverChannels,
        member: Member | None,
        dump: Callable[[str], None],
        stop: Callable[[str], None],
        cut_off: Callable[[ClientID, str], None],
    ) -> None:
        self.to_head: list[NodeMessage] = []
        """What the node's core said to the head's since somebody last took it."""
        self.to_node: list[HeadMessage] = []
        """And the other way round."""
        self._outbox = Outbox()
        self._payloads = payloads
        self._connections = connections
        self._workers = workers
        self._segments = segments
        self._log = log
        self._member = member
        self._cut_off = cut_off
        # Any: each entry takes the effect type that is its key.
        self._orders: dict[type, Callable[[Any], None]] = {
            StartWorker: lambda e: workers.start(e.client, e.job),
            KillWorker: lambda e: workers.kill(e.client),
            RetractRuns: lambda e: workers.retract(e.client, e.count),
            DropPayloads: self._drop_payloads,
            CopyPayload: lambda e: None,  # done before the frames
            FreeBlock: lambda e: segments.free(e.segment, e.offset, e.size_bytes),
            OpenSegment: lambda e: segments.open(e.segment, e.size_bytes),
            CloseSegment: lambda e: segments.close(e.segment),
            MoveObject: self._move_object,
            DumpRecorder: lambda e: dump(e.reason),
            StopNode: lambda e: stop(e.reason),
            SendToHead: lambda e: self.to_head.append(e.message),
            SendToNode: lambda e: self.to_node.append(e.message),
        }
        if member is not None:
            self._orders |= {
                SendToHead: lambda e: member.tell_head(e.message),
                SendToPeer: self._tell_peer,
                SendObject: member.send_object,
                ReceiveObject: member.receive_object,
                AbortReceive: member.abort_receive,
                LeaveCluster: lambda e: member.leave(e.reason),
            }
        self._after_frame: dict[type, Callable[[Any], None]] = {
            InterruptRun: lambda e: workers.interrupt(e.client, e.task, e.attempt),
            ExitWorker: lambda e: workers.note_told_to_exit(e.client),
        }

    def perform(self, effects: list[Effect]) -> list[bytes]:
        """Do all of it; the encoded effects, for the recorder."""
        messages, orders = self._outbox.group(effects)
        groups = self._outbox.encode(messages, orders)
        for order in orders:
            if type(order) is CopyPayload:
                self._payloads.setdefault(order.target, self._payloads[order.source])
        for (client, queue), meta in zip(messages.items(), groups, strict=False):
            connection = self._connections.get(client)
            if connection is not None:
                self._send(connection, queue, meta)
        perform = self._orders
        for order in orders:
            perform[type(order)](order)
        if self._member is not None:
            self._member.flush()
        return groups

    def _tell_peer(self, order: SendToPeer) -> None:
        assert self._member is not None
        keys_of = OUTGOING.get(type(order.message))
        payloads = self._payloads
        attached = [payloads[key] for key in keys_of(order.message)] if keys_of else []
        self._member.tell_peer(order.node, order.message, attached)

    def _send(self, connection: ClientConnection, queue: list[ClientMessage], meta: bytes) -> None:
        payloads = self._payloads
        attached: list[bytes] = []
        runs = 0
        afterwards: list[ClientMessage] = []
        for message in queue:
            if type(message) is RunTask:
                runs += 1
                if not (message.size_bytes or message.args):
                    continue
            keys_of = OUTGOING.get(type(message))
            if keys_of is not None:
                for key in keys_of(message):
                    attached.append(payloads[key])
            elif type(message) is Notify:
                self._log.notify(message.level, message.kind, message.text, connection.client)
            elif type(message) is Welcome:
                self._log.note_job(connection.client, message.job)
            elif type(message) in self._after_frame:
                afterwards.append(message)
        sending = connection.queue
        sending.send(frame(meta, attached), runs)
        if sending.size_bytes > UNREAD_BYTES_MAX:
            self._cut_off(connection.client, "it does not read what it asked for")
        for message in afterwards:
            self._after_frame[type(message)](message)

    def _drop_payloads(self, order: DropPayloads) -> None:
        payloads = self._payloads
        for key in order.keys:
            payloads.pop(key, None)

    def _move_object(self, order: MoveObject) -> None:
        payload = self._payloads[order.object] if order.segment == INLINE else None
        self._segments.move(order, payload)
