"""What a rerun forks leaves nothing behind, whatever it started and whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detray.rerun.apart import Child, Send, run_apart
from tests.support.processes import gone, lives

ROOT = Path(__file__).resolve().parents[2]


def escape(generations: int = 1) -> int:
    """Begin a process of another group and session, whose parents have ended; its pid."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        for _ in range(generations):
            os.setsid()
            if os.fork():
                os._exit(0)
        os.write(writing, b"%d\n" % os.getpid())
        time.sleep(3600)
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reading, 100))


def hang(send: Send) -> None:
    """Leave somebody behind, say who, and never return."""
    send("left", escape(), os.getppid())
    time.sleep(3600)


def stop_the_keeper(send: Send) -> None:
    """The same, with nobody awake above."""
    os.kill(os.getppid(), signal.SIGSTOP)
    hang(send)


def kill_the_keeper(send: Send) -> None:
    """The same, with nobody above."""
    send("left", escape(), os.getppid())
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


@contextmanager
def forked(work: Callable[[Send], None]) -> Iterator[tuple[Child, int, int]]:
    """A child that works, whom it left behind, and its inner keeper."""
    child = Child(work)
    try:
        message = child.receive(60)
        assert message and message[0] == "left", message
        yield child, message[1], message[2]
    finally:
        child.kill()


@pytest.mark.parametrize("generations", [1, 30])
def test_who_escaped_ends_with_a_child_that_ends(generations):
    """However far it went. It is gone when the end is told."""
    with forked(lambda send: send("left", escape(generations), 0)) as (child, left, _):
        assert child.receive(60) is None and child.end().died == "exited with status 0"
        assert not lives(left)


@pytest.mark.parametrize("work", [hang, stop_the_keeper])
def test_who_escaped_ends_with_a_child_that_is_killed(work):
    """It is gone when `kill` returns, though a keeper was stopped."""
    with forked(work) as (child, left, inner):
        child.kill()
        assert not lives(left) and not lives(inner)


def test_who_escaped_ends_though_the_inner_keeper_was_killed():
    """By the task itself: all that it kept comes to the outer one."""
    with forked(kill_the_keeper) as (child, left, inner):
        assert child.receive(60) is None
        assert child.end().died == "killed by signal 9 (SIGKILL)"
        assert not lives(left) and not lives(inner)


def test_who_escaped_ends_though_the_outer_keeper_was_killed():
    """The inner one goes on; nobody waits for it."""
    with forked(hang) as (child, left, inner):
        os.kill(child.keeper, signal.SIGKILL)
        assert child.receive(60) is None
        assert child.end().died == "killed by signal 9 (SIGKILL)"
        assert gone(left) and gone(inner)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_who_escaped_ends_with_us(number):
    """Whatever ends this process, and its whole group with it."""
    program = (
        "from tests.surface.test_rerun_leftovers import forked, hang\n"
        "with forked(hang) as (child, left, inner):\n"
        "    print(left, inner, child.keeper, flush=True)\n"
        "    child.receive()\n"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout:
        pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 3 and all(map(lives, pids))
    os.killpg(process.pid, number)
    assert process.wait(60) == -number
    assert all(map(gone, pids))


def test_children_of_ours_are_nobodys_business():
    """Of this process only what the fork started is killed."""
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with forked(hang) as (child, left, _):
            child.kill()
            assert not lives(left) and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.communicate()


def test_one_task_apart_is_not_waited_for_by_who_it_left():
    """Who escaped holds the pipe in which the answer comes, and would for ever."""
    ended = run_apart(lambda: b"%d" % escape())
    assert ended.data is not None and not lives(int(ended.data))


def test_a_program_may_ignore_how_its_children_end():
    """It is told of the end of this one nevertheless."""
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from detray.rerun.keepers import fork_kept\n"
        "print(fork_kept(lambda: os._exit(5), is_apart=True).wait())\n"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).stdout == b"5\n"
