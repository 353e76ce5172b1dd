"""Deaths of real processes: workers, services, machines, the head, drivers, and all of them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detray
from detray import errors
from detray.core.durable import DurableTables, digest
from detray.runtime.head.file_store import FileStore
from detray.runtime.head.store import read_tables
from detray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.cluster.conftest import begin_program, until
from tests.cluster.machines import (
    WORDS,
    Field,
    die_once,
    field,
    hold,
    machines,
    make,
    on,
    put_there,
    total,
)
from tests.support.netns import processes_with, sweep

__all__ = ["field", "machines"]


def test_a_worker_that_is_killed_far_away_costs_one_attempt(field: Field) -> None:
    """Its task is run again; one that may begin only once fails and says so."""
    field.add(1)
    again = die_once.options(resources={"far": 1}).remote(field.mark("again"), 7)
    once = die_once.options(resources={"far": 1}, max_retries=0).remote(field.mark("once"), 8)
    assert detray.get(again, timeout=30) == 7
    with pytest.raises(errors.WorkerCrashedError):
        detray.get(once, timeout=30)
    assert (field.begun("again"), field.begun("once")) == (2, 1)


def test_what_only_a_dead_node_had_is_made_again(field: Field) -> None:
    """Through a chain of tasks; what a task there had put is lost, and the error says why."""
    [victim] = field.add(1)
    one = make.options(**on(victim)).remote(field.mark("one"), 3)
    two = make.options(**on(victim)).remote(field.mark("two"), 5, one)
    three = make.options(**on(victim)).remote(field.mark("three"), 7, two)
    [inner] = detray.get(put_there.options(**on(victim)).remote(4))
    detray.wait([three], fetch_local=False)  # it would wait for those that take both CPUs
    waiting = hold.options(**on(victim)).remote(field.mark("waits"), field.mark("gate"), 9)
    once = hold.options(**on(victim), max_retries=0).remote(
        field.mark("waits once"), field.mark("gate"), 9
    )
    field.has_begun("waits")
    field.has_begun("waits once")
    victim.kill_service()
    field.open("gate")
    sums = np.arange(WORDS, dtype=np.int64)
    expected = 7 * sums + (5 * sums + (3 * sums).sum()).sum()
    assert (detray.get(three, timeout=30) == expected).all()
    assert detray.get(waiting, timeout=30) == 9
    with pytest.raises(errors.NodeDiedError, match=f"node {victim.number}"):
        detray.get(once, timeout=30)
    with pytest.raises(errors.OwnerDiedError, match=f"node {victim.number}"):
        detray.get(inner, timeout=30)
    begun = [field.begun(name) for name in ("one", "two", "three", "waits", "waits once")]
    assert begun == [2, 2, 2, 2, 1]


def test_two_machines_lost_at_once(field: Field) -> None:
    """Arrays on both, each made of the other's; everything is there again afterwards."""
    left, right = field.add(2)
    here = make.options(**on(left)).remote(field.mark("a"), 1)
    there = make.options(**on(right)).remote(field.mark("b"), 2, here)
    back = make.options(**on(left)).remote(field.mark("c"), 3, there)
    refs = [here, there, back]
    detray.wait(refs, num_returns=3, fetch_local=False)
    for victim in (left, right):
        victim._launched.kill(whole=True)
    sums = np.arange(WORDS, dtype=np.int64)
    values = [sums, 2 * sums + sums.sum()]
    values.append(3 * sums + values[1].sum())
    assert detray.get(total.remote(*refs), timeout=40) == sum(int(v.sum()) for v in values)


def test_a_frozen_machine_comes_back_as_a_new_one(field: Field) -> None:
    """What it ran is run elsewhere; thawed, it accepts and reports nothing of its old life."""
    victim, other = field.add(2)
    ref = hold.options(**on(victim)).remote(field.mark("frozen"), field.mark("gate"), 5)
    kept = make.options(**on(victim)).remote(field.mark("kept"), 2)
    detray.wait([kept], fetch_local=False)
    field.has_begun("frozen")
    old_workers = {
        pid for pid, name in processes_with(_tmpdir(field, victim)) if "service" not in name
    }
    victim.freeze()
    field.has_begun("frozen", 2)
    field.open("gate")
    assert detray.get(ref, timeout=30) == 5
    assert field.host(victim) not in field.living()
    victim.thaw()
    until(lambda: field.living().get(field.host(victim), 0) > other.number, "it is a member again")
    assert not old_workers & {pid for pid, _ in processes_with(_tmpdir(field, victim))}
    assert detray.get(total.remote(kept), timeout=30) == int(2 * np.arange(WORDS).sum())
    assert field.begun("frozen") == 2
    new = NodeAffinitySchedulingStrategy(f"{field.living()[field.host(victim)]:056x}", soft=False)
    again = make.options(scheduling_strategy=new).remote(field.mark("again"), 1)
    assert detray.get(total.remote(again), timeout=30) == int(np.arange(WORDS).sum())


