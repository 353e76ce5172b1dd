"""Flight recorders that are written out: one at a time, and none that was wanted is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detray.core.config import GlobalConfig, LocalConfig
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.runtime.boot import BootConfig
from detray.runtime.recording import _FLIGHTS_MAX, Recording
from detray.runtime.wakeups import Wakeups
from detray.trace.reading import open_trace


class Notes:
    """The drivers' log channels: keeps what they are told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notify(self, level: str, kind: str, text: str) -> None:
        self.said.append(text)


class Bench:
    """A recording whose helper thread does its jobs when it is told to."""

    def __init__(self, directory: Path) -> None:
        self.flights = directory / "flights"
        self.jobs: list[Callable[[], Any]] = []
        self.is_prompt = False
        local, head = LocalConfig(node_name="n", totals=(), arena_bytes=0), GlobalConfig()
        (directory / "7-1").mkdir()
        boot = BootConfig(
            sys_path=[], cwd="/", argv=[], local=local, session_dir=str(directory / "7-1")
        )
        self.log = Notes()
        self.recording = Recording(
            boot,
            (LocalScheduler(local), GlobalScheduler(head)),
            wakeups=Wakeups(),
            log=self.log,  # type: ignore[arg-type]  # all of it that is used
            in_background=self.start,
            view=lambda *_: memoryview(b""),
        )

    def start(self, job: Callable[[], Any]) -> None:
        self.jobs.append(job)
        if self.is_prompt:
            self.work()

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    def written(self) -> list[str]:
        """The reasons of those that were written, in order."""
        paths = sorted(self.flights.glob("*.trace"), key=lambda p: int(p.stem.rpartition("-")[2]))
        return [open_trace(path).reason for path in paths]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_one_that_is_wanted_while_another_is_written_follows_it(bench: Bench) -> None:
    """However slow the disk is: the last crash is the one that somebody looks for."""
    for reason in ("first crash", "second crash", "third crash"):
        bench.recording.dump(reason)
        bench.recording.keep_fresh()
    assert len(bench.jobs) == len(bench.log.said) == 1
    bench.work()
    bench.recording.keep_fresh()
    bench.work()
    assert bench.written() == ["first crash", "second crash"]
    bench.recording.keep_fresh()
    assert not bench.jobs


def test_the_end_waits_for_one_that_is_written_and_has_the_other_written(bench: Bench) -> None:
    """No wake-up follows any more."""
    bench.recording.dump("a crash")
    bench.recording.keep_fresh()
    bench.recording.dump("the last crash")
    [writing] = bench.jobs
    bench.jobs.clear()
    bench.is_prompt = True
    thread = threading.Thread(target=writing)
    thread.start()
    bench.recording.close("done")
    thread.join()
    assert bench.written() == ["a crash", "the last crash"]
    assert [text.split(":")[0] for text in bench.log.said] == ["a crash", "the last crash"]


def test_who_crashes_for_ever_has_some_written(bench: Bench) -> None:
    """And no more of them than were written."""
    bench.is_prompt = True
    for number in range(_FLIGHTS_MAX + 5):
        bench.recording.dump(f"crash {number}")
        bench.recording.keep_fresh()
    assert bench.written() == [f"crash {number}" for number in range(_FLIGHTS_MAX)]
