"""The service's parts by themselves: sessions, wake-ups, tokens, reasons of death, lines."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from functools import partial
from pathlib import Path

import pytest

from detray.runtime import session
from detray.runtime.deaths import OOM_REASON, death_reason
from detray.runtime.tokens import TokenPipe
from detray.runtime.wakeups import READ, SpinGuard, Wakeups
from detray.runtime.worker_logs import LINE_CHARS_MAX, LineCutter


@pytest.fixture
def tmp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(session, "home", lambda: str(tmp_path))
    return tmp_path


class TestSessions:
    def test_a_session_is_private_locked_and_found(self, tmp_home: Path) -> None:
        fresh = session.create_session()
        assert os.stat(fresh.directory).st_mode & 0o777 == 0o700
        assert session.live_sessions() == [session.LiveSession(fresh.directory, os.getpid())]
        os.close(fresh.lock_fd)

    def test_two_sessions_of_one_process_are_two_directories(self, tmp_home: Path) -> None:
        first, second = session.create_session(), session.create_session()
        assert first.directory != second.directory
        os.close(first.lock_fd)
        os.close(second.lock_fd)

    def test_each_session_has_a_name_of_its_own(self, tmp_home: Path) -> None:
        """Also one that comes to the same directory; the processes of a cluster share theirs."""
        first = session.create_session()
        name = session.session_name(first.directory)
        Path(first.directory, "service.sock").touch()
        assert session.session_name(first.directory) == name
        session.remove_session(first.directory)
        os.close(first.lock_fd)
        with pytest.raises(FileNotFoundError):
            session.session_name(first.directory)
        second = session.create_session()
        assert second.directory == first.directory
        assert session.session_name(second.directory) != name
        Path(second.directory, "cluster.json").write_text('{"kind": "node", "cluster": "c0ffee"}')
        assert session.session_name(second.directory) == "c0ffee"
        os.close(second.lock_fd)

    def test_the_next_session_sweeps_dead_ones(self, tmp_home: Path) -> None:
        dead = session.create_session()
        Path(dead.directory, "segment-1").write_bytes(b"x")
        os.close(dead.lock_fd)
        assert session.live_sessions() == []
        fresh = session.create_session()
        assert os.listdir(tmp_home) == [os.path.basename(fresh.directory)]
        os.close(fresh.lock_fd)

    def test_a_session_half_made_by_a_dead_process_is_swept(self, tmp_home: Path) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        (tmp_home / f".new-{pid}-abcd").mkdir()
        session.sweep(str(tmp_home))
        assert os.listdir(tmp_home) == []

    def test_a_lock_taken_by_another_process_keeps_a_session(self, tmp_home: Path) -> None:
        held = session.create_session()
        session.sweep(str(tmp_home))
        assert os.path.isdir(held.directory)
        fcntl.flock(held.lock_fd, fcntl.LOCK_UN)
        session.sweep(str(tmp_home))
        assert not os.path.isdir(held.directory)
        os.close(held.lock_fd)

    def test_flights_are_kept_beside_sessions_and_bounded(self, tmp_home: Path) -> None:
        for number in range(1, 6):
            path = session.flight_path(str(tmp_home / "7-1"), number, keep=3)
            Path(path).write_bytes(b"x")
            os.utime(path, ns=(number, number))
        assert sorted(os.listdir(tmp_home / "flights")) == [
            "7-1-3.trace",
            "7-1-4.trace",
            "7-1-5.trace",
        ]

    def test_a_home_that_others_may_enter_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        path = tmp_path / f"detray-{os.getuid()}"
        if len(str(path)) > 60:
            pytest.skip("the fallback to /tmp would be tested")
        path.mkdir(mode=0o755)
        with pytest.raises(PermissionError, match="only you can enter"):
            session.home()


class TestWakeups:
    def test_timers_run_in_order_and_only_when_due(self) -> None:
        wakeups = Wakeups()
        ran: list[str] = []
        wakeups.call_at(2, lambda: ran.append("second"))
        wakeups.call_at(1, lambda: ran.append("first"))
        wakeups.call_at(1 << 62, lambda: ran.append("never"))
        wakeups.dispatch(deadline_ns=0)
        assert ran == ["first", "second"]

    def test_what_a_handler_closed_is_not_called_any_more(self) -> None:
        wakeups = Wakeups()
        pairs = [socket.socketpair() for _ in range(2)]
        called = []

        def handler(index: int, _mask: int) -> None:
            called.append(index)
            for ours, _ in pairs:
                wakeups.forget(ours.fileno())

        for index, (ours, theirs) in enumerate(pairs):
            wakeups.watch(ours.fileno(), partial(handler, index), READ)
            theirs.send(b"x")
        assert wakeups.dispatch(None)
        assert len(called) == 1
        assert not wakeups.dispatch_arrived()

    def test_a_slow_look_stops_spinning_for_longer_each_time(self) -> None:
        guard = SpinGuard()
        rests = []
        now = 0
        for _ in range(7):
            assert guard.allows(now)
            guard.saw_slow_look(now)
            rest = next(ms for ms in range(1, 2000) if guard.allows(now + ms * 1_000_000))
            rests.append(rest)
            now += rest * 1_000_000
        assert rests == [50, 100, 200, 400, 800, 1000, 1000]
        now += 5_000_000_000
        guard.saw_slow_look(now)
        assert guard.allows(now + 50_000_000)


class TestTokens:
    def test_a_token_is_taken_by_one_side_only(self) -> None:
        tokens = TokenPipe()
        tokens.grant(5, tokens.generation)
        assert os.read(tokens.worker_end, 1) == b"\0"
        assert tokens.take(2) == 2
        tokens.advance()
        tokens.grant(1, tokens.generation)
        assert os.read(tokens.worker_end, 9) == b"\0\0\1"
        assert tokens.take(3) == 0
        tokens.close()

    def test_leftovers_are_counted(self) -> None:
        tokens = TokenPipe()
        tokens.grant(64, 255)
        assert tokens.take_all() == 64
        assert tokens.take_all() == 0
        tokens.close()

    def test_generations_wrap(self) -> None:
        tokens = TokenPipe()
        for _ in range(256):
            tokens.advance()
        assert tokens.generation == 0
        tokens.close()


@pytest.mark.parametrize(
    ("status", "oom", "reason"),
    [
        (3, False, "exited with status 3"),
        (0, True, "exited with status 0"),
        (-signal.SIGSEGV, False, "killed by signal 11 (SIGSEGV)"),
        (-signal.SIGKILL, False, "killed by signal 9 (SIGKILL)"),
        (-signal.SIGKILL, True, OOM_REASON),
        (-signal.SIGSEGV, True, "killed by signal 11 (SIGSEGV)"),
        (-99, False, "killed by signal 99 (unknown)"),
        (None, False, "ended while nobody watched it"),
    ],
)
def test_a_death_is_told_in_words(status: int | None, oom: bool, reason: str) -> None:
    assert death_reason(status, struck_by_oom=oom) == reason


class TestLineCutter:
    def test_lines_come_out_when_they_are_complete(self) -> None:
        cutter = LineCutter()
        assert cutter.cut(b"on") == []
        assert cutter.cut(b"e\ntwo\nthr") == [("", ["one", "two"])]
        assert cutter.cut(b"", final=True) == [("", ["thr"])]

    def test_a_marker_names_the_lines_after_it(self) -> None:
        cutter = LineCutter()
        assert cutter.cut(b"a\n\0detray-name:f\nb\nc\n\0detray-na") == [
            ("", ["a"]),
            ("f", ["b", "c"]),
        ]
        assert cutter.cut(b"me:g\nd\n") == [("g", ["d"])]

    def test_a_long_line_does_not_wait_for_its_end(self) -> None:
        cutter = LineCutter()
        assert cutter.cut(b"x" * (LINE_CHARS_MAX - 1)) == []
        assert cutter.cut(b"yz") == [("", ["x" * (LINE_CHARS_MAX - 1) + "yz"])]
        assert cutter.cut(b"\n") == [("", [""])]

    def test_characters_cut_by_a_read_stay_whole_and_broken_ones_are_replaced(self) -> None:
        cutter = LineCutter()
        euro = "€".encode()
        assert cutter.cut(euro[:1]) == []
        assert cutter.cut(euro[1:] + b"\n\xff\n") == [("", ["€", "�"])]
