"""Two runs of one program compared: what differs is found, and where it began is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detray.trace.comparing.diffing import CHANCE, CODE, Departure, diff

PROGRAM = """
import os, sys, threading, time
import detray

fault = os.environ.get("FAULT", "")
trace = sys.argv[1]

@detray.remote
def load(number):
    return list(range(number, number + 10))

@detray.remote
def score(values, factor=1):
    if os.environ.get("FAULT") == "result" and values[0] == 2:
        return sum(values) * 2
    if os.environ.get("FAULT") == "failure" and values[0] == 2:
        raise ValueError("no score today")
    if os.environ.get("FAULT") == "crash" and values[0] == 2 and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), 9)
    return sum(values) * factor

@detray.remote
def total(*scores):
    return sum(scores)

@detray.remote
def nested(count):
    if os.environ.get("FAULT") == "grandchild argument":
        count += 1
    boxes = [load.remote(number) for number in range(count)]
    first = detray.get(boxes[0])
    return detray.get(total.remote(*[score.remote(box) for box in boxes])) + len(first)

@detray.remote
def read(box):
    return sum(detray.get(box[0]))

@detray.remote(num_returns=2)
def pair(seed):
    return seed, os.getpid() if os.environ.get("FAULT") == "second return" else 0

@detray.remote
def large(number):
    return bytes([number]) * (200_000 + (os.environ.get("FAULT") == "block size"))

def other(values):
    return "other"

