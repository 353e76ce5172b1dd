"""What clients say and hear: garbage, lies, payloads, and peers that do not read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from detray.core.stimuli import (
    ClientStimulus,
    ObjectPut,
    Return,
    RunFailed,
    RunFinished,
    StatusRequested,
    TaskSubmitted,
    TemplateDefined,
    WorkerReady,
)
from detray.ids import ClientID, FunctionID, ObjectID, TaskID, TemplateID, return_object
from detray.runtime.connections import ClientConnection, Garbage, Inbox
from detray.runtime.frames import frame
from detray.runtime.tokens import TokenPipe
from detray.runtime.wakeups import WRITE, Wakeups

ME = ClientID(3)
TASK = TaskID(bytes(16))
PUT = ObjectID(bytes(20))


class Peer:
    """One connection and its other end."""

    def __init__(self, *, is_observer: bool = False) -> None:
        ours, self.sock = socket.socketpair()
        ours.setblocking(False)
        self.payloads: dict[bytes, bytes] = {}
        self.inbox = Inbox()
        self.tokens = TokenPipe()
        self.wakeups = Wakeups()
        self.connection = ClientConnection(
            ME,
            ours,
            self.wakeups,
            self.payloads,
            tokens=self.tokens,
            is_observer=is_observer,
        )
        self.wakeups.watch(ours.fileno(), self._on_ready)

    def say(self, *messages: ClientStimulus, payload: bytes = b"") -> bool:
        self.sock.sendall(frame(msgspec.msgpack.encode(messages), [payload]))
        return self.connection.receive(self.inbox)

    def close(self) -> None:
        self.sock.close()
        self.connection.sock.close()
        self.tokens.close()

    def _on_ready(self, mask: int) -> None:
        if mask & WRITE:
            self.connection.queue.flush()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def observer() -> Iterator[Peer]:
    peer = Peer(is_observer=True)
    yield peer
    peer.close()


def put(size_bytes: int, client: ClientID = ME) -> ObjectPut:
    return ObjectPut(client, PUT, size_bytes)


def definition(template: TemplateID) -> TemplateDefined:
    return TemplateDefined(ME, template, FunctionID(bytes(16)), "f", 1, (), 0, False, 0)


class TestHearing:
    def test_messages_and_their_payload_arrive_in_order(self, peer: Peer) -> None:
        task = TaskSubmitted(ME, TASK, TemplateID(1), TASK, 1, 3)
        assert peer.say(task, put(2), payload=b"abcde")
        assert peer.inbox.said == [task, put(2)]
        assert peer.payloads == {TASK: b"abc", PUT: b"de"}
        assert peer.inbox.metas == [msgspec.msgpack.encode([task, put(2)])]

    def test_inline_returns_are_kept_by_object(self, peer: Peer) -> None:
        parts = (Return(2), Return(9, in_block=True), Return(0), Return(1))
        peer.say(RunFinished(ME, TASK, 0, 1, 2, parts), payload=b"abc")
        assert peer.payloads == {return_object(TASK, 0): b"ab", return_object(TASK, 3): b"c"}

    def test_bytes_that_are_there_are_never_replaced(self, peer: Peer) -> None:
        peer.say(put(1), payload=b"a")
        peer.say(put(1), payload=b"b")
        assert peer.payloads == {PUT: b"a"}

    def test_a_closed_stream_is_no_garbage(self, peer: Peer) -> None:
        peer.sock.close()
        assert not peer.connection.receive(peer.inbox)

    @pytest.mark.parametrize("meta", [b"\x91\x92\x01\xa2\xff\xfe", b"\x91" * 100_000])
    def test_what_cannot_be_decoded_is_garbage(self, peer: Peer, meta: bytes) -> None:
        """Bad UTF-8 and arrays in arrays in arrays raise other errors than msgspec's own."""
        peer.sock.sendall(frame(meta))
        with pytest.raises(Garbage):
            while True:
                peer.connection.receive(peer.inbox)

    def test_draining_reads_to_the_last_complete_frame(self, peer: Peer) -> None:
        one = frame(msgspec.msgpack.encode([put(0)]))
        peer.sock.sendall(one * 5000 + one[:-1])
        peer.sock.close()
        assert not peer.connection.drain(peer.inbox)
        assert len(peer.inbox.said) == 5000


