"""A client and a service played by the test: what is sent when, who waits, how it ends."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.errors import (
    EngineError,
    Failure,
    GetTimeoutError,
    ObjectStoreFullError,
    ServiceDiedError,
)
from detray.ids import ObjectID
from detray.object_ref import ObjectRef
from detray.runtime import flusher, getting
from detray.runtime.client import Client
from detray.serialization.values import serialize
from tests.support.fake_service import ARENA_BYTES, ME, FakeService, fake_service

A, B = ObjectID(b"a" * 20), ObjectID(b"b" * 20)
FIVE = pickle.dumps(5)

Pair = tuple[Client, FakeService]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with fake_service() as made:
        yield made


class Call(threading.Thread):
    """A call in a thread of its own; `result` is what it returned or raised."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self.result: object = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.result = error

    def outcome(self) -> object:
        self.join(10)
        assert not self.is_alive()
        return self.result


def test_a_trailing_submission_goes_out_by_itself(pair: Pair) -> None:
    """The program need not call detray again."""
    client, service = pair
    client.submit(0, 1, None)
    assert service.hear(st.TaskSubmitted).task[12:] == bytes(4)


def test_the_last_reference_goes_out_by_itself(pair: Pair) -> None:
    """Also after the flusher has gone to sleep."""
    client, service = pair
    ref = ObjectRef(client.put(serialize(1)))
    service.hear(st.ObjectPut)
    while not client._flusher.asleep:
        time.sleep(0.001)
    item = ref.binary()
    del ref
    assert service.hear(st.RefsDropped) == st.RefsDropped(ME, (item,), (1,))


