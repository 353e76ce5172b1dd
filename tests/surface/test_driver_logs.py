"""What workers print, on the driver's terminal; and the trace by the same channel."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from detray.driver_logs import DriverLogs
from detray.errors import EngineError
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
    """On the stream that they were written to; with the address of another node's machine."""
    logs, service = ends
    say(
        service,
        ["log", 1, 71, "f", "stdout", ["one", "two"]],
        ["log", 1, 71, "f", "stderr", ["oh"]],
        ["log", 2, 72, "", "stdout", [""], ""],
        ["log", 2, 72, "", "stdout", ["far"], "10.0.0.7"],
        ["log", 3, 73, "g", "stdout", ["away"], "10.0.0.7"],
    )
    say(service, ["notify", "warning", "infeasible", "no node has 3 GPUs"])
    service.close()
    logs.finish(5)
    out, err = capsys.readouterr()
    assert out == (
        "(f pid=71) one\n(f pid=71) two\n(pid=72) \n"
        "(pid=72, ip=10.0.0.7) far\n(g pid=73, ip=10.0.0.7) away\n"
    )
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
        say(service, hear(service), payload=b"the trace")

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


def hear(sock: socket.socket) -> list[Any]:
    """The next request of the driver."""
    reader = FrameReader()
    while (piece := reader.next()) is None:
        assert reader.receive(sock)
    [request] = msgspec.msgpack.decode(piece[0])
    return list(request)


def test_a_question_about_the_cluster_is_answered_by_its_number(
    ends: tuple[DriverLogs, socket.socket],
) -> None:
    """Whatever else comes meanwhile, and late answers to nobody."""
    logs, service = ends

    def answer() -> None:
        kind, number, *question = hear(service)
        assert (kind, question) == ("ask", ["list", "nodes", 3])
        say(service, ["answer", 99, "not yours"], ["answer", number, [{"node": 1}]])

    thread = threading.Thread(target=answer)
    thread.start()
    assert logs.ask("list", "nodes", 3) == [{"node": 1}]
    thread.join()


def test_a_question_without_an_answer_raises_the_reason(
    ends: tuple[DriverLogs, socket.socket],
) -> None:
    """The head's own, silence, or the end of the service."""
    logs, service = ends
    with pytest.raises(EngineError, match=r"did not answer \(status\) within 0.01 s"):
        logs.ask("status", timeout_s=0.01)
    assert hear(service)[0] == "ask"

    def refuse() -> None:
        _, number, *_ = hear(service)
        say(service, ["no", number, "it is on fire"])
        hear(service)
        service.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=refuse)
    thread.start()
    with pytest.raises(EngineError, match="it is on fire"):
        logs.ask("status")
    with pytest.raises(ConnectionError):
        logs.ask("status")
    with pytest.raises(ConnectionError):
        logs.ask("status")
    thread.join()


def test_leaving_waits_for_the_lines_printed_before(
    ends: tuple[DriverLogs, socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    """The service answers on the same channel, after them; it stays when we go."""
    logs, service = ends

    def answer() -> None:
        _, number, *_ = hear(service)
        say(service, ["log", 1, 71, "f", "stdout", ["last"], ""], ["no", number, "what ping?"])
        assert service.recv(1) == b""

    thread = threading.Thread(target=answer)
    thread.start()
    logs.leave(5)
    thread.join()
    assert capsys.readouterr().out == "(f pid=71) last\n"
