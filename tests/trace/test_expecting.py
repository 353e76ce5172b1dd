"""Expectations: what can be said, where it is violated, and what cannot be said."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from detray.core.head_messages import NodeBuried
from detray.core.stimuli import (
    BlockRequested,
    BlockSealed,
    CancelRequested,
    RunFailed,
    WorkerLost,
)
from detray.errors import Failure
from detray.ids import put_object, return_object
from detray.trace import Replay, expect
from detray.trace.reducing.expecting import RULES, SentenceError, find_violation
from detray.trace.reducing.ledger import Ledger
from tests.trace.programs import dots, recorded
from tests.trace.told import DRIVER, PREFIX, ToldNode


@pytest.fixture
def node(tmp_path: Path) -> ToldNode:
    """A node with a driver."""
    node = ToldNode(tmp_path / "told.trace")
    node.open()
    return node


def busy_camera(node: ToldNode, *, held_ms: float = 1_300) -> None:
    """Two tasks want the only camera; the second one waits while CPUs are free."""
    node.template(1, "film", camera=10_000)
    node.submit(1)
    node.submit(1)
    node.ready()
    node.drain(took_ms=held_ms)


# ------------------------------------------------------------------ grammar


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.form)
def test_each_form_is_understood_by_its_example(rule):
    """In whatever case and spacing, with or without a full stop."""
    for sentence in (rule.example, rule.example.upper(), f" {rule.example}. "):
        sentence = sentence.replace(" ", "  ", 1)
        understood = expect(sentence)
        assert type(understood.watch()) is type(expect(rule.example).watch())


def test_times_and_sizes_have_units():
    """1.5 s, 1500 ms and 1500000 us are the same time."""
    said = ["1.5 s", "1500 ms", "1500ms", "1500000 us", "1500000000 ns", "0.025 min"]
    limits = {expect(f"no task runs more than {text}").watch()._limit_ns for text in said}
    assert limits == {1_500_000_000}
    sizes = ["1.5 MB", "1500 kB", "1500kB", "0.0015 GB"]
    assert {expect(f"arena stays below {text}").watch()._most for text in sizes} == {1_499_999}
    assert expect("arena stays below 1 KiB").watch()._most == 1_023


@pytest.mark.parametrize(
    ("sentence", "meant"),
    [
        ("no task wait more than 5 s", "no task waits more than TIME"),
        ("no tasks fail", "no task fails"),
        ("no object is los", "no object is lost"),
        ("every tasks ends", "every task ends"),
        ("no task runs more than 60", "no task runs more than TIME"),
    ],
)
def test_a_near_miss_is_told_what_may_have_been_meant(sentence, meant):
    """And all that can be said, with units."""
    with pytest.raises(SentenceError) as caught:
        expect(sentence)
    text = str(caught.value)
    assert repr(sentence) in text.splitlines()[0]
    assert f"did you mean: {meant}" in text
    assert all(rule.form in text for rule in RULES)
    assert "TIME has a unit" in text


def test_nonsense_is_told_what_can_be_said():
    """Whatever it is: no crash, no guess."""
    rng = random.Random(4)
    words = ["no", "task", "waits", "%", "5", "s", "(", "\\", "more", "than", "\n", "é", "*"]
    for _ in range(500):
        sentence = " ".join(rng.choices(words, k=rng.randrange(8)))
        if any(re.fullmatch(r.pattern, " ".join(sentence.split()), re.I) for r in RULES):
            continue
        with pytest.raises(SentenceError, match="what can be said"):
            expect(sentence)


# ------------------------------------------------------------------ time


def test_waiting_while_a_cpu_is_idle(node):
    """It counts from when all is there; the CPU must be one that the task could use."""
    busy_camera(node)
    trace = node.close()
    sentence = "no task waits more than 1 s while a CPU is idle"
    violation = expect(sentence).check(trace)
    assert violation is not None and violation.sentence == sentence
    assert violation.kind == "waits: camera is taken"
    assert "(film) waits for 1.3 s: a CPU is idle, camera is taken" in violation.text()
    step = next(step for step in trace.steps() if step.number == violation.step)
    assert [type(m).__name__ for m in step.stimuli()] == ["RunFinished"]
    assert expect("no task waits more than 2 s while a CPU is idle").check(trace) is None


def test_waiting_for_a_cpu_is_no_waiting_while_one_is_idle(node):
    """All CPUs are busy: only the sentence without the condition is violated."""
    for _ in range(6):
        node.submit()
    node.drain(took_ms=800)
    trace = node.close()
    assert expect("no task waits more than 1 s while a CPU is idle").check(trace) is None
    violation = expect("no task waits more than 700 ms").check(trace)
    assert violation is not None and violation.kind == "waits: CPU is taken"


def test_waiting_for_an_argument_is_no_waiting(node):
    """A task waits from when what it takes is there."""
    first = node.submit()
    node.submit(0, return_object(first, 0))
    node.drain(took_ms=3_000)
    trace = node.close()
    assert expect("no task waits more than 10 ms").check(trace) is None
    assert expect("no task runs more than 2 s").check(trace) is not None


def test_what_no_node_can_run_waits_and_no_cpu_is_idle_for_it(node):
    """A demand that cannot be met: it waits for ever, but not for want of a CPU it could use."""
    node.template(1, "huge", GPU=10_000)
    node.submit(1)
    node.tell(after_ms=9_000)
    trace = node.close()
    assert expect("no task waits more than 1 s while a CPU is idle").check(trace) is None
    violation = expect("no task waits more than 1 s").check(trace)
    assert violation is not None and "the head" in violation.kind


def test_runs_that_take_long(node):
    """A run that was sent behind another one does not run yet."""
    node.submit()
    node.ready()
    node.drain(took_ms=500)
    trace = node.close()
    violation = expect("no task runs more than 400 ms").check(trace)
    assert violation is not None and violation.kind == "runs: it runs"
    assert expect("no task runs more than 501 ms").check(trace) is None


def test_a_task_by_name(node):
    """From its submission on; one that fails violates it, too."""
    node.template(1, "train")
    node.submit(1)
    node.ready()
    node.drain(took_ms=900)
    trace = node.close()
    assert expect("task train finishes within 500 ms").check(trace) is not None
    assert expect("task train finishes within 2 s").check(trace) is None
    assert expect("task train begins within 500 ms").check(trace) is None
    assert expect("task unknown finishes within 1 ms").check(trace) is None
    assert expect("task 1.0c10a9.0 finishes within 500 ms").check(trace) is not None


def test_order(node):
    """Nothing of the later kind is sent to a worker first."""
    node.template(1, "train")
    node.submit(0)
    node.submit(1)
    node.drain()
    trace = node.close()
    assert expect("load runs before train").check(trace) is None
    assert expect("train runs before load").check(trace) is not None


def test_the_end(node):
    """Only the end of a trace shows that a task did not."""
    node.submit()
    node.ready()
    violation = expect("every task ends").check(node.close())
    assert violation is not None and violation.step == -1
    assert violation.kind == "ends: it runs"


# ------------------------------------------------------------------ totals


def test_failures_retries_and_deaths(node):
    """Each by the total that the core keeps of it."""
    node.submit()
    node.ready()
    task = next(iter(node.core.tables.tasks))
    worker = node.core.tables.tasks[task].state.worker
    node.tell(WorkerLost(worker, 0, False, "was killed by signal 9 (SIGKILL)"))
    node.ready()
    worker = node.core.tables.tasks[task].state.worker
    error = (Failure.APPLICATION, False, "ValueError: no", 100)
    node.tell(RunFailed(worker, task, 1, 0, 1000, *error))
    trace = node.close()
    steps = {}
    for sentence in ("no worker dies", "no task is retried", "no task fails"):
        violation = expect(sentence).check(trace)
        assert violation is not None
        steps[sentence] = violation.step
    assert steps["no worker dies"] == steps["no task is retried"] < steps["no task fails"]
    found = find_violation(trace, [expect("no task fails"), expect("no worker dies")])
    assert found is not None and found.sentence == "no worker dies"
    assert "SIGKILL" in found.text()


def test_how_many_wait_and_work(node):
    """Of each node."""
    for _ in range(6):
        node.submit()
    node.drain()
    trace = node.close()
    assert expect("at most 5 tasks wait on a node").check(trace) is not None
    assert expect("at most 6 tasks wait on a node").check(trace) is None
    assert expect("at most 2 workers").check(trace) is None
    assert expect("no more than 1 worker on a node").check(trace) is not None


def test_memory(node):
    """A put of half the arena."""
    item = put_object(PREFIX, 0)
    node.tell(BlockRequested(DRIVER, item, 4 << 20))
    node.tell(BlockSealed(DRIVER, item))
    trace = node.close()
    assert expect("arena stays below 50 %").check(trace) is not None
    assert expect("arena stays below 60 %").check(trace) is None
    assert expect("arena stays below 4 MB").check(trace) is not None
    assert expect("arena stays below 5 MB").check(trace) is None
    for kind in ("lost", "rebuilt", "spilled"):
        assert expect(f"no object is {kind}").check(trace) is None


def test_a_dead_node(tmp_path):
    """As the head tells it."""
    node = ToldNode(tmp_path / "told.trace")
    node.open(peers=[1])
    node.head(NodeBuried, 1, "it was silent")
    violation = expect("no node dies").check(node.close())
    assert violation is not None and "it was silent" in violation.text()


def test_a_cancelled_task_waits_no_more(node):
    """Nor does what it would have launched."""
    node.template(1, "film", camera=10_000)
    node.submit(1)
    second = node.submit(1)
    node.ready()
    node.tell(CancelRequested(DRIVER, return_object(second, 0), False, True), after_ms=100)
    node.drain(took_ms=3_000)
    assert expect("no task waits more than 200 ms").check(node.close()) is None


# ------------------------------------------------------------------ replays


def test_an_expectation_is_a_condition_of_a_replay(node):
    """`until` stops behind the step that violates it."""
    busy_camera(node)
    trace = node.close()
    expectation = expect("no task waits more than 1 s while a CPU is idle")
    violation = expectation.check(trace)
    replay = Replay(trace)
    assert replay.until(expectation) and violation is not None
    assert replay.at == violation.step + 1
    assert not Replay(trace).until(expect("no task fails"))


def test_a_violation_that_lasts_is_found_in_its_first_step(node):
    """Whatever comes after."""
    busy_camera(node)
    for _ in range(20):
        node.submit()
    node.drain()
    trace = node.close()
    first = expect("no task waits more than 1 s").check(trace)
    assert first is not None and first.step < trace.step_count - 20


def test_a_mistake_of_a_watch_is_raised_and_not_taken_for_one_of_the_core(tmp_path, monkeypatch):
    """Playing takes what a core raises for the end of what can be played."""

    def broken(*_: object) -> None:
        raise NameError("a mistake")

    monkeypatch.setattr(Ledger, "step", broken)
    with pytest.raises(NameError, match="a mistake"):
        find_violation(
            recorded(tmp_path / "t.trace", dots), [expect("no task waits more than 5 s")]
        )
