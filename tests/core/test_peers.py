"""A core cannot be made to raise by a peer: any message of a connected client is survived."""

from __future__ import annotations

import random
import typing

import msgspec
import pytest

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.ids import (
    NO_TASK,
    ClientID,
    JobNumber,
    child_prefix,
    child_task,
    function_id,
    put_object,
    return_object,
    root_task,
)  # fmt: skip
from tests.support.world import World

MESSAGES = typing.get_args(st.ClientStimulus)


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
            case "timeout_ns" | "max_retries":
                return choose([-1, 0, 5_000])
            case "size_bytes":
                return choose([0, 5, 300_000, 2_000_000])
            case _:
                return choose([0, 1, 2])


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
