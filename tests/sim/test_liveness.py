"""What a cluster may be stuck for: demands that no node meets and what hangs on them, no more."""

from __future__ import annotations

import pytest

from detray.core.effects import GetAnswered, Place
from detray.core.states import Placing
from detray.core.stimuli import GetRequested
from detray.core.tables import Tables
from detray.errors import Failure
from detray.ids import NodeID
from detray_sim.liveness import diagnose
from detray_sim.supposing import Supposed
from detray_sim.told import Told
from tests.golden.play import play

STUCK = """\
nodes a b driver=a disk=1 a.disk=0 hand_over=always queue_rounds=0
----

submit p name=parent disk=1
submit q name=other disk=1
settle
----

b: submit c name=child lamp=1 by=w1
b: get c by=w1
settle
----
"""
"""A run at b holds the only disk and waits for what no node can run; q waits for that disk."""


def tables_after(text: str) -> dict[NodeID, Tables]:
    """The tables of all nodes after a transcript."""
    _, stage = play(text)
    return {world.local.tables.node: world.local.tables for world in stage.worlds}


def child_of(tables: dict[NodeID, Tables]) -> tuple[Tables, Placing]:
    """The tables of the node that asked for the lamp, and that task's state."""
    for t in tables.values():
        for task in t.tasks.values():
            if type(task.state) is Placing and task.state.offers is not None:
                return t, task.state
    raise AssertionError("nothing is infeasible")


def test_who_waits_for_what_an_infeasible_child_keeps_from_it_waits_for_a_node_as_well() -> None:
    """The parent keeps the disk, q waits for it at the head: a node with a lamp ends all of it."""
    found = diagnose(tables_after(STUCK))
    assert {wait.kind for wait in found.waits} == {"object", "head", "infeasible"}
    assert found.is_legitimate and not found.is_untold_deadlock


def test_an_infeasible_demand_excuses_no_circle_beside_it() -> None:
    """The child wants its parent's disk, and something else is infeasible: that is a deadlock."""
    tables = tables_after(STUCK + "\nsubmit x lamp=1\nsettle\n----\n")
    t, state = child_of({node: t for node, t in tables.items() if t.node == 1})
    child = next(task for task in t.tasks.values() if task.state is state)
    t.templates[child.template].demand = (("CPU", 10_000), ("disk", 10_000))
    child.state = Placing(state.asked_ns)
    found = diagnose(tables)
    assert "infeasible" in {wait.kind for wait in found.waits}
    assert found.is_untold_deadlock and not found.is_legitimate


def test_what_could_go_on_beside_an_infeasible_demand_must() -> None:
    """There is a second disk: whoever waits for one, at the head, is kept from it by nothing."""
    tables = tables_after(STUCK)
    pool = tables[NodeID(1)].pool
    index = pool.names.index("disk")
    pool.total[index] += 10_000
    pool.available[index] += 10_000
    found = diagnose(tables)
    assert found.can_go_on
    assert not found.is_legitimate and not found.is_untold_deadlock


def test_runs_that_wait_for_each_other_are_no_legitimate_end() -> None:
    """Without anything infeasible a cluster must not be stuck, on one node or on several."""
    tables = tables_after(STUCK)
    t, state = child_of(tables)
    child = next(task for task in t.tasks.values() if task.state is state)
    t.templates[child.template].demand = (("CPU", 10_000), ("disk", 10_000))
    child.state = Placing(state.asked_ns)
    found = diagnose(tables)
    assert found.is_untold_deadlock and not found.is_legitimate
    assert not diagnose({}).is_untold_deadlock and not diagnose({}).is_legitimate


@pytest.mark.parametrize(("joins", "left"), [(False, ["child", "other", "parent"]), (True, [])])
def test_supposing_that_a_node_joins(joins: bool, left: list[str]) -> None:
    """Without it nothing of the three can finish, with it all of it can."""
    tables = tables_after(STUCK)
    found = Supposed(tables, joins=joins)
    names = [tables[n].templates[task.template].name for n, task in found.left.values()]
    assert sorted(names) == left
    assert (found.went_on == 0) is not joins and found.is_all is joins


PARENT = """\
nodes a b driver=a disk=1 a.disk=0 {b} hand_over=always queue_rounds=0
----

submit p name=parent disk=1
settle
----

b: submit c name=child {child} by=w1
b: get c by=w1
settle
----
"""
"""A run at b holds a disk and waits for its child."""


def told_of_the_parent(b: str, child: str) -> str:
    """What R5 says if node b tells now that the parent's get is part of a deadlock."""
    tables = tables_after(PARENT.format(b=b, child=child))
    t = tables[NodeID(1)]
    worker = next(worker for worker in t.workers.values() if worker.blocked)
    get = t.clients[worker.id].gets.pop(worker.blocked)
    worker.blocked = 0
    asked = GetRequested(
        get.client, get.request, get.objects, get.needed, get.fail_fast, get.fetch, -1,
        worker.runs[0].task,
    )  # fmt: skip
    place = Place(get.objects[0], Failure.DEADLOCK, 0, text="a circle")
    told = Told()
    assert told.step(7, t, [asked], [], lambda: tables) == ""
    answer = GetAnswered(get.client, get.request, False, False, (place,))
    return told.step(7, t, [], [answer], lambda: tables)


@pytest.mark.parametrize(
    ("b", "child", "is_deadlock"),
    [
        ("", "disk=1", True),  # its parent keeps the only one
        ("b.disk=2", "disk=1", False),  # there is another
        ("", "a=1", False),  # it runs at a, or will
        ("", "lamp=1", False),  # it waits for a node, and so does its parent
    ],
)
def test_a_deadlock_that_is_told_is_one(b: str, child: str, is_deadlock: bool) -> None:
    """Whatever could have answered the get belies who fails it."""
    assert told_of_the_parent(b, child) == ("" if is_deadlock else "a circle")
