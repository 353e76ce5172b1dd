"""The check of determinism: it passes where it should, and finds what is planted."""

from __future__ import annotations

import itertools

import pytest

from detray_sim.determinism import check_in_processes, locate, play_twice
from detray_sim.node import SimNode
from detray_sim.tape import Tape
from detray_sim.trial import run_trial


def test_a_seed_is_the_same_alone_and_after_others() -> None:
    """No module keeps anything from one world to the next."""
    alone = run_trial(Tape(9)).digest
    for seed in range(5):
        run_trial(Tape(seed))
    assert run_trial(Tape(9)).digest == alone


def test_two_runs_are_one() -> None:
    """Of any seed, under whatever may not matter."""
    for seed in range(10):
        assert play_twice(Tape(seed)).signature is None


def busy_seed() -> int:
    """A seed in which programs compute."""
    for seed in itertools.count():
        verdict = run_trial(Tape(seed))
        if verdict.steps > 60 and verdict.end == "done":
            return seed
    raise AssertionError


@pytest.mark.parametrize("leak", ["identity", "memory"])
def test_a_planted_leak_is_found(leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A duration that depends on addresses, or on what ran before, is caught and located."""
    seen: list[object] = []

    def cpu_ns(node: SimNode, ns: int) -> int:
        seen.append(object())
        return ns + (id(seen[-1]) // 16 % 997 if leak == "identity" else len(seen))

    seed = busy_seed()
    monkeypatch.setattr(SimNode, "cpu_ns", cpu_ns)
    verdict = play_twice(Tape(seed))
    assert verdict.signature is not None and verdict.signature.oracle == "D1 two runs differ"
    difference = locate(lambda: Tape(seed))
    assert difference is not None and difference.step > 0 and difference.core


def test_an_order_of_a_set_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The placement of a run taken from a set of objects that hash by their address."""

    class Token:
        def __init__(self, number: int) -> None:
            self.number = number

    kept: list[set[Token]] = []

    def cpu_ns(node: SimNode, ns: int) -> int:
        kept.append({Token(n) for n in range(50)})
        return ns + next(iter(kept[-1])).number

    seed = busy_seed()
    monkeypatch.setattr(SimNode, "cpu_ns", cpu_ns)
    assert play_twice(Tape(seed)).signature is not None


@pytest.mark.slow
def test_fresh_processes_under_other_hash_seeds_agree() -> None:
    """Three hash seeds, the cycle collector lazy and frantic."""
    assert check_in_processes(range(6)) == []
