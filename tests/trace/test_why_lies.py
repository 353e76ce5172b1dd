"""Messages that lie: an answer, or an error that is expected, never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from detray.ids import ClientID
from detray.trace.explaining.causes import Explainer
from detray.trace.explaining.things import explain_client, explain_node, explain_object
from detray.trace.format import TraceError
from detray.trace.telling.story import StorySubject, story
from tests.trace.lies import LyingTrace
from tests.trace.programs import dots, recorded, troubles
from tests.trace.test_parts import assert_whole, seed_trace, timeline_of

SHARES = (0.02, 0.1, 0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A session, and clusters in which much goes wrong."""
    folder: Path = tmp_path_factory.mktemp("lies")
    recorded(folder / "run.trace", dots, troubles)
    for seed in (10, 15, 24, 28):
        seed_trace(seed, folder / f"seed{seed}.trace")
    return [path.read_bytes() for path in sorted(folder.glob("*.trace"))]


@pytest.mark.parametrize("seed", range(24))
def test_no_lie_makes_an_answer_crash_or_its_parts_not_add_up(files, seed):
    """Of every task, object, worker and node that the messages name."""
    for data in files:
        trace = LyingTrace(data, seed, SHARES[seed % len(SHARES)])
        try:
            timeline = timeline_of(trace)
        except TraceError:
            continue
        explainer, history = Explainer(timeline), timeline.history
        assert_whole(timeline)
        for item in history.objects:
            assert explain_object(explainer, item).conclusion
        for core, client in (*history.workers, *history.programs):
            subject = StorySubject(b"", client, history.node_of(core))
            assert explain_client(explainer, subject).conclusion
        for node in history.members:
            if node >= 0:
                subject = StorySubject(b"", ClientID(0), node)
                assert explain_node(explainer, subject).conclusion


@pytest.mark.parametrize("seed", range(6))
def test_no_lie_makes_a_story_crash(files, seed):
    """Of a task, a node and the head."""
    for data in files:
        trace = LyingTrace(data, seed, SHARES[seed % len(SHARES)])
        try:
            history = timeline_of(trace).history
            nodes = [StorySubject(b"", ClientID(0), node) for node in list(history.members)[:2]]
            tasks = [StorySubject(task, ClientID(0)) for task in list(history.tasks)[:2]]
            for subject in (*nodes, *tasks, StorySubject(b"", ClientID(0))):
                assert all(line.text for line in story(trace, subject))
        except TraceError:
            continue
