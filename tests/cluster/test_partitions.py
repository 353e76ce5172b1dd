"""Cut links, slow links, full disks: real ones, between machines of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import detray
from detray import errors
from detray.cluster_utils import ClusterNode
from detray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.cluster.conftest import until
from tests.cluster.machines import WORDS, Field, field, hold, machines, make, on, total
from tests.support import begun
from tests.support.netns import why_not

__all__ = ["field", "machines"]
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

ARRAY_TOTAL = int(np.arange(WORDS).sum())
MOMENT_S, TOO_LONG_S = 0.8, 1.4
"""A cut that costs nobody its life, and one that may: after it TCP is silent for as long again."""
TRIES = 5


@detray.remote
def parent(path: str, gate: str, child: str, node_id: str, value: int) -> int:
    """A task that waits for one on another node, which may begin only once."""
    begun.begin(path)
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    ref = hold.options(max_retries=0, scheduling_strategy=there).remote(child, gate, value)
    return detray.get(ref) + 1


def test_two_nodes_that_cannot_talk_cost_one_of_them(field: Field) -> None:
    """The head sees both and buries one; nothing begins twice that must not, and what the dead one
    had is there again. Healed, it comes back as a new node."""
    left, right = field.add(2)
    kept = make.options(**on(left)).remote(field.mark("kept"), 2)
    detray.wait([kept], fetch_local=False)
    asks = parent.options(**on(left), max_retries=0).remote(
        field.mark("parent"), field.mark("gate"), field.mark("child"), right.node_id, 5
    )
    field.has_begun("child")
    once = {
        node: hold.options(**on(node), max_retries=0).remote(
            field.mark(f"once {node.number}"), field.mark("gate"), node.number
        )
        for node in (left, right)
    }
    for node in once:
        field.has_begun(f"once {node.number}")
    field.machines.cut(left, right)
    pulled = total.options(**on(right)).remote(kept)

    def stays(node: ClusterNode) -> bool:  # what is buried comes back, sooner than one can look
        return field.living().get(field.host(node)) == node.number

    until(lambda: not (stays(left) and stays(right)), "one of them is buried")
    [dead, survivor] = sorted((left, right), key=stays)
    field.open("gate")
    assert detray.get(pulled, timeout=40) == 2 * ARRAY_TOTAL
    assert detray.get(once[survivor], timeout=40) == survivor.number
    with pytest.raises(errors.NodeDiedError, match=f"node {dead.number}"):
        detray.get(once[dead], timeout=40)
    with pytest.raises((errors.NodeDiedError, errors.TaskError)):
        detray.get(asks, timeout=40)
    names = ("parent", "child", f"once {left.number}", f"once {right.number}")
    assert [field.begun(name) for name in names] == [1, 1, 1, 1]
    field.machines.heal(left, right)
    until(lambda: field.living().get(field.host(dead), 0) > right.number, "it is back")


@pytest.mark.parametrize("is_to_node", [True, False])
def test_a_link_that_works_one_way_only(field: Field, is_to_node: bool) -> None:
    """Between the driver's node and another: the younger one goes, its task runs elsewhere."""
    victim, _ = field.add(2)
    ends = (field.machines.head_node, victim)
    running = hold.options(**on(victim)).remote(field.mark("held"), field.mark("gate"), 4)
    field.has_begun("held")
    field.machines.cut(*(ends if is_to_node else ends[::-1]), one_way=True)
    field.open("gate")
    ref = make.options(**on(victim)).remote(field.mark("made"), 3)
    assert detray.get(total.remote(ref), timeout=40) == 3 * ARRAY_TOTAL
    assert detray.get(running, timeout=40) == 4
    until(lambda: field.living().get(field.host(victim)) != victim.number, "it is buried")
    field.machines.heal(*ends)
    until(lambda: field.living().get(field.host(victim), 0) > victim.number, "it is back")


def cut_for_a_moment(
    field: Field,
    ends: tuple[ClusterNode | None, ClusterNode | None],
    meanwhile: Callable[[], object],
) -> bool:
    """Cut, do something, heal; False if that took a slow machine so long that a node may die."""
    began = time.monotonic()
    field.machines.cut(*ends)
    meanwhile()
    time.sleep(max(0.0, began + MOMENT_S - time.monotonic()))  # The time is what is tested here.
    field.machines.heal(*ends)
    return time.monotonic() - began < TOO_LONG_S


def test_a_node_cut_off_from_the_head_for_a_moment_stays(field: Field) -> None:
    """Local work and work between nodes goes on; nobody is buried."""
    for number in range(TRIES):
        [node] = field.add(1)
        held, gate = f"held {number}", f"gate {number}"
        ref = hold.options(**on(node)).remote(field.mark(held), field.mark(gate), 4)
        field.has_begun(held)

        def work(ref: detray.ObjectRef[int] = ref, gate: str = gate) -> None:
            field.open(gate)
            assert detray.get(ref, timeout=30) == 4

        if cut_for_a_moment(field, (None, node), work):
            break
    else:
        pytest.fail("this machine is too slow to cut a link for a moment")
    again = make.options(**on(node)).remote(field.mark("made"), 1)
    assert detray.get(total.remote(again), timeout=30) == ARRAY_TOTAL
    assert field.living()[field.host(node)] == node.number
    assert field.begun(held) == 1


