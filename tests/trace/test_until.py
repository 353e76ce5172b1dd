"""Sentences: each finds the step that a look at all steps finds, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from detray.core import effects as ef
from detray.core import invariants
from detray.core import stimuli as st
from detray.core.effects import RunTask
from detray.core.head_messages import NodeAnnounced
from detray.core.peer_messages import RunDelivered, RunDone
from detray.core.states import Failed
from detray.errors import Failure
from detray.ids import return_object
from detray.trace.format import TraceError
from detray.trace.reading import Trace, open_trace
from detray.trace.travel.seeking import Replay
from detray_sim.traces import write_trace
from tests.trace.machine import DRIVER, Machine
from tests.trace.programs import dots, many, recorded, troubles
from tests.trace.simulated import run_cluster


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """A session with all sorts of ends."""
    path = tmp_path_factory.mktemp("until") / "run.trace"
    return Replay(recorded(path, dots, troubles, cancelling), spacing=20)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    path = tmp_path_factory.mktemp("until") / "cluster.trace"
    write_trace(run_cluster(4, 1), path)
    return Replay(open_trace(path), spacing=60)


def cancelling(machine: Machine) -> None:
    """A task that is cancelled while it waits for one that never ends."""
    slow = machine.define("slow")
    late = machine.define("late")
    first = machine.submit(slow)
    ref = machine.submit(late, first)
    machine.tell(st.CancelRequested(DRIVER, ref, False, False))
    machine.work()
    machine.get(ref, first)


Look = Callable[[Replay], object]


def moments(replay: Replay, look: Look) -> list[int]:
    """All positions at which something is true, by a look at each."""
    found = []
    replay.goto(replay.first)
    while replay.at < replay.end:
        replay.step()
        if look(replay):
            found.append(replay.at)
    return found


def found_on(replay: Replay, sentence: str) -> list[int]:
    """All moments that a sentence finds, one after the other."""
    found = []
    replay.goto(replay.first)
    while replay.until(sentence):
        found.append(replay.at)
    return found


def found_back(replay: Replay, sentence: str) -> list[int]:
    """The same from the end."""
    found = []
    replay.goto(replay.end)
    if replay.until(sentence, backwards=True):
        found.append(replay.at)
        while replay.until(sentence, backwards=True):
            found.append(replay.at)
    return found[::-1]


def assert_finds(replay: Replay, sentence: str, look: Look) -> None:
    """The same moments both ways; the last position is none from which to go back to it."""
    expected = moments(replay, look)
    assert expected, f"{sentence}: nothing to find, the test tests nothing"
    assert found_on(replay, sentence) == expected
    assert found_back(replay, sentence) == [at for at in expected if at < replay.end]


def told(kind: type, **fields: Any) -> Look:
    """True after a step that was told such a message."""

    def look(replay: Replay) -> bool:
        assert replay.last is not None
        return any(
            type(s) is kind and all(getattr(s, name) == fields[name] for name in fields)
            for s in replay.last.stimuli
        )

    return look


def ordered(kind: type, **fields: Any) -> Look:
    """True after a step that ordered such an effect, or sent such a message."""

    def look(replay: Replay) -> bool:
        assert replay.last is not None
        return any(
            type(part) is kind and all(getattr(part, name) == fields[name] for name in fields)
            for effect in replay.last.effects
            for part in (effect, getattr(effect, "message", None))
        )

    return look


def named(replay: Replay, name: str) -> Any:  # Any: the id of a task
    """The task of a function that was called once."""
    return replay.contents.find_tasks(name)[0]


def test_tasks_are_submitted_sent_and_finished(replay):
    """By function, by short name, by id, and any."""
    dot = named(replay, "dot")
    for name in ("dot", dot.hex(), "1.0c10a9.2"):
        assert_finds(replay, f"task {name} submitted", told(st.TaskSubmitted, task=dot))
        assert_finds(replay, f"task {name} was sent", ordered(RunTask, task=dot))
        assert_finds(replay, f"task {name} finished", told(st.RunFinished, task=dot))
    assert_finds(replay, "task submitted", told(st.TaskSubmitted))
    assert_finds(replay, "task sent", ordered(RunTask))
    assert_finds(replay, "Task is sent", ordered(RunTask))
    assert_finds(replay, "task finished", told(st.RunFinished))


def test_a_function_means_all_its_tasks(replay):
    """Both zeros."""
    zeros = replay.contents.find_tasks("zeros")
    assert len(zeros) == 2
    assert_finds(
        replay,
        "task zeros submitted",
        lambda r: any(told(st.TaskSubmitted, task=task)(r) for task in zeros),
    )


def ended_as(replay: Replay, names: tuple[str, ...], failure: int) -> Look:
    """True after the step that made the value of one of these tasks fail so."""
    items = [return_object(named(replay, name), 0) for name in names]
    states: dict[Any, Any] = {}

    def look(replay: Replay) -> bool:
        tables = replay.state(0)
        now = {item: getattr(tables.objects.get(item), "state", None) for item in items}
        before = states.copy()
        states.update(now)
        return any(
            isinstance(state, Failed) and state.failure == failure and before.get(item) != state
            for item, state in now.items()
        )

    return look


def test_tasks_fail_for_themselves_or_for_their_arguments(replay):
    """An attempt that is made again is no failure."""
    wrong = ended_as(replay, ("wrong",), Failure.APPLICATION)
    assert_finds(replay, "task wrong failed", wrong)
    *_, heir = replay.contents.find_tasks("fine")
    replay.goto(replay.first)
    assert replay.until(f"task {heir.hex()} has failed")
    assert replay.at == moments(replay, ended_as(replay, ("wrong",), Failure.APPLICATION))[0]
    assert not found_on(replay, "task shaky failed")
    assert len(found_on(replay, "task failed")) == 1


def test_tasks_are_cancelled(replay):
    """That is not a failure."""
    assert_finds(replay, "task late cancelled", ended_as(replay, ("late",), Failure.CANCELLED))
    assert not found_on(replay, "task late failed")
    assert not found_on(replay, "task slow cancelled")
    assert len(found_on(replay, "task cancelled")) == 1


def test_runs_are_lost_with_their_worker(replay):
    """Which of them is known from the state before."""
    lost = told(st.WorkerLost, expected=False)
    assert_finds(replay, "task shaky lost", lost)
    assert_finds(replay, "worker lost", lost)
    assert_finds(replay, "worker 3 lost", lost)
    assert not found_on(replay, "task dot lost")
    assert not found_on(replay, "worker 1 lost")


def test_clients_come_and_go(replay):
    """Drivers and workers by number."""
    assert_finds(replay, "driver 1 connected", told(st.DriverConnected, client=-1))
    assert_finds(replay, "worker 2 ready", told(st.WorkerReady, client=2))
    assert_finds(replay, "worker 2 on node 0 is ready", told(st.WorkerReady, client=2))
    assert_finds(replay, "worker 2 started", ordered(ef.StartWorker, client=2))
    assert not found_on(replay, "worker 2 on node 7 ready")


def test_objects_are_created_and_freed(replay):
    """Puts and returns, by short name or id."""
    put = list(replay.contents.puts)[1]  # the other one lies in it, and at a worker
    dot = return_object(named(replay, "dot"), 0)
    for item in (put, return_object(named(replay, "shaky"), 0)):
        known = {"was": False}

        def is_gone(replay: Replay, item: Any = item, known: Any = known) -> bool:
            was, known["was"] = known["was"], item in replay.state(0).objects
            return was and not known["was"]

        assert_finds(replay, f"object {item.hex()} freed", is_gone)
    assert_finds(replay, f"object {put.hex()} created", told(st.ObjectPut, object=put))
    assert_finds(replay, "object 1.0c10a9.2/0 created", told(st.RunFinished, task=dot[:16]))
    assert not found_on(replay, "object 1.0c10a9.2/0 freed")


def test_messages_by_their_class(replay):
    """In any case; a wrong name is answered with what it may have been."""
    assert_finds(replay, "stimulus GetRequested", told(st.GetRequested))
    assert_finds(replay, "effect droppayloads", ordered(ef.DropPayloads))
    with pytest.raises(TraceError, match="there is no effect RunTasks: perhaps RunTask"):
        replay.until("effect RunTasks")


def test_failures_of_any_kind(replay):
    """A task that fails, a worker that dies."""
    assert_finds(
        replay,
        "failure",
        lambda r: told(st.RunFailed)(r) or told(st.WorkerLost, expected=False)(r),
    )
    assert found_on(replay, "any error") == found_on(replay, "failure")


def test_steps_and_times(replay):
    """A time is reached after the first step that is not before it."""
    assert found_on(replay, "step 17") == [17]
    assert found_on(replay, "time 5 ms") == moments(replay, lambda r: r.since_ns >= 5_000_000)
    replay.goto(replay.first)
    assert replay.until("time 0.0149s") and replay.since_ns == 15_000_000
    replay.back()
    assert replay.since_ns == 10_000_000
    replay.goto(replay.end)
    assert replay.until("time 5ms", backwards=True)
    assert replay.since_ns == 5_000_000


def test_broken_invariants_are_found(replay, monkeypatch):
    """The first step after which one does not hold."""
    assert not found_on(replay, "invariant")

    def no_fifth_task(tables: Any) -> None:
        if len(tables.tasks) == 4:
            raise invariants.InvariantBroken("I99", "four tasks")

    monkeypatch.setattr(invariants, "INVARIANTS", (no_fifth_task,))
    assert_finds(
        replay, "invariant broken", lambda r: r.last.step.core == 0 and len(r.state(0).tasks) == 4
    )


def test_a_function_is_asked_at_every_step(replay):
    """Both ways."""
    assert_finds_function(replay, lambda r: len(r.state(0).tasks) > 3 if 0 in r.cores else False)
    seen: list[int] = []

    def never(replay: Replay) -> bool:
        seen.append(replay.at)
        return False

    replay.goto(replay.end - 10)
    assert not replay.until(never) and seen == list(range(replay.end - 9, replay.end + 1))
    assert replay.at == replay.end - 10
    seen.clear()
    assert not replay.until(never, backwards=True)
    assert sorted(seen) == list(range(1, replay.end - 10)) and replay.at == replay.end - 10


def assert_finds_function(replay: Replay, look: Look) -> None:
    """As `assert_finds`."""
    expected = moments(replay, look)
    found = []
    replay.goto(replay.first)
    while replay.until(look):
        found.append(replay.at)
    assert expected and found == expected
    replay.goto(replay.end)
    assert replay.until(look, backwards=True)
    assert replay.at == [at for at in expected if at < replay.end][-1]


def test_what_never_holds_leaves_the_position(replay):
    """Also if looking for it meant going elsewhere."""
    replay.goto(9)
    assert not replay.until("task wrong failed", backwards=True)
    assert not replay.until("task dot lost")
    assert replay.at == 9


def test_what_makes_no_sense_is_told_with_what_does(replay):
    """Unknown sentences, unknown names, names of several."""
    with pytest.raises(TraceError, match=r"'task dot eaten' says nothing .*\n.*task NAME"):
        replay.until("task dot eaten")
    with pytest.raises(TraceError, match="knows nothing of 'nonsense'"):
        replay.until("task nonsense failed")
    with pytest.raises(TraceError, match=r"may be any of \d+: 1.0c10a9.0, "):
        replay.until(f"task {named(replay, 'dot').hex()[:20]} failed")


def test_the_same_in_a_cluster(cluster):
    """Nodes, messages between them, workers that share a number."""
    assert_finds(cluster, "effect RunDelivered", ordered(RunDelivered))
    assert_finds(cluster, "stimulus RunDone", told(RunDone))
    moved = next(
        e.message.task
        for s in cluster.trace.steps()
        for e in s.effects() or ()
        if isinstance(getattr(e, "message", None), RunDelivered)
    )
    assert_finds(
        cluster,
        f"task {moved.hex()} sent",
        lambda r: ordered(RunDelivered, task=moved)(r) or ordered(RunTask, task=moved)(r),
    )
    assert_finds(
        cluster,
        f"task {moved.hex()} finished",
        lambda r: told(st.RunFinished, task=moved)(r) or told(RunDone, task=moved)(r),
    )
    assert len(found_on(cluster, "node 2 joined")) >= 1
    assert found_on(cluster, "node joined")[0] <= found_on(cluster, "stimulus NodeAnnounced")[0]
    assert moments(cluster, told(NodeAnnounced))
    core = cluster.nodes.index(2)
    assert_finds(
        cluster,
        "worker 1 on node 2 ready",
        lambda r: r.last.step.core == core and told(st.WorkerReady, client=1)(r),
    )


def test_effects_that_were_not_kept_are_found_by_playing():
    """A flight recorder keeps digests."""
    machine = Machine(ring_bytes=100_000)
    many(machine)
    replay = Replay(Trace(machine.recorder.read_all()), spacing=300)
    task = next(reversed(replay.contents.tasks))
    assert_finds(replay, f"task {task.hex()} sent", ordered(RunTask, task=task))
