"""What workers print, on the driver's terminal; and the trace by the same channel."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from detray.driver_logs import DriverLogs
from detray.runtime.frames import FrameReader, frame


@pytest.fixture
def ends() -> Iterator[tuple[DriverLogs, socket.socket]]:
    """The driver's reader and the service's end of its channel."""
    ours, theirs = socket.socketpair()
    logs = DriverLogs(ours)
    logs.start()
    yield logs, theirs
    theirs.close()
    logs.finish(5)


def say(sock: socket.socket, *messages: Any, payload: bytes = b"") -> None:
    sock.sendall(frame(msgspec.msgpack.encode(list(messages)), [payload] if payload else None))


def test_lines_are_prefixed_with_the_task_and_its_process(
    ends: tuple[DriverLogs, socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    """On the stream that they were written to; nothing is dropped."""
    logs, service = ends
    say(
        service,
        ["log", 1, 71, "f", "stdout", ["one", "two"]],
        ["log", 1, 71, "f", "stderr", ["oh"]],
        ["log", 2, 72, "", "stdout", [""]],
    )
    say(service, ["notify", "warning", "infeasible", "no node has 3 GPUs"])
    service.close()
    logs.finish(5)
    out, err = capsys.readouterr()
    assert out == "(f pid=71) one\n(f pid=71) two\n(pid=72) \n"
    assert err == "(f pid=71) oh\n(detray warning: infeasible) no node has 3 GPUs\n"


def test_a_driver_that_wants_no_lines_still_gets_notices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What went wrong is said in any case."""
    ours, theirs = socket.socketpair()
    logs = DriverLogs(ours, show=False)
    logs.start()
    say(theirs, ["log", 1, 71, "f", "stdout", ["one"]], ["notify", "error", "crash", "oh"])
    theirs.close()
    logs.finish(5)
    assert capsys.readouterr() == ("", "(detray error: crash) oh\n")


def test_the_prefix_is_coloured_where_the_user_wants_it(
    ends: tuple[DriverLogs, socket.socket],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RAY_COLOR_PREFIX=1, as for Ray."""
    monkeypatch.setenv("RAY_COLOR_PREFIX", "1")
    logs, service = ends
    say(service, ["log", 1, 71, "f", "stdout", ["one"]])
    service.close()
    logs.finish(5)
    assert capsys.readouterr().out == "\x1b[36m(f pid=71)\x1b[0m one\n"


def test_a_trace_is_asked_for_and_waited_for(ends: tuple[DriverLogs, socket.socket]) -> None:
    """By any thread, among the lines."""
    logs, service = ends

    def answer() -> None:
        reader = FrameReader()
        reader.receive(service)
        piece = reader.next()
        assert piece is not None
        [request] = msgspec.msgpack.decode(piece[0])
        say(service, request, payload=b"the trace")

    thread = threading.Thread(target=answer)
    thread.start()
    assert logs.request_trace() == b"the trace"
    thread.join()


def test_a_trace_that_cannot_come_is_not_waited_for(
    ends: tuple[DriverLogs, socket.socket],
) -> None:
    """The end of the service ends the wait."""
    logs, service = ends
    threading.Timer(0.05, lambda: service.shutdown(socket.SHUT_RDWR)).start()
    with pytest.raises(ConnectionError):
        logs.request_trace()