def _tmpdir(field: Field, node: Any) -> str:
    return f"TMPDIR={field.machines.home_of(node).directory}"


def test_the_head_dies_and_another_goes_on(field: Field) -> None:
    """Running tasks run on and are not run twice, drivers get what they wait for, and the durable
    tables are those of before."""
    cluster = field.machines
    field.add(1)
    far = {"resources": {"far": 1}}
    refs = [
        hold.options(**far, max_retries=retries).remote(
            field.mark(f"held {retries}"), field.mark("gate"), retries
        )
        for retries in (0, 3)
    ]
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(detray.get(refs, timeout=60)))
    waiter.start()
    for retries in (0, 3):
        field.has_begun(f"held {retries}")
    lost = cluster.ask("digest")
    cluster.kill_head()
    tables = _durable(cluster._own_dir)
    assert digest(tables) == lost
    asked = make.options(**far).remote(field.mark("asked while it was away"), 1)
    cluster.restart_head()
    until(lambda: len(field.living()) == 2, "both nodes have returned")
    tables.epoch += 1
    assert cluster.ask("digest") == digest(tables)
    field.open("gate")
    waiter.join(60)
    assert found == [[0, 3]]
    assert detray.get(total.remote(asked), timeout=30) == int(np.arange(WORDS).sum())
    assert [field.begun(f"held {retries}") for retries in (0, 3)] == [1, 1]
    late = begin_program(
        f"""
        import detray, os
        detray.init(address={cluster.address!r}, log_to_driver=False)
        print(detray.get(detray.remote(lambda: 6 * 7).options(resources={{"far": 1}}).remote()))
        """,
        TMPDIR=str(cluster.home_of(cluster.head_node).directory),
    )
    out, err = late.communicate(timeout=60)
    assert out == "42\n", err


def _durable(folder: str) -> DurableTables:
    """What the log of a dead head says."""
    store = FileStore(folder)
    store.open()
    try:
        return read_tables(store.load(), folder)
    finally:
        store.close()


def test_a_driver_that_is_killed_ends_what_was_its_own(field: Field) -> None:
    """Its tasks and objects on every node; another driver goes on."""
    cluster = field.machines
    field.add(1)
    mine = hold.options(resources={"far": 1}).remote(field.mark("mine"), field.mark("gate"), 3)
    field.has_begun("mine")
    other = begin_program(
        f"""
        import detray, time
        import numpy as np
        from tests.cluster.machines import hold
        detray.init(address={cluster.address!r}, log_to_driver=False)
        big = detray.put(np.zeros(1_000_000))
        seen = detray.remote(lambda a: a).options(resources={{"far": 1}}).remote(big)
        detray.wait([seen], fetch_local=False)
        held = hold.options(resources={{"far": 1}}).remote({field.mark("theirs")!r}, "/nowhere", 1)
        detray.get(held)
        """,
        TMPDIR=str(cluster.home_of(cluster.head_node).directory),
    )
    field.has_begun("theirs")
    other.kill()
    other.wait(10)

    def left() -> tuple[int, int]:
        rows = [cluster.ask("list", kind, 100)["rows"] for kind in ("objects", "tasks")]
        return len(rows[0]), len({row["id"] for row in rows[1]})

    until(lambda: left()[1] == 1 and len(cluster.ask("list", "jobs", 9)) == 1, "its job is over")
    field.open("gate")
    assert detray.get(mine, timeout=30) == 3
    del mine
    until(lambda: left() == (0, 0), "nothing is left of either")


def test_everything_is_killed_at_once(tmp_path: Path) -> None:
    """The next cluster to be made finds nothing but names, and removes them."""
    program = begin_program(
        f"""
        import detray
        from tests.cluster.machines import hold, make
        from tests.support.netns import Machines, why_not
        made = Machines(is_apart=not why_not())
        made.add_nodes(2, object_store_memory=100 << 20, resources={{"far": 9}})
        made.connect()
        kept = [make.remote({str(tmp_path / "made")!r}, n) for n in range(4)]
        detray.wait(kept, num_returns=4)
        far = hold.options(resources={{"far": 9}})
        detray.get(far.remote({str(tmp_path / "held")!r}, "/nowhere", 1))
        """
    )
    base = Path(f"/tmp/dtm-{program.pid}")
    try:
        until(lambda: (tmp_path / "held").exists(), "it is busy", 60)
        while found := processes_with(f"TMPDIR={base}/"):
            for pid, _ in [(program.pid, ""), *found]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        assert base.exists()
    finally:
        program.kill()
        _, err = program.communicate(timeout=30)  # from now on others may sweep, too
    assert "Traceback" not in err
    sweep()
    assert not base.exists()
    assert not processes_with(f"TMPDIR={base}/")
