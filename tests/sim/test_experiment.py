"""Whole experiments: the real cores run a workload, and the result is what theory allows."""

from __future__ import annotations

import os
import subprocess
import sys
from heapq import heappop, heappush
from itertools import accumulate
from statistics import fmean, stdev

import msgspec
import pytest

from detray_sim.draws import Draws
from detray_sim.experiment import Experiment, run
from detray_sim.report import summary
from detray_sim.result import RunResult
from detray_sim.scenario import Scenario, ScenarioError, parse_scenario
from detray_sim.theory import bounds, critical_path_ns, graham_bound_ns, graph_of, mmc_wait, work_ns
from detray_sim.workload import SECOND_NS, UNIT, TaskSpec, Workload
from detray_sim.workloads.generators import generate
from detray_sim.workloads.wfformat import load_wfformat
from tests.sim.data import ROOT, data_files

GIGABIT = {"model": "maxmin", "bandwidth": "1Gbit", "latency": "50us"}


def scenario(nodes: int = 4, cpus: int = 2, policy: str = "hybrid", **tables: object) -> Scenario:
    """A scenario without a workload worth the name: tests bring their own."""
    top = {
        "workload": {"generator": "bag", "tasks": 1},
        "cluster": {"nodes": nodes, "cpus": cpus, "store": "1TiB"},
        "policy": {"name": policy},
        **tables,
    }
    return parse_scenario(top, "test")


def play(workload: Workload, seed: int = 0, **given: object) -> RunResult:
    """Run a workload; every task must have run, after its inputs."""
    result = run(scenario(**given), seed, workload)  # type: ignore[arg-type]  # as they come
    check_lives(workload, result)
    return result


def check_lives(workload: Workload, result: RunResult) -> None:
    """Submitted, ready, started, finished: in this order, and in that of the graph."""
    for task, record in zip(workload.tasks, result.tasks, strict=True):
        assert not record.failed
        assert 0 <= record.submitted_ns <= record.ready_ns <= record.started_ns
        speed = result.nodes[record.node].speed_permille
        assert record.finished_ns - record.started_ns == task.duration_ns * 1000 // speed
        assert record.submitted_ns >= task.submit_ns
        for producer, _ in task.inputs:
            assert result.tasks[producer].finished_ns <= record.started_ns
    least = bounds(workload, result.nodes).lower_bound_ns
    assert result.makespan_ns + min(task.submit_ns for task in workload.tasks) >= least


def task(name: str, seconds: float, **more: object) -> TaskSpec:
    """A task of that many seconds."""
    ns = round(seconds * SECOND_NS)
    return TaskSpec(id=name, name="t", duration_ns=ns, **more)  # type: ignore[arg-type]


# ----------------------------------------------------------------------- what a run is


def test_a_chain_takes_its_length() -> None:
    """Nothing but durations takes time when costs are free and the network instant."""
    result = play(generate("chain", length=20, duration_ns=SECOND_NS))
    assert result.makespan_ns == 20 * SECOND_NS
    assert result.transfers == ()


def test_a_transfer_takes_its_time() -> None:
    """Two machines, of which each can run one of two tasks: the second begins a transfer later."""
    groups = [
        {"nodes": 1, "cpus": 1, "resources": {"left": 1}},
        {"nodes": 1, "cpus": 1, "resources": {"right": 1}},
    ]
    tasks = (
        task("a", 1, demand=(("CPU", UNIT), ("left", UNIT)), outputs=(125_000_000,)),
        task("b", 1, demand=(("CPU", UNIT), ("right", UNIT)), inputs=((0, 0),)),
    )
    result = run(
        scenario(cluster={"group": groups}, network=GIGABIT | {"latency": "0s"}),
        0,
        Workload(name="two", tasks=tasks),
    )
    assert [record.node for record in result.tasks] == [0, 1]
    assert result.makespan_ns == 3 * SECOND_NS
    (moved,) = result.transfers
    assert (moved.source, moved.target, moved.size_bytes, moved.task) == (0, 1, 125_000_000, 0)
    assert moved.finished_ns - moved.started_ns == SECOND_NS


