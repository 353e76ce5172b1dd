"""`detray why` of what real processes recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detray.trace.explaining.answering import why
from detray.trace.explaining.tree import EVENT, FAILURE, Cause
from detray.trace.gathering.history import history_of
from detray.trace.names import short
from detray.trace.reading import Trace, open_trace
from tests.trace.test_parts import assert_sane, assert_whole, timeline_of

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """\
import ctypes, os, signal, time
import detray

detray.init(num_cpus=2, record="run.trace", object_store_memory=80_000_000)

@detray.remote(max_retries=1)
def boom():
    ctypes.string_at(0)

@detray.remote
def use(value):
    return value

@detray.remote
def outer():
    try:
        return detray.get(use.remote(boom.remote()))
    except detray.errors.WorkerCrashedError as error:
        raise RuntimeError("inner failed") from error

@detray.remote
def careless():
    try:
        detray.get(wrong.remote())
    except ValueError:
        pass
    raise KeyError("something else")

@detray.remote
def wrong():
    raise ValueError("told to nobody")

@detray.remote(max_retries=2)
def dies_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        time.sleep(2)  # what was lost is more than what the next attempt waits for
        os.kill(os.getpid(), signal.SIGKILL)
    return path

@detray.remote
def large(number):
    return bytes(20_000_000)

@detray.remote
def size(*values):
    return sum(map(len, values))

for task in (outer, careless):
    try:
        detray.get(task.remote())
    except detray.errors.TaskError:
        pass
detray.get(size.remote(dies_once.remote(os.path.abspath("died"))))
many = [large.remote(number) for number in range(7)]
assert detray.get(size.remote(*many[:3])) == 60_000_000
detray.wait(many, num_returns=7)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """A program in which much goes wrong, and that ends all the same."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return open_trace(folder / "run.trace")


def chain_of(causes: tuple[Cause, ...]) -> list[Cause]:
    """The chain of failures."""
    found = [cause for cause in causes if cause.kind == FAILURE]
    return found + (chain_of(found[0].causes) if found else [])


def test_the_parts_of_a_real_run_cover_the_whole(recorded):
    """Crashes, retries, values that do not fit into memory."""
    assert_sane(history_of(recorded))
    assert_whole(timeline_of(recorded))


def test_an_error_in_an_error_leads_to_the_crash_behind_it(recorded):
    """Through a get, an argument and a retry, to the signal."""
    answer = why(recorded, "outer")
    assert answer.conclusion.startswith("raised RuntimeError: inner failed on worker")
    assert answer.conclusion.endswith("killed by signal 11 (SIGSEGV), attempt 1 of max_retries=1")
    names = [cause.text.split(" (")[0] for cause in chain_of(answer.causes)]
    assert names == ["outer", "use", "boom"]
    crash = chain_of(answer.causes)[-1]
    assert "in boom" in crash.detail
    assert "died on its own" in crash.causes[0].text
    assert any("was lost" in cause.text for cause in why(recorded, "boom").causes)


def test_an_error_beside_another_is_not_taken_for_its_cause(recorded):
    """It was caught: that is said, and the chain ends where it ends."""
    answer = why(recorded, "careless")
    assert "first to fail" not in answer.conclusion
    (failure,) = chain_of(answer.causes)
    assert "KeyError" in failure.detail
    (beside,) = [cause for cause in failure.causes if cause.kind == EVENT]
    assert beside.text.startswith("its last get had been told that wrong (")


def test_a_worker_that_was_killed_is_found_from_what_waited(recorded):
    """size waited for dies_once, whose first worker died."""
    sizes = [life for life in history_of(recorded).tasks.values() if life.name == "size"]
    answer = why(recorded, short(sizes[0].id))
    assert "of which attempt 0 was lost: worker" in answer.conclusion
    assert "killed by signal 9 (SIGKILL)" in answer.conclusion


def test_values_that_went_to_disk_say_so(recorded):
    """The store holds not half of them."""
    history = history_of(recorded)
    spilled = [
        item for item in history.objects.values() if any(m.kind == "spilled" for m in item.moves)
    ]
    assert spilled
    answer = why(recorded, short(spilled[0].id))
    assert any(cause.text == "it was moved to disk" for cause in answer.causes)
