"""`detray shrink` and `detray replay --expect`: what they print, write and answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detray.cli.command import main
from detray.trace.reducing.expecting import RULES
from tests.golden import test_transcripts as golden
from tests.trace.test_expecting import busy_camera
from tests.trace.test_shrinking import DIFFICULT, noise, troubled
from tests.trace.test_shrinking_flights import flight_bytes
from tests.trace.told import ToldNode

FINE = "no node dies"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace in which two tasks want the only camera."""
    path = tmp_path_factory.mktemp("shrink") / "run.trace"
    troubled(path, busy_camera)
    return path


def test_a_trace_becomes_a_transcript_that_the_golden_tests_play(path, capsys, tmp_path):
    """As a file of `tests/golden` it passes as it stands, and goes on from any snapshot."""
    story = tmp_path / "story.txt"
    assert main(["shrink", str(path), "--expect", DIFFICULT, "-o", str(story)]) == 0
    shown = capsys.readouterr()
    first, second, third = shown.out.splitlines()
    assert first.startswith(f'"{DIFFICULT}" is violated at step ') and "camera is taken" in first
    assert "stimuli up to there" in second and "none of them can be left out" in second
    assert third == f"{story}: what n is told, and what came out" and shown.err == ""
    text = story.read_text()
    assert text.startswith(f"# Shrunk from {path.name}, ") and f'"{DIFFICULT}"' in text
    golden.test_a_transcript_says_what_comes_out(story, False)
    golden.test_a_transcript_goes_on_from_a_snapshot_at_every_step(story)
    golden.test_a_head_goes_on_from_a_snapshot_at_every_step(story)