class TestGarbage:
    @pytest.mark.parametrize(
        "data",
        [
            b"\xff" * 64,
            frame(b"\xc1"),
            frame(msgspec.msgpack.encode([[99, 3]])),
            frame(msgspec.msgpack.encode([[4, "x"]])),
            frame(msgspec.msgpack.encode({"a": 1})),
            b"\x01\0\0\0\x05\0\0\0",
        ],
    )
    def test_bytes_without_sense_end_the_connection(self, peer: Peer, data: bytes) -> None:
        peer.sock.sendall(data)
        with pytest.raises(Garbage):
            peer.connection.receive(peer.inbox)
        assert peer.inbox.is_empty

    @pytest.mark.parametrize(
        ("message", "payload"),
        [
            (put(5), b"four"),
            (put(3), b"four"),
            (put(-1), b""),
            (put(1 << 62), b""),
            (WorkerReady(ME, 1), b"x"),
            (put(0, client=ClientID(4)), b""),
            (definition(TemplateID(-1)), b""),
            (definition(TemplateID(1 << 62)), b""),
            (RunFinished(ME, TASK, -1, 1, 2, (Return(1),)), b"a"),
            (RunFinished(ME, TASK, -1, 1, 2, (Return(0),)), b""),
            (RunFailed(ME, TASK, 1 << 40, 1, 2, 1, False, "", 0), b""),
        ],
    )
    def test_a_lie_ends_the_connection(
        self, peer: Peer, message: ClientStimulus, payload: bytes
    ) -> None:
        with pytest.raises(Garbage):
            peer.say(put(0), message, payload=payload)
        assert peer.inbox.is_empty
        assert peer.payloads == {}

    def test_an_observer_may_only_ask_for_status(self, observer: Peer) -> None:
        question = StatusRequested(ME, 1, "summary")
        assert observer.say(question)
        with pytest.raises(Garbage):
            observer.say(question, put(0))
        assert observer.inbox.said == [question]


class TestSpeaking:
    def test_runs_get_their_tokens_with_the_frame(self, peer: Peer) -> None:
        peer.connection.queue.send(b"frame", runs=3)
        assert peer.sock.recv(100) == b"frame"
        assert peer.tokens.take_all() == 3

    def test_runs_in_a_frame_that_is_not_out_yet_have_no_token(self, peer: Peer) -> None:
        queue = peer.connection.queue
        big = b"x" * (4 << 20)
        queue.send(big, runs=2)
        queue.send(b"next", runs=3)
        assert queue.size_bytes > 0
        assert (queue.withheld, peer.tokens.take_all()) == (5, 0)
        received = 0
        while received < len(big) + 4:
            received += len(peer.sock.recv(1 << 20))
            peer.wakeups.dispatch_arrived()
        assert (queue.withheld, peer.tokens.take_all(), queue.size_bytes) == (0, 5, 0)

    def test_withheld_runs_are_taken_back_from_the_last(self, peer: Peer) -> None:
        queue = peer.connection.queue
        big = b"x" * (4 << 20)
        queue.send(big, runs=2)
        queue.send(b"next", runs=3)
        assert queue.take_back(4) == 4
        assert queue.take_back(4) == 1
        assert queue.withheld == 0

    def test_tokens_keep_the_generation_in_which_their_run_was_sent(self, peer: Peer) -> None:
        queue = peer.connection.queue
        big = b"x" * (4 << 20)
        queue.send(big, runs=1)
        peer.tokens.advance()
        queue.send(b"next", runs=1)
        received = 0
        while received < len(big) + 4:
            received += len(peer.sock.recv(1 << 20))
            peer.wakeups.dispatch_arrived()
        assert os.read(peer.tokens.worker_end, 9) == b"\0\1"

    def test_what_is_sent_to_the_dead_goes_nowhere_and_its_runs_are_counted(
        self, peer: Peer
    ) -> None:
        peer.sock.close()
        queue = peer.connection.queue
        queue.send(b"frame", runs=2)
        queue.send(b"frame", runs=1)
        assert (queue.is_broken, queue.withheld, queue.size_bytes) == (True, 3, 0)
