"""Tasks that do to their process what a worker can bear: a rerun of them ends, with its answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import builtins
import os
import signal
import sys
import threading
import time

import detray

@detray.remote
def leaves_a_thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return 1

@detray.remote
def closes_its_output():
    sys.stdout.close()
    os.close(2)
    return 1

@detray.remote(max_calls=1)  # else the alarm ends whatever its worker runs by then
def sets_an_alarm():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    return 1

@detray.remote
def takes_names():
    builtins.print = None
    sys.setrecursionlimit(90)
    return 1

@detray.remote
def interrupts_itself():
    raise KeyboardInterrupt

@detray.remote(max_retries=0)
def raises_what_nobody_catches():
    raise BaseException("nobody")

@detray.remote(max_retries=0)
def ends():
    sys.exit(0)

TASKS = (
    leaves_a_thread, closes_its_output, sets_an_alarm, takes_names, interrupts_itself,
    raises_what_nobody_catches, ends,
)
with detray.init(num_cpus=1, record="run.trace", record_payloads=True, log_to_driver=False):
    for task in TASKS:
        try:
            detray.get(task.remote())
        except detray.errors.DetrayError as error:
            print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rude")
    (directory / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=directory, env=environment, timeout=60, check=True)
    return directory


def ask(directory: Path, *arguments: str) -> tuple[int, str, str]:
    """The command in that directory: exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "detray.cli", "rerun", "run.trace", *arguments, "--trust"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("task", "verdict"),
    [
        ("leaves_a_thread", "same: the result is the same"),
        ("closes_its_output", "same: the result is the same"),
        ("sets_an_alarm", "same: the result is the same"),
        ("takes_names", "same: the result is the same"),
        ("interrupts_itself", "unknown: it was cancelled then"),
        ("raises_what_nobody_catches", "same: it dies again: exited with status 1"),
        ("ends", "same: it dies again: exited with status 0"),
    ],
)
def test_a_rude_task_has_its_verdict(directory, task, verdict):
    """And its process ends, without a traceback of ours."""
    code, out, err = ask(directory, task)
    assert out.splitlines()[-1].startswith(verdict), (out, err)
    assert code == 0 and "Traceback" not in err
    title = next(line for line in out.splitlines() if line.startswith(f"{task} ("))
    assert title.endswith(")" if "dies again" in verdict else "ms now"), "nobody times a death"


def test_rude_tasks_do_nothing_to_each_other(directory):
    """All of them, one after the other in one process."""
    code, out, err = ask(directory, "--all")
    assert "6 of 7 tasks ran again" in out and "6 the same, 0 not" in out, (out, err)
    assert code == 0 and "they end with this process" in err


@pytest.mark.parametrize("task", ["raises_what_nobody_catches", "ends", "interrupts_itself"])
def test_here_they_end_no_process_either(directory, task):
    """What a task raises to end its worker is told, not raised once more."""
    code, out, _ = ask(directory, task, "--here")
    assert code == 0 and out.splitlines()[-1].startswith(("same", "unknown"))
