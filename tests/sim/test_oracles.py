"""Oracles: each sees what it is there for, and explanations are taken only from what struck."""

from __future__ import annotations

import pytest

from detray.core.config import LocalConfig
from detray.core.local import LocalScheduler
from detray.core.states import WAITING
from detray.core.stimuli import DriverConnected, FunctionExported, TaskSubmitted, TemplateDefined
from detray.errors import Failure
from detray.ids import (
    ClientID,
    NodeID,
    ObjectID,
    TaskID,
    TemplateID,
    child_prefix,
    child_task,
    function_id,
    return_object,
    root_task,
)  # fmt: skip
from detray_sim.faults import KINDS, Fault, FaultLog
from detray_sim.liveness import diagnose
from detray_sim.naive import outcomes
from detray_sim.oracles import Between, Expectation, Violation, check_core, check_nothing_left
from detray_sim.programs import Bounds, draw_features, draw_program
from detray_sim.scripts import Call, Diary, Outcome, Program, Read, Script, Spend, mix
from detray_sim.tape import Tape

CLIENT, NODE = ClientID(-1), NodeID(0)
PREFIX = child_prefix(root_task(1), 0, 0)  # type: ignore[arg-type]  # a job number
ITEM = return_object(child_task(PREFIX, 0), 0)


def program(**options: object) -> Program:
    """The driver calls one script, with these options, and takes its value to another."""
    worker = Script(name="work", steps=(Spend(ns=5),), **options)  # type: ignore[arg-type]
    taker = Script(name="take", retries=0)
    main = Script(name="main", steps=(Call(1), Call(2, (0,))))
    return Program(kind="test", scripts=(main, worker, taker))


def expect(
    reads: list[tuple[str, Outcome]], *struck: str, made: Program | None = None, cancels: int = 0
) -> None:
    """Judge these reads."""
    made = made or program()
    diary = Diary()
    diary.cancels = cancels
    for path, outcome in reads:
        diary.reads.append((path, ObjectID(path.encode().ljust(20)), outcome, ""))
    log = FaultLog()
    for kind in struck:
        log.note(Fault(kind=kind, at_ns=0), 0)
    Expectation(made, outcomes(made), diary, log).check()


def test_the_naive_executor_says_what_every_path_is() -> None:
    """Both results, the second computed from the first."""
    found = outcomes(program())
    assert list(found) == ["0", "1"]
    assert found["1"].token != found["0"].token and not found["0"].failure
    assert outcomes(program()) == found


def test_a_failing_script_fails_what_takes_its_value() -> None:
    """The failure at the root is the script's own."""
    found = outcomes(program(fails=-1))
    assert {path: outcome.failure for path, outcome in found.items()} == {
        "0": Failure.APPLICATION,
        "1": Failure.APPLICATION,
    }
    retried = outcomes(program(fails=1, retries_errors=True, retries=1))
    assert not retried["0"].failure


def test_the_right_values_are_right() -> None:
    """What the naive executor found is allowed."""
    expect(list(outcomes(program()).items()))


@pytest.mark.parametrize("change", [2, 1 << 20])
def test_a_wrong_value_is_seen(change: int) -> None:
    """Any other token is wrong."""
    right = outcomes(program())["1"]
    with pytest.raises(Violation, match="wrong value"):
        expect([("1", Outcome(right.token + change))])


def test_two_readers_must_see_one_value() -> None:
    """Also where a value may vary: it may not vary between readers."""
    with pytest.raises(Violation, match="two values"):
        expect([("0", Outcome(7)), ("0", Outcome(9))])
    expect([("0", Outcome(7)), ("0", Outcome(9))], "node_crashes")


@pytest.mark.parametrize("failure", [f for f in Failure if f and f != Failure.DEADLOCK])
def test_a_failure_needs_a_reason(failure: Failure) -> None:
    """Without faults nothing fails; each failure has a kind of fault that explains it, or none."""
    with pytest.raises(Violation, match="for no reason"):
        expect([("0", Outcome(0, failure, "?"))])
    for kind in KINDS.values():
        if failure in kind.excuses:
            expect([("0", Outcome(0, failure, "?"))], kind.name)


def test_what_retries_must_repair_is_not_excused() -> None:
    """A crash explains nothing if the driver's node can have everything done again."""
    sturdy = Program(
        kind="test",
        scripts=(
            Script(name="main", steps=(Call(1),)),
            Script(name="work", steps=(Spend(ns=5),), retries=-1),
        ),
    )
    lost = [("0", Outcome(0, Failure.OBJECT_LOST, "gone"))]
    with pytest.raises(Violation, match="OBJECT_LOST for no reason"):
        expect(lost, "node_crashes", made=sturdy)
    expect(lost, "node_crashes")


