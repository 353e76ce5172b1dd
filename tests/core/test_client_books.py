"""A client's books: what it sends, what it keeps, what it gives back."""

from __future__ import annotations

import pytest

from detray.core import client as client_module
from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.arrivals import receive, retract
from detray.core.client import Books
from detray.core.streams import RunContext, Stream
from detray.core.tickets import Ticket, TicketGroup
from detray.errors import Failure
from detray.ids import (
    NO_TASK,
    ClientID,
    JobNumber,
    ObjectID,
    TaskID,
    TemplateID,
    child_prefix,
    child_task,
    put_object,
    return_object,
    root_task,
)

ME = ClientID(-1)
ROOT = root_task(JobNumber(1))
PREFIX = child_prefix(ROOT, 0, 0)
A, B, C = (ObjectID(letter * 20) for letter in (b"a", b"b", b"c"))
NOTHING = memoryview(b"")


@pytest.fixture
def books() -> Books:
    return Books(ME)


@pytest.fixture
def stream() -> Stream:
    return Stream(ROOT, 0, 0, 1)


def ask(books: Books, *items: ObjectID) -> Ticket:
    ticket = books.request(
        items, len(items), fail_fast=True, fetch=True, timeout_ns=-1, blocks=NO_TASK
    )
    books.take()
    return ticket


def answer(*places: ef.Place, more: bool = False, request: int = 1) -> ef.GetAnswered:
    return ef.GetAnswered(ME, request, False, more, places)


def reference(books: Books, item: ObjectID) -> None:
    """The program has a reference to `item`."""
    books.references.claim(item)
    books.references.created.append(item)


def test_a_submission_is_named_by_its_stream_and_says_all(books: Books, stream: Stream) -> None:
    """The n-th child of a stream has the index n; its returns are counted as received."""
    first = books.submit(stream, TemplateID(3), 1, b"", (), ())
    second = books.submit(stream, TemplateID(3), 2, b"blob", (A,), (B,))
    task = child_task(PREFIX, 1)
    assert first == [return_object(child_task(PREFIX, 0), 0)]
    assert second == [return_object(task, 0), return_object(task, 1)]
    assert set(books.references.received) == {*first, *second}
    assert books.take() == (
        [
            st.TaskSubmitted(ME, child_task(PREFIX, 0), TemplateID(3), ROOT, 1, 0),
            st.TaskSubmitted(ME, task, TemplateID(3), ROOT, 1, 4, (A,), (B,)),
        ],
        [b"blob"],
    )


def test_threads_get_streams_in_order_of_first_use() -> None:
    """The executing thread is stream 0 whenever it comes."""
    context = RunContext(ROOT, 0, 0, "", executing=7)
    assert [context.open_stream(thread).number for thread in (5, 7, 6)] == [1, 0, 2]


def test_payload_travels_in_the_order_of_the_messages(books: Books, stream: Stream) -> None:
    """Messages without payload do not disturb it."""
    books.put(stream, b"one", ())
    books.send(st.RefPinned(ME, A))
    books.put(stream, b"two", (A,))
    messages, payloads = books.take()
    assert [type(m).__name__ for m in messages] == ["ObjectPut", "RefPinned", "ObjectPut"]
    assert payloads == [b"one", b"two"]


def test_drops_follow_everything_else(books: Books, stream: Stream) -> None:
    """A task's arguments are named before the client's own hold on them ends."""
    reference(books, A)
    books.references.dropped.append(A)
    books.pins.receive([B])
    books.pins.dropped.append(B)
    books.submit(stream, TemplateID(0), 0, b"", (A,), ())
    kinds = [type(message) for message in books.take()[0]]
    assert kinds == [st.TaskSubmitted, st.RefsDropped, st.ViewsDropped]


