"""Forks of a process that has views: for how long they count as users."""

from __future__ import annotations

import os

from detray.core.grants import Grants
from detray.ids import ObjectID
from detray.runtime.forks import Forks

ITEM = ObjectID(b"o" * 20)


def pins_in_use() -> Grants:
    """The pins of a process that has one view."""
    pins = Grants()
    pins.receive([ITEM])
    return pins


def forked(forks: Forks) -> tuple[int, int]:
    """A fork that lives until told; its pid, and the descriptor to tell it by."""
    go, told = os.pipe()
    forks.begin()
    pid = os.fork()
    if pid == 0:
        forks.end_in_child()
        os.close(told)
        os.read(go, 1)
        os._exit(0)
    forks.end_in_parent()
    os.close(go)
    return pid, told


def test_a_pin_is_returned_when_the_process_and_its_fork_let_go():
    """Neither alone ends it."""
    pins = pins_in_use()
    forks = Forks(pins)
    pid, told = forked(forks)
    pins.release([ITEM])
    forks.release_ended()
    assert pins.settle() == ([], [])
    os.close(told)
    os.waitpid(pid, 0)
    forks.release_ended()
    assert pins.settle() == ([ITEM], [1])
    assert not forks.has_any


def test_a_fork_that_sees_nothing_costs_nothing(monkeypatch):
    """No descriptor, no count."""

    def no_pipe() -> tuple[int, int]:
        raise AssertionError("nobody needs one")

    monkeypatch.setattr(os, "pipe", no_pipe)
    forks = Forks(Grants())
    forks.begin()
    forks.end_in_parent()
    assert not forks.has_any


def test_a_fork_that_failed_is_gone_at_once():
    """Its pipe has no other copy."""
    pins = pins_in_use()
    forks = Forks(pins)
    forks.begin()
    forks.end_in_parent()
    forks.release_ended()
    pins.release([ITEM])
    assert pins.settle() == ([ITEM], [1])


def test_no_descriptor_left_means_kept_for_good(monkeypatch):
    """Better a block too many than one that somebody else writes."""

    def no_pipe() -> tuple[int, int]:
        raise OSError(24, "too many open files")

    pins = pins_in_use()
    forks = Forks(pins)
    monkeypatch.setattr(os, "pipe", no_pipe)
    forks.begin()
    forks.end_in_parent()
    pins.release([ITEM])
    forks.release_ended()
    assert pins.settle() == ([], [])
