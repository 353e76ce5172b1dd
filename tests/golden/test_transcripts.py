"""Transcripts: what goes into a node's cores and everything that comes out, as text."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from detray.core.effects import Effect
from detray.core.local import LocalScheduler
from detray.core.stimuli import LocalStimulus
from tests.golden.play import play, transcripts
from tests.golden.script import render

UNSEEN = {
    "SendToNode": "only the head sends to nodes",
    "Placed": "one node is never named as the place for what it cannot run",
}
"""What no transcript of a node can show, and why."""


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
def test_a_transcript_says_what_comes_out(path: Path, rewrite: bool) -> None:
    """Invariants are checked after each step; `--rewrite` writes the file anew."""
    before = path.read_text()
    played, _ = play(before)
    after = render(played)
    if rewrite:
        path.write_text(after)
        return
    assert after.splitlines() == before.splitlines(), f"review: pytest {path} --rewrite, git diff"


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
def test_a_transcript_goes_on_from_a_snapshot_at_every_step(path: Path) -> None:
    """T13: restore then continue equals continue."""
    _, stage = play(path.read_text())
    world = stage.world
    core = LocalScheduler(world.config)
    for now_ns, stimuli, effects in world.log:
        core = LocalScheduler.restore(world.config, core.snapshot())
        assert core.handle(*stimuli, now_ns=now_ns) == effects  # type: ignore[arg-type]  # for it
    assert core.snapshot() == world.local.snapshot()


def test_the_transcripts_show_every_stimulus_and_every_effect() -> None:
    """What no transcript shows, no reviewer has seen."""
    seen: set[type] = set()
    for path in transcripts():
        for _, stimuli, effects in play(path.read_text())[1].world.log:
            seen.update(map(type, stimuli))
            seen.update(map(type, effects))
    every = {*get_args(LocalStimulus), *get_args(Effect)}
    unseen = {kind.__name__ for kind in every - seen}
    assert unseen == UNSEEN.keys()
