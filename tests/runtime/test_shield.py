"""The driver's shield: handlers that raise do so only where nothing is half done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from detray.runtime.shield import DriverShield

SIGNALS = [signal.SIGINT, signal.SIGALRM, signal.SIGUSR1]


class Told(Exception):
    pass


def tell(number: int, frame: FrameType | None) -> None:
    raise Told


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal whose handler raises."""
    before = signal.signal(request.param, tell)
    yield request.param
    signal.signal(request.param, before)


def test_a_handler_raises_when_the_shield_goes_down(number: int):
    """Between raising and lowering nothing is raised; the program has its handler back after."""
    shield = DriverShield()
    assert shield.raise_()
    os.kill(os.getpid(), number)
    with pytest.raises(Told):
        shield.lower()
    assert signal.getsignal(number) is tell
    assert shield.raise_() and not shield.raise_()
    shield.lower()


def test_a_handler_raises_where_the_program_blocks(number: int):
    """While the shield is open signals come as they come; closed, they wait again."""
    shield = DriverShield()
    shield.raise_()
    assert shield.open()
    with pytest.raises(Told):
        os.kill(os.getpid(), number)
    shield.close()
    os.kill(os.getpid(), number)
    with pytest.raises(Told):
        shield.lower()
    assert signal.getsignal(number) is tell