def test_a_burst_goes_out_in_batches(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one frame for each call."""
    monkeypatch.setattr(flusher, "TICK_S", 1.0)  # it looks after slow programs: not at this one
    client, service = pair
    for _ in range(500):
        client.submit(0, 0, None)
    client.flush()
    while len(service.heard) < 500:
        service.receive()
    assert client.books.taken < 60


def test_a_get_at_hand_sends_nothing(pair: Pair) -> None:
    """A small put can be read at once."""
    client, service = pair
    ref = ObjectRef(client.put(serialize([1, 2])))
    assert client.get_many([ref.binary(), ref.binary()]) == [[1, 2], [1, 2]]
    client.flush()
    service.receive()
    assert {type(message) for message in service.heard} == {st.ObjectPut}


def test_a_get_asks_once_for_an_object_given_twice(pair: Pair) -> None:
    """The objects of a request are distinct; the values are not."""
    client, service = pair
    call = Call(lambda: client.get_many([A, B, A]))
    get = service.hear(st.GetRequested)
    service.answer(get, {A: FIVE, B: pickle.dumps("b")})
    assert (get.objects, call.outcome()) == ((A, B), [5, "b", 5])


def test_a_get_that_ran_out_of_time_raises_and_gives_back(pair: Pair) -> None:
    """What came in part is returned."""
    client, service = pair
    call = Call(lambda: client.get_many([A, B], 0.25))
    get = service.hear(st.GetRequested)
    assert get.timeout_ns == 250_000_000
    place = ef.Place(A, 0, len(FIVE), refs=(B,))
    service.say(ef.GetAnswered(ME, get.request, True, False, (place,)), payload=(FIVE,))
    assert isinstance(call.outcome(), GetTimeoutError)
    assert service.hear(st.RefsDropped) == st.RefsDropped(ME, (B,), (1,))


def check_late_answer(pair: Pair, request: int) -> None:
    """What an abandoned get is answered is given back, and the next get has its own answer."""
    client, service = pair
    place = ef.Place(A, 0, len(FIVE), refs=(B,))
    service.say(ef.GetAnswered(ME, request, False, False, (place,)), payload=(FIVE,))
    call = Call(lambda: client.get_one(A))
    service.answer(service.hear(st.GetRequested), {A: FIVE})
    assert call.outcome() == 5
    assert service.hear(st.RefsDropped) == st.RefsDropped(ME, (B,), (1,))


def test_a_service_that_is_late_makes_a_get_late_and_no_more(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing came in time, whoever is busy; what comes later is given back."""
    monkeypatch.setattr(getting, "ANSWER_GRACE_S", 0.05)
    client, service = pair
    with pytest.raises(GetTimeoutError, match=r"1 of 1 objects were not available within 0\.01 s"):
        client.get_one(A, 0.01)
    get = service.hear(st.GetRequested)
    assert service.hear(st.GetAbandoned).request == get.request
    assert client.wait([B], 1, 0.01, True) == set()
    assert service.hear(st.GetAbandoned).request == get.request + 1
    check_late_answer(pair, get.request)


def test_values_that_cannot_be_unpickled_name_their_object(pair: Pair) -> None:
    """The error says which reference it was."""
    client, service = pair
    call = Call(lambda: client.get_one(A))
    service.answer(service.hear(st.GetRequested), {A: b"\x80garbage"})
    error = call.outcome()
    assert isinstance(error, EngineError) and A.hex() in str(error)


def test_every_waiting_thread_gets_its_own_answer(pair: Pair) -> None:
    """One of them reads for all; answers come in any order."""
    client, service = pair
    items = [ObjectID(bytes([number]) * 20) for number in range(8)]
    calls = [Call(lambda item=item: client.get_one(item)) for item in items]
    gets = [service.hear(st.GetRequested) for _ in items]
    for get in reversed(gets):
        service.answer(get, {item: pickle.dumps(item) for item in get.objects})
    assert [call.outcome() for call in calls] == items


def test_a_future_is_done_while_others_wait(pair: Pair) -> None:
    """Its thread and the waiting one share the socket."""
    client, service = pair
    done: list[object] = []
    client.add_done_callback(A, lambda value, error=None: done.append((value, error)))
    first = service.hear(st.GetRequested)
    call = Call(lambda: client.get_one(B))
    second = service.hear(st.GetRequested)
    service.answer(second, {B: FIVE})
    assert call.outcome() == 5
    service.answer(first, {A: FIVE})
    deadline = time.monotonic() + 10
    while not done and time.monotonic() < deadline:
        time.sleep(0.001)
    assert done == [(5, None)]


def test_an_interrupted_get_says_so_and_leaves_the_client_usable(pair: Pair) -> None:
    """Ctrl-C ends the wait, not the session; what still comes is given back."""
    client, service = pair

    def interrupt() -> st.GetRequested:
        get = service.hear(st.GetRequested)  # before, nothing waits yet
        os.kill(os.getpid(), signal.SIGINT)
        return get

    call = Call(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.get_one(A)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    get = call.outcome()
    assert isinstance(get, st.GetRequested)
    assert service.hear(st.GetAbandoned).request == get.request
    check_late_answer(pair, get.request)


def test_the_end_of_the_service_ends_every_wait(pair: Pair) -> None:
    """And every later call says the same."""
    client, service = pair
    ref = ObjectRef(client.put(serialize(1)))
    calls = [Call(lambda: client.get_one(A)), Call(lambda: client.wait([B], 1, None, True))]
    for _ in calls:
        service.hear(st.GetRequested)
    service.sock.close()
    assert [type(call.outcome()) for call in calls] == [ServiceDiedError] * 2
    for later in (
        lambda: client.get_one(ref.binary()),
        lambda: client.put(serialize(1)),
        lambda: client.submit(0, 1, None),
    ):
        with pytest.raises(ServiceDiedError):
            later()


def test_both_ends_may_send_a_lot_at_once(pair: Pair) -> None:
    """A client that cannot send reads meanwhile: nobody waits for the other for ever."""
    client, service = pair
    big = pickle.dumps(bytes(900))
    place = ef.Place(A, 0, len(big))

    def talk_first_then_listen() -> int:
        for _ in range(5000):
            service.say(ef.GetAnswered(ME, 99, False, False, (place,)), payload=(big,))
        while len(service.payloads) < 5000:
            service.receive()
        return len(service.payloads)

    call = Call(talk_first_then_listen)
    value = serialize(bytes(900))
    for _ in range(5000):
        client.put(value)
    client.flush()
    assert call.outcome() == 5000


def test_a_large_put_is_written_into_its_block(pair: Pair) -> None:
    """Asked for, granted, written, sealed; only then is the object ours to drop."""
    client, service = pair
    value = serialize(bytes(100_000))
    call = Call(lambda: ObjectRef(client.put(value)))
    wish = service.hear(st.BlockRequested)
    service.say(ef.GrantBlock(ME, wish.object, 0, 4096))
    ref = call.outcome()
    assert isinstance(ref, ObjectRef)
    assert service.hear(st.BlockSealed) == st.BlockSealed(ME, wish.object)
    assert os.pread(service.arena_fd, wish.size_bytes, 4096) == value.to_bytes()


def test_a_put_that_finds_no_room_raises(pair: Pair) -> None:
    """With the text that says how much there is."""
    client, service = pair
    call = Call(lambda: client.put(serialize(bytes(100_000))))
    wish = service.hear(st.BlockRequested)
    service.say(ef.RefuseBlock(ME, wish.object, Failure.STORE_FULL, "4 of 4 MiB in use"))
    error = call.outcome()
    assert isinstance(error, ObjectStoreFullError) and "4 of 4 MiB" in str(error)


def read_block(pair: Pair) -> memoryview:
    """An object of two bytes in a block, read by the client."""
    client, service = pair
    os.pwrite(service.arena_fd, b"xy", 64)
    return client.view(ef.Place(A, 0, 2, segment=0, offset=64))


def test_a_pin_is_returned_with_the_last_view(pair: Pair) -> None:
    """Slices and arrays of a view keep it as well."""
    client, service = pair
    client.books.pins.receive([A])
    view = read_block(pair)
    rest = view[1:]
    del view
    gc.collect()
    assert rest == b"y" and not client.books.pins.dropped
    while not client._flusher.asleep:
        time.sleep(0.001)
    del rest
    assert service.hear(st.ViewsDropped) == st.ViewsDropped(ME, (A,), (1,))


def test_views_cannot_be_written_to(pair: Pair) -> None:
    """Neither through Python nor by a stray write: the mapping itself is read-only."""
    view = read_block(pair)
    with pytest.raises(TypeError):
        view[0] = 1
    with open("/proc/self/maps") as maps:
        arena = [line.split()[1] for line in maps if "memfd:arena" in line]
    assert "r--s" in arena
    assert ARENA_BYTES > 0


def test_a_forked_child_cannot_use_the_session(pair: Pair) -> None:
    """It shares the socket: one word from it would be nonsense in the parent's stream."""
    client, service = pair
    ref = ObjectRef(client.put(serialize(1)))
    service.hear(st.ObjectPut)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            del ref
            client.put(serialize(2))
        except ServiceDiedError:
            status = 0
        finally:
            client.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert service.is_silent(for_ms=50)
    assert client.get_one(ref.binary()) == 1


def test_a_fork_does_not_wait_for_threads_that_it_does_not_have(pair: Pair) -> None:
    """Another thread may have been sending when it began: its lock stays held here for ever."""
    client, _ = pair
    with client.connection._sending:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            client.flush()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
