"""A core cannot be made to raise by a peer: any message of a client or another node is survived."""

from __future__ import annotations

import random
import typing

import msgspec
import pytest

from detray.core import effects as ef
from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.strategy import AFFINITY, SPREAD, Strategy
from detray.ids import (
    NO_TASK,
    ClientID,
    JobNumber,
    NodeID,
    child_prefix,
    child_task,
    function_id,
    put_object,
    return_object,
    root_task,
)  # fmt: skip
from tests.support.world import World

MESSAGES = typing.get_args(st.ClientStimulus)
PEER_MESSAGES = typing.get_args(pm.PeerMessage)


class Liars(World):
    """A world whose clients say anything; nobody keeps payloads."""

    def _perform(self, effects: list[ef.Effect]) -> None:
        pass


class Speaker:
    """Makes up messages from a few ids, so that they meet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        prefix = child_prefix(root_task(JobNumber(1)), 0, 0)
        tasks = [child_task(prefix, index) for index in range(4)]
        self.tasks = [*tasks, child_task(child_prefix(tasks[0], 0, 0), 0)]
        self.objects = [return_object(task, index) for task in self.tasks for index in (0, 1)]
        self.objects += [put_object(prefix, index) for index in range(3)]
        self.functions = [function_id(prefix, index) for index in range(2)]

    def message(self) -> st.ClientStimulus:
        """Any message of any client."""
        kind = self.random.choice(MESSAGES)
        return kind(**{f.name: self.value(f.name, kind) for f in msgspec.structs.fields(kind)})

    def value(self, name: str, kind: type) -> object:
        """A value of the right type for a field, sensible or not."""
        choose = self.random.choice
        match name:
            case "client":
                return ClientID(choose([-1, -1, 1, 1, 2]))
            case "task" | "parent":
                return choose(self.tasks)
            case "blocks":
                return choose([NO_TASK, *self.tasks])
            case "object":
                return choose(self.objects)
            case "function":
                return choose(self.functions)
            case "objects":
                return tuple(self.random.sample(self.objects, 1 + self.random.randrange(3)))
            case "args" | "refs" | "also":
                return tuple(self.random.sample(self.objects, self.random.randrange(3)))
            case "counts":
                return tuple(self.random.randrange(3) for _ in range(self.random.randrange(4)))
            case "returns":
                part = st.Return(5, choose([False, True]), tuple(self.objects[:1]))
                return (part,) * self.random.randrange(3)
            case "demand":
                return choose([(("CPU", 10_000),), (), (("GPU", 5_000),), (("CPU", 0),)])
            case "name" | "summary" | "topic":
                return choose(["f", "tasks", "objects"])
            case "fail_fast" | "fetch" | "force" | "recursive" | "packed" | "retryable":
                return choose([False, True])
            case "retry_application_errors":
                return choose([False, True])
            case "kind":
                return choose([1, 2])
            case "strategy":
                return choose([None, Strategy(SPREAD), Strategy(AFFINITY, choose(["0" * 56, "?"]))])
            case "timeout_ns" | "max_retries":
                return choose([-1, 0, 5_000])
            case "size_bytes":
                return choose([0, 5, 300_000, 2_000_000])
            case _:
                return choose([0, 1, 2])


class FarSpeaker(Speaker):
    """Makes up messages of other nodes as well: two that are known, and one that is not."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sent = {NodeID(1): 0, NodeID(2): 0, NodeID(3): 0}

    def far_message(self) -> pm.PeerMessage:
        """Any message of any node, the next on its link."""
        kind = self.random.choice(PEER_MESSAGES)
        node = self.random.choice(list(self.sent))
        self.sent[node] += 1
        values = {f.name: self.far_value(f.name, kind) for f in msgspec.structs.fields(kind)}
        return kind(**values | {"node": node, "link_seq": self.sent[node]})

    def far_value(self, name: str, kind: type) -> object:
        """A value of the right type for a field of a message between nodes."""
        choose = self.random.choice
        nodes = [NodeID(0), NodeID(1), NodeID(2)]
        match name:
            case "owner":
                return choose(nodes)
            case "refs":
                return tuple(
                    (choose(self.objects), choose(nodes)) for _ in range(choose([0, 1, 2]))
                )
            case "nodes":
                return tuple(self.random.sample(nodes, choose([0, 1, 2])))
            case "args":
                return tuple(self.argument() for _ in range(choose([0, 1, 2])))
            case "returns":
                parts = [
                    pm.Returned(choose([-1, 5, 5_000]), choose([False, True]), self.refs())
                    for _ in range(choose([0, 1, 2]))
                ]
                return tuple(parts)
            case "wanted":
                return choose([(), (0,), (1,)])
            case "is_wanted" | "is_patient":
                return choose([False, True])
            case "failure":
                return 1
            case "reason" | "text":
                return "why"
            case "demand":
                return choose([(("CPU", 10_000),), (), (("GPU", 5_000),)])
            case "template" | "attempt" | "refusals":
                return choose([0, 1])
            case _:
                return self.value(name, kind)

    def refs(self) -> tuple[pm.Ref, ...]:
        """A few references."""
        return self.far_value("refs", pm.Argument)  # type: ignore[return-value]  # as said there

    def argument(self) -> pm.Argument:
        """An argument of a run that was delivered."""
        fields = msgspec.structs.fields(pm.Argument)
        return pm.Argument(
            **{
                f.name: self.far_value(f.name, pm.Argument) for f in fields if f.name != "is_inline"
            },
            is_inline=self.random.choice([False, True]),
        )


@pytest.mark.parametrize("seed", range(60))
def test_whatever_nodes_say_is_survived(seed: int) -> None:
    """The same for messages of other nodes, mixed with those of clients."""
    speaker = FarSpeaker(seed)
    world = Liars(2, prestart=2, totals={"GPU": 10_000}, stop_with_last_driver=False)
    driver = world.driver()
    world.do(*[st.WorkerReady(order.client, 1) for order in driver.started])
    driver.template(name="g", returns=2, retries=1, retry_app=True)
    for node in (1, 2):
        world.do(hm.NodeAnnounced(1, NodeID(node), 1, "other", (("CPU", 10_000),)))
    story: list[st.Stimulus] = []
    for _ in range(150):
        far = speaker.random.random() < 0.6
        message = speaker.far_message() if far else speaker.message()
        story.append(message)
        try:
            world.do(message)
        except BaseException:
            print("\n".join(map(repr, story[-12:])))
            raise


@pytest.mark.parametrize("seed", range(60))
def test_whatever_clients_say_is_survived(seed: int) -> None:
    """No message raises, and no invariant breaks."""
    speaker = Speaker(seed)
    world = Liars(2, prestart=2, totals={"GPU": 10_000}, stop_with_last_driver=False)
    driver = world.driver()
    world.do(*[st.WorkerReady(order.client, 1) for order in driver.started])
    driver.template(name="g", returns=2, retries=1, retry_app=True)
    story = []
    for _ in range(150):
        message = speaker.message()
        story.append(message)
        try:
            world.do(message)
        except BaseException:
            print("\n".join(map(repr, story[-12:])))
            raise
