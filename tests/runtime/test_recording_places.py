"""Where a session may record to: what cannot be written is told, and the program goes on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from detray.rerun import list_tasks, open_recorded
from detray.trace.reading import open_trace
from detray.trace.replaying import replay

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
import detray

@detray.remote
def double(x):
    return 2 * x

detray.init(num_cpus=1, record=sys.argv[1], record_payloads=True)
assert detray.get(double.remote(4)) == 8
print("it runs", flush=True)
sys.stdin.readline()
assert detray.get(double.remote(5)) == 10
detray.shutdown()
"""


def start(path: str) -> subprocess.Popen[str]:
    """A program that records there, and ends when it is given a line."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None and program.stdout.readline() == "it runs\n"
    return program


def test_a_second_session_does_not_spoil_the_file_of_the_first(tmp_path):
    """It says that nothing is recorded, and runs; the first file is whole, its owner's alone."""
    path = tmp_path / "run.trace"
    path.write_bytes(b"of another day")
    path.chmod(0o644)
    first = start(str(path))
    second = start(str(path))
    _, text = second.communicate("\n", timeout=60)
    assert second.returncode == 0
    assert "nothing is recorded to" in text and "another session records to this file" in text
    _, text = first.communicate("\n", timeout=60)
    assert first.returncode == 0 and not text
    trace = open_trace(path)
    assert trace.complete and replay(trace).is_same
    assert len(list_tasks(open_recorded(path))) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_of_a_session_that_was_killed_may_be_used_again(tmp_path):
    """What held it ended with its process."""
    path = str(tmp_path / "run.trace")
    killed = start(path)
    killed.kill()
    killed.communicate(timeout=60)
    for _ in range(50):
        again = start(path)
        _, text = again.communicate("\n", timeout=60)
        if "another session" not in text:  # else the killed one's service has not ended yet
            break
    assert again.returncode == 0 and open_trace(path).complete


def test_a_file_that_cannot_be_made_is_told_to_who_asked_for_it():
    """Though no driver had connected when it was tried."""
    program = start("/proc/run.trace")
    _, text = program.communicate("\n", timeout=60)
    assert program.returncode == 0 and "nothing is recorded to /proc/run.trace" in text
