"""All tests in two lanes: `python -m tests`, which is what `make test` does.

Tests with real processes run one after the other, as they would under pytest alone. They wait more
than they compute, so those that only compute run beside them, in a pytest of their own that takes
what the others leave of the machine. Its output follows when both are done.

    python -m tests                              everything
    python -m tests -m "not slow" tests/trace    arguments are those of pytest
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPUTING = ("core", "golden", "house", "property", "sim", "trace")
"""Folders whose tests start no process of detray's, no server and no browser ..."""
WITH_PROCESSES = (
    "sim/test_from_trace.py",
    "trace/test_diff.py",
    "trace/test_digests.py",
    "trace/test_report_page.py",
    "trace/test_why_real.py",
)
"""... but for these files. `tests/conftest.py` fails a run beside others that starts a session."""
BESIDE = "DETRAY_TESTS_BESIDE"
"""Set in the environment of the lane that only computes."""
_NICE = 10
_NO_TESTS = 5
"""What pytest ends with if no test was chosen."""


def main(arguments: list[str]) -> int:
    """Run both lanes; 0 if both are fine, or what the first one that is not ended with."""
    paths = [word for word in arguments if _is_path(word)]
    options = [word for word in arguments if word not in paths]
    chosen = [name for path in paths or ["tests"] for name in _files(path)]
    lanes = [[name for name in chosen if computes(name) is lane] for lane in (False, True)]
    if not all(lanes):
        return _status(subprocess.run(_command(options, chosen), cwd=ROOT, check=False).returncode)
    real, computing = lanes
    with tempfile.TemporaryFile() as output:
        beside = subprocess.Popen(
            [*_command(options, computing), "-p", "no:cacheprovider"],
            cwd=ROOT,
            env={**os.environ, BESIDE: "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.nice(_NICE) and None,
        )
        try:
            first = subprocess.run(_command(options, real), cwd=ROOT, check=False).returncode
            second = beside.wait()
        except BaseException:
            beside.terminate()
            beside.wait()
            raise
        print(f"\nThe tests that only compute ({len(computing)} files):", flush=True)
        output.seek(0)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return _status(first) or _status(second)


def computes(name: str) -> bool:
    """Whether the tests of a file only compute, so that they disturb nobody."""
    path = Path(name.partition("::")[0]).resolve().relative_to(ROOT / "tests")
    return path.parts[0] in COMPUTING and path.as_posix() not in WITH_PROCESSES


def _is_path(word: str) -> bool:
    return not word.startswith("-") and Path(word.partition("::")[0]).exists()


def _files(path: str) -> list[str]:
    """The test files in a folder; of a file, or of a test in one, its name."""
    if not Path(path).is_dir():
        return [path]
    return [str(found) for found in sorted(Path(path).rglob("test_*.py"))]


def _command(options: list[str], files: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *options, *files]


def _status(code: int) -> int:
    return 0 if code == _NO_TESTS else code


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
