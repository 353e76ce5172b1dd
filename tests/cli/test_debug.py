"""`detray debug`: what a session shows, and that nothing ends it but its end."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detray.cli import main
from detray.cli.debug import Debugger
from detray.cli.terminal.progress import WIDTH_MAX, ProgressLine
from detray.core.effects import RunTask
from detray.trace.reading import Trace, open_trace
from detray.trace.travel.seeking import Replay
from detray_sim.traces import write_trace
from tests.trace.machine import Machine
from tests.trace.programs import dots, recorded, troubles
from tests.trace.simulated import run_cluster
from tests.trace.test_replaying import changed


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "run.trace"
    recorded(path, dots, troubles)
    return str(path)


def said(trace: str, script: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> list[str]:
    """The lines of a session with these commands."""
    assert main(["debug", trace, "-c", script]) == status
    return capsys.readouterr().out.splitlines()


def session(replay: Replay, *commands: str) -> str:
    """What commands say in a session of their own."""
    debugger = Debugger(replay)
    debugger.stdout = io.StringIO()
    for line in commands:
        debugger.onecmd(line)
    text: str = debugger.stdout.getvalue()
    return text


def test_a_script_walks_to_the_failure_and_looks_around(trace, capsys):
    """Commands are echoed; the rows of a task, before and after."""
    lines = said(trace, "until task failed; back; show wrong", capsys)
    assert lines[0] == f"{trace}: steps 0 to 35 of local scheduler, global scheduler"
    assert lines[1] == "(detray) until task failed"
    assert lines[2] == "at step 27, 0.015000 s: step 26 of local scheduler was told 1, ordered 3"
    assert "summary='ValueError: no'" in lines[3]
    at = lines.index("(detray) show wrong")
    assert lines[at + 1] == "local scheduler: tasks[1.0c10a9.6]  Task"
    assert "    state       Assigned(worker=1)" in lines[at:]
    assert "local scheduler: workers[1]  Worker" in lines[at:]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_what_a_command_is_about_may_stand_in_quotes(trace, capsys, quote):
    """As in a shell, and in what the errors advise."""
    plain = said(trace, "until task failed; story worker 1", capsys)
    quoted = said(trace, f"u {quote}task failed{quote}; story {quote}worker 1{quote}; quit", capsys)
    without = [line for line in quoted if not line.startswith("(detray)")]
    assert without == [line for line in plain if not line.startswith("(detray)")]
    assert any(line.startswith("at step 27") for line in without)


def test_show_alone_shows_what_the_last_step_was_about(trace, capsys):
    """No id has to be typed to see what happened to it."""
    lines = said(trace, "until task dot submitted; show", capsys)
    assert "local scheduler: tasks[1.0c10a9.2]  Task" in lines
    assert "local scheduler: objects[1.0c10a9.0/0]  Object" in lines


def test_moving(trace, capsys):
    """By numbers, by steps, to both ends, to a time."""
    words = "goto 9; goto +3; goto -1; step; step 4; back; back 2; goto end; goto start; goto 10ms"
    lines = said(trace, words, capsys)
    places = [int(line.split()[2].rstrip(",")) for line in lines if line.startswith("at step")]
    assert places == [9, 12, 11, 12, 16, 15, 13, 35, 0, 16]
    assert "this is the end" in lines
    assert "at step 0, before all others" in lines


def test_an_empty_line_does_the_last_command_again(trace, capsys):
    """As in other debuggers."""
    lines = said(trace, "step;;;", capsys)
    assert [line[:9] for line in lines if line.startswith("at")] == [
        f"at step {n}"[:9] for n in "1234"
    ]


def test_what_a_step_was_told_and_ordered(trace, capsys):
    """All of it, or the first lines."""
    lines = said(trace, "until effect RunTask; stimuli; effects; effects 1", capsys)
    first = lines.index("(detray) effects")
    second = lines.index("(detray) effects 1")
    assert any(line.startswith("  RunTask(") for line in lines[first:second])
    assert len(lines[second + 1 :]) == 2 and lines[-1].endswith("more")


def test_state_in_short_and_table_by_table(trace, capsys):
    """Only what is not as in a new core; rows of a table; rows of an id."""
    lines = said(
        trace, "goto 14; state; state tasks; state tasks 1; state now_ns; state dot", capsys
    )
    assert "local scheduler, before step 14:" in lines
    assert "  tasks          2 rows" in lines
    assert not any(line.startswith("  pulls ") for line in lines)
    assert any(line.startswith("  tasks[1.0c10a9.2] = Task(spec=TaskSubmitted(") for line in lines)
    assert "  ... 1 more" in lines
    assert "  now_ns = 1000005000000" in lines
    assert "local scheduler: tasks[1.0c10a9.2]  Task" in lines


def test_watching_stops_where_a_row_changes(trace, capsys):
    """New, changed, gone; then no more."""
    lines = said(trace, "watch dot" + ";" * 5, capsys, status=1)
    changes = [line for line in lines if line.startswith("local scheduler: tasks[1.0c10a9.2]")]
    assert "is new: Task(" in changes[0] and "state=Waiting()" in changes[0]
    assert "state=Assigned(worker=2)" in "".join(changes[1:-1])
    assert "is gone; it was Task(" in changes[-1]


def test_stories_and_reasons(trace, capsys):
    """The line of the last step is marked."""
    lines = said(trace, "until task shaky sent; story shaky; why wrong; find WorkerLost", capsys)
    assert [line[0] for line in lines if "shaky (1.0c10a9.7)" in line] == [" ", ">", " ", " "]
    assert any("raised ValueError: no on worker 1" in line for line in lines)
    assert "  step 28           0.015000 s" in lines


def test_finding_an_id(trace, capsys):
    """Every step that mentions it."""
    lines = said(trace, "find shaky; find 1.0c10a9.3/put", capsys)
    assert sum(line.startswith("  step ") for line in lines) > 4


def test_errors_never_end_the_session(trace, capsys):
    """Each is told in its place; the exit code of a script remembers them."""
    bad = (
        "fly", "goto", "goto x", "goto 999", "step x", "until", "until nonsense", "show",
        "show nonsense", "state nonsense", "story nonsense", "why nonsense", "find", "watch",
        "find worker 1", "core nobody", "help fly", "stimuli", "effects", "rewind task failed",
        "watch nonsense", "show zeros", "goto 1.2.3 s", "state tasks x", "until step x",
    )  # fmt: skip
    lines = said(trace, ";".join(("goto start", *bad, "step")), capsys, status=1)
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == len(bad)
    assert not any("Error:" in line for line in errors), errors
    assert lines[-2].startswith("at step 1, ")


def test_a_bug_of_a_command_is_told_as_one(trace, monkeypatch):
    """The session is worth more than a traceback."""
    monkeypatch.setattr(Debugger, "do_where", lambda self, arg: [].pop())
    text = session(open_trace(trace).replay(), "where", "step")
    assert "error: IndexError: pop from empty list\nat step 1, " in text


def test_ctrl_c_interrupts_the_command_and_not_the_session(trace, monkeypatch):
    """The position is as before."""
    replay = open_trace(trace).replay()
    replay.goto(5)

    def interrupt(*arguments: object, **more: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "until", interrupt)
        text = session(replay, "until task failed", "where")
    assert text.startswith("error: interrupted; still at step 5\nat step 5, ")


def test_help_tells_every_command_and_every_sentence(trace, capsys):
    """From the docstrings themselves."""
    lines = said(trace, "help; help until; help back", capsys)
    for name in ("goto", "step", "back", "until", "where", "stimuli", "effects", "state", "show",
                 "story", "why", "diff", "watch", "find", "help", "quit"):  # fmt: skip
        assert any(line.startswith((f"  {name} ", f"  {name}:")) for line in lines), name
    assert any("task NAME submitted | sent | finished" in line for line in lines)
    assert "back [N]: stand one step earlier, or N steps" in lines


def test_commands_may_be_short_and_several_on_a_line(trace):
    """As typed by hands that know other debuggers; what may be two commands is refused by name."""
    text = session(open_trace(trace).replay(), "g 3; b", "ef;sto", "q")
    assert text.startswith("at step 3, ") and "\nat step 2, " in text
    unclear = session(open_trace(trace).replay(), "st")
    assert "error: no command 'st': it may be step, stimuli, state, story\n" in unclear
    for end in ("q", "exit", "step; q"):
        assert Debugger(open_trace(trace).replay(), io.StringIO()).onecmd(end)


def test_a_function_stands_for_its_one_call_that_failed(tmp_path, capsys):
    """Among many that did not: `until task wrong failed; show wrong`, as `story wrong`."""

    def calls(machine: Machine) -> None:
        fails = [False, True, False]

        def fail_once(machine: Machine, run: RunTask) -> bool | str:
            return "ValueError: no" if fails.pop(0) else True

        wrong = machine.define("wrong", fail_once)
        for _ in range(3):
            machine.submit(wrong)
        machine.work()

    path = tmp_path / "run.trace"
    recorded(path, calls)
    lines = said(str(path), "until task wrong failed; back; show wrong", capsys)
    at = lines.index("(detray) show wrong")
    assert re.fullmatch(r"local scheduler: tasks\[1\.\w+\.1\]  Task", lines[at + 1])


def test_quit_ends_the_script(trace, capsys):
    """Whatever follows."""
    lines = said(trace, "step; quit; step", capsys)
    assert sum(line.startswith("at step") for line in lines) == 1


def test_cores_of_a_cluster(tmp_path, capsys):
    """State is that of the core that took the last step, or of the one that was chosen."""
    path = tmp_path / "cluster.trace"
    write_trace(run_cluster(3, 1), path)
    lines = said(
        str(path),
        "until effect RunDelivered; core; core head; state; core last; show worker 1;"
        "show worker 1 on node 2; core node",
        capsys,
        status=1,
    )
    assert "state is that of head" in lines
    assert any(line.startswith("head, before step ") for line in lines)
    assert any(line.startswith("  nodes ") for line in lines)
    shown = lines[lines.index("(detray) show worker 1 on node 2") :]
    assert {line.split(":")[0] for line in shown if ": workers[1]" in line} <= {"node 2"}
    assert lines[-1].startswith("error: 'node' may be any of: ")


def test_what_is_not_as_recorded_is_said_wherever_one_stands(trace):
    """And how, by diff."""
    replay = Replay(open_trace(trace), changed(lambda effects: effects[::-1]))
    debugger = Debugger(replay)
    debugger.stdout = io.StringIO()
    debugger.greet()
    debugger.onecmd(f"goto {replay.differing[0]}")
    debugger.onecmd("diff")
    before = debugger.stdout.getvalue()
    assert f"the first is {replay.differing[0]}: what is shown after it is not what was" in before
    assert "decides as was recorded" in before and "not what was: step" not in before
    debugger.onecmd("step")
    debugger.onecmd("diff")
    after = debugger.stdout.getvalue()[len(before) :]
    assert f"not what was: step {replay.differing[0]} decided otherwise" in after
    assert "expected, as recorded:" in after and "   >  " in after


def test_a_flight_recorder_without_a_beginning(capsys):
    """Its numbers are those of the run."""
    machine = Machine()
    dots(machine)
    replay = Trace(machine.recorder.read_all()).replay()
    assert "step 3 of" in session(replay, "goto 4")


def test_commands_come_from_a_pipe(trace):
    """No prompt, no echo; the end of the input is the end."""
    end = subprocess.run(
        [sys.executable, "-m", "detray.cli", "debug", trace],
        input=b"step\n\nnonsense\nwhere",
        capture_output=True,
        timeout=60,
        check=False,
    )
    lines = end.stdout.decode().splitlines()
    assert (end.returncode, end.stderr) == (1, b"")
    assert [line[:9] for line in lines[1:]] == [
        "at step 1", "  DriverC", "at step 2", "  NodeJoi", "error: no", "at step 2", "  NodeJoi",
    ]  # fmt: skip


def test_files_that_are_no_traces_are_refused_in_one_line(tmp_path, capsys):
    """As by every command."""
    (tmp_path / "no.trace").write_bytes(b"something else, of some length")
    assert main(["debug", str(tmp_path / "no.trace")]) == 2
    assert main(["debug", str(tmp_path / "missing.trace")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_progress_is_for_terminals(monkeypatch, capsys):
    """One line that goes again; nothing where nobody looks, or nobody has waited yet."""
    with ProgressLine() as line:
        line.show("steps", 1, 2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine(after_s=1_000) as line:
        line.show("steps", 1, 2)
    with ProgressLine(is_quiet=True) as line:
        line.show("steps", 1, 2)
    assert capsys.readouterr().err == ""
    with ProgressLine() as line:
        line.show("steps", 1_000, 2_000)
        line.show("x" * 500)
    first, second, end = capsys.readouterr().err.split("\x1b[K")[:3]
    assert first == "\rsteps: 1,000 of 2,000, 50 %"
    assert second.strip() == "x" * WIDTH_MAX and end == "\r"
