"""Plays a transcript: what came out, block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from detray.core.stimuli import Stimulus
from tests.golden.directives import DIRECTIVES
from tests.golden.script import Block, ScriptError, number, parse, render, split
from tests.golden.show import SHOWS
from tests.golden.stage import Stage

HERE = Path(__file__).parent


def transcripts() -> list[Path]:
    """All transcripts."""
    return sorted(HERE.glob("*.txt"))


def play(
    text: str, after_step: Callable[[Stage], None] | None = None
) -> tuple[list[str | Block], Stage]:
    """The transcript with the output that it has now; `after_step` may look after each block."""
    stage = Stage()
    played: list[str | Block] = []
    for part in parse(text):
        if isinstance(part, Block):
            try:
                output = _perform(stage, part.directives)
            except Exception as error:
                error.add_note(f"in the block on line {part.line}: {'; '.join(part.directives)}")
                error.add_note(f"after\n{render(played)}")
                raise
            part = Block(part.line, part.directives, output)
            if after_step is not None:
                after_step(stage)
        played.append(part)
    return played, stage


def _perform(stage: Stage, directives: list[str]) -> list[str]:
    """One block: one step, or looking at the tables."""
    lines: list[str] = []
    stimuli: list[Stimulus] = []
    advance_ns = 0
    steps = False
    for directive in directives:
        words = split(directive)
        if words.verb in SHOWS:
            lines += SHOWS[words.verb](stage, words)
        elif words.verb == "advance":
            advance_ns += _time(stage, words.names[0])
            steps = True
        elif words.verb in DIRECTIVES:
            stimuli += DIRECTIVES[words.verb](stage, words)
            steps = True
        else:
            raise ScriptError(f"no directive {words.verb}")
        words.finish()
    if steps and lines:
        raise ScriptError("a block either feeds a step or looks at the tables")
    return stage.step(stimuli, advance_ns) if steps else lines


def _time(stage: Stage, text: str) -> int:
    """A duration, or `deadline`: up to when the core wants to be called."""
    if text != "deadline":
        return number(text)
    due = stage.world.local.next_deadline_ns
    if due is None:
        raise ScriptError("there is no deadline")
    return due - stage.world.now_ns