def test_a_small_put_is_at_hand_while_it_is_referenced(books: Books, stream: Stream) -> None:
    """Reading it again costs no message; its last drop forgets the bytes."""
    item = books.put(stream, b"one", ())
    assert item == put_object(PREFIX, 0)
    books.references.created.append(item)
    books.take()
    assert (books.values, books.values_bytes) == ({item: b"one"}, 3)
    books.references.dropped.append(item)
    assert books.take()[0] == [st.RefsDropped(ME, (item,), (1,))]
    assert (books.values, books.values_bytes) == ({}, 0)


def test_a_put_with_references_inside_is_not_at_hand(books: Books, stream: Stream) -> None:
    """Each reading needs grants of its own."""
    books.put(stream, b"one", (A,))
    assert books.values == {}


def test_values_at_hand_are_bounded(
    books: Books, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go first; they can be asked for again."""
    monkeypatch.setattr(client_module, "VALUES_BYTES_MAX", 8)
    items = [books.put(stream, b"1234", ()) for _ in range(3)]
    assert (list(books.values), books.values_bytes) == (items[1:], 8)


def test_an_answer_fills_its_ticket(books: Books) -> None:
    """Plain values as bytes; what needs more with its place, grants and pin counted."""
    reference(books, A)
    ticket = ask(books, A, B, C)
    with_refs = ef.Place(B, 0, 2, refs=(A, C))
    in_block = ef.Place(C, 0, 1 << 20, segment=0, offset=64)
    message = answer(ef.Place(A, 0, 3), with_refs, in_block)
    done = receive(books, [message], memoryview(b"onexy"))
    assert done == [ticket]
    assert ticket.found == {A: b"one", B: (with_refs, b"xy"), C: (in_block, b"")}
    assert books.values == {A: b"one"}
    assert books.references.received == {A: 2, C: 1}
    assert books.pins.received == {C: 1}


def test_a_cut_answer_is_done_with_its_last_part(books: Books) -> None:
    """`more` says that others follow."""
    ticket = ask(books, A, B)
    assert receive(books, [answer(ef.Place(A, 0, 1), more=True)], memoryview(b"a")) == []
    assert receive(books, [answer(ef.Place(B, 0, 1))], memoryview(b"b")) == [ticket]
    assert ticket.found == {A: b"a", B: b"b"}


def test_an_answer_nobody_waits_for_gives_everything_back(books: Books) -> None:
    """Abandoned gets count what still comes as received, and return it."""
    ticket = ask(books, A, B)
    books.abandon(ticket)
    assert books.take()[0] == [st.GetAbandoned(ME, 1)]
    message = answer(ef.Place(A, 0, 0, refs=(C,)), ef.Place(B, 0, 9, segment=0))
    assert receive(books, [message], NOTHING) == []
    assert books.take()[0] == [
        st.RefsDropped(ME, (C,), (1,)),
        st.ViewsDropped(ME, (B,), (1,)),
    ]


def test_a_failed_object_brings_its_error(books: Books) -> None:
    """It is not at hand afterwards: the next get asks again."""
    reference(books, A)
    ticket = ask(books, A)
    place = ef.Place(A, Failure.APPLICATION, 5, text="ValueError: no")
    receive(books, [answer(place)], memoryview(b"error"))
    assert (ticket.found, books.values) == ({A: (place, b"error")}, {})


def test_availability_is_remembered_without_bytes(books: Books) -> None:
    """An answer without `fetch` tells only that the object is there."""
    reference(books, A)
    ask(books, A)
    receive(books, [answer(ef.Place(A, 0, 0))], NOTHING)
    assert books.values == {A: None}


def test_retracted_runs_give_back_what_they_carried(books: Books) -> None:
    """Their references and pins were granted to this worker and will not be used here."""
    place = ef.Place(B, 0, 9, segment=0)
    run = ef.RunTask(ME, TaskID(b"t" * 16), 0, 0, 1, 0, args=(place,), refs=(A,))
    receive(books, [run], NOTHING)
    retract(books, 1)
    assert books.take()[0] == [
        st.RefsDropped(ME, (A,), (1,)),
        st.ViewsDropped(ME, (B,), (1,)),
    ]


def test_an_arrival_wakes_a_waiting_worker_once(books: Books) -> None:
    """The ticket is used up by the first run that comes."""
    books.arrivals = ticket = Ticket()
    runs = [ef.RunTask(ME, TaskID(bytes([n]) * 16), 0, 0, 1, 1) for n in (1, 2)]
    assert receive(books, runs, memoryview(b"xy")) == [ticket]
    assert [run.blob for run in books.queue.runs] == [b"x", b"y"]


def test_an_interrupt_is_remembered_for_a_queued_run_only(books: Books) -> None:
    """One that has begun hears of it by its signal."""
    task, other = TaskID(b"t" * 16), TaskID(b"u" * 16)
    receive(books, [ef.RunTask(ME, task, 0, 0, 1, 0)], NOTHING)
    receive(books, [ef.InterruptRun(ME, task, 0), ef.InterruptRun(ME, other, 0)], NOTHING)
    assert list(books.queue.interrupts) == [(task, 0)]


def test_a_group_is_done_with_its_first_member(books: Books) -> None:
    """Later members finish into the same list."""
    group = TicketGroup()
    tickets = [
        books.request(
            (item,), 1, fail_fast=True, fetch=True, timeout_ns=-1, blocks=NO_TASK, group=group
        )
        for item in (A, B)
    ]
    receive(books, [answer(ef.Place(B, 0, 1), request=2)], memoryview(b"b"))
    assert (group.done, group.take(), group.done) == (True, [tickets[1]], False)
    receive(books, [answer(ef.Place(A, 0, 1), request=1)], memoryview(b"a"))
    assert group.take() == [tickets[0]]


def test_the_end_of_the_service_finishes_every_ticket(books: Books) -> None:
    """Without an answer: whoever waits raises. Nothing stays at hand."""
    waiting = [
        ask(books, A),
        books.request_block(B, 1 << 20),
        books.request_status("summary", 10),
    ]
    books.values[C] = b"c"
    done = books.end()
    assert sorted(map(id, done)) == sorted(map(id, waiting))
    assert [(ticket.done, ticket.answer) for ticket in waiting] == [(True, None)] * 3
    assert books.values == {}


def submitted(books: Books, stream: Stream, count: int) -> list[ObjectID]:
    """Returns of tasks submitted one after the other."""
    template = TemplateID(0)
    return [books.submit(stream, template, 1, b"", (), ())[0] for _ in range(count)]


def test_gets_in_order_of_submission_read_ahead_further_and_further(
    books: Books, stream: Stream
) -> None:
    items = submitted(books, stream, 40)
    assert books.read_ahead(items[0]) == ()
    assert books.read_ahead(items[1]) == tuple(items[2:10])
    assert books.read_ahead(items[10]) == tuple(items[11:27])
    assert books.read_ahead(items[27]) == tuple(items[28:])


def test_gets_out_of_order_read_nothing_ahead(books: Books, stream: Stream) -> None:
    items = submitted(books, stream, 40)
    for position in (0, 30, 5, 35, 1):
        assert books.read_ahead(items[position]) == ()


def test_what_is_at_hand_or_gone_is_not_read_ahead(books: Books, stream: Stream) -> None:
    items = submitted(books, stream, 6)
    books.keep(items[3], b"value")
    books.keep(items[4], None)
    del books.references.received[items[5]]
    books.read_ahead(items[0])
    assert books.read_ahead(items[1]) == (items[2], items[4])


def test_what_comes_along_is_at_hand_while_it_is_referenced(books: Books) -> None:
    reference(books, B)
    ticket = ask(books, A)
    also = (ef.Place(B, 0, 2), ef.Place(C, 0, 1))
    message = ef.GetAnswered(ME, 1, False, False, (ef.Place(A, 0, 3),), also)
    assert receive(books, [message], memoryview(b"aaabbc")) == [ticket]
    assert ticket.found == {A: b"aaa"}
    assert books.values == {B: b"bb"}
