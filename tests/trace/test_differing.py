"""A difference: the state that led to it, the story, and what is said of another revision."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from detray.cli import main
from detray.core import invariants
from detray.core.config import CORE_REVISION
from detray.core.effects import RunTask
from detray.core.invariants import InvariantBroken
from detray.ids import ClientID
from detray.trace import replaying
from detray.trace.difference import as_data, render, state_before
from detray.trace.format import HEADER_FRAME, PREAMBLE, FrameWriter
from detray.trace.play import Maker, schedulers
from detray.trace.reading import Trace, open_trace
from detray.trace.replaying import replay
from detray.trace.telling.story import StorySubject
from detray.trace.travel.shown import brief, rows_about, rows_in, summary
from detray_sim.traces import write_trace
from tests.trace.machine import Machine
from tests.trace.programs import dots, many, recorded, ten_sleeps, troubles
from tests.trace.simulated import run_cluster
from tests.trace.test_fuzz import split
from tests.trace.test_replaying import changed, is_run


def without_dot(effects: list[Any]) -> list[Any]:
    """As a scheduler that forgot to send the product."""
    return [e for e in effects if not is_run(e, "dot", None)]  # type: ignore[arg-type]  # not looked at


def test_the_state_that_led_to_a_difference_is_shown(tmp_path):
    """The rows of the ids in the first effect that differs, as they were before the step."""
    trace = recorded(tmp_path / "run.trace", dots)
    makers = changed(without_dot)
    report = replay(trace, makers)
    assert report.difference is not None
    ((core, rows),) = state_before(report.difference, trace, makers)
    names = [row.name for row in rows]
    assert core == 0 and {"tasks[1.0c10a9.2]", "objects[1.0c10a9.2/0]"} <= set(names)
    assert "workers[2]" in names  # the one that it was sent to
    text = render(report.difference, trace, makers)
    assert "what the local scheduler knew of it before:" in text
    assert "tasks[1.0c10a9.2] = Task(" in text and "state=Waiting()" in text
    assert "the story of 1.0c10a9.2 up to here:" in text


def test_programs_get_the_state_and_the_stories(tmp_path):
    """The same in JSON."""
    trace = recorded(tmp_path / "run.trace", dots)
    report = replay(trace, changed(without_dot))
    assert report.difference is not None
    data = json.loads(json.dumps(as_data(report.difference, trace, changed(without_dot))))
    assert [part["core"] for part in data["state"]] == ["local scheduler"]
    assert any(row.startswith("tasks[1.0c10a9.2]") for row in data["state"][0]["rows"])
    assert "1.0c10a9.2" in [story["subject"] for story in data["stories"]]
    assert {"since_ns", "step", "text"} == set(data["stories"][0]["lines"][0])


def test_every_core_that_knows_of_it_shows_its_rows(tmp_path):
    """A task that was handed over is known to two nodes; clients are those of the node."""
    path = tmp_path / "cluster.trace"
    write_trace(run_cluster(3, 1), path)
    trace = open_trace(path)
    moved: dict[str, Any] = {}

    def makers(header: Any) -> list[Maker]:
        real = schedulers(header)

        def spoilt(maker: Maker, core: int) -> Maker:
            def make() -> Any:
                made: Any = maker.make()
                handle = made.handle

                def changed_handle(*stimuli: Any, now_ns: int) -> list[Any]:
                    effects: list[Any] = handle(*stimuli, now_ns=now_ns)
                    for effect in effects:
                        if type(effect) is RunTask and made.tables.tasks[effect.task].owner >= 0:
                            moved.setdefault("run", effect)
                            return [other for other in effects if other is not effect]
                    return effects

                made.handle = changed_handle
                return made

            return Maker(make, maker.restore)

        return [spoilt(maker, core) for core, maker in enumerate(real)]

    report = replay(trace, makers)
    assert report.difference is not None and moved
    found = state_before(report.difference, trace, makers)
    assert found[0][0] == report.difference.played.step.core
    assert len(found) >= 2
    others = [row.table for core, rows in found[1:] for row in rows]
    assert "workers" not in others and "clients" not in others


def of_revision(trace: Trace, revision: int) -> bytes:
    """The same trace, as recorded by another core revision."""
    header = msgspec.structs.replace(trace.header, core_revision=revision)
    with open(trace.name, "rb") as file:
        data = file.read()
    frames = [(frame[0], frame[17:]) for frame in split(data[PREAMBLE.size :], 0)]
    frames[0] = HEADER_FRAME, msgspec.msgpack.encode(header)
    writer = FrameWriter()
    return data[: PREAMBLE.size] + b"".join(writer.frame(*frame) for frame in frames)


def test_another_revision_is_said_and_its_invariants_are_checked(tmp_path, capsys):
    """Without being asked to; decisions that are equal are equal."""
    path = tmp_path / "old.trace"
    path.write_bytes(of_revision(recorded(tmp_path / "run.trace", troubles), CORE_REVISION - 1))
    assert main(["replay", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"{path} was recorded by core revision {CORE_REVISION - 1}, this is {CORE_REVISION}: "
        "decisions may differ, and equality is not promised"
    )
    assert lines[-1].startswith("all invariants hold: checked after ")
    assert main(["replay", str(tmp_path / "run.trace")]) == 0
    assert "invariants" not in capsys.readouterr().out
    assert main(["replay", "--check", str(tmp_path / "run.trace")]) == 0
    assert "all invariants hold: checked after " in capsys.readouterr().out


def test_where_decisions_of_another_revision_differ_is_listed(tmp_path, monkeypatch, capsys):
    """The first is shown, the others by number; a broken invariant is shown for itself."""
    path = tmp_path / "old.trace"
    path.write_bytes(of_revision(recorded(tmp_path / "run.trace", ten_sleeps), CORE_REVISION - 1))

    def broken(tables: Any) -> None:
        if len(tables.tasks) == 3:
            raise InvariantBroken("I99", "three tasks")

    monkeypatch.setattr(invariants, "INVARIANTS", (broken,))
    trace = open_trace(path)
    report = replay(trace, changed(lambda effects: effects[::-1]))
    assert report.differing == len(report.differing_steps) > 1
    assert report.difference is not None and report.broken is not None
    assert report.difference.played.step.number == report.differing_steps[0]
    assert "I99" in report.broken.detail
    assert main(["replay", str(path)]) == 1  # nothing differs with the real cores
    text = capsys.readouterr().out
    assert "an invariant is broken" in text and "three tasks" in text
    assert main(["replay", "--json", str(path)]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["identical"] is True and data["difference"] is None
    assert data["broken_invariant"]["what"] == "an invariant is broken"
    assert data["checked_steps"] > 3 and data["first_differing_steps"] == []


def test_invariants_of_large_states_are_checked_seldom(tmp_path, monkeypatch):
    """As often as it costs about as much as playing."""
    monkeypatch.setattr(replaying, "ROWS_EASY", 10)
    path = tmp_path / "old.trace"
    path.write_bytes(of_revision(recorded(tmp_path / "run.trace", many), CORE_REVISION - 1))
    trace = open_trace(path)
    report = replay(trace)
    assert trace.step_count // 20 < report.checked < trace.step_count // 2
    assert replay(trace, check=replaying.check_invariants).checked == trace.step_count


def test_progress_of_a_replay_is_told(tmp_path, monkeypatch):
    """Steps of how many."""
    monkeypatch.setattr(replaying, "PROGRESS_STEPS", 10)
    trace = recorded(tmp_path / "run.trace", dots)
    told: list[tuple[int, int]] = []
    replay(trace, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, trace.step_count), (10, trace.step_count)]


# ------------------------------------------------------------------ rows for people


def test_rows_leave_out_what_is_as_in_a_new_one():
    """And cut what is long."""
    machine = Machine()
    dots(machine)
    machine.get(*[machine.put(7) for _ in range(30)])
    tables = machine.cores[0].tables
    template = tables.templates[next(iter(tables.templates))]
    text = brief(template)
    assert text.startswith("Template(number=") and "max_calls=0" in text  # it has no default
    assert "waits" not in text and "strategy" not in text
    assert brief(tuple(range(9))) == "(0, 1, 2, 3, 4, 5, ... 3 more)"
    assert brief({1: None, 2: 3}) == "{1, 2: 3}"
    assert len(brief("x" * 1_000)) < 200


def test_all_rows_of_a_thing_are_found():
    """A task with its worker; an object with its producer; a client; a node."""
    machine = Machine()
    work = machine.define("work")
    refs = [machine.submit(work) for _ in range(2)]
    tables = machine.cores[0].tables

    def tables_of(subject: StorySubject) -> list[str]:
        return [row.table for row in rows_about(tables, subject)]

    task = StorySubject(refs[0][:16], ClientID(0))
    assert tables_of(task) == ["tasks", "objects", "clients", "workers"]
    assert tables_of(StorySubject(refs[0], ClientID(0))) == ["objects", "tasks"]
    assert set(tables_of(StorySubject(b"", ClientID(1)))) >= {"clients", "workers"}
    assert (
        rows_about(machine.cores[1].tables, StorySubject(b"", ClientID(0), 0))[0].table == "nodes"
    )
    rows, count = rows_in(tables, "objects", 1)
    assert (len(rows), count) == (1, 2)
    assert dict(summary(tables))["tasks"] == "2 rows"
    with pytest.raises(KeyError):
        rows_in(tables, "nothing", 1)
