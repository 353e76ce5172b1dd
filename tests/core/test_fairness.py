"""Jobs that share a node: who gets the CPU, and how much of it."""

from __future__ import annotations

from collections import Counter

import pytest

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.config import Policy
from detray.ids import JobNumber, job_of
from tests.support.world import SimDriver, World, finished


class Machine:
    """A node whose workers run what they are sent, one run at a time each, all equally long."""

    def __init__(self, cpus: int, **policy: int) -> None:
        self.world = World(cpus, policy=Policy(**policy), stop_with_last_driver=False)  # type: ignore[arg-type]  # numbers
        self.queue: list[ef.RunTask] = []
        self.done: list[JobNumber] = []
        """Jobs of the runs that ended, in order."""

    def driver(self, number: int) -> SimDriver:
        """Another program."""
        return self.world.driver(-number)

    def submit(self, driver: SimDriver, count: int, **demand: int) -> None:
        """So many tasks, in one message."""
        template = driver.template(**demand)
        self.do(*[driver.task(template) for _ in range(count)])

    def do(self, *stimuli: st.Stimulus) -> None:
        """A step, and the starts of workers that it orders."""
        for effect in self.world.do(*stimuli):
            if type(effect) is ef.RunTask:
                self.queue.append(effect)
            elif type(effect) is ef.StartWorker:
                self.do(st.WorkerReady(effect.client, 1_000 + effect.client))

    def run(self, count: int) -> Counter[JobNumber]:
        """Let so many runs end, the oldest first; how many of each job."""
        before = len(self.done)
        for _ in range(count):
            run = self.queue.pop(0)
            self.done.append(job_of(run.task))
            self.do(finished(run))
        return Counter(self.done[before:])


@pytest.mark.parametrize("depth", [1, 64])
def test_ten_tasks_do_not_wait_for_two_thousand(depth: int) -> None:
    """They are done after about as many of the others, and what was under way already."""
    machine = Machine(2, pipeline_depth_max=depth)
    many, few = machine.driver(1), machine.driver(2)
    machine.submit(many, 2_000)
    machine.run(100)
    machine.submit(few, 10)
    machine.run(10 + 10 + 4 * depth)
    assert machine.done.count(few.job) == 10


def test_three_jobs_have_equal_shares() -> None:
    """Whoever came first, and however much each has waiting."""
    machine = Machine(2, pipeline_depth_max=1)
    drivers = [machine.driver(number) for number in (1, 2, 3)]
    for driver, count in zip(drivers, (900, 300, 150), strict=True):
        machine.submit(driver, count)
    shares = machine.run(300)
    assert all(abs(shares[driver.job] - 100) <= 2 for driver in drivers), shares


def test_a_job_whose_tasks_are_heavy_gets_as_much_cpu() -> None:
    """Two CPUs a task, or one: half as many."""
    machine = Machine(4, pipeline_depth_max=1)
    heavy, light = machine.driver(1), machine.driver(2)
    machine.submit(heavy, 200, cpus=20_000)
    machine.submit(light, 400)
    shares = machine.run(300)
    assert abs(shares[heavy.job] - 100) <= 3, shares


def test_nested_tasks_are_charged_to_their_job() -> None:
    """A job gets no more by having its tasks submit the work."""
    machine = Machine(1, pipeline_depth_max=1)
    nesting, flat = machine.driver(1), machine.driver(2)
    template = nesting.template()
    machine.submit(flat, 100)
    machine.do(*[nesting.task(template) for _ in range(50)])
    assert abs(machine.run(60)[nesting.job] - 30) <= 2


def test_what_fits_nowhere_now_holds_up_nobody() -> None:
    """A job that asks for more than is free lets others go on, until it has waited long enough."""
    machine = Machine(2, pipeline_depth_max=1, starvation_passes=20)
    heavy, light = machine.driver(1), machine.driver(2)
    machine.submit(light, 2)
    machine.submit(heavy, 1, cpus=20_000)
    machine.submit(light, 200)
    assert heavy.job not in machine.run(15)
    assert machine.run(15)[heavy.job] == 1


def test_a_job_that_is_alone_again_is_charged_nothing() -> None:
    """The tables of shares are empty: nobody owes anything for later."""
    machine = Machine(1, pipeline_depth_max=1)
    first, second = machine.driver(1), machine.driver(2)
    machine.submit(first, 5)
    machine.submit(second, 3)
    assert machine.world.local.tables.shares
    machine.run(8)
    tables = machine.world.local.tables
    assert not machine.queue and tables.shares == {} and tables.share == 0
