"""The order of ready tasks: deeper first, then as submitted, across all shapes (N10)."""

from __future__ import annotations

import random

import msgspec
import pytest

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.config import Policy
from tests.support.world import World, failed, finished, first_return


def runs(effects: list[ef.Effect]) -> list[ef.RunTask]:
    """The runs that a step sends."""
    return [e for e in effects if type(e) is ef.RunTask]


@pytest.mark.parametrize("seed", range(20))
def test_the_next_task_is_the_deepest_then_the_oldest(seed: int) -> None:
    """Also across shapes, with cancelled entries in the queue and retries before their equals."""
    generator = random.Random(seed)
    world = World(1, prestart=1, totals={"door": 10_000}, policy=Policy(pipeline_depth_max=1))
    driver = world.driver()
    world.do(st.WorkerReady(driver.started[0].client, 1))
    templates = [driver.template(retries=3, retry_app=True)]
    templates.append(driver.template(retries=3, retry_app=True, door=10_000))
    waiting: list[tuple[int, int, bytes]] = []
    running: ef.RunTask | None = None
    for number in range(120):
        move = generator.randrange(4)
        if move < 2 or running is None:
            plain = driver.task(generator.choice(templates))
            task = msgspec.structs.replace(plain, depth=generator.randrange(4))
            waiting.append((-task.depth, number, task.task))
            out = world.do(task)
        elif move == 2 and waiting:
            victim = generator.choice(waiting)
            waiting.remove(victim)
            item = victim[2] + bytes(4)
            out = world.do(st.CancelRequested(driver.client, item, False, False))  # type: ignore[arg-type]  # it is an ObjectID
        elif generator.random() < 0.3 and running.attempt < 3:
            waiting.append((-running.depth, -1, running.task))
            out, running = world.do(failed(running, retryable=True)), None
        else:
            out, running = world.do(finished(running)), None
        for run in runs(out):
            assert running is None
            waiting.sort()
            assert run.task == waiting.pop(0)[2]
            running = run


def test_a_retried_task_stands_before_its_equals_and_behind_the_deeper() -> None:
    world = World(1, prestart=1, policy=Policy(pipeline_depth_max=1))
    driver = world.driver()
    world.do(st.WorkerReady(driver.started[0].client, 1))
    template = driver.template(retries=1, retry_app=True)
    first, second, third = (driver.task(template) for _ in range(3))
    deep = msgspec.structs.replace(third, depth=2)
    [run] = runs(world.do(first))
    assert not runs(world.do(second, deep))
    order = []
    [run] = runs(world.do(failed(run, retryable=True)))
    while run:
        order.append((run.task, run.attempt))
        run = next(iter(runs(world.do(finished(run)))), None)  # type: ignore[assignment]  # the end
    assert order == [(deep.task, 0), (first.task, 1), (second.task, 0)]


def test_a_long_queue_forgets_what_is_behind_its_head() -> None:
    """The list of a depth does not grow for ever while tasks come and go."""
    world = World(1, prestart=1, policy=Policy(pipeline_depth_max=1))
    driver = world.driver()
    world.do(st.WorkerReady(driver.started[0].client, 1))
    template = driver.template()
    tasks = [driver.task(template) for _ in range(10_000)]
    core = world.local
    [run] = runs(core.handle(*tasks, now_ns=world.now_ns))
    for task in tasks[:-1]:
        out = core.handle(
            finished(run), driver.drop(first_return(task)), now_ns=world.now_ns
        )  # fmt: skip
        [run] = runs(out)
    shape = core.tables.shapes[0]
    assert shape.count == 0
    assert sum(map(len, shape.ready.values())) < 9_000
