"""Checkpoints: a core that is made of one is the core that was, to the byte (PROTOCOL T13)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from detray.core.config import GlobalConfig
from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_tables import GlobalTables
from detray.core.states import PENDING, READY
from detray.core.tables import Tables
from detray.trace.play import Maker, Opening, play, schedulers
from detray.trace.reading import Trace, open_trace
from detray.trace.travel import checkpoints
from detray.trace.travel.checkpoints import FrozenCore, weigh
from detray.trace.travel.rows import Rows
from detray_sim.traces import write_trace
from tests.trace.machine import Machine
from tests.trace.programs import dots, many, recorded, troubles
from tests.trace.simulated import run_cluster


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables are kept row by row, too, and small fields in pages."""
    monkeypatch.setattr(checkpoints, "ROWS_MIN", 2)
    monkeypatch.setattr(checkpoints, "PAGE_BYTES", 40)


def waiting(machine: Machine) -> None:
    """Tasks that wait in a queue, and values that stay."""
    work = machine.define("work")
    machine.get(*[machine.submit(work) for _ in range(60)])
    for _ in range(20):
        machine.put(30)


@pytest.mark.parametrize("kind", [Tables, GlobalTables])
def test_every_table_is_kept(kind):
    """Each field in exactly one of the ways."""
    layout = checkpoints._layout(kind)
    names = [*layout.constants, *layout.numbers, *(field.name for field in layout.fields)]
    assert sorted(names) == sorted(kind.__struct_fields__)
    assert layout.constants == ("config",)
    rows = {field.name for field in layout.fields if field.decode_row is not None}
    dicts = {f.name for f in msgspec.structs.fields(kind) if "dict[" in str(f.type)[:5]}
    assert rows == dicts and rows >= ({"tasks", "objects"} if kind is Tables else {"nodes"})


def test_large_tables_are_rows_and_small_ones_are_not(tmp_path, monkeypatch):
    """Rows cost on every access what they save when a checkpoint is made."""
    monkeypatch.setattr(checkpoints, "ROWS_MIN", 64)
    machine = Machine(tmp_path / "run.trace")
    core = machine.cores[0]
    assert type(FrozenCore(core, None)) is FrozenCore and type(core.tables.objects) is dict
    refs = [machine.put(10) for _ in range(64)]
    FrozenCore(core, None)
    assert type(core.tables.objects) is Rows and type(core.tables.workers) is dict
    machine.drop(*refs[:40])
    FrozenCore(core, None)
    assert type(core.tables.objects) is dict


def test_shared_instances_are_put_back():
    """A state without fields is the one that everybody compares with."""
    machine = Machine()
    work = machine.define("work")
    for _ in range(200):
        machine.submit(work)
    maker = schedulers(machine.recorder.header)[0]
    core: Any = FrozenCore(machine.cores[0], None).thaw(maker)
    states = [task.state for task in core.tables.tasks.values()]
    assert states.count(READY) > 10
    assert all(state is READY for state in states if state == READY)
    assert all(row.state is PENDING for row in core.tables.objects.values())


def test_a_policy_with_a_state_of_its_own_goes_along():
    """The draws of a random placement are no part of the tables."""
    config = GlobalConfig(placement="random")
    core = GlobalScheduler(config)
    core.placement.draws = 7  # type: ignore[attr-defined]  # of this policy
    maker = Maker(lambda: GlobalScheduler(config), lambda state: GlobalScheduler(config))
    frozen = FrozenCore(core, None)
    core.placement.draws = 9  # type: ignore[attr-defined]  # the same
    again: Any = frozen.thaw(maker)
    assert again.placement.draws == 7 and again.placer.placement is again.placement


def test_a_core_without_tables_is_kept_as_its_snapshot():
    """Any core that has a snapshot can be replayed."""

    class Counter:
        def __init__(self, count: int = 0) -> None:
            self.count = count

        def handle(self, *stimuli: Any, now_ns: int) -> list[Any]:
            self.count += 1
            return []

        def snapshot(self) -> bytes:
            return str(self.count).encode()

    maker = Maker(Counter, lambda state: Counter(int(state)))
    frozen = FrozenCore(Counter(5), None)
    assert frozen.thaw(maker).snapshot() == b"5"


def test_what_did_not_change_is_shared(tmp_path):
    """A second checkpoint of the same state takes next to nothing."""
    machine = Machine()
    waiting(machine)
    first = FrozenCore(machine.cores[0], None)
    second = FrozenCore(machine.cores[0], first)
    assert weigh((first, second)) - weigh((first,)) == checkpoints.OVERHEAD_BYTES
    machine.put(9)
    third = FrozenCore(machine.cores[0], second)
    assert weigh((second, third)) < weigh((second,)) * 1.5


def test_a_packed_checkpoint_is_the_same_core():
    """Compressed, it takes less and gives the same."""
    machine = Machine()
    waiting(machine)
    frozen = FrozenCore(machine.cores[0], None)
    before = weigh((frozen,))
    frozen.pack()
    maker = schedulers(machine.recorder.header)[0]
    assert frozen.thaw(maker).snapshot() == machine.cores[0].snapshot()
    assert weigh((frozen,)) < before


def check_all(trace: Trace, every: int, packed: int = 0) -> int:
    """Checkpoints all along give, at last, the cores that were; how many there were."""
    makers = schedulers(trace.header)
    kept: list[tuple[int, FrozenCore, bytes]] = []
    last: dict[int, FrozenCore] = {}
    cores: Any = {}
    for item in play(trace):
        if isinstance(item, Opening):
            cores = item.cores
            continue
        core = item.step.core
        if item.step.number % every == 0 and core in cores:
            last[core] = FrozenCore(cores[core], last.get(core))
            kept.append((core, last[core], cores[core].snapshot()))
            if item.step.number % 3 == 0:  # go on with a core that is made of it
                cores[core] = last[core].thaw(makers[core])
        assert item.is_same
    for number, (_, frozen, _) in enumerate(kept):
        if packed and number % packed == 0:
            frozen.pack()
    for core, frozen, state in kept:
        again = frozen.thaw(makers[core])
        assert again.snapshot() == state
    return len(kept)


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("programs", [(dots, troubles), (waiting,), (many,)])
def test_cores_of_a_session_are_what_they_were(tmp_path, programs, every):
    """At many steps of many traces, local and global scheduler."""
    assert check_all(recorded(tmp_path / "run.trace", *programs), every, packed=every - 1) > 4


@settings(max_examples=6, deadline=None)
@given(seed=some.integers(0, 1 << 32), nodes=some.integers(1, 5), every=some.integers(1, 9))
def test_cores_of_simulated_clusters_are_what_they_were(tmp_path_factory, seed, nodes, every):
    """Nodes and heads, with a dead worker."""
    path = tmp_path_factory.mktemp("sim") / "cluster.trace"
    write_trace(run_cluster(nodes, seed), path)
    assert check_all(open_trace(path), every, packed=2) > 10
