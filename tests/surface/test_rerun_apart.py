"""Children that run what may end them: what is said of them does not hang on who is faster."""

from __future__ import annotations

import os

import pytest

from detray.rerun import apart
from detray.rerun.apart import MUTE, Child, Garbled, Send


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The pipes that children were given."""
    made: list[tuple[int, int]] = []
    pipe = os.pipe

    def noted() -> tuple[int, int]:
        made.append(pipe())
        return made[-1]

    monkeypatch.setattr(apart.os, "pipe", noted)
    return made


@pytest.mark.parametrize("has_ended", [False, True])
def test_who_garbles_its_pipe_did_that_however_it_ends_afterwards(
    pipes: list[tuple[int, int]], has_ended: bool
) -> None:
    """It goes on with other work, until its parent has read what it wrote."""

    def work(send: Send) -> None:
        send("first")
        os.write(pipes[0][1], bytes([255]) * 100)
        if not has_ended:
            os.read(never, 1)
        send("second")
        os._exit(3)

    never, held = os.pipe()
    del pipes[:]
    child = Child(work)
    try:
        if has_ended:
            os.waitid(os.P_PID, child.keeper, os.WEXITED | os.WNOWAIT)
        assert child.receive() == ("first",)
        with pytest.raises(Garbled):
            child.receive()
        assert child.end(MUTE) == (None, MUTE, "", False)
    finally:
        child.kill()
        os.close(never)
        os.close(held)


def test_who_ends_by_itself_is_not_said_to_have_been_killed() -> None:
    """The status is told, after all messages."""

    def work(send: Send) -> None:
        send("last")
        os._exit(3)

    child = Child(work)
    try:
        os.waitid(os.P_PID, child.keeper, os.WEXITED | os.WNOWAIT)
        assert child.receive(0) == ("last",)
        assert child.receive(0) is None
        assert child.end().died == "exited with status 3"
    finally:
        child.kill()


def test_who_takes_too_long_is_killed_for_that() -> None:
    """And nothing of it is left."""
    never, held = os.pipe()

    def work(send: Send) -> None:
        os.read(never, 1)

    child = Child(work)
    try:
        assert child.receive(0.01) == ()
        assert child.end("killed: it took too long").died == "killed: it took too long"
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_PID, child.keeper, os.WEXITED)
    finally:
        child.kill()
        os.close(never)
        os.close(held)
