"""`detray rerun --all` survives its tasks: those that kill their process, hang, or eat memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detray import rerun
from tests.support.processes import gone

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import ctypes
import os
import signal
import subprocess
import sys
import time

import detray

def deadly():
    return os.path.exists("deadly")

@detray.remote
def makes(n):
    return bytes([n]) * 3_200_000

@detray.remote
def adds(a, b):
    return a[0] + b[-1]

@detray.remote
def harmless(x):
    return x + 1

@detray.remote
def exits():
    if deadly():
        os._exit(3)
    return 1

@detray.remote
def is_killed():
    if deadly():
        os.kill(os.getpid(), signal.SIGKILL)
    return 1

@detray.remote
def crashes():
    if deadly():
        ctypes.string_at(0)
    return 1

@detray.remote
def interrupts():
    if deadly():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    return 1

@detray.remote
def hangs():
    if deadly():
        with open("hanging", "w") as file:
            file.write(f"{os.getpid()} ")
        time.sleep(3600)
    return 1

@detray.remote
def eats():
    if deadly():
        block = bytearray(4 << 30)
    return 1

@detray.remote
def leaves_a_process():
    if deadly():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        with open("pids", "a") as file:
            file.write(f"{child.pid}\\n")
        os._exit(0)
    return 1

@detray.remote
def forks():
    if deadly() and not os.fork():
        return 2
    return 1

@detray.remote
def exits_as_we_do():
    if deadly():
        os._exit(70)
    return 1

@detray.remote
def closes_all():
    if deadly():
        os.closerange(3, 4096)
    return 1

@detray.remote
def closes_all_and_hangs():
    if deadly():
        os.closerange(3, 4096)
        time.sleep(3600)
    return 1

@detray.remote
def writes_everywhere():
    # Not where it would be among the tests, whose descriptors these are.
    is_command = "--trust" in open("/proc/self/cmdline").read()
    for number in range(3, 64) if deadly() and is_command else ():
        try:
            os.write(number, bytes([255]) * 100)
        except OSError:
            pass
    return 1

@detray.remote
def names_a_file_that_is_no_text():
    if deadly():
        raise ValueError("not of ours: " + os.fsdecode(bytes([255])))
    return 1

class Unspeakable(Exception):
    def __str__(self):
        sys.exit(4)

@detray.remote
def raises_what_cannot_be_said():
    if deadly():
        raise Unspeakable
    return 1

@detray.remote
def makes_or_dies(n):
    if deadly():
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes([n]) * 3_200_000

KILLERS = (
    exits, is_killed, crashes, interrupts, hangs, eats, leaves_a_process, forks, exits_as_we_do,
    closes_all, closes_all_and_hangs, writes_everywhere, names_a_file_that_is_no_text,
    raises_what_cannot_be_said,
)
with detray.init(num_cpus=1, record="run.trace", record_payloads=True, log_to_driver=False):
    one, two = makes.remote(1), makes.remote(2)
    detray.get(adds.remote(one, two))
    for killer in KILLERS:
        detray.get(killer.remote())
        detray.get(harmless.remote(1))
    detray.get(adds.remote(makes_or_dies.remote(3), two))
    detray.get(adds.remote(one, two))
"""
KILLED = {
    "exits": "exited with status 3",
    "is_killed": "killed by signal 9 (SIGKILL)",
    "crashes": "killed by signal 11 (SIGSEGV)",
    "interrupts": "it raises KeyboardInterrupt",
    "hangs": "killed after 2 s (--timeout gives it more)",
    "eats": "it raises MemoryError",
    "leaves_a_process": "exited with status 0",
    "exits_as_we_do": "exited with status 70",
    "closes_all": "wrote to, or closed, descriptors that are not its own",
    "writes_everywhere": "wrote to, or closed, descriptors that are not its own",
    "closes_all_and_hangs": "killed after 2 s",
    "names_a_file_that_is_no_text": "ValueError: not of ours: \\udcff",
    "makes_or_dies": "killed by signal 9 (SIGKILL)",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("deadly")
    (directory / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "program.py"]
    subprocess.run(command, cwd=directory, env=environment, timeout=100, check=True)
    return directory


def command(*arguments: str) -> list[str]:
    everything = ["rerun", "run.trace", "--all", "--trust", "--json", *arguments]
    return [sys.executable, "-m", "detray.cli", *everything]


def begin(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_killer_has_its_verdict_and_the_others_go_on(directory: Path) -> None:
    """In order, with the values that were made before; and nothing is left."""
    (directory / "deadly").touch()
    try:
        process = begin(directory, "--timeout", "2", "--memory", "1G")
        out, err = process.communicate(timeout=100)
    finally:
        (directory / "deadly").unlink()
    summary = json.loads(out)
    assert process.returncode == 1, err
    told = {report["name"]: report["text"] for report in summary["differing"]}
    assert set(told) == set(KILLED), (told, err)
    for name, reason in KILLED.items():
        assert reason in told[name] and told[name].startswith("it returned a value then")
    assert summary["unknown"] == []
    unsaid, spoilt = summary["cannot"]
    assert spoilt["name"] == "adds" and "makes_or_dies" in spoilt["text"]
    assert unsaid["name"] == "raises_what_cannot_be_said"
    assert "the rerun itself failed" in unsaid["text"] and "in __str__" in err
    assert summary["tasks"] == summary["same"] + len(told) + 2
    assert "running makes (" not in err, "made once, though their maker's process is gone"
    for pid in map(int, (directory / "pids").read_text().split()):
        assert gone(pid)


def test_without_trouble_nothing_differs(directory: Path) -> None:
    """The same recording."""
    out, err = begin(directory).communicate(timeout=100)
    summary = json.loads(out)
    assert (summary["tasks"], summary["differing"], summary["cannot"]) == (summary["same"], [], [])
    assert "Traceback" not in err


def test_python_has_it_too(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its own process is as it was."""
    monkeypatch.chdir(directory)
    (directory / "deadly").touch()
    before = os.getcwd(), list(sys.path), signal.getsignal(signal.SIGINT)
    try:
        summary = rerun.run_all("run.trace", trust=True, timeout_s=2, memory_bytes=1 << 30)
    finally:
        (directory / "deadly").unlink()
    assert {report.function for report in summary.differing} == set(KILLED) - {"writes_everywhere"}
    [crash] = [report for report in summary.differing if report.function == "crashes"]
    assert "program.py" in crash.stack and "in crashes" in crash.stack
    assert (os.getcwd(), list(sys.path), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_rerun_that_is_ended(directory: Path, number: int) -> None:
    """Ctrl-C says 130 and nothing else; whoever is killed, the child goes with it."""
    (directory / "deadly").touch()
    (directory / "hanging").unlink(missing_ok=True)
    try:
        process = begin(directory, "--timeout", "100", "--memory", "1G")
        deadline = time.monotonic() + 60
        while not (words := _words(directory / "hanging")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert gone(int(words[0]))
    finally:
        (directory / "deadly").unlink()
        (directory / "hanging").unlink()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert out == "" and "KeyboardInterrupt" not in err


def _words(path: Path) -> list[str]:
    """What a file says, if it is there and whole."""
    text = path.read_text() if path.exists() else ""
    return text.split() if text.endswith(" ") else []
