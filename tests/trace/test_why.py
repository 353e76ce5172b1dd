"""`detray why`: causes walked back, of tasks, objects, workers, nodes and heads."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import msgspec
import pytest

import detray.trace
from detray.cli.command import main
from detray.cli.terminal.causes import why_text
from detray.core.config import Policy
from detray.core.stimuli import CancelRequested, ClientLost
from detray.ids import child_prefix, child_task, return_object
from detray.trace.explaining.answering import why
from detray.trace.explaining.causes import Explainer
from detray.trace.explaining.parts import Timeline
from detray.trace.explaining.things import explain_client, explain_object
from detray.trace.explaining.tree import FAILURE, MEANWHILE, STUCK, Cause, Why
from detray.trace.format import TraceError
from detray.trace.gathering.history import History, history_of
from detray.trace.gathering.lives import TaskLife
from detray.trace.names import short
from detray.trace.reading import Trace, open_trace
from detray.trace.telling.story import StorySubject
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.result import NodeShape
from detray_sim.traces import write_trace
from tests.sim.test_engine import MS, SECOND
from tests.sim.test_engine_nodes import graph
from tests.trace.machine import DRIVER, ROOT, Machine
from tests.trace.programs import dots, many, recorded, troubles
from tests.trace.test_parts import assert_whole, seed_trace

Program = Callable[[Machine], None]

SOON = Policy(heartbeat_ns=100 * MS, death_ns=400 * MS)
"""The dead are missed soon."""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """A cluster whose node 2 dies with values that others wait for."""
    shape = NodeShape(cpus=2, store_bytes=64 << 20)
    cluster = SimCluster(ClusterConfig(nodes=(shape,) * 4, policy=SOON), record=True)
    cluster.drive(0, graph)
    cluster.clock.after(30 * MS, lambda world: world.crash_node(2), cluster)
    assert cluster.run(100 * SECOND)
    cluster.settle()
    path = tmp_path_factory.mktemp("why") / "crash.trace"
    write_trace(cluster, path)
    return open_trace(path)


def every(causes: tuple[Cause, ...]) -> list[Cause]:
    """All causes of a tree."""
    return [cause for top in causes for cause in (top, *every(top.causes))]


# ------------------------------------------------------------------ slow


def test_a_wait_for_an_argument_leads_to_who_made_it(tmp_path):
    """The conclusion is one line; the tree says the same, largest first."""
    answer = why(recorded(tmp_path / "run.trace", dots), "dot")
    assert answer.conclusion == (
        "waited 5 ms of 10 ms: 5 ms for its argument 1.0c10a9.0/0 of zeros, which took 5 ms to run"
    )
    assert [(cause.part, cause.length_ns) for cause in answer.causes] == [
        ("argument", 5_000_000), ("run", 4_999_000), ("queue", 1000)
    ]  # fmt: skip
    (ran, _) = answer.causes[0].causes
    assert (ran.part, ran.text) == ("run", "ran on worker 1")


def test_a_lost_attempt_is_a_part_of_its_own(tmp_path):
    """A worker died: what it cost, and how it died."""
    answer = why(recorded(tmp_path / "run.trace", troubles), "shaky")
    assert "attempt 0 was lost: worker 3 died: killed by signal SIGKILL" in answer.conclusion
    assert answer.causes[0].part == "lost"
    assert answer.causes[0].length_ns == 5_000_000


def test_a_value_that_was_lost_leads_to_the_node_that_died(crashed):
    """The task was fast; what it took was made again because a node was silent."""
    explainer = Explainer(explained(crashed))
    lives = [life for life in explainer.history.tasks.values() if life.name == "join"]
    answers = [explainer.explain_task(life) for life in lives]
    slow = [answer for answer in answers if answer.length_ns > 100 * MS]
    # Of the values a death takes some that were made, and some that were still to be made there.
    assert all("was lost: node 2 died: it was silent" in w.conclusion for w in slow)
    lost = [w for w in slow if "for its value was lost: node 2 died" in w.conclusion]
    assert lost
    rebuilt = [cause for cause in every(lost[0].causes) if cause.part == "rebuilt"]
    assert rebuilt and rebuilt[0].causes


def test_what_ran_meanwhile_is_told_of_a_wait_for_resources(tmp_path):
    """Not as a share of the time: those runs are its reason."""

    def program(machine: Machine) -> None:
        machine.submit(machine.define("first"))
        machine.submit(machine.define("second", cpus=5_000))
        machine.work()

    answer = why(played(tmp_path, program, cpus=1), "second")
    (wait,) = [cause for cause in answer.causes if cause.part == "resource"]
    assert "it needs {CPU: 0.5}" in wait.text
    assert [cause.kind for cause in wait.causes] == [MEANWHILE]
    assert wait.causes[0].text.startswith("first (")


def test_depth_bounds_the_tree(tmp_path):
    """One level is the parts alone; more levels only add below."""
    trace = recorded(tmp_path / "run.trace", dots)
    flat, deep = why(trace, "dot", depth=1), why(trace, "dot", depth=9)
    assert not any(cause.causes for cause in flat.causes)
    assert [cause.text for cause in flat.causes] == [cause.text for cause in deep.causes]


# ------------------------------------------------------------------ failed


def failing(machine: Machine) -> None:
    """One of three raises, and what takes its result fails, and what takes that."""
    fine, wrong = machine.define("fine"), machine.define("wrong", lambda m, run: "ValueError: no")
    added, final = machine.define("add"), machine.define("final")
    total = machine.submit(added, machine.submit(fine), machine.submit(wrong))
    machine.get(machine.submit(final, total))
    machine.work()


def test_a_failure_is_walked_back_to_the_first(tmp_path):
    """final failed because add did, because wrong raised."""
    answer = why(played(tmp_path, failing), "final")
    chain = [cause for cause in every(answer.causes) if cause.kind == FAILURE]
    assert [cause.text.split(" (")[0] for cause in chain] == ["final", "add", "wrong"]
    assert chain[-1].text.endswith("raised ValueError: no on worker 2")
    assert answer.conclusion.startswith("failed because its argument ")
    assert answer.conclusion.endswith(chain[-1].text)


def test_a_traceback_is_part_of_the_answer_if_the_trace_has_it(tmp_path):
    """Line by line, below the error."""
    (cause,) = [
        Cause(FAILURE, "f raised ValueError: no", detail='File "a.py", line 3\n  x = 1')
    ]  # fmt: skip
    text = why_text(Why("f", "raised ValueError: no", causes=(cause,)))
    assert text.splitlines()[-2].strip() == 'File "a.py", line 3'
    assert text.splitlines()[-1].endswith("  x = 1")


def test_a_run_whose_worker_died_for_good_says_how(tmp_path):
    """No retries: the exit reason, and the end of the worker as an event."""

    def program(machine: Machine) -> None:
        machine.get(machine.submit(machine.define("boom", lambda m, r: "killed", max_retries=0)))
        machine.work()

    answer = why(played(tmp_path, program), "boom")
    assert answer.conclusion == "failed: worker 1 died: killed by signal SIGKILL"
    assert "worker 1 (pid 5001) died on its own" in answer.causes[0].causes[0].text


def test_a_cancelled_task_says_who_asked(tmp_path):
    """The driver, by force, before it began."""

    def program(machine: Machine) -> None:
        slow = machine.define("slow", lambda m, r: False)
        last = machine.submit(slow, machine.submit(slow))
        machine.tell(CancelRequested(DRIVER, last, True, False))

    trace = played(tmp_path, program)
    last = list(history_of(trace).tasks.values())[-1]
    answer = why(trace, short(last.id))
    assert answer.conclusion == "was cancelled: driver 1 asked for it by force at 0.000000 s"


# ------------------------------------------------------------------ never ended


def test_what_never_ended_leads_to_the_root_of_the_wait(tmp_path):
    """last waits for middle, which waits for what no node can run."""

    def program(machine: Machine) -> None:
        huge = machine.define("huge", cpus=640_000)
        middle, last = machine.define("middle"), machine.define("last")
        machine.submit(last, machine.submit(middle, machine.submit(huge)))
        machine.submit(machine.define("fine"))
        machine.work()

    answer = why(played(tmp_path, program), "last")
    assert answer.conclusion.startswith("had not ended when the trace ended")
    (stuck, *_) = answer.causes
    texts = [cause.text for cause in every((stuck,))]
    assert all(cause.kind == STUCK for cause in every((stuck,)))
    assert [text.split(" (")[0] for text in texts] == ["last", "middle", "huge"]
    assert texts[-1].endswith(
        "no node could ever run it: it needs {CPU: 64}, the most of each that any has is CPU 4"
    )


def test_a_run_that_never_ends_is_the_root_of_the_wait(tmp_path):
    """Who waits for it says so, and it says that it runs."""

    def program(machine: Machine) -> None:
        first = machine.submit(machine.define("first", lambda m, run: False))
        machine.submit(machine.define("second"), first)
        machine.now_ns += 10 * MS
        machine.put()

    answer = why(played(tmp_path, program), "second")
    texts = [cause.text for cause in every(answer.causes[:1])]
    assert "waits for its argument" in texts[0]
    assert texts[1].startswith("first (") and " runs on worker 1" in texts[1]


def test_a_circle_of_waits_comes_back_to_itself():
    """No program can make one of arguments; whatever the messages say, the chain ends."""
    history = History()
    for own, other in ((1, 2), (2, 1)):
        task = child_task(child_prefix(ROOT, 0, 0), own)
        needed = return_object(child_task(child_prefix(ROOT, 0, 0), other), 0)
        history.tasks[task] = TaskLife(task, f"f{own}", ROOT, 5, args=(needed,), core=0)
    history.first_ns[0], history.last_ns[0] = 5, 100
    stuck = Explainer(Timeline(history)).stuck(next(iter(history.tasks.values())))
    texts = [cause.text for cause in every((stuck,))]
    assert len(texts) == 3 and texts[-1].endswith("again: they wait for each other")


def test_a_seed_that_is_stuck_says_why(tmp_path):
    """A get in a run on another node waits for what no node can run."""
    trace = seed_trace(6, tmp_path / "seed.trace")
    waiting = [life for life in history_of(trace).tasks.values() if life.state == "sent"]
    (life,) = waiting
    answer = why(trace, short(life.id))
    assert "stands still in a get for" in answer.conclusion
    assert "no node could ever run it" in answer.conclusion


# ------------------------------------------------------------------ things


def test_objects_say_where_they_come_from_and_went(tmp_path, crashed):
    """Made, dropped and freed; failed; lost and made again."""
    trace = recorded(tmp_path / "run.trace", troubles)
    (fine, *_) = [life for life in history_of(trace).tasks.values() if life.name == "fine"]
    made = why(trace, f"{short(fine.id)}/0")
    assert "was made at 0.005000 s, 100 B, by fine" in made.conclusion
    assert "it was freed at 0.0" in made.conclusion
    (wrong,) = [life for life in history_of(trace).tasks.values() if life.name == "wrong"]
    # No object of that name was ever made; its readers hear of it all the same.
    assert "ValueError: no" in why(trace, short(wrong.id)).conclusion
    again = [
        short(item.id)
        for item in history_of(crashed).objects.values()
        if any(move.kind == "made again" for move in item.moves)
    ]
    assert again
    answer = why(crashed, again[0])
    assert "was lost (node 2 died: it was silent" in answer.conclusion
    assert any("node 2 died with its copy" in cause.text for cause in answer.causes)


def test_a_dead_worker_says_what_was_lost_with_it(tmp_path):
    """And what became of that."""
    answer = why(recorded(tmp_path / "run.trace", troubles), "worker 3")
    assert answer.subject == "worker 3 (pid 5003)"
    assert answer.conclusion.startswith("died at 0.005000 s: killed by signal SIGKILL")
    (lost,) = answer.causes
    assert lost.text.endswith("was lost; attempt 1 finished at 0.010000 s")


def test_a_dead_node_says_what_was_lost_and_made_again(crashed):
    """Runs and values; a head says whom it declared dead, a living node that it lives."""
    answer = why(crashed, "node 2")
    assert "was declared dead at " in answer.conclusion
    texts = [cause.text for cause in answer.causes]
    assert any("attempt 0 of work" in text and "was lost; attempt 1" in text for text in texts)
    assert any("lay there and was made again by attempt 1" in text for text in texts)
    head = why(crashed, "head")
    assert any("it declared node 2 dead" in cause.text for cause in head.causes)
    assert "was a member when the trace ended" in why(crashed, "node 1").conclusion


def test_drivers_are_known(tmp_path):
    """By their program."""
    answer = why(recorded(tmp_path / "run.trace", dots), "driver 1")
    assert answer.subject == "driver 1 (/home/ada/program.py)"


# ------------------------------------------------------------------ the command


def test_the_command_prints_the_tree_and_json(tmp_path, capsys):
    """The first line is the conclusion; JSON has the same."""
    path = str(tmp_path / "run.trace")
    trace = recorded(tmp_path / "run.trace", dots)
    assert main(["why", path, "dot"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dot (1.0c10a9.2) waited 5 ms of 10 ms")
    assert lines[1].strip() == "5 ms  waited for its argument 1.0c10a9.0/0 of zeros"
    assert main(["why", path, "dot", "--json", "--depth", "2"]) == 0
    found = msgspec.convert(json.loads(capsys.readouterr().out), Why)
    assert found == detray.trace.why(trace, "dot", depth=2)


def test_what_is_not_known_is_said_in_one_line(tmp_path, capsys):
    """As by `detray story`; nodes and workers too."""
    path = str(tmp_path / "run.trace")
    recorded(tmp_path / "run.trace", dots)
    for about, words in (
        ("nonsense", 'knows nothing of \'nonsense\': give an id (`ref.hex()`), a name such as'),
        ("zeros", "'zeros' may be any of 2"),
        ("node 7", "knows nothing of node 7; it knows: 0"),
        ("worker 99", "knows nothing of worker 99"),
    ):  # fmt: skip
        assert main(["why", path, about]) == 2
        found = capsys.readouterr()
        assert words in found.err and not found.out and found.err.count("\n") == 1
    assert main(["why", path, "dot", "--depth", "0"]) == 2
    assert "over 1 to" in capsys.readouterr().err


# ------------------------------------------------------------------ less is said, never another


def test_a_trace_that_is_cut_says_less(crashed):
    """Of whatever a cut trace knows there is an answer, and its parts add up."""
    timeline = explained(crashed)
    whole = {life.id: timeline.began_ns(life) for life in timeline.history.tasks.values()}
    with open(crashed.name, "rb") as file:
        data = file.read()
    chance = random.Random(5)
    for _ in range(3):
        cut = Trace(data[: chance.randrange(len(data) // 3, len(data))], "cut")
        timeline = explained(cut)
        explainer = Explainer(timeline)
        for life in timeline.history.tasks.values():
            assert explainer.explain_task(life).conclusion
            assert timeline.began_ns(life) == whole[life.id]
        assert_whole(timeline)


def explained(trace: Trace) -> Timeline:
    """The timeline of a trace."""
    history = history_of(trace)
    history.use_dates(trace.header)
    return Timeline(history)


def test_no_flight_recorder_makes_it_fail():
    """Begun in the middle: tasks, workers and objects that are known from the state only."""
    machine = Machine(ring_bytes=60_000)
    many(machine, rounds=30)
    trace = Trace(machine.recorder.read_all())
    explainer = Explainer(explained(trace))
    for life in explainer.history.tasks.values():
        assert explainer.explain_task(life).conclusion
    for item in explainer.history.objects:
        assert explain_object(explainer, item).conclusion
    for worker in explainer.history.workers.values():
        assert explain_client(explainer, StorySubject(b"", worker.id)).conclusion


@pytest.mark.parametrize("seed", range(40))
def test_no_change_of_the_messages_makes_it_crash(tmp_path, seed):
    """Bytes that lie behind right checks: an error that is expected, or an answer."""
    path = tmp_path / "run.trace"
    recorded(path, dots, troubles)
    trace = Trace(path.read_bytes())
    chance = random.Random(seed)
    chunk = trace._chunks[0]
    data = bytearray(chunk.data)
    for _ in range(3):
        data[chance.randrange(len(data))] = chance.randrange(256)
    trace._chunks[0] = chunk._replace(data=memoryview(bytes(data)))
    for about in ("dot", "shaky", "worker 3", "node 0", "driver 1"):
        try:
            assert why(trace, about).subject
        except TraceError:
            continue


def played(tmp_path, program: Program, cpus: int = 4) -> Trace:
    """The trace of a machine that ran a program."""
    machine = Machine(tmp_path / "run.trace", cpus=cpus)
    program(machine)
    machine.recorder.close("done")
    return open_trace(tmp_path / "run.trace")


def test_without_a_name_it_is_about_the_first_failure_or_the_last_to_end(tmp_path):
    """Whoever knows no id yet asks what went wrong; if nothing did, what took so long."""
    trace = recorded(tmp_path / "t.trace", troubles)
    history = history_of(trace)
    lives = list(history.tasks.values())
    failed = [life for life in lives if life.state == "failed" and life.attempts]
    first = min(failed, key=lambda life: max(run.ended_ns for run in life.attempts))
    assert why(trace).subject == why(trace, first.id.hex()).subject
    fine = recorded(tmp_path / "f.trace", dots)
    last = max(history_of(fine).tasks.values(), key=lambda life: life.attempts[-1].ended_ns)
    assert why(fine) == why(fine, last.id.hex())


def test_the_end_of_a_job_is_no_failure_of_what_waited_for_its_tasks(tmp_path):
    """Producer and consumer were cut off in the same step: neither failed."""

    def program(machine: Machine) -> None:
        slow = machine.submit(machine.define("slow"))
        machine.submit(machine.define("after"), slow)
        machine.tell(ClientLost(DRIVER, "it closed its connection"))

    lives = list(history_of(recorded(tmp_path / "t.trace", program)).tasks.values())
    assert [life.state for life in lives] == ["cancelled", "cancelled"]
    assert all(life.error.startswith("its job was over") for life in lives)
