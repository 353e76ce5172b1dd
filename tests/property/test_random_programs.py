"""Random programs with nesting, failures, kills and a tiny store keep every promise."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detray.core.local import LocalScheduler
from tests.support.play import Player


@pytest.mark.parametrize("block", range(8))
def test_seeded_programs_end_with_nothing_left(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        generator = random.Random(seed)
        try:
            Player(generator.randrange).play(40 + generator.randrange(120))
        except BaseException:
            print("seed", seed)
            raise


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_drawn_programs_end_with_nothing_left(data: st.DataObject) -> None:
    def choose(count: int) -> int:
        return data.draw(st.integers(0, count - 1))

    Player(choose).play(30)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_stimuli_give_the_same_effects_also_from_a_snapshot(seed: int) -> None:
    """T13: restore then continue equals continue."""
    generator = random.Random(10_000 + seed)
    player = Player(generator.randrange)
    player.play(60)
    log = player.world.log
    middle = generator.randrange(len(log))
    core = LocalScheduler(player.world.config)
    for position, (now_ns, stimuli, effects) in enumerate(log):
        if position == middle:
            core = LocalScheduler.restore(player.world.config, core.snapshot())
        assert core.handle(*stimuli, now_ns=now_ns) == effects  # type: ignore[arg-type]
    assert core.snapshot() == player.world.local.snapshot()