def test_tasks_of_all_kinds_run() -> None:
    """No outputs, several, empty ones, no CPU, half a CPU, several, given in time."""
    tasks = (
        task("nothing", 0.1, outputs=()),
        task("several", 0.1, outputs=(0, 10, 10_000_000)),
        task("no cpu", 0.1, demand=(), inputs=((1, 0), (1, 2))),
        task("half", 0.1, demand=(("CPU", UNIT // 2),), inputs=((1, 1),)),
        task("wide", 0.1, demand=(("CPU", 2 * UNIT),), inputs=((2, 0), (3, 0))),
        task("late", 0, submit_ns=5 * SECOND_NS, inputs=((1, 2),)),
    )
    for policy in ("hybrid", "blevel", "etf", "random-static"):
        result = play(Workload(name="kinds", tasks=tasks), policy=policy, network=GIGABIT)
        assert result.tasks[5].submitted_ns == 5 * SECOND_NS


def test_producers_are_submitted_first_even_if_they_come_later() -> None:
    """A task that is submitted before what it takes waits for its submission."""
    tasks = (task("a", 1, submit_ns=10 * SECOND_NS), task("b", 1, inputs=((0, 0),)), task("c", 1))
    result = play(Workload(name="late", tasks=tasks))
    assert [record.submitted_ns // SECOND_NS for record in result.tasks] == [10, 10, 0]


def test_a_faster_node_takes_less_time() -> None:
    """Durations are those of a core of speed 1."""
    cluster = {"group": [{"nodes": 1, "cpus": 1, "speed": 2.5}]}
    assert (
        play(generate("chain", length=4, duration_ns=SECOND_NS), cluster=cluster).makespan_ns
        == 1.6e9
    )


def test_what_no_node_can_run_is_refused() -> None:
    """Before anything runs, with the task and what it needs."""
    wide = Workload(name="wide", tasks=(task("a", 1, demand=(("CPU", 3 * UNIT),)),))
    with pytest.raises(ScenarioError, match="no node can run task 'a', which needs CPU 3"):
        run(scenario(), 0, wide)


def test_costs_are_felt() -> None:
    """With measured costs the same chain takes longer; a worker's start is one of them."""
    chain = generate("chain", length=20, duration_ns=SECOND_NS)
    measured = run(scenario(costs={"preset": "measured"}), 0, chain).makespan_ns
    slower = run(scenario(costs={"preset": "measured", "worker_start": "1s"}), 0, chain).makespan_ns
    assert 20 * SECOND_NS < measured < 20.2 * SECOND_NS
    assert slower - measured > 0.9 * SECOND_NS


def test_nothing_is_left_after_a_run() -> None:
    """The program let go of everything, and every core of what was its."""
    chosen = scenario(policy="spread", network=GIGABIT)
    experiment = Experiment(chosen, generate("cholesky", tiles=6), 0)
    experiment.run()
    experiment.cluster.settle()
    for node in experiment.cluster.nodes:
        assert not node.core.tables.tasks
        assert not node.core.tables.objects
        assert node.core.tables.arena.used == 0


def test_progress_is_told() -> None:
    """Now and then, and never more than there is."""
    heard: list[tuple[int, int]] = []
    run(scenario(), 0, generate("bag", tasks=2_500), lambda *told: heard.append(told))
    assert heard == [(1000, 2500), (2000, 2500)]


# --------------------------------------------------------------------------- theory


SHAPES = (
    ("bag", {"tasks": 60}),
    ("cholesky", {"tiles": 6}),
    ("fork_join", {"width": 13, "rounds": 3}),
    ("map_reduce", {"maps": 12, "reduces": 5}),
    ("layered", {"layers": 6, "width": 9, "varied": True}),
    ("tree_reduce", {"leaves": 40}),
)


@pytest.mark.parametrize(("kind", "parameters"), SHAPES, ids=[kind for kind, _ in SHAPES])
@pytest.mark.parametrize("policy", ["hybrid", "locality", "random", "stealing", "heft", "dls"])
def test_no_run_beats_the_bounds(kind: str, parameters: dict[str, int], policy: str) -> None:
    """Work, critical path and releases, with transfers and without."""
    workload = generate(kind, 3, duration_law="lognormal", size_bytes=2 << 20, **parameters)
    play(workload, policy=policy)
    play(workload, policy=policy, network=GIGABIT)


@pytest.mark.parametrize(("kind", "parameters"), SHAPES, ids=[kind for kind, _ in SHAPES])
@pytest.mark.parametrize("policy", ["blevel", "tlevel", "spread", "locality", "random"])
def test_a_greedy_run_keeps_grahams_bound(
    kind: str, parameters: dict[str, int], policy: str
) -> None:
    """No core is idle while a task waits: W/P + (1 - 1/P) CP, through the whole protocol."""
    for seed in range(3):
        workload = generate(kind, seed, duration_law="exponential", size_bytes=0, **parameters)
        result = play(workload, nodes=3, cpus=2, policy=policy)
        work, path = work_ns(workload.tasks), critical_path_ns(graph_of(workload))
        assert result.makespan_ns <= graham_bound_ns(work, path, 6)


def queue(servers: int, load: float, count: int, seed: int) -> Workload:
    """Poisson arrivals, exponential service of a mean of one second."""
    draws = Draws(seed, f"queue {servers}")
    gap = SECOND_NS / (servers * load)
    times = accumulate(round(draws.exponential("gap", k, gap)) for k in range(count))
    tasks = tuple(
        TaskSpec(
            id=str(k),
            name="customer",
            duration_ns=round(draws.exponential("service", k, SECOND_NS)),
            submit_ns=at_ns,
        )
        for k, at_ns in enumerate(times)
    )
    return Workload(name="queue", tasks=tasks)


def waits(servers: int, workload: Workload) -> list[int]:
    """From submission to the start, of each customer of one node."""
    result = play(workload, nodes=1, cpus=servers)
    return [record.started_ns - record.submitted_ns for record in result.tasks]


QUEUES = ((1, 0.8), (4, 0.8), (32, 0.9))
"""Servers and load."""


def textbook(servers: int, workload: Workload) -> list[int]:
    """The same by the recursion: who comes next is served by the server that is free first."""
    free = [0] * servers
    found = []
    for customer in workload.tasks:
        start_ns = max(heappop(free), customer.submit_ns)
        heappush(free, start_ns + customer.duration_ns)
        found.append(start_ns - customer.submit_ns)
    return found


@pytest.mark.parametrize(("servers", "load"), QUEUES)
def test_a_node_serves_in_order_of_arrival(servers: int, load: float) -> None:
    """Every customer waits exactly as long as in the textbook's recursion."""
    workload = queue(servers, load, 6_000, 2)
    assert waits(servers, workload) == textbook(servers, workload)


@pytest.mark.parametrize(("servers", "load"), QUEUES)
def test_such_a_node_is_an_mmc_queue(servers: int, load: float) -> None:
    """The mean wait of 100,000 customers, the first of whom were just served one by one, agrees
    with Erlang's C within three standard deviations, estimated from the means of 20 batches."""
    workload = queue(servers, load, 100_000, 2)
    assert workload.tasks[:6_000] == queue(servers, load, 6_000, 2).tasks
    seconds = [wait / SECOND_NS for wait in textbook(servers, workload)]
    means = [fmean(seconds[at : at + 5_000]) for at in range(0, 100_000, 5_000)]
    deviation = stdev(means) / len(means) ** 0.5
    assert abs(fmean(means) - mmc_wait(servers, load)) <= 3 * deviation
    assert deviation < 0.15 * mmc_wait(servers, load)


# --------------------------------------------------------------------------- real inputs


def test_all_recorded_workflows_run() -> None:
    """Every task of every one, above the bounds."""
    for path in data_files("wfinstances", "*.json"):
        workload = load_wfformat(path)
        most = max(dict(spec.demand).get("CPU", 0) for spec in workload.tasks) // UNIT
        result = run(
            scenario(4, max(48, most + 1), "blevel", network=GIGABIT | {"bandwidth": "10Gbit"}),
            0,
            workload,
        )
        assert all(record.finished_ns >= 0 for record in result.tasks), path.name
        assert result.makespan_ns >= bounds(workload, result.nodes).lower_bound_ns, path.name


# --------------------------------------------------------------------------- faults


ROLL = [
    {"at": f"{1 + 3 * number}s", "kind": "node_restarts", "node": number, "for": "1s"}
    for number in range(1, 4)
]


def test_what_dies_with_a_machine_is_made_again() -> None:
    """Three of four machines die one after the other; every task ends, some were run again."""
    workload = generate(
        "layered", 1, layers=8, width=12, duration_ns=SECOND_NS // 2, size_bytes=1 << 20
    )
    chosen = scenario(
        policy="spread", costs={"preset": "measured"}, faults={"planned": ROLL}, network=GIGABIT
    )
    result = run(chosen, 1, workload)
    assert all(record.finished_ns >= 0 for record in result.tasks)
    assert sum(record.attempt > 0 for record in result.tasks) > 0
    assert result.faults["crash_node"] == 3
    assert run(chosen, 1, workload).digest == result.digest


def test_a_task_that_always_dies_has_failed() -> None:
    """Its workers are killed again and again: the record says why it has no value."""
    faults = {
        "planned": [{"at": f"{s}s", "kind": "workers_killed", "node": 0} for s in range(1, 9)]
    }
    workload = Workload(name="doomed", tasks=(task("a", 100), task("b", 1, inputs=((0, 0),))))
    result = run(scenario(1, 1, faults=faults), 0, workload)
    assert [record.finished_ns for record in result.tasks] == [-1, -1]
    assert "died" in result.tasks[1].failed or "killed" in result.tasks[1].failed
    assert summary(result, workload)["failed"] == 2


# ----------------------------------------------------------------------- determinism


def test_equal_runs_are_equal() -> None:
    """Digest, records and transfers; another seed is another run."""
    workload = generate("cholesky", tiles=6)
    chosen = scenario(policy="random", network=GIGABIT)
    first, again, other = (run(chosen, seed, workload) for seed in (1, 1, 2))
    assert stripped(first) == stripped(again)
    assert first.digest != other.digest


def stripped(result: RunResult) -> RunResult:
    """Without what the wall clock says."""
    return msgspec.structs.replace(result, wall_s=0.0, cpu_s=0.0)


@pytest.mark.parametrize("policy", ["hybrid", "etf"])
def test_hash_seeds_and_addresses_do_not_matter(policy: str) -> None:
    """Fresh processes with other hash seeds give the same digest."""
    code = (
        "from detray_sim.cli import main;"
        f"main(['run', 'sim/scenarios/cholesky.toml', '--json', '--policy', {policy!r}])"
    )
    digests = {
        msgspec.json.decode(
            subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | {"PYTHONHASHSEED": seed},
                cwd=ROOT,
                capture_output=True,
                check=True,
            ).stdout
        )["runs"][0]["digest"]
        for seed in ("0", "1", "31337")
    }
    assert len(digests) == 1
