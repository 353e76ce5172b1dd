"""Clusters of real processes on this machine, shared by the tests of a module."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detray import startup
from detray.cluster_utils import Cluster
from tests.support import ports

ROOT = Path(__file__).parents[2]
STORE_BYTES = 100 << 20
PATIENCE_S = 20.0
SOON_BURIED = {"heartbeat_ns": 200_000_000, "death_ns": 3_000_000_000}
"""A `_system_config` for tests that wait for a burial. Who is only slow must live through it: such
a node comes back with another number, and what it ran and had is gone."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head and three nodes of two CPUs; node i alone has the resource "n<i>"."""
    startup.shutdown()
    with Cluster() as made:
        for number in range(3):
            made.add_node(
                wait=False,
                num_cpus=2,
                resources={f"n{number}": 100},
                labels={"place": "ABC"[number]},
                object_store_memory=STORE_BYTES,
            )
        made.wait_ready()
        yield made


@pytest.fixture
def driver(cluster: Cluster) -> Iterator[Cluster]:
    """This process is a driver of the cluster."""
    startup.shutdown()
    cluster.connect()
    yield cluster
    startup.shutdown()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    return ports.free_port()


def until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition; fails with `what` if it does not come."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what}"
        time.sleep(0.02)


def begin_program(program: str, **environment: str) -> subprocess.Popen[str]:
    """A Python program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    )


def run_program(program: str, **environment: str) -> tuple[int, str, str]:
    """Its exit status and what it printed."""
    process = begin_program(program, **environment)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def detray_command(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """The command `detray`: exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "detray.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        cwd=ROOT,
    )
    return done.returncode, done.stdout, done.stderr