def test_what_a_flight_recorder_has_becomes_one_as_well(tmp_path, capsys):
    """It has lost its first steps; the golden tests play it like any other."""
    flight, story = tmp_path / "node.flight.trace", tmp_path / "story.txt"
    flight.write_bytes(flight_bytes())
    sentence = "no task runs more than 20 ms"
    assert main(["shrink", str(flight), "--expect", sentence, "-o", str(story)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("the recording begins in the middle: what was there then is told ")
    assert "# Its first steps were gone: " in story.read_text()
    golden.test_a_transcript_says_what_comes_out(story, False)
    golden.test_a_transcript_goes_on_from_a_snapshot_at_every_step(story)
    assert main(["shrink", str(flight), "--expect", sentence, "-o", str(story), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["stimuli_told_anew"] > data["stimuli"]


def test_whenever_it_ends_no_half_file_is_left(path, tmp_path, monkeypatch, capsys):
    """Ctrl-C while it shrinks, and while it writes; a full disk."""
    story = tmp_path / "story.txt"
    arguments = ["shrink", str(path), "--expect", DIFFICULT, "-o", str(story)]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr("detray.trace.reducing.rehearsal.Rehearsal.play", interrupted)
        assert main(arguments) == 130
    for error, status in ((KeyboardInterrupt(), 130), (OSError(28, "No space left", "x"), 2)):

        def failing(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as m:
            m.setattr("os.replace", failing)
            assert main(arguments) == status
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "detray: x: No space left\n"
    assert main(["shrink", str(path), "-o", str(tmp_path / "none" / "x.txt")]) == 2
    assert "no such directory" in capsys.readouterr().err


def test_a_transcript_that_nobody_would_read_is_not_written(tmp_path, capsys):
    """The budget is spent before anything has gone."""
    node = ToldNode(tmp_path / "run.trace")
    node.open()
    noise(node, 60)
    busy_camera(node)
    node.close()
    trace = str(tmp_path / "run.trace")
    assert main(["shrink", trace, "--expect", DIFFICULT, "--runs", "1"]) == 2
    said = capsys.readouterr().err
    assert "the budget is spent (2 runs" in said and "Give it more --runs" in said
    assert list(tmp_path.iterdir()) == [tmp_path / "run.trace"]


def test_a_transcript_that_says_something_else_does_not_pass(path, tmp_path):
    """It is a test: when the core decides otherwise, it shows."""
    story = tmp_path / "story.txt"
    main(["shrink", str(path), "--expect", DIFFICULT, "-o", str(story)])
    story.write_text(story.read_text().replace("violated: ", "fine: "))
    with pytest.raises(AssertionError, match="rewrite"):
        golden.test_a_transcript_says_what_comes_out(story, False)
    golden.test_a_transcript_says_what_comes_out(story, True)
    golden.test_a_transcript_says_what_comes_out(story, False)


def test_it_is_written_beside_the_trace_or_to_the_terminal(path, capsys):
    """Without -o, and with -o -."""
    assert main(["shrink", str(path), "--expect", DIFFICULT]) == 0
    written = path.with_suffix(".txt").read_text()
    capsys.readouterr()
    assert main(["shrink", str(path), "--expect", DIFFICULT, "-o", "-"]) == 0
    assert capsys.readouterr().out == written


def test_for_programs(path, capsys, tmp_path):
    """Counts, passes, and where it was written."""
    story = str(tmp_path / "story.txt")
    assert main(["shrink", str(path), "--expect", DIFFICULT, "-o", story, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["violated"] == DIFFICULT and data["output"] == story
    assert data["stimuli"] < 10 < data["stimuli_before"] and data["is_minimal"]
    assert data["passes"][0][0] == "played anew"
    assert main(["shrink", str(path), "--expect", FINE, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["violated"] is None


def test_what_is_not_violated_answers_no(path, capsys):
    """Nothing is written."""
    story = path.with_name("none.txt")
    assert main(["shrink", str(path), "--expect", FINE, "-o", str(story)]) == 1
    shown = capsys.readouterr().out
    assert shown == f"{path} violates nothing: '{FINE}' holds\n" and not story.exists()
    assert main(["shrink", str(path)]) == 1  # no invariant breaks


def test_a_small_budget_is_said(path, capsys):
    """It may be that more could be left out."""
    assert main(["shrink", str(path), "--expect", DIFFICULT, "--runs", "12", "-o", "-"]) == 0
    capsys.readouterr()
    assert main(["shrink", str(path), "--expect", DIFFICULT, "--runs", "12"]) == 0
    assert "the budget is spent: more might be left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--expect", "no tasks fail"], "did you mean: no task fails"),
        (["--runs", "0"], "'0' is no whole number above 0"),
        (["--seconds", "soon"], "'soon' is no whole number above 0"),
    ],
)
def test_nonsense_is_refused(path, capsys, arguments, said):
    """With exit code 2, before anything is read."""
    assert main(["shrink", str(path), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_files_that_are_no_traces(tmp_path, capsys, path):
    """One line each; the trace itself is never written over."""
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    assert main(["shrink", str(other)]) == 2
    assert "is not a detray trace" in capsys.readouterr().err
    assert main(["shrink", str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    before = path.read_bytes()
    assert main(["shrink", str(path), "--expect", DIFFICULT, "-o", str(path)]) == 2
    assert "is the trace itself" in capsys.readouterr().err and path.read_bytes() == before


def test_help_lists_what_can_be_expected(path, capsys):
    """Each form with its meaning, for both commands."""
    for command in ("shrink", "replay"):
        assert main([command, str(path), "--expect", "help"]) == 0
        shown = capsys.readouterr().out
        assert all(rule.form in shown and rule.meaning in shown for rule in RULES)


def test_replay_checks_expectations(path, capsys):
    """Exit code 1, with the step, what is wrong there, and the story."""
    assert main(["replay", str(path), "--expect", FINE]) == 0
    assert "does as expected: no node dies" in capsys.readouterr().out
    assert main(["replay", str(path), "--expect", FINE, "--expect", DIFFICULT]) == 1
    shown = capsys.readouterr().out
    assert f'"{DIFFICULT}" is violated in step ' in shown and "identical" in shown
    assert "camera is taken" in shown and "the story of 1.0c10a9." in shown
    assert "RunFinished(" in shown and "detray shrink" in shown
    assert main(["replay", str(path), "--expect", DIFFICULT, "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["identical"] and data["violation"]["expected"] == DIFFICULT
    assert main(["replay", str(path), "--expect", "nothing bad"]) == 2
    assert "what can be said" in capsys.readouterr().err


def test_a_cut_trace_is_shrunk_up_to_the_cut(tmp_path, capsys):
    """What is missing is said on stderr."""
    node = ToldNode(tmp_path / "cut.trace")
    node.open()
    busy_camera(node)
    node.close()
    cut = tmp_path / "cut.trace"
    cut.write_bytes(cut.read_bytes()[:-30])
    assert main(["shrink", str(cut), "--expect", "no task waits more than 1 s"]) == 0
    assert "cut off" in capsys.readouterr().err
