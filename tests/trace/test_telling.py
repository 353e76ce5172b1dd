"""Timelines and stories."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from detray.core.effects import Effect
from detray.core.stimuli import Stimulus
from detray.ids import ClientID
from detray.trace.format import TraceError
from detray.trace.gathering.history import history_of
from detray.trace.gathering.lives import LOST
from detray.trace.names import describe, matches, short
from detray.trace.reading import Trace
from detray.trace.telling.sentences import SENTENCES
from detray.trace.telling.story import StorySubject, find_subject, story
from detray.trace.timeline import chrome_events
from tests.trace.machine import ROOT, Machine
from tests.trace.programs import dots, recorded, ten_sleeps, troubles


def test_every_run_is_a_slice_on_its_workers_row(tmp_path):
    """Ten tasks, ten slices; rows have names; the document is JSON."""
    events = chrome_events(recorded(tmp_path / "run.trace", ten_sleeps))
    runs = [event for event in events if event["ph"] == "X" and event["cat"] == "task"]
    assert [run["name"] for run in runs] == ["sleep"] * 10
    assert {run["dur"] for run in runs} == {4999.0}
    rows = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {rows[run["tid"]].split(" pid=")[0] for run in runs} <= {
        f"worker {number}" for number in range(1, 5)
    }
    assert json.loads(json.dumps(events)) == events


def test_runs_of_one_worker_do_not_overlap(tmp_path):
    """A worker runs one task at a time, and the timeline shows no other thing."""
    events = chrome_events(recorded(tmp_path / "run.trace", ten_sleeps))
    rows: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X" and event["cat"] == "task":
            rows.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    for row in rows.values():
        row.sort()
        assert all(first[1] <= then[0] for first, then in pairwise(row))


def test_an_arrow_leads_from_each_submission_to_its_run(tmp_path):
    """Flows come in pairs: where it was submitted, where it began."""
    events = chrome_events(recorded(tmp_path / "run.trace", dots))
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert len(starts) == 3 and starts.keys() == ends.keys()
    assert all(starts[flow]["ts"] <= ends[flow]["ts"] for flow in starts)


def test_waits_failures_and_lost_workers_are_on_the_timeline(tmp_path):
    """The driver's get is a slice, a failed run says why, a dead worker is marked."""
    events = chrome_events(recorded(tmp_path / "run.trace", ten_sleeps, troubles))
    gets = [event for event in events if event.get("cat") == "get"]
    assert gets and all(event["tid"] > 1000 and event["dur"] > 0 for event in gets)
    errors = {e["args"]["error"] for e in events if e["ph"] == "X" and e["cat"] == "task"}
    assert errors == {"", "ValueError: no", "killed by signal SIGKILL"}
    assert [e["name"] for e in events if e["ph"] == "i"] == [
        "worker lost: killed by signal SIGKILL"
    ]


def test_a_killed_run_is_known_by_the_worker_it_was_sent_to(tmp_path):
    """No report came of it: the attempt is lost, the one after it finished."""
    history = history_of(recorded(tmp_path / "run.trace", troubles))
    (shaky,) = [life for life in history.tasks.values() if life.name == "shaky"]
    assert [run.state for run in shaky.attempts] == [LOST, "finished"]


def test_the_story_of_a_task_tells_its_life_in_order(tmp_path):
    """Submitted, sent, lost, sent again, finished, delivered."""
    trace = recorded(tmp_path / "run.trace", troubles)
    told = story(trace, find_subject(trace, "shaky"))
    lines = [re.sub(r"\([\w.]+\)|\d+\.\w+\.\d+", "ID", line.text) for line in told]
    assert lines[:5] == [
        "driver 1 submits shaky ID",
        "shaky ID is sent to worker 3",
        "its run on worker 3 is lost: killed by signal SIGKILL",
        "shaky ID is sent to worker 2, attempt 1",
        "worker 2 finished shaky ID after 4.999 ms: 100 B, attempt 1",
    ]
    assert any("is given" in line for line in lines)


def test_the_story_of_a_worker_ends_with_its_death(tmp_path):
    """And says how it died."""
    trace = recorded(tmp_path / "run.trace", troubles)
    lines = [line.text for line in story(trace, StorySubject(b"", ClientID(3)))]
    assert lines[0] == "worker 3 is to be started for job 1"
    assert lines[1] == "worker 3 is ready (pid 5003)"
    assert "worker 3 is gone: killed by signal SIGKILL" in lines


def test_a_subject_is_found_by_any_of_its_names(tmp_path):
    """Whole id, beginning of it, short name, function; workers by number."""
    trace = recorded(tmp_path / "run.trace", dots)
    (dot,) = [life.id for life in history_of(trace).tasks.values() if life.name == "dot"]
    expected = StorySubject(dot, ClientID(0))
    for name in (dot.hex(), short(dot), "dot"):
        assert find_subject(trace, name) == expected
    assert find_subject(trace, "worker 3") == StorySubject(b"", ClientID(3))
    assert find_subject(trace, "w3") == StorySubject(b"", ClientID(3))
    assert find_subject(trace, "driver 1") == StorySubject(b"", ClientID(-1))


def test_what_is_not_found_or_not_one_is_said(tmp_path):
    """The error names the candidates, or the ways to name something."""
    trace = recorded(tmp_path / "run.trace", dots)
    with pytest.raises(TraceError, match=r"'zeros' may be any of 2: 1\.\w+\.0, 1\.\w+\.1"):
        find_subject(trace, "zeros")
    with pytest.raises(TraceError, match="knows nothing of 'nonsense'"):
        find_subject(trace, "nonsense")


def test_a_story_is_the_same_from_the_ring(tmp_path):
    """Effects that were not kept are found out by playing."""
    kept = recorded(tmp_path / "run.trace", troubles)
    machine = Machine()
    troubles(machine)
    ring = Trace(machine.recorder.read_all())
    for name in ("shaky", "wrong", "worker 1"):
        told = [sorted(map(str, story(t, find_subject(t, name)))) for t in (kept, ring)]
        assert told[0] == told[1]


def test_sentences_are_only_said_about_messages_that_exist():
    """A message that was renamed or removed must leave this table as well."""
    from typing import get_args

    assert set(SENTENCES) <= set(get_args(Stimulus)) | set(get_args(Effect))


def test_short_names_tell_tasks_returns_puts_and_programs_apart():
    """One look says what an id is."""
    task = b"\0\0\0\1" + bytes.fromhex("9f3a125500000000") + b"\0\0\0\3"
    assert short(ROOT) == "1.root"
    assert short(task) == "1.9f3a12.3"
    assert short(task + b"\0\0\0\2") == "1.9f3a12.3/2"
    assert short(task + b"\x80\0\0\0") == "1.9f3a12.3/put"
    assert matches(task, "1.9F3A12.3") and matches(task, task.hex()[:10])
    assert not matches(task, "1.9f3a12.4") and not matches(task, "00")
    assert describe((task, b"", 7)) == "(1.9f3a12.3, none, 7)"