@pytest.mark.parametrize("is_one_way", [True, False])
def test_a_node_cut_off_from_the_head_for_long_is_buried(field: Field, is_one_way: bool) -> None:
    """Its runs are run elsewhere, what it says to others is not heard; healed, it is a new node."""
    node, _ = field.add(2)
    again = hold.options(**on(node)).remote(field.mark("again"), field.mark("gate"), 4)
    once = hold.options(**on(node), max_retries=0).remote(field.mark("once"), field.mark("gate"), 5)
    field.has_begun("again")
    field.has_begun("once")
    field.machines.cut(node, None, one_way=is_one_way)
    field.has_begun("again", 2)
    field.open("gate")
    assert detray.get(again, timeout=30) == 4
    with pytest.raises(errors.NodeDiedError, match=f"node {node.number}"):
        detray.get(once, timeout=30)
    field.machines.heal(node, None)
    until(lambda: field.living().get(field.host(node), 0) > node.number, "it is back")
    assert (field.begun("again"), field.begun("once")) == (2, 1)


def test_a_cut_in_the_middle_of_a_transfer(field: Field) -> None:
    """The rest of 100 MB comes after the cut, and every byte is right."""
    for _ in range(TRIES):
        [node] = field.add(1, object_store_memory=200 << 20)
        ref = _large.options(**on(node, soft=False)).remote()
        detray.wait([ref], fetch_local=False)
        # All of it would take 16 s: there is time to cut it.
        field.machines.impair(node, "tbf rate 50mbit burst 512kb latency 50ms")
        before = _received(field)
        found: list[Any] = []
        getter = threading.Thread(target=_fetch, args=(ref, found))
        getter.start()
        until(lambda before=before: _received(field) > before + 5_000_000, "some of it is there")
        arrived: list[int] = []

        def look(before: int = before, arrived: list[int] = arrived) -> None:
            arrived.append(_received(field) - before)

        is_short = cut_for_a_moment(field, (node, field.machines.head_node), look)
        field.machines.impair(node, "")
        getter.join(60)
        assert arrived[0] < 100_000_000
        if is_short:
            break
    else:
        pytest.fail("this machine is too slow to cut a link for a moment")
    assert (found[0] == np.random.default_rng(5).integers(0, 256, 100_000_000, np.uint8)).all()
    assert field.living()[field.host(node)] == node.number


@detray.remote
def _large() -> np.ndarray[Any, Any]:
    """100 MB."""
    return np.random.default_rng(5).integers(0, 256, 100_000_000, np.uint8)


def _fetch(ref: detray.ObjectRef[Any], found: list[Any]) -> None:
    """Get a value, or learn why there is none."""
    try:
        found.append(detray.get(ref, timeout=60))
    except errors.DetrayError as problem:
        found.append(problem)


def _received(field: Field) -> int:
    """Bytes that the interface of the driver's machine has received."""
    machines = field.machines
    home = machines.home_of(machines.head_node)

    def read() -> int:
        with open("/proc/thread-self/net/dev") as file:
            [line] = [line for line in file if "eth0:" in line]
        return int(line.split(":")[1].split()[0])

    return machines.on(home, read)


def test_a_full_disk(field: Field) -> None:
    """What finds no room any more fails and says so; the rest is right, and the node lives on."""
    machine = field.machines.new_machine(disk_bytes=64 << 20)
    [node] = field.add(1, machine=machine, object_store_memory=80 << 20)

    @detray.remote(**on(node, soft=False), max_retries=0)
    def fill(number: int) -> np.ndarray:
        return np.full(20_000_000, number, np.uint8)

    values: list[object] = []
    refs = [fill.remote(number) for number in range(12)]
    for ref in refs:
        try:
            detray.wait([ref], timeout=60, fetch_local=False)
            values.append(int(detray.get(ref, timeout=60)[-1]))
        except (errors.OutOfDiskError, errors.ObjectStoreFullError) as problem:
            values.append(str(problem))
    right = [value for number, value in enumerate(values) if value == number]
    full = [value for value in values if isinstance(value, str)]
    assert len(right) + len(full) == 12
    assert len(right) >= 3
    assert full
    assert "bytes" in full[0]
    del refs, ref
    until(lambda: _works(fill), "there is room again")
    assert field.living()[field.host(node)] == node.number


def _works(fill: Any) -> bool:
    try:
        return int(detray.get(fill.remote(7), timeout=30)[-1]) == 7
    except (errors.OutOfDiskError, errors.ObjectStoreFullError):
        return False
