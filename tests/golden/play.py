"""Plays a transcript: what came out, block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from detray.core.stimuli import Stimulus
from detray.trace.transcript.directives import DIRECTIVES
from detray.trace.transcript.script import Passage, ScriptError, Words, number, parse, render, split
from detray.trace.transcript.telling import is_telling, play_telling
from tests.golden.events import EVENTS
from tests.golden.show import SHOWS
from tests.golden.stage import Stage

HERE = Path(__file__).parent
HEAD = "head"


def transcripts() -> list[Path]:
    """All transcripts."""
    return sorted(HERE.glob("*.txt"))


def play(
    text: str, after_step: Callable[[Any], object] | None = None
) -> tuple[list[str | Passage], Any]:  # Any: a Stage or a Telling; both have `worlds`
    """The transcript with the output that it has now; `after_step` may look after each block.

    One whose cores are told what they were told (`detray shrink` writes such) plays itself.
    """
    if is_telling(text):
        return play_telling(text, after_step)
    stage = Stage()
    played: list[str | Passage] = []
    for part in parse(text):
        if isinstance(part, Passage):
            try:
                output = _perform(stage, part.directives)
            except Exception as error:
                error.add_note(f"in the block on line {part.line}: {'; '.join(part.directives)}")
                error.add_note(f"after\n{render(played)}")
                raise
            part = Passage(part.line, part.directives, output)
            if after_step is not None:
                after_step(stage)
        played.append(part)
    return played, stage


def _perform(stage: Stage, directives: list[str]) -> list[str]:
    """One block: one step, or looking at the tables."""
    if stage.cluster is not None:
        return _perform_on_many(stage, directives)
    lines: list[str] = []
    stimuli: list[Stimulus] = []
    advance_ns = 0
    steps = False
    for directive in directives:
        node, words = _address(directive)
        if node != HEAD:
            stage.sit(node)
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


def _perform_on_many(stage: Stage, directives: list[str]) -> list[str]:
    """One block on several nodes: what is said to one node in a row is one step."""
    assert stage.cluster is not None
    lines: list[str] = []
    stimuli: list[Stimulus] = []
    target = ""

    def flush() -> None:
        nonlocal stimuli
        if stimuli:
            lines.extend(stage.cluster.step(target, *stimuli))  # type: ignore[union-attr]  # asserted
            stimuli = []

    for directive in directives:
        node, words = _address(directive)
        if node != HEAD:
            stage.sit(node)
        here = node if node == HEAD else stage.seat.name
        if words.verb in DIRECTIVES:
            if here != target:
                flush()
            target = here
            stimuli += DIRECTIVES[words.verb](stage, words)
        else:
            flush()
            table = SHOWS if words.verb in SHOWS else EVENTS
            if words.verb not in table:
                raise ScriptError(f"no directive {words.verb}")
            lines += table[words.verb](stage, words)
        words.finish()
    flush()
    return [line for line in lines if line != "nothing"] or ["nothing"]


def _address(directive: str) -> tuple[str, Words]:
    """`b: finish x` is said to b, `finish x` to the first node."""
    first, _, rest = directive.partition(" ")
    if first.endswith(":"):
        return first[:-1], split(rest)
    return "", split(directive)


def _time(stage: Stage, text: str) -> int:
    """A duration, or `deadline`: up to when the core wants to be called."""
    if text != "deadline":
        return number(text)
    due = stage.world.local.next_deadline_ns
    if due is None:
        raise ScriptError("there is no deadline")
    return due - stage.world.now_ns
