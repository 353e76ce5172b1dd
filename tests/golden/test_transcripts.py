"""Transcripts: what goes into a node's cores and everything that comes out, as text."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

from detray.core.effects import Effect
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.core.stimuli import GlobalStimulus, LocalStimulus
from detray.trace.reducing.rehearsal import new_core
from detray.trace.transcript.script import render
from detray.trace.transcript.telling import Telling
from tests.golden.play import play, transcripts

UNSEEN: dict[str, str] = {}
"""What no transcript can show, and why."""


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
    for world in stage.worlds:
        core = LocalScheduler(world.config)
        for now_ns, stimuli, effects in world.log:
            core = LocalScheduler.restore(world.config, core.snapshot())
            assert core.handle(*stimuli, now_ns=now_ns) == effects  # type: ignore[arg-type]  # for it
        assert core.snapshot() == world.local.snapshot()


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
def test_a_head_goes_on_from_a_snapshot_at_every_step(path: Path) -> None:
    """The same, where there is a head apart. The policy's own state goes along as it is."""
    stage = play(path.read_text())[1]
    if isinstance(stage, Telling):
        _told_heads_go_on(stage)
        return
    cluster = stage.cluster
    if cluster is None:
        return
    for life in cluster.heads.lives:
        head = life.begin(cluster.head_config)
        for now_ns, stimuli, effects in life.log:
            head = GlobalScheduler.restore(cluster.head_config, head.snapshot(), head.placement)
            assert head.handle(*stimuli, now_ns=now_ns) == effects  # type: ignore[arg-type]  # for it
    assert head.snapshot() == cluster.head.snapshot()


def _told_heads_go_on(telling: Telling) -> None:
    for told in telling.heads:
        head = new_core(told.info, told.has_store)
        for now_ns, stimuli, effects in told.log:
            head = GlobalScheduler.restore(told.config, head.snapshot())
            assert head.handle(*stimuli, now_ns=now_ns) == effects  # type: ignore[arg-type]  # for it
        assert head.snapshot() == told.core.snapshot()


def test_the_transcripts_show_every_stimulus_and_every_effect() -> None:
    """What no transcript shows, no reviewer has seen."""
    seen: set[type] = set()
    for path in transcripts():
        stage = play(path.read_text())[1]
        logs = [world.log for world in stage.worlds]
        if isinstance(stage, Telling):
            logs += [head.log for head in stage.heads]
        elif stage.cluster is not None:
            logs += [life.log for life in stage.cluster.heads.lives]
        for _, stimuli, effects in chain.from_iterable(logs):
            seen.update(map(type, stimuli))
            seen.update(map(type, effects))
    every = {*get_args(LocalStimulus), *get_args(GlobalStimulus), *get_args(Effect)}
    unseen = {kind.__name__ for kind in every - seen}
    assert unseen == UNSEEN.keys()