def main():
    loads = [load.remote(number) for number in range(4)]
    factor = 2 if fault == "argument" else 1
    scores = [score.remote(box, factor) for box in loads]
    kept = detray.put([7, 8, 9] if fault != "put" else [7, 8, 10])
    if fault == "function":
        scores.append(detray.remote(other).remote(loads[1]))
    elif fault == "option":
        scores.append(score.options(max_retries=7).remote(loads[1]))
    else:
        scores.append(score.remote(loads[1]))
    results = [total.remote(*scores), nested.remote(3), read.remote([kept]), large.remote(3)]
    results += pair.remote(1)
    if fault == "missing":
        results.append(load.remote(99))
    if fault == "threads":
        threads = [
            threading.Thread(target=lambda n=n: results.append(load.remote(n))) for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for ref in results:
        try:
            detray.get(ref)
        except Exception:
            pass

detray.init(num_cpus=2, record=trace, log_to_driver=False)
if __name__ == "__main__":
    main()
detray.shutdown()
"""


def run(folder: Path, name: str, fault: str = "", program: str = PROGRAM) -> Path:
    path = folder / f"{name}.trace"
    script = folder / "program.py"
    script.write_text(program)
    environment = {**os.environ, "FAULT": fault}
    subprocess.run(
        [sys.executable, str(script), str(path)],
        check=True, timeout=60, cwd=folder, env=environment,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("good"), "good")


def told(items: list[Departure]) -> list[tuple[str, str, str]]:
    return [(item.kind, item.what, item.name) for item in items]


def test_two_runs_without_a_fault_are_the_same(good: Path, tmp_path: Path) -> None:
    """However differently their tasks were spread over workers and time."""
    found = diff(good, run(tmp_path, "again"))
    assert found.is_same and found.is_placed_alike and not found.departures
    counts = found.counts
    assert counts.common == found.a.tasks == found.b.tasks and not counts.only_a + counts.only_b
    assert counts.compared == found.a.objects and counts.not_firm == 0
    # What has a reference in it is compared by size: its bytes hold ids.
    assert found.a.has_digests and counts.by_size_only == 0
    assert found.times.makespan_a_ns > 0 < found.times.makespan_b_ns
    assert {item.name for item in found.times.functions} >= {"load", "score", "nested"}


FAULTS = [
    ("result", [("result", "return 0", "score")], {("result", "return 0", "total")}),
    ("failure", [("failure", "end", "score")], {("failure", "end", "total")}),
    ("crash", [("failure", "end", "score")], set()),
    (
        "argument",
        [("submission", "arguments", "score")] * 4,
        {("result", "return 0", "score"), ("result", "return 0", "total")},
    ),
    ("option", [("submission", "max_retries", "score")], set()),
    (
        "function",
        [("submission", "function", "score")],
        {("result", "return 0", "score"), ("failure", "end", "total")},
    ),
    ("put", [("result", "put", "a put of the program")], {("result", "return 0", "read")}),
    ("second return", [("result", "return 1", "pair")], set()),
    ("block size", [("result", "return 0", "large")], set()),
    ("missing", [("submission", "task", "load")], set()),
    (
        "grandchild argument",
        [("submission", "function", "score")],
        {("submission", "function", "total"), ("result", "return 0", "nested")},
    ),
]


QUICK = ("result", "crash", "grandchild argument")


@pytest.mark.parametrize(
    ("fault", "first", "rest"),
    [
        pytest.param(*case, id=case[0], marks=() if case[0] in QUICK else pytest.mark.slow)
        for case in FAULTS
    ],
)
def test_a_fault_is_found_where_it_began(
    good: Path, tmp_path: Path, fault: str, first: list[tuple[str, str, str]], rest: set[object]
) -> None:
    """What follows from it is told apart."""
    found = diff(good, run(tmp_path, "bad", fault))
    assert not found.is_same
    assert told(found.first)[: len(first)] == first
    others = {item for item in told(found.departures) if item not in told(found.first)}
    assert rest <= others, others
    # With another function in the place of one, what follows is hardly the same thing.
    is_matched = fault not in ("function", "grandchild argument")
    assert all(item.is_firm for item in found.departures) == is_matched
    # The other way round it is the same, the other way round.
    back = diff(found.b.path, good) if Path(found.b.path).exists() else None
    if back is not None:
        assert [(i.a, i.b) for i in back.departures] == [(i.b, i.a) for i in found.departures]


def test_a_missing_or_retried_parent_explains_its_children(tmp_path: Path) -> None:
    """The attempt that counted is compared, whatever its number; the lost one's are told apart."""
    program = """
import os, sys
import detray

@detray.remote
def leaf(number):
    return number

@detray.remote(max_retries=3)
def parent():
    refs = [leaf.remote(number) for number in range(4)]
    if os.environ["FAULT"] and not os.path.exists("died"):
        open("died", "w").close()
        detray.get(refs)
        os.kill(os.getpid(), 9)
    return sum(detray.get(refs))

detray.init(num_cpus=2, record=sys.argv[1], log_to_driver=False)
detray.get(parent.remote())
detray.shutdown()
"""
    found = diff(run(tmp_path, "a", program=program), run(tmp_path, "b", "yes", program))
    assert told(found.first) == [("failure", "end", "parent")]
    (first,) = found.first
    assert first.a == "finished" and "attempt 2" in first.b and "SIGKILL" in first.b
    assert found.counts.common == 5 and found.counts.only_b == 4
    others = [item for item in found.departures if not item.is_first]
    assert told(others) == [("submission", "task", "leaf")] * 4
    assert found.counts.compared == 5, "the children of the attempt that counted"


def test_names_by_threads_are_not_firm(good: Path, tmp_path: Path) -> None:
    found = diff(good, run(tmp_path, "bad", "threads"))
    assert found.counts.not_firm == found.counts.only_b == 3
    assert "other threads" in " ".join(found.notes)
    assert not any(item.is_firm for item in found.departures)


def test_reasons_say_what_may_be_behind_it(good: Path, tmp_path: Path) -> None:
    """Code that was changed is a likely reason, and so is the order of answers."""
    same = PROGRAM.replace("return sum(values) * 2", "return sum(values) * 2  # twice")
    first = diff(run(tmp_path, "a", program=same), run(tmp_path, "b", "result", same)).first
    assert [(item.name, item.why) for item in first] == [("score", CHANCE)] * 2
    before, after = "return sum(scores)", "return sum(scores) + 1"
    assert before in PROGRAM
    changed = PROGRAM.replace(before, after)
    found = diff(tmp_path / "a.trace", run(tmp_path, "c", program=changed))
    assert {(item.name, item.why) for item in found.first} == {("total", CODE)}
    assert any(note.startswith("the pickled code of total is not") for note in found.notes)


def test_the_order_of_answers_is_named_as_a_reason(tmp_path: Path) -> None:
    program = """
import os, sys, time
import detray

@detray.remote
def slow(number):
    is_late = (number == 0) == bool(os.environ["FAULT"])
    while is_late and not os.path.exists("first" + os.environ["FAULT"]):
        time.sleep(0.01)
    return number

@detray.remote
def after(number):
    return number

detray.init(num_cpus=2, record=sys.argv[1])
waiting = [slow.remote(0), slow.remote(1)]
while waiting:
    (ready,), waiting = detray.wait(waiting, num_returns=1)
    open("first" + os.environ["FAULT"], "w").close()
    detray.get(after.remote(ready))
detray.shutdown()
"""
    found = diff(run(tmp_path, "a", program=program), run(tmp_path, "b", "yes", program))
    assert told(found.first)[0] == ("submission", "arguments", "after")
    assert found.first[0].why.endswith("it calls wait(), whose answer depends on times")
    assert told(found.departures)[1] == ("result", "return 0", "after")


def test_a_value_made_again_otherwise_is_told(tmp_path: Path) -> None:
    """One run is enough to see that a task is not deterministic."""
    from tests.trace.machine import Machine

    machine = Machine(tmp_path / "a.trace")
    work = machine.define("work")
    machine.get(machine.submit(work))
    machine.work()
    machine.recorder.close("done")
    found = diff(tmp_path / "a.trace", tmp_path / "a.trace")
    assert found.is_same and not any("again" in note for note in found.notes)
    assert sum("no digests" in note for note in found.notes) == 2
    assert found.counts.by_size_only == found.counts.compared == 1


def test_standing_still_in_a_get_is_waiting_and_not_running(tmp_path: Path) -> None:
    """As in the graph and the report: a parent computes nothing while its child does.

    With one CPU the child begins when its parent stands still, and not before.
    """
    program = """
import sys, time
import detray
detray.init(num_cpus=1, record=sys.argv[1])

@detray.remote
def child():
    time.sleep(0.3)

@detray.remote
def parent():
    detray.get(child.remote())

detray.get(parent.remote())
"""
    path = run(tmp_path, "nested", program=program)
    times = diff(path, path).times
    assert times.ran_a_ns == times.ran_b_ns >= 300_000_000
    assert times.waited_a_ns >= 300_000_000
