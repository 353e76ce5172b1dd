"""A Redis server of the test's own: on a free port and a socket, in a folder that goes with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

START_S = 20
PASSWORD = "secret-of-the-test"


def reason_for_none() -> str:
    """What is missing; "" if a server can be had."""
    if shutil.which("redis-server") is None:
        return "no redis-server on this machine (Debian: apt-get install redis-server)"
    try:
        import redis  # noqa: F401  # only whether it is there
    except ModuleNotFoundError:
        return "the package redis is not installed"
    return ""


class RedisServer:
    """The process; it may be killed, stopped and started again at the same place."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        self.folder = folder
        self.password = password
        self.port = free_port()
        self.socket_path = str(folder / "redis.sock")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """By TCP."""
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """By its unix socket."""
        return f"unix://{self.socket_path}?db=0"

    def start(self) -> None:
        """Start it and wait for its answer. What was in memory before is gone."""
        command = [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
            "--unixsocket", self.socket_path, "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", "--daemonize", "no",
            *(["--requirepass", self.password] if self.password else []),
        ]  # fmt: skip
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        until = time.monotonic() + START_S
        while True:
            try:
                self.client().ping()
                return
            except Exception:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, "redis-server does not answer"
                time.sleep(0.02)

    def client(self) -> Any:  # Any: redis is optional
        """A client of the test's own."""
        import redis

        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=START_S)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # or it may answer once more

    def go_on(self) -> None:
        """After `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(*, password: str = "") -> Iterator[RedisServer]:
    """A server until the end of the block; skips the test, with the reason, where there is none."""
    if reason := reason_for_none():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="dt-redis-", dir="/tmp"))
    server = RedisServer(folder, password=password)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