def test_cancelling_explains_cancellation() -> None:
    """And nothing else does."""
    cancelled = [("0", Outcome(0, Failure.CANCELLED))]
    expect(cancelled, cancels=1)
    with pytest.raises(Violation):
        expect(cancelled, "worker_hangs")


def test_what_may_begin_once_begins_once() -> None:
    """A second begin of max_retries=0 is a violation, whatever struck."""
    made = program(retries=0)
    diary = Diary()
    task = TaskID(b"t" * 16)
    diary.begun[task] = 2
    diary.scripts[task], diary.paths[task] = 1, "0"
    with pytest.raises(Violation, match="began more than once"):
        Expectation(made, {}, diary, FaultLog()).check()


def test_stains_spread() -> None:
    """What is computed from something that varies, varies."""
    assert mix(2, 4) & 1 == 0 and mix(3, 4) & 1 and mix(2, 5) & 1


def test_programs_of_every_tape_end() -> None:
    """All kinds, all features: the naive executor gets through, and no script calls upwards."""
    for seed in range(150):
        tape = Tape(seed)
        bounds = Bounds(tasks=12, places=("node0", "node1"), scarce=("GPU",))
        made = draw_program(tape, bounds, draw_features(tape))
        outcomes(made)
        for number, script in enumerate(made.scripts):
            assert all(step.script > number for step in script.steps if type(step) is Call)


# ---------------------------------------------------------------------------------- tables


def core_with_task() -> LocalScheduler:
    """A node whose driver submitted two tasks, the second of which takes the first's value."""
    core = LocalScheduler(
        LocalConfig(node_name="n", totals=(("CPU", 10_000),), arena_bytes=1 << 20)
    )
    function = function_id(PREFIX, 0)
    core.handle(DriverConnected(CLIENT, 1, "", "x"), now_ns=1)
    core.tables.clients[CLIENT].job = 1  # type: ignore[assignment]  # admitted
    first, second = child_task(PREFIX, 0), child_task(PREFIX, 1)
    core.handle(
        FunctionExported(CLIENT, function, "f", 10),
        TemplateDefined(CLIENT, TemplateID(0), function, "f", 1, (("CPU", 10_000),), 0, False, 0),
        TaskSubmitted(CLIENT, first, TemplateID(0), root_task(1), 1, 5),  # type: ignore[arg-type]
        TaskSubmitted(CLIENT, second, TemplateID(0), root_task(1), 1, 5, (ITEM,)),  # type: ignore[arg-type]
        now_ns=2,
    )
    return core


def test_a_lost_wake_up_is_named() -> None:
    """A task that waits though nobody makes what it waits for is stuck for no good reason."""
    core = core_with_task()
    tables = {NODE: core.tables}
    assert not diagnose(tables).missing
    waiting = next(task for task in core.tables.tasks.values() if task.state is WAITING)
    del core.tables.tasks[child_task(PREFIX, 0)]
    found = diagnose(tables)
    assert [wait.task for wait in found.missing] == [waiting.spec.task]
    assert "which nobody makes" in found.lines[0] and not found.is_legitimate


def test_a_broken_invariant_has_its_name() -> None:
    """The oracle is called as the invariant is."""
    core = core_with_task()
    check_core(core.tables)
    core.tables.objects[ITEM].uses = 5
    with pytest.raises(Violation, match="invariant I3"):
        check_core(core.tables)


def test_leftovers_are_listed() -> None:
    """Tasks and objects that nobody dropped are left."""
    with pytest.raises(Violation, match="Q1 tasks are left"):
        check_nothing_left({NODE: core_with_task().tables})


def test_two_owners_are_one_too_many() -> None:
    """The same object, owned by two nodes."""
    tables = {NODE: core_with_task().tables, NodeID(1): core_with_task().tables}
    with pytest.raises(Violation, match="two owners"):
        Between().look(tables, {})


def test_what_is_used_must_not_be_forgotten() -> None:
    """A node that knew an object in use and knows it no more freed it too early."""
    core = core_with_task()
    between = Between()
    between.look({NODE: core.tables}, {NODE: {ITEM}})
    del core.tables.objects[ITEM]
    with pytest.raises(Violation, match="freed while in use"):
        between.look({NODE: core.tables}, {NODE: {ITEM}})


def test_a_run_that_may_wait_holding_more_than_cpu_may_deadlock() -> None:
    """Only then is a deadlock an explanation."""
    deadlock = [("0", Outcome(0, Failure.DEADLOCK, "deadlock: ..."))]
    with pytest.raises(Violation):
        expect(deadlock)
    holder = Script(name="hold", steps=(Read((0,)),), demand=(("CPU", 10_000), ("GPU", 10_000)))
    main = Script(name="main", steps=(Call(1),))
    expect(deadlock, made=Program(kind="test", scripts=(main, holder)))
