"""`detray status`, against services that are played by a thread."""

from __future__ import annotations

import argparse
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from detray import __version__
from detray.cli import status
from detray.cli.asking.observer import NoAnswer, Observer
from detray.core.config import GlobalConfig, LocalConfig
from detray.core.effects import ReportStatus, Welcome
from detray.core.local import LocalScheduler
from detray.core.stimuli import ObserverConnected, StatusRequested
from detray.ids import ClientID, JobNumber, NodeID
from detray.runtime.frames import FrameReader, frame
from detray.runtime.session import SOCKET_NAME, LiveSession
from tests.trace.machine import Machine
from tests.trace.programs import experiments

OBSERVER = ClientID(-7)


class PlayedService:
    """Answers one observer after the other from the scheduler of a machine."""

    def __init__(self, directory: Path, core: LocalScheduler) -> None:
        self.session = LiveSession(str(directory), 4242)
        self.hellos: list[list[object]] = []
        self._core = core
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / SOCKET_NAME))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                reader = FrameReader()
                self.hellos.append(msgspec.msgpack.decode(read(peer, reader))[0])
                welcome = Welcome(OBSERVER, JobNumber(0), NodeID(0), 1, 0, 0)
                peer.sendall(frame(msgspec.msgpack.encode([welcome])))
                (question,) = msgspec.msgpack.decode(read(peer, reader), type=list[StatusRequested])
                assert question.client == OBSERVER
                self._core.handle(ObserverConnected(OBSERVER, 1), now_ns=1)
                answers = self._core.handle(question, now_ns=2)
                reports = [answer for answer in answers if type(answer) is ReportStatus]
                peer.sendall(frame(msgspec.msgpack.encode(reports)))


def read(peer: socket.socket, reader: FrameReader) -> bytes:
    while (parts := reader.next()) is None:
        assert reader.receive(peer)
    return bytes(parts[0])


Make = Callable[[LocalScheduler], PlayedService]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Make]:
    made: list[PlayedService] = []

    def make(core: LocalScheduler) -> PlayedService:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(PlayedService(directory, core))
        return made[-1]

    yield make
    for played in made:
        played.close()


def options(session: str | None = None, **flags: bool) -> argparse.Namespace:
    """What the command line gives; no cluster is looked for."""
    given = {"json": False, "watch": False, "address": "local", **flags}
    return argparse.Namespace(session=session, **given)


def test_no_session_is_said_and_fails(capsys):
    """Exit code 1: there is nothing to look at."""
    assert status.run(options(), list) == 1
    assert capsys.readouterr().out == "no cluster and no detray session of yours is running\n"


def test_a_page_shows_resources_tasks_objects_store_and_workers(service, capsys):
    """One session: everything about it."""
    machine = Machine(entrypoint="/home/ada/program.py")
    experiments(machine)
    played = service(machine.cores[0])
    assert status.run(options(), lambda: [played.session]) == 0
    text = capsys.readouterr().out
    assert "job 1, pid 4242, /home/ada/program.py" in text
    assert "tasks    none unfinished" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["CPU", "0", "4"] in rows
    assert ["resource", "in", "use", "total"] in rows
    assert [row[0] for row in rows if row[1:2] in (["5001"], ["5004"])] == ["1", "4"]


def test_the_observer_says_who_it_is(service):
    """Kind and version: a service of another version refuses instead of guessing."""
    played = service(Machine().cores[0])
    observer = Observer(played.session.socket_path)
    assert observer.ask("tasks") == []
    observer.close()
    ((tag, kind, _pid, _namespace, _entrypoint, version),) = played.hellos
    assert (tag, kind, version) == ("hello", "observer", __version__)


def test_several_sessions_are_listed_and_one_can_be_chosen(service, capsys):
    """By the pid of its driver."""
    first, second = service(Machine().cores[0]), service(Machine().cores[0])
    sessions = [first.session, second.session._replace(driver_pid=77)]
    assert status.run(options(), lambda: sessions) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["4242", "77"]
    assert status.run(options("77"), lambda: sessions) == 0
    assert sessions[1].directory in capsys.readouterr().out


def test_status_speaks_json(service, capsys):
    """The service's own words, and where the session is."""
    played = service(Machine().cores[0])
    assert status.run(options(json=True), lambda: [played.session]) == 0
    (session,) = json.loads(capsys.readouterr().out)["sessions"]
    assert session["directory"] == played.session.directory
    assert session["total"] == {"CPU": 4}
    assert session["drivers"][0]["pid"] == 4242


def test_a_session_that_does_not_answer_is_shown_as_such(tmp_path, capsys):
    """Its directory is there, nobody listens: exit code 1, and the reason."""
    gone = LiveSession(str(tmp_path), 1)
    assert status.run(options(), lambda: [gone]) == 1
    assert "cannot connect" in capsys.readouterr().out


def test_a_service_that_hangs_up_is_an_answer_of_its_own(tmp_path):
    """The likely cause is said."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / SOCKET_NAME))
    listener.listen()

    def hang_up() -> None:
        peer, _ = listener.accept()
        peer.recv(1)
        peer.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(NoAnswer, match=r"another version|reset"):
        Observer(str(tmp_path / SOCKET_NAME))
    thread.join()
    listener.close()


def test_a_node_without_workers_and_drivers_has_a_page_as_well(service, capsys):
    """Nothing is assumed to be there."""
    local = LocalConfig(node_name="bare", totals=(), arena_bytes=0)
    assert GlobalConfig().first_job == 1
    played = service(LocalScheduler(local))
    assert status.run(options(), lambda: [played.session]) == 0
    assert "no workers" in capsys.readouterr().out
