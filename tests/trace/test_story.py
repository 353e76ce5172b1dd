"""Stories: a sentence for every type of message; the lives of nodes, heads and objects."""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from detray.core import durable
from detray.core import effects as ef
from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.config import Policy
from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES, ClientID, function_id
from detray.trace.format import TraceError
from detray.trace.gathering.history import History, history_of
from detray.trace.names import describe, short
from detray.trace.reading import Trace, open_trace
from detray.trace.telling.link_sentences import MESSAGES
from detray.trace.telling.nodes import FROM_HEAD, OF_NODE, TO_HEAD
from detray.trace.telling.sentences import SENTENCES, SILENT, sentence
from detray.trace.telling.story import StorySubject, find_subject, story
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.result import NodeShape
from detray_sim.traces import write_trace
from tests.sim.test_engine import MS, SECOND
from tests.sim.test_engine_nodes import graph
from tests.trace.programs import dots, recorded, troubles
from tests.trace.simulated import named, parts_of
from tests.trace.test_parts import seed_trace

BETWEEN_CORES = (*get_args(hm.HeadMessage), *get_args(hm.NodeMessage), *get_args(pm.PeerMessage))
OTHERS = (*get_args(st.ClientStimulus), *get_args(st.DriverStimulus), *get_args(ef.Effect))
CARRIERS = (ef.SendToHead, ef.SendToNode, ef.SendToPeer)
"""They say what the message inside says."""


