"""All tests in three lanes: `python -m tests`, which is what `make test` does.

Tests with real processes run one after the other, as they would under pytest alone. They wait more
than they compute, so those that only compute run beside them, in two pytests of their own that take
what the others leave of the machine. Their output follows when all are done.

    python -m tests                              everything
    python -m tests -m "not slow" tests/trace    arguments are those of pytest
    python -m tests --portable                   what may differ between Pythons
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPUTING = (("sim",), ("core", "golden", "house", "property", "trace"))
"""Folders whose tests start no process of detray's, no server and no browser, by lane ..."""
WITH_PROCESSES = (
    "house/test_json.py",
    "sim/test_engine_digests.py",
    "sim/test_engine_payloads.py",
    "sim/test_from_trace.py",
    "sim/test_prediction.py",
    "sim/test_whatif_real.py",
    "trace/test_diff.py",
    "trace/test_digests.py",
    "trace/test_report_page.py",
    "trace/test_why_real.py",
)
"""... but for these files. `tests/conftest.py` warns of a session in another lane."""
BESIDE = "DETRAY_TESTS_BESIDE"
"""Set in the environment of the lanes that only compute."""

PORTABLE = (
    "core",
    "golden",
    "trace",
    "runtime",
    "surface",
    "net",
    "cluster/test_programs.py",
    "cluster/test_drivers.py",
)
"""What may differ between Pythons: decisions, recordings, processes and what users call ..."""
THE_SAME_EVERYWHERE = (
    "core/test_fairness.py",
    "net/test_blocks.py",
    "net/test_cuts.py",
    "trace/test_diff_traces.py",
    "trace/test_drawing.py",
    "trace/test_fuzz.py",
    "trace/test_report_page.py",
    "trace/test_seeking_fuzz.py",
    "trace/test_shrinking.py",
    "trace/test_shrinking_flights.py",
    "trace/test_story.py",
)
"""... but for these, which take long and compute what no Python computes differently."""

_NICE = 15
_PATIENT = ("--timeout=600", "-p", "no:cacheprovider")
"""Who takes what others leave may be slow: there a test hangs that has not ended in ten minutes."""
_NO_TESTS = 5
"""What pytest ends with if no test was chosen."""


def main(arguments: list[str]) -> int:
    """Run all lanes; 0 if all are fine, or what the first one that is not ended with."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options, files = _chosen(arguments)
    lanes: dict[int, list[str]] = {}
    for name in files:
        lanes.setdefault(lane(name), []).append(name)
    if len(lanes) < 2 or 0 not in lanes:
        return _status(subprocess.run(_command(options, files), check=False).returncode)
    with contextlib.ExitStack() as stack:
        besides = [
            stack.enter_context(_beside(options, lanes[number])) for number in sorted(lanes)[1:]
        ]
        codes = [subprocess.run(_command(options, lanes[0]), check=False).returncode]
        codes += [process.wait() for process in besides]
    return next((code for code in map(_status, codes) if code), 0)


def lane(name: str) -> int:
    """Where the tests of a file run: in lane 0 if they have real processes."""
    place = _place(name)
    for number, folders in enumerate(COMPUTING, start=1):
        if place.partition("/")[0] in folders and place not in WITH_PROCESSES:
            return number
    return 0


def _chosen(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options of pytest, and all files."""
    if "--portable" in arguments:
        options = [word for word in arguments if word != "--portable"]
        files = [name for part in PORTABLE for name in _files(str(HERE / part))]
        files = [name for name in files if _place(name) not in THE_SAME_EVERYWHERE]
        return [*options, "-m", "not slow"], files
    paths = [word for word in arguments if _is_path(word)]
    options = [word for word in arguments if word not in paths]
    return options, [name for path in paths or [str(HERE)] for name in _files(path)]


def _is_path(word: str) -> bool:
    return not word.startswith("-") and Path(word.partition("::")[0]).exists()


def _files(path: str) -> list[str]:
    """The test files in a folder; of a file, or of a test in one, its name."""
    if not Path(path).is_dir():
        return [path]
    return [str(found) for found in sorted(Path(path).rglob("test_*.py"))]


def _place(name: str) -> str:
    """A file below this folder; "" if it is elsewhere."""
    path = Path(name.partition("::")[0]).resolve()
    return path.relative_to(HERE).as_posix() if path.is_relative_to(HERE) else ""


@contextlib.contextmanager
def _beside(options: list[str], files: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A lane that only computes, until the end of the block; then what it said is printed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["nice", "-n", str(_NICE), *_command([*_PATIENT, *options], files)],
            env={**os.environ, BESIDE: "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()
            output.seek(0)
            print(f"\nBeside them, {len(files)} files that only compute:", flush=True)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()


def _command(options: list[str], files: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *options, *files]


def _status(code: int) -> int:
    return 0 if code == _NO_TESTS else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
