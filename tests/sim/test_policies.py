"""Placement policies: what they know, what they choose, and that they are as good as they claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from detray.core.config import GlobalConfig
from detray.core.durable import DurableTables
from detray.core.head_tables import GlobalTables
from detray.core.placement import Node
from detray.ids import NodeID
from detray_sim.experiment import run
from detray_sim.policies import CATALOGUE, FewestBytes, Knowledge, Tracker, core_policy
from detray_sim.policies.knowledge import believed_durations
from detray_sim.result import RunResult
from detray_sim.scenario import ScenarioError, parse_scenario
from detray_sim.theory import graph_of, hlfet
from detray_sim.workload import SECOND_NS, UNIT, TaskSpec, Workload
from detray_sim.workloads.estee import load_estee
from detray_sim.workloads.generators import generate
from detray_sim.workloads.stg import load_optima, load_stg
from tests.sim.data import data_files, data_folder

GIB = 1 << 30


def play(
    workload: Workload,
    policy: str,
    nodes: int = 4,
    cpus: int = 1,
    seed: int = 0,
    network: dict[str, object] | None = None,
    **more: object,
) -> RunResult:
    """Run a workload under a policy."""
    top = {
        "workload": {"generator": "bag", "tasks": 1},
        "cluster": {"nodes": nodes, "cpus": cpus, "store": "1024TiB"},
        "policy": {"name": policy, **more},
        "network": network or {},
    }
    return run(parse_scenario(top, "test"), seed, workload)


def spec(name: str, seconds: int, **more: object) -> TaskSpec:
    """A task of so many seconds."""
    return TaskSpec(id=name, name="t", duration_ns=seconds * SECOND_NS, **more)  # type: ignore[arg-type]


# ------------------------------------------------------------------ what policies know

THREE = Workload(
    name="three",
    tasks=(
        spec("a", 2, outputs=(GIB,), expected_ns=5 * SECOND_NS),
        spec("b", 4, inputs=((0, 0),)),
        spec("c", 6, inputs=((0, 0),)),
    ),
)


def test_what_is_believed_of_durations() -> None:
    """The truth, the mean, what a user would say where there is one, nothing."""
    seconds = {
        imode: [ns // SECOND_NS for ns in believed_durations(THREE, imode)]
        for imode in ("exact", "mean", "user", "blind")
    }
    assert seconds == {
        "exact": [2, 4, 6],
        "mean": [4, 4, 4],
        "user": [5, 4, 4],
        "blind": [1, 1, 1],
    }


def knowledge(workload: Workload, bytes_per_s: int = GIB) -> Knowledge:
    """Exact, on a network of 1 GiB/s."""
    return Knowledge(workload, range(len(workload.tasks)), "exact", bytes_per_s, 0)


def test_levels_with_and_without_transfers() -> None:
    """b- and t-levels forget them, upward ranks do not."""
    knows = knowledge(THREE)
    assert [level // SECOND_NS for level in knows.b_levels()] == [8, 4, 6]
    assert [level // SECOND_NS for level in knows.t_levels()] == [0, 2, 2]
    assert [rank // SECOND_NS for rank in knows.upward_ranks()] == [9, 4, 6]


def tracked(workload: Workload, nodes: int, cpus: int = 1) -> tuple[Tracker, list[Node], list]:
    """A tracker of so many empty nodes, and the heap of ends that it reads."""
    tables = GlobalTables(GlobalConfig(), DurableTables())
    for number in range(nodes):
        totals = {"CPU": cpus * UNIT}
        tables.nodes[NodeID(number)] = Node(NodeID(number), 1, f"n{number}", totals)
    ends: list[tuple[int, int]] = []
    tracker = Tracker(knowledge(workload), tables, ends, {"n1": 2000})
    return tracker, list(tables.nodes.values()), ends


def test_estimates_count_what_is_queued() -> None:
    """A node that was given tasks is not idle, though none of them has begun there."""
    bag = Workload(name="bag", tasks=tuple(spec(str(k), k + 1) for k in range(5)))
    tracker, (first, second), _ = tracked(bag, 2)
    assert tracker.start_ns(4, first) == 0
    tracker.place(0, first)
    tracker.place(1, first)
    assert tracker.start_ns(4, first) == 3 * SECOND_NS
    assert tracker.start_ns(4, second) == 0
    assert tracker.end_ns(3, second, 0) == 2 * SECOND_NS  # its cores are twice as fast


def test_estimates_count_what_is_on_its_way() -> None:
    """Bytes that a task placed before will fetch are not fetched twice; ends free cores."""
    tracker, (first, second), ends = tracked(THREE, 2)
    tracker.place(0, first)
    ends.append((2 * SECOND_NS, 0))
    tracker.tables.now_ns = 2 * SECOND_NS
    tracker.catch_up()
    assert (tracker.missing_bytes(1, first), tracker.missing_bytes(1, second)) == (0, GIB)
    assert tracker.start_ns(1, first) == 2 * SECOND_NS
    assert tracker.start_ns(1, second) == 3 * SECOND_NS
    tracker.place(1, second)
    assert tracker.missing_bytes(2, second) == 0
    # It begins at 3 s there, runs at twice the speed, and the next waits for its core.
    assert tracker.start_ns(2, second) == 5 * SECOND_NS


def test_ends_that_are_to_come_do_not_count() -> None:
    """The heap may know the future; the tracker reads it up to now."""
    tracker, (first, _), ends = tracked(THREE, 2)
    tracker.place(0, first)
    ends.append((2 * SECOND_NS, 0))
    tracker.tables.now_ns = 2 * SECOND_NS - 1
    tracker.catch_up()
    assert tracker.roomy(1, (("CPU", UNIT),), 0) != list(tracker.tables.nodes.values())


# --------------------------------------------------------------------- what they choose


@pytest.mark.parametrize("policy", CATALOGUE)
@pytest.mark.parametrize("imode", ["exact", "mean", "user", "blind"])
def test_every_policy_ends_every_task(policy: str, imode: str) -> None:
    """Whatever it knows, on mixed demands; equal runs are equal."""
    workload = generate("layered", 2, layers=5, width=9, duration_law="exponential")
    network = {"model": "simple", "bandwidth": "1Gbit", "latency": "1ms"}
    first = play(workload, policy, 3, 2, network=network, imode=imode)
    assert all(record.finished_ns >= 0 for record in first.tasks)
    assert play(workload, policy, 3, 2, network=network, imode=imode).digest == first.digest


def test_the_longest_way_goes_first() -> None:
    """b-levels first on one core, t-levels otherwise."""
    tasks = (
        spec("short", 1),
        spec("long", 3),
        spec("head", 1),
        spec("tail", 9, inputs=((2, 0),)),
    )
    workload = Workload(name="order", tasks=tasks)

    def order(policy: str) -> list[str]:
        records = play(workload, policy, 1).tasks
        return [record.id for record in sorted(records, key=lambda record: record.started_ns)]

    assert order("blevel") == ["head", "tail", "long", "short"]
    assert order("tlevel") == ["short", "long", "head", "tail"]


def test_heft_waits_for_a_fast_core() -> None:
    """A task ends earlier behind another one on a fast node than at once on a slow one."""
    top = {
        "workload": {"generator": "bag", "tasks": 2, "duration": "8s"},
        "cluster": {"group": [{"nodes": 1, "cpus": 1}, {"nodes": 1, "cpus": 1, "speed": 4}]},
        "policy": {"name": "heft"},
    }
    records = run(parse_scenario(top, "test")).tasks
    assert [record.node for record in records] == [1, 1]
    assert max(record.finished_ns for record in records) == 4 * SECOND_NS


def test_early_policies_use_all_nodes() -> None:
    """None of them piles a bag on one node, as estimates that forget queues do."""
    bag = generate("bag", tasks=64, duration_ns=SECOND_NS)
    for policy in ("heft", "mcp", "etf", "dls"):
        assert play(bag, policy, 8, 2).makespan_ns == 4 * SECOND_NS


def test_locality_wins_where_bytes_are_heavy() -> None:
    """A chain of large values stays where it is under all that look at bytes."""
    chains = []
    for chain in range(4):
        for link in range(5):
            inputs = ((chain * 5 + link - 1, 0),) if link else ()
            chains.append(spec(f"{chain}.{link}", 1, inputs=inputs, outputs=(GIB,)))
    workload = Workload(name="chains", tasks=tuple(chains))
    network = {"model": "maxmin", "bandwidth": "1Gbit"}
    for policy in ("locality", "blevel", "heft", "mcp", "etf", "dls"):
        result = play(workload, policy, 4, 1, network=network)
        assert (result.makespan_ns, result.transfers) == (5 * SECOND_NS, ()), policy


def test_random_is_drawn_beforehand() -> None:
    """The node of a task depends on the seed and its number only, whatever else runs."""
    few, many = (generate("bag", tasks=count) for count in (20, 40))
    places = [[record.node for record in play(bag, "random-static").tasks] for bag in (few, many)]
    assert places[0] == places[1][:20]
    other = [record.node for record in play(few, "random-static", seed=1).tasks]
    assert other != places[0]


def test_stealing_repairs_a_bad_start() -> None:
    """Queues are filled at once; nodes that run dry get what waits elsewhere."""
    bag = generate("bag", 1, tasks=200, duration_law="exponential", duration_ns=SECOND_NS)
    stolen = play(bag, "stealing", 8).makespan_ns
    assert stolen < play(bag, "random-static", 8).makespan_ns


def test_an_interval_between_decisions_costs_time() -> None:
    """A chain through a head that decides once a second takes a second for each shorter link."""
    chain = generate("chain", length=5, duration_ns=SECOND_NS * 6 // 10, size_bytes=0)
    assert play(chain, "blevel", 2).makespan_ns == 3 * SECOND_NS
    waiting_ns = play(chain, "blevel", 2, decision_interval="1s").makespan_ns
    assert 4.6 * SECOND_NS <= waiting_ns <= 5.6 * SECOND_NS


class Backwards(FewestBytes):
    """The last task first."""

    def prepare(self) -> list[int]:
        """Negative numbers."""
        return [-number for number in range(len(self.knowledge.tasks))]


def test_a_policy_of_ones_own() -> None:
    """Named as module:Class in the scenario."""
    bag = generate("bag", tasks=5)
    records = play(bag, f"{__name__}:Backwards", 1).tasks
    started = sorted(range(5), key=lambda number: records[number].started_ns)
    assert started == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"name": "hefty"}, "'hefty' is none of hybrid"),
        ({"name": "no.such:Thing"}, "No module named 'no'"),
        ({"name": "json:loads"}, "no subclass of Knowing"),
        ({"name": "heft", "parameters": {"ahed": 1}}, "ahed: heft knows no such parameter"),
        ({"name": "heft", "parameters": {"ahead": -1}}, "ahead: heft knows no such parameter"),
        ({"name": "hybrid", "parameters": {"queue_rounds": "x"}}, "Expected `int`, got `str`"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said(policy: dict[str, object], message: str) -> None:
    """In one line, before anything runs."""
    top = {"workload": {"generator": "bag"}, "cluster": {"nodes": 1, "cpus": 1}, "policy": policy}
    with pytest.raises(ScenarioError) as caught:
        core_policy(parse_scenario(top, "one.toml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_knobs_of_the_core_are_parameters() -> None:
    """They replace what the policy brings."""
    policy = {"name": "blevel", "parameters": {"queue_rounds": 3}, "decision_interval": "2s"}
    top = {"workload": {"generator": "bag"}, "cluster": {"nodes": 1, "cpus": 1}, "policy": policy}
    knobs = core_policy(parse_scenario(top, "one.toml"))
    assert (knobs.queue_rounds, knobs.placement_interval_ns) == (3, 2 * SECOND_NS)


# --------------------------------------------------------------------- against the books

HITS = ((2, 98), (4, 97), (8, 141), (16, 180))
"""Processors, and on how many of the 180 graphs HLFET is optimal."""


def hlfet_units(workload: Workload, processors: int) -> int:
    """The makespan of the plain list scheduler."""
    return hlfet(graph_of(workload), processors).makespan // SECOND_NS


@pytest.mark.parametrize("processors", [processors for processors, _ in HITS])
def test_hlfet_through_the_protocol_is_hlfet(processors: int) -> None:
    """Every sixth graph, others for other machines: the makespan of the plain list scheduler."""
    first = [count for count, _ in HITS].index(processors)
    for path in data_files("stg/50", "*.stg")[first::6]:
        workload = load_stg(path)
        result = play(workload, "blevel", processors)
        assert result.makespan_ns % SECOND_NS == 0
        assert result.makespan_ns // SECOND_NS == hlfet_units(workload, processors)


@pytest.mark.parametrize(("processors", "hits"), HITS)
def test_hlfet_is_optimal_as_often_as_published(processors: int, hits: int) -> None:
    """All 180 graphs of 50 tasks; never below an optimum."""
    optima = load_optima(data_files("stg/optima", "*.csv"))
    found = []
    for path in data_files("stg/50", "*.stg"):
        workload = load_stg(path)
        found.append(hlfet_units(workload, processors) - optima[workload.name, processors].lower)
    assert len(found) == 180 and min(found) >= 0
    assert found.count(0) == hits


@pytest.mark.parametrize("policy", ["heft", "mcp", "etf", "dls", "random", "stealing", "hybrid"])
def test_no_policy_beats_an_optimum(policy: str) -> None:
    """On some graphs of the Standard Task Graph set."""
    optima = load_optima(data_files("stg/optima", "*.csv"))
    for path in data_files("stg/50", "*.stg")[::45]:
        workload = load_stg(path)
        for processors in (2, 8):
            made = play(workload, policy, processors).makespan_ns
            assert made >= optima[workload.name, processors].lower * SECOND_NS


def estee(zipped: str, graph: str) -> Workload:
    """A graph of the study."""
    return load_estee(Path(data_folder("estee")) / f"{zipped}.zip", graph)


@pytest.mark.parametrize(
    ("zipped", "graph", "nodes", "cpus", "mib_s", "published_s", "tolerance"),
    [
        ("elementary", "bigmerge", 8, 4, 8192, 215.547, 0.02),
        ("elementary", "bigmerge", 8, 4, 32, 1087.129, 0.02),
        ("elementary", "splitters", 16, 8, 8192, 146.266, 0.02),
        ("irw", "gridcat", 8, 4, 8192, 14.680, 0.05),
        ("irw", "gridcat", 32, 16, 8192, 3.161, 0.10),
        ("irw", "crossv", 32, 16, 8192, 2792.808, 0.05),
    ],
)
def test_cells_of_the_published_study(
    zipped: str, graph: str, nodes: int, cpus: int, mib_s: int, published_s: float, tolerance: float
) -> None:
    """Their blevel-gt is our blevel. Its durations were other draws of the same laws."""
    network = {"model": "maxmin", "bandwidth": f"{mib_s}MiB/s"}
    made = play(estee(zipped, graph), "blevel", nodes, cpus, network=network).makespan_ns
    assert made / SECOND_NS == pytest.approx(published_s, rel=tolerance)