def sample(kind: Any) -> Any:
    """A value of a type: the shortest that the sentences must bear."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        return sample(parts[0])
    if origin is tuple:
        parts = get_args(kind)
        return (sample(parts[0]),) if parts[-1] is ... else tuple(map(sample, parts))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        return kind(*[_field(name, hints[name]) for name in kind.__struct_fields__])
    kind = getattr(kind, "__supertype__", kind)
    return {int: 1, str: "words", bool: True, bytes: b"\1" * OBJECT_ID_BYTES}[kind]


def _field(name: str, kind: Any) -> Any:
    if name in ("task", "parent", "blocks"):
        return b"\2" * TASK_ID_BYTES
    return sample(kind)


@pytest.mark.parametrize("kind", BETWEEN_CORES, ids=lambda kind: kind.__name__)
def test_every_message_between_cores_has_a_sentence(kind):
    """In the words of who receives it, and of who sends it."""
    assert kind in MESSAGES
    message = sample(kind)
    assert described(sentence(message, History()), message)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_every_stimulus_and_effect_has_a_sentence_or_is_silent(kind):
    """What is left out is left out on purpose."""
    if kind in SILENT or kind in CARRIERS:
        assert kind not in SENTENCES
        return
    assert kind in SENTENCES
    message = sample(kind)
    assert described(sentence(message, History()), message)


def described(text: str, message: Any) -> bool:
    """True if it is a sentence, not the message field by field."""
    return bool(text) and describe(message) not in text and type(message).__name__ not in text


def test_every_event_that_a_head_writes_down_has_words():
    """One list, whatever it holds."""
    events = tuple(sample(kind) for kind in get_args(durable.DurableEvent))
    text = sentence(ef.Persist(events), History())
    assert text.count(", ") == len(events) - 1 and "None" not in text


def test_every_message_says_who_speaks_to_whom():
    """A carrier is told by its sender, what arrives by its receiver."""
    history = History((0, 1), ("node 0", "node 1"))
    asked = hm.PeerUnreachable(1, 0, 1)
    assert sentence(ef.SendToHead(asked), history) == (
        "node 0 tells the head: nothing comes through to node 1"
    )
    assert sentence(asked, history) == (
        "the head hears from node 0: nothing comes through to node 1"
    )
    buried = hm.NodeBuried(1, 1, "silence")
    assert sentence(ef.SendToNode(0, buried), history) == (
        "the head tells node 0: node 1 is dead: silence"
    )
    assert sentence(buried, history) == "node 0 hears from the head: node 1 is dead: silence"


def test_lives_of_nodes_are_told_of_messages_that_exist():
    """Tables of types that were renamed or removed must change, too."""
    assert set(OTHERS) | set(BETWEEN_CORES) >= OF_NODE
    assert set(get_args(hm.NodeMessage)) >= TO_HEAD
    assert set(get_args(hm.HeadMessage)) >= FROM_HEAD


# ------------------------------------------------------------------ whole lives

SOON = Policy(heartbeat_ns=100 * MS, death_ns=400 * MS)
"""The dead are missed soon."""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimCluster, Trace]:
    """A cluster whose node 2 dies."""
    shape = NodeShape(cpus=2, store_bytes=64 << 20)
    cluster = SimCluster(ClusterConfig(nodes=(shape,) * 4, policy=SOON), record=True)
    cluster.drive(0, graph)
    cluster.clock.after(30 * MS, lambda world: world.crash_node(2), cluster)
    assert cluster.run(100 * SECOND)
    cluster.settle()
    path = tmp_path_factory.mktemp("story") / "crash.trace"
    write_trace(cluster, path)
    return cluster, open_trace(path)


def texts(trace: Trace, about: str) -> list[str]:
    """A story without its times."""
    return [line.text for line in story(trace, find_subject(trace, about))]


def test_the_story_of_a_node_goes_from_joining_to_its_burial(crashed):
    """Its own words first, in the end those of others."""
    _, trace = crashed
    lines = texts(trace, "node 2")
    assert lines[0] == "the service on node 2 is up"
    assert "may I join?" in lines[1]
    assert "node 2 hears from the head: you are node 2, incarnation 1" in lines
    assert any(line.startswith("worker 1 on node 2 is ready") for line in lines)
    assert "node 2 is dead: it was silent for 400 ms" in lines[-1]
    assert not any("submits" in line or "is sent to" in line for line in lines)
    assert texts(trace, "n2") == lines


def test_the_story_of_a_head_is_whom_it_admits_and_buries(crashed):
    """Not each place that it names: those are in the stories of tasks."""
    _, trace = crashed
    lines = texts(trace, "head")
    assert any("the head tells node 2: you are node 2" in line for line in lines)
    assert any("the head tells node 1: node 2 is dead" in line for line in lines)
    assert not any("should run on" in line for line in lines)


def test_a_head_alone_tells_of_tasks(crashed, tmp_path):
    """Where no node's recording is there, the head's word must do."""
    cluster, whole = crashed
    head = named(parts_of(cluster, tmp_path / "parts"), "head")
    asked = next(life.id for life in history_of(whole).tasks.values() if life.moves)
    (first, *_) = [line.text for line in story(head, StorySubject(asked, 0))]
    assert first.startswith("the head hears from node 0: where should ")


def test_the_story_of_an_object_tells_of_the_node_that_died_with_it(crashed):
    """No message names it then."""
    _, trace = crashed
    history = history_of(trace)
    lost = [
        item
        for item in history.objects.values()
        if any(move.kind == "made again" for move in item.moves)
    ]
    assert lost
    lines = texts(trace, lost[0].id.hex())
    assert any(line.startswith("node 2 is dead, and its copy with it") for line in lines)


def test_a_node_that_is_not_known_is_refused_with_those_that_are(tmp_path, crashed):
    """In a session of one node, too."""
    _, trace = crashed
    with pytest.raises(TraceError, match="knows nothing of node 9; it knows: 0, 1, 2, 3"):
        find_subject(trace, "node 9")
    single = recorded(tmp_path / "run.trace", dots)
    assert str(find_subject(single, "head")) == "head"
    assert str(find_subject(single, "Node 0")) == "node 0"


@pytest.mark.parametrize("seed", range(3, 9))
def test_every_story_of_a_seed_can_be_told(tmp_path, seed):
    """Of tasks, objects, workers, nodes and heads; and no message is shown field by field."""
    trace = seed_trace(seed, tmp_path / "seed.trace")
    history = history_of(trace)
    subjects = [short(item) for item in (*history.tasks, *history.objects)]
    subjects += [f"worker {life.id}{history.where(core)}" for core, life in workers(history)]
    subjects += [f"node {node}" for node in history.members] + ["head"]
    types = {kind.__name__ for kind in (*OTHERS, *BETWEEN_CORES)}
    told = 0
    for about in subjects[:: max(1, len(subjects) // 12)]:
        for line in story(trace, find_subject(trace, about)):
            told += 1
            assert not any(f"{name}(" in line.text for name in types), line
    assert told


def workers(history: History) -> list[tuple[int, Any]]:
    """Workers with the number of their core."""
    return [(core, life) for (core, _), life in history.workers.items()]


def test_what_is_let_go_with_others_is_told_of_the_one_alone(tmp_path):
    """A step frees hundreds of things; a story names its own, code never as arguments."""
    trace = recorded(tmp_path / "run.trace", troubles)
    history = history_of(trace)
    told = ""
    for item in (*history.tasks, *history.objects):
        for line in story(trace, StorySubject(item, ClientID(0))):
            before, freed, names = line.text.partition("freed: ")
            if freed:
                assert not before
                own = f"{short(item)}(/[0-9]+)?" if len(item) == TASK_ID_BYTES else short(item)
                one = f"(the (arguments|error) of )?{own}(, made again)?"
                assert re.fullmatch(f"{one}(, {one})*", names), line.text
                told += names
    assert "the arguments of" in told
    code = ef.DropPayloads((function_id(bytes(12), 3),))
    assert sentence(code, history).endswith(": the code of a function")
