"""Commands begin and end without a word of Python's, whatever cuts them short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detray.cli import main

ROOT = Path(__file__).resolve().parents[2]
STRUCK = """
import atexit, os, signal, sys

class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == WHEN:
            self.strike()

    def strike(self):
        sys.stderr.write("struck\\n")
        os.kill(os.getpid(), SIGNAL)

WHEN, SIGNAL = sys.argv[2], int(sys.argv[3])
sys.meta_path.insert(0, Strike())
if WHEN == "the end":
    atexit.register(Strike().strike)
package = sys.argv[1]
sys.argv = [package, "--version"]
main = __import__(package, fromlist=["main"]).main
sys.exit(main())
"""
COMMANDS = pytest.mark.parametrize(
    ("package", "module"),
    [("detray.cli", "detray.cli.why"), ("detray_sim.cli", "detray_sim.cli.whatif")],
)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A Python, with its output buffered as users have it."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sim'}"}
    environment.pop("PYTHONUNBUFFERED", None)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def strike(package: str, when: str, number: int, **options: Any) -> tuple[int, str, str]:
    """The exit code and what was printed by a command that a signal reaches at that import."""
    done = run("-c", STRUCK, package, when, str(int(number)), **options)
    return done.returncode, done.stdout, done.stderr


def ignore() -> None:
    """As a shell does for what it runs behind its back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def unread() -> int:
    """A pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@COMMANDS
def test_ctrl_c_while_python_imports_is_quiet(package, module):
    """As later: nothing but the exit code 130."""
    assert strike(package, module, signal.SIGINT) == (130, "", "struck\n")


@COMMANDS
def test_sigterm_while_python_imports_is_quiet(package, module):
    """It ends the process as signals do."""
    assert strike(package, module, signal.SIGTERM) == (-signal.SIGTERM, "", "struck\n")


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    """As under nohup."""
    code, out, err = strike("detray.cli", "detray.cli.why", signal.SIGINT, preexec_fn=ignore)
    assert code == 0 and out.startswith("detray ") and err == "struck\n"


def test_ctrl_c_while_python_ends_is_quiet():
    """Nobody is left to catch an exception; all was printed."""
    code, out, err = strike("detray.cli", "the end", signal.SIGINT)
    assert code == -signal.SIGINT and out.startswith("detray ") and err == "struck\n"


@pytest.mark.parametrize("package", ["detray.cli", "detray_sim.cli"])
def test_little_text_for_a_reader_that_is_gone(package):
    """It leaves when the process ends: no complaint of Python's, no code of its own."""
    writing = unread()
    done = run("-m", package, "--version", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["detray.cli", "detray_sim.cli"])
def test_little_text_for_a_full_disk(package):
    """One line, as for much text."""
    with open("/dev/full", "w") as full:
        done = run("-m", package, "--version", stdout=full)
    name = package.removesuffix(".cli").replace("_", "-")
    assert done.returncode == 2
    assert done.stderr == f"{name}: standard output: No space left on device\n"


@pytest.mark.parametrize("package", ["detray.cli", "detray_sim.cli"])
def test_a_refusal_that_nobody_can_read_has_its_code(package):
    """Standard error may be a pipe, too."""
    writing = unread()
    done = run("-m", package, "nothing", stderr=writing)
    os.close(writing)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("package", ["detray.cli", "detray_sim.cli"])
def test_without_any_output_it_still_runs(package):
    """`>&- 2>&-`: what is opened first must not be mistaken for it."""
    done = run("-m", package, "--version", stdout=None, stderr=None, preexec_fn=close_outputs)
    assert done.returncode == 0


def close_outputs() -> None:
    """As `>&- 2>&-` does."""
    os.close(1)
    os.close(2)


def test_a_caller_in_its_own_process_keeps_its_handlers(capsys):
    """Only a process that is the command's own ends with it."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert signal.getsignal(signal.SIGINT) is before and capsys.readouterr().out
