"""Shrinking: any tape plays, small tapes still fail alike, and their stories play again."""

from __future__ import annotations

from pathlib import Path

import pytest

from detray_sim.shrink import Choices, shrink, sign
from detray_sim.story import names_in, play_again, read
from detray_sim.swarm import reduce_seed
from detray_sim.tape import Tape
from detray_sim.trial import run_trial
from detray_sim.world import draw_world

SWITCH = ("burial_cleanup_off",)


def failing_seed() -> int:
    """The first seed that shows the planted bug."""
    for seed in range(1_000):
        if run_trial(Tape(seed), ablate=SWITCH).signature is not None:
            return seed
    raise AssertionError("the planted bug is not seen")


def test_a_recorded_tape_plays_the_same_world() -> None:
    """What was drawn can be given back, also by way of a file."""
    tape = Tape(11)
    world = draw_world(tape)
    assert draw_world(tape.replay()) == world
    assert draw_world(Tape.from_json(tape.to_json())) == world


def test_an_edited_tape_is_a_tape() -> None:
    """Out of range clamps, missing is 0, negative is 0: every mapping plays a world."""
    tape = Tape(5)
    draw_world(tape)
    draw_world(Tape(5, {}))
    draw_world(Tape(5, dict.fromkeys(tape.used, 1 << 40)))
    draw_world(Tape(5, dict.fromkeys(tape.used, -3)))
    for keep in range(1, 7):
        some = {label: v for n, (label, v) in enumerate(tape.used.items()) if n % 7 < keep}
        assert run_trial(Tape(5, some)).signature is None


def test_shrinking_finds_the_needles() -> None:
    """Three choices matter, one of them by its size: all others go to 0, and the size down."""
    choices = {f"faults/{n}/is": 1 for n in range(40)} | {f"program/{n}": n for n in range(90)}

    def fails(tape: Choices) -> Choices | None:
        bad = (
            tape.get("faults/7/is") and tape.get("faults/31/is") and tape.get("program/80", 0) > 17
        )
        return dict(tape) if bad else None

    shrunk = shrink(choices, fails)
    assert {label: v for label, v in shrunk.choices.items() if v} == {
        "faults/7/is": 1,
        "faults/31/is": 1,
        "program/80": 18,
    }
    assert shrunk.runs <= 400


def test_shrinking_keeps_to_its_budget() -> None:
    """With ten runs it does what ten runs can."""
    shrunk = shrink({str(n): 5 for n in range(100)}, lambda tape: None, runs_max=10)
    assert shrunk.runs == 10 and shrunk.trail[-1][0] == "budget"


def test_a_signature_has_no_numbers_and_no_ids() -> None:
    """Equal bugs look equal, whatever they happened to."""
    a = sign("I9", "node 3: 00000001ab34cd: 0x7f00 b'\\x00abc' after 12 ns")
    b = sign("I9", 'node 11: 99999999ffffee: 0x1 b"x\'y" after 5 ns')
    assert a == b


@pytest.mark.slow
def test_a_planted_bug_shrinks_to_a_story() -> None:
    """The smallest world in which a death is not cleaned up after comes of a few choices."""
    seed = failing_seed()
    reduced = reduce_seed(seed, ablate=SWITCH)
    assert reduced is not None
    nonzero = [label for label, value in reduced.shrunk.choices.items() if value]
    assert len(nonzero) <= 25 and reduced.shrunk.runs <= 400
    assert play_again(reduced.story).signature == reduced.signature
    tape, _, ablated = read(reduced.story)
    assert ablated == SWITCH
    assert run_trial(tape).signature is None, "with the safeguard all is well"


def test_names_are_found_in_what_failed() -> None:
    """Ids as hex and as literals: the story is about these."""
    item = bytes(range(20))
    assert names_in(f"object {item.hex()} is lost") == [item[:16]]
    assert names_in(f"Object(id={item!r}, uses=0)") == [item[:16]]


STORIES = Path(__file__).parent / "stories"


@pytest.mark.parametrize("path", sorted(STORIES.glob("*.txt")), ids=lambda path: path.stem)
def test_what_failed_once_is_well(path: Path) -> None:
    """The tapes of bugs that were fixed."""
    verdict = play_again(path.read_text())
    assert verdict.signature is None, verdict.text
