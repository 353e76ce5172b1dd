"""A worker begins the run that its token stands for, and no other."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from detray.core.effects import RunTask
from detray.core.run_queue import INTERRUPTS_MAX, QueuedRun, RunQueue
from detray.ids import ClientID, TaskID


def a_run(number: int) -> QueuedRun:
    return QueuedRun(RunTask(ClientID(1), TaskID(number.to_bytes(16, "big")), 0, 0, 1, 0), b"", ())


def test_a_token_of_a_newer_generation_waits_for_the_marker() -> None:
    """It may stand for a run that is not received yet."""
    queue = RunQueue()
    assert [queue.is_current(generation) for generation in (0, 1, 2, 255)] == [
        True,
        False,
        False,
        True,
    ]
    queue.retract(0)
    assert [queue.is_current(generation) for generation in (0, 1, 2)] == [True, True, False]


def test_generations_wrap_around() -> None:
    """After 256 retractions the byte starts again from 0."""
    queue = RunQueue()
    queue.markers = 255
    assert [queue.is_current(generation) for generation in (254, 255, 0)] == [True, True, False]


def test_a_marker_takes_the_last_runs_received_before_it() -> None:
    """The first ones stay: their tokens are in the pipe or used."""
    queue = RunQueue()
    queue.runs.extend(map(a_run, range(4)))
    taken = queue.retract(3)
    queue.runs.append(a_run(9))
    assert (taken, list(queue.runs)) == ([a_run(1), a_run(2), a_run(3)], [a_run(0), a_run(9)])


def test_remembered_interrupts_are_bounded() -> None:
    """A flood of cancellations for runs that never come cannot fill a worker."""
    queue = RunQueue()
    for number in range(INTERRUPTS_MAX + 1):
        queue.interrupt(TaskID(number.to_bytes(16, "big")), 0)
    first, last = TaskID(bytes(16)), TaskID(INTERRUPTS_MAX.to_bytes(16, "big"))
    assert [queue.forget_interrupt(task, 0) for task in (first, last, last)] == [False, True, False]


@given(st.lists(st.sampled_from(["send", "retract", "receive", "begin"]), max_size=300))
def test_what_the_service_counts_as_unbegun_is_never_begun(moves: list[str]) -> None:
    """Whatever the interleaving, begun and retracted runs are disjoint, and nothing is lost.

    The service writes frame then token, and takes back by reading tokens; the worker claims by
    reading one. Both pipes are modelled as the kernel has them: queues.
    """
    stream: deque[QueuedRun | int] = deque()
    tokens: deque[int] = deque()
    sent: list[int] = []  # unbegun as far as the service knows, in order
    begun: list[int] = []
    retracted: list[int] = []
    generation = 0
    queue = RunQueue()
    holding: int | None = None
    total = 0
    for move in moves:
        if move == "send":
            stream.append(a_run(total))
            tokens.append(generation)
            sent.append(total)
            total += 1
        elif move == "retract":
            count = min(2, len(tokens))
            if count:
                for _ in range(count):
                    tokens.popleft()
                retracted += sent[len(sent) - count :]
                del sent[len(sent) - count :]
                stream.append(count)
                generation = (generation + 1) & 0xFF
        elif move == "receive" and stream:
            item = stream.popleft()
            if isinstance(item, int):
                queue.retract(item)
            else:
                queue.runs.append(item)
        elif move == "begin":
            if holding is None and queue.runs and tokens:
                holding = tokens.popleft()
            if holding is not None and queue.is_current(holding) and queue.runs:
                begun.append(int.from_bytes(queue.runs.popleft().message.task, "big"))
                holding = None
    assert not set(begun) & set(retracted)
    while stream:
        item = stream.popleft()
        queue.retract(item) if isinstance(item, int) else queue.runs.append(item)
    left = [int.from_bytes(run.message.task, "big") for run in queue.runs]
    assert sorted(begun + retracted + left) == list(range(total))
    assert len(left) == len(tokens) + (holding is not None)
