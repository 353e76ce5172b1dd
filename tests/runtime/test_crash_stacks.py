"""A fatal signal's Python stack: read from the file that faulthandler wrote, told to who waits."""

from __future__ import annotations

import ctypes
import inspect
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import detray
from detray.core.stimuli import RunFailed, WorkerLost
from detray.runtime.deaths import STACK_CHARS_MAX, crash_stack
from detray.trace.reading import open_trace
from detray.trace.telling.story import find_subject, story

PATIENCE_S = 20.0
CURRENT = """Current thread 0x00007f (most recent call first):
  File "/lib/ctypes/__init__.py", line 519 in string_at
  File "/home/me/job.py", line 7 in load
"""


def written(text: str) -> int:
    """A file in memory with this text."""
    fd = os.memfd_create("crash")
    os.write(fd, text.encode())
    return fd


@pytest.fixture
def files() -> Iterator[list[int]]:
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "stack"),
    [
        ("", ""),
        ("hello\n\nworld", ""),
        ("Fatal Python error: of\nthe user\n\n" + CURRENT, ""),
        (
            f"Fatal Python error: Segmentation fault\n\n{CURRENT}\nThread 0x1 (most recent call "
            'first):\n  File "x", line 1 in y\n\nExtension modules: numpy (total: 1)\n',
            "Fatal Python error: Segmentation fault (most recent call first)\n"
            + CURRENT.partition("\n")[2].rstrip(),
        ),
        (
            'Fatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n  File "a", line '
            '1 in b\n\nThread 0x2 (most recent call first):\n  File "main", line 3 in f\n',
            'Fatal Python error: Aborted (most recent call first)\n  File "main", line 3 in f',
        ),
        (
            "Fatal Python error: Bus error\n\n",
            "Fatal Python error: Bus error (most recent call first)",
        ),
    ],
)  # fmt: skip
def test_the_thread_that_crashed_is_told(files: list[int], text: str, stack: str) -> None:
    """Of a thread that Python does not know nothing is known: then the main one, which is last."""
    files.append(written(text))
    assert crash_stack(files[0]) == stack


def test_a_long_stack_keeps_the_end_that_failed(files: list[int]) -> None:
    lines = [f'  File "/home/me/deep.py", line {number} in f' for number in range(500)]
    head = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):"
    files.append(written("\n".join([head, *lines])))
    told = crash_stack(files[0]).split("\n")
    assert told[1:] == lines[: len(told) - 1]
    assert STACK_CHARS_MAX - 100 < len("\n".join(told)) <= STACK_CHARS_MAX


@pytest.mark.parametrize("text", ["\0" * 100_000, "\xff\n\n" * 50, "Fatal Python error: " * 9_000])
def test_garbage_is_cut_or_ignored(files: list[int], text: str) -> None:
    """User code can write to any descriptor that it finds."""
    files.append(written(text))
    assert len(crash_stack(files[0])) <= STACK_CHARS_MAX


def crash() -> None:
    ctypes.string_at(0)


LINE_AT_FAULT = inspect.getsourcelines(crash)[1] + 1


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run.trace"
    detray.init(num_cpus=1, record=path)
    yield path
    detray.shutdown()


def test_error_trace_and_log_name_the_line_at_fault(
    trace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real segmentation fault."""

    @detray.remote(max_retries=0)
    def load() -> None:
        crash()

    with pytest.raises(detray.errors.WorkerCrashedError) as caught:
        detray.get(load.remote())
    where = f'  File "{__file__}", line {LINE_AT_FAULT} in crash'
    first, *stack = str(caught.value).split("\n")
    assert first.endswith("killed by signal 11 (SIGSEGV); attempt 0 of max_retries=0")
    assert where in stack and stack[0].startswith("Fatal Python error: Segmentation fault")
    assert not [line for line in stack if "/detray/runtime/" in line]
    detray.shutdown()
    lost = [m for m in told(trace) if isinstance(m, WorkerLost) and not m.expected]
    assert where in lost[0].reason
    assert re.search(r"\(pid=\d+\) " + re.escape(where), capfd.readouterr().err)
    # Its sentence in a story is one line.
    again = open_trace(trace)
    texts = [line.text for line in story(again, find_subject(again, f"worker {lost[0].client}"))]
    assert any("SIGSEGV" in text for text in texts)
    assert not any("\n" in text for text in texts)


def test_a_fork_dies_a_death_of_its_own(trace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What it would write is not taken for the worker's own stack."""

    @detray.remote(max_retries=0)
    def start() -> None:
        pid = os.fork()
        if pid == 0:
            crash()
        os.waitpid(pid, 0)
        os.abort()

    with pytest.raises(detray.errors.WorkerCrashedError) as caught:
        detray.get(start.remote())
    assert "Fatal Python error: Aborted" in str(caught.value)
    assert "in crash" not in str(caught.value)
    deadline = time.monotonic() + PATIENCE_S
    seen = ""
    while f"line {LINE_AT_FAULT} in crash" not in (seen := seen + capfd.readouterr().err):
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)


def test_what_a_task_raised_is_kept_with_its_traceback(trace: Path) -> None:
    """A short one whole, a long one by its two ends."""

    @detray.remote
    def wrong(text: str) -> None:
        raise ValueError(text)

    for text in ("short", "first" + "x" * 20_000 + "last"):
        with pytest.raises(ValueError, match=r"short|last"):
            detray.get(wrong.remote(text))
    detray.shutdown()
    short, long = (m.traceback for m in told(trace) if isinstance(m, RunFailed))
    assert short.startswith(f'  File "{__file__}", line ') and short.endswith("ValueError: short")
    assert "raise ValueError(text)" in short and "/detray/runtime/" not in short
    assert len(long) <= 4_000 and "characters left out" in long
    assert "raise ValueError(text)" in long and "ValueError: first" in long
    assert long.endswith("xlast")


def told(path: Path) -> list[object]:
    """Every stimulus of a trace."""
    return [item for step in open_trace(path).steps() for item in step.stimuli()]
