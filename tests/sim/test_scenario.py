"""Scenario files, good and bad."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from detray_sim.costs import FREE, MS, US, Costs
from detray_sim.faults import KINDS
from detray_sim.result import NodeShape
from detray_sim.scenario import (
    HOUR_NS,
    FaultRate,
    NetworkChoice,
    PlannedFault,
    PolicyChoice,
    Scenario,
    ScenarioError,
    load_scenario,
)
from detray_sim.workloads import generate
from detray_sim.workloads.wfformat import to_wfformat
from tests.sim.data import ROOT

LEAST = """
[workload]
generator = "bag"
[cluster]
nodes = 2
cpus = 4
"""

MOST = """
name = "all of it"
description = "everything that can be said"
seeds = [3, 1]

[workload]
generator = "layered"
seed = 9
layers = 3
varied = true
duration = "10ms"
duration_law = "lognormal"
duration_cv = 1
size_bytes = "1KiB"
cpus = 0.5

[[cluster.group]]
nodes = 2
cpus = 4
store = "2GiB"

[[cluster.group]]
nodes = 1
cpus = 8
speed = 0.75
resources = { gpu = 1, TPU = 0.5 }

[network]
model = "maxmin"
bandwidth = "100MiB/s"
latency = "100us"

[policy]
name = "blevel"
imode = "user"
decision_interval = "100ms"
decision_cost = 0.05

[policy.parameters]
depth = 2
greedy = true
weight = 0.5
tie = "random"

[costs]
preset = "measured"
step = "10us"
worker_start = "1s"
disk_bytes_per_s = "100MB/s"

[faults]
worker_killed = 2.5
node_pauses = { rate = 1, for = "3s", amount = 4 }
disk_full = 0
planned = [
    { at = "10s", kind = "node_crashes", node = 1, for = "2s" },
    { at = 5, kind = "link_cut", node = 0, peer = 2, amount = 10 },
]
"""


def read(folder: Path, text: str) -> Scenario:
    """The scenario of a file with this text."""
    path = folder / "one.toml"
    path.write_text(text)
    return load_scenario(path)


def error(folder: Path, text: str) -> str:
    """What is wrong with it, without the folder's name."""
    with pytest.raises(ScenarioError) as raised:
        read(folder, text)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(f"{folder}/", "")


def test_little_is_needed(tmp_path: Path) -> None:
    """A workload and a cluster; everything else costs nothing and goes well."""
    scenario = read(tmp_path, LEAST)
    assert (scenario.name, scenario.seeds) == ("one", (0,))
    assert scenario.nodes == (NodeShape(cpus=4), NodeShape(cpus=4))
    assert (scenario.network, scenario.costs) == (NetworkChoice(), FREE)
    assert (scenario.faults.rates, scenario.faults.planned) == ((), ())
    assert scenario.workload.load(1).tasks == generate("bag").tasks


def test_everything_can_be_said(tmp_path: Path) -> None:
    """With units, in the order of the file; faults in the order of time."""
    scenario = read(tmp_path, MOST)
    assert (scenario.name, scenario.seeds) == ("all of it", (3, 1))
    plain = NodeShape(cpus=4, store_bytes=2 << 30)
    other = NodeShape(cpus=8, speed_permille=750, resources=(("TPU", 5_000), ("gpu", 10_000)))
    assert scenario.nodes == (plain, plain, other)
    assert scenario.network == NetworkChoice(
        model="maxmin", bandwidth_bytes_per_s=100 << 20, latency_ns=100_000
    )
    assert [nic.up_bytes_per_s for nic in scenario.network.shape(3).nics] == [100 << 20] * 3
    assert scenario.policy == PolicyChoice(
        name="blevel",
        imode="user",
        decision_interval_ns=100_000_000,
        decision_cost_ns=50_000_000,
        parameters={"depth": 2, "greedy": True, "weight": 0.5, "tie": "random"},
    )
    assert (scenario.costs.step_ns, scenario.costs.worker_start_ns) == (10 * US, 1000 * MS)
    assert scenario.costs.disk_bytes_per_s == 100_000_000
    assert scenario.costs.run_ns == Costs().run_ns
    assert scenario.faults.rates == (
        FaultRate(kind="worker_killed", per_hour=2.5),
        FaultRate(kind="node_pauses", per_hour=1.0, for_ns=3000 * MS, amount=4),
    )
    assert scenario.faults.planned == (
        PlannedFault(kind="link_cut", at_ns=5 * 10**9, node=0, peer=2, amount=10),
        PlannedFault(kind="node_crashes", at_ns=10**10, node=1, for_ns=2 * 10**9),
    )


def test_a_generator_has_the_seed_of_the_run_or_its_own(tmp_path: Path) -> None:
    """`seed` in [workload] gives every run the same workload."""
    own = read(tmp_path, MOST).workload
    assert own.load(1) == own.load(2)
    runs = read(tmp_path, MOST.replace("seed = 9\n", "")).workload
    assert runs.load(1) != runs.load(2)
    assert runs.load(9) == own.load(1)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the program stands."""
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "chain.json").write_bytes(to_wfformat(generate("chain", length=5)))
    text = LEAST.replace('generator = "bag"', 'wfformat = "inputs/chain.json"')
    monkeypatch.chdir(ROOT)
    assert len(read(tmp_path, text).workload.load().tasks) == 5


@pytest.mark.parametrize("path", sorted((ROOT / "sim" / "scenarios").glob("*.toml")), ids=str)
def test_the_shipped_scenarios_load(path: Path) -> None:
    """And so do their workloads."""
    scenario = load_scenario(path, fault_kinds=list(KINDS))
    assert scenario.workload.load(scenario.seeds[0]).tasks


BAG = 'generator = "bag"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # the top
        (
            "[workload]",
            "seeed = 1\n[workload]",
            "one.toml: seeed: unknown key; did you mean 'seed'?",
        ),
        ("[workload]", "seed = -1\n[workload]", "seed: a seed is a whole number from 0 on, not -1"),
        ("[workload]", "seed = true\n[workload]", "not True"),
        ("[workload]", "seeds = []\n[workload]", "seeds: it is a list of whole numbers, not []"),
        ("[workload]", "seeds = 3\n[workload]", "seeds: it is a list of whole numbers, not 3"),
        ("[workload]", "seeds = [1, 1]\n[workload]", "seeds: a seed is there twice"),
        (
            "[workload]",
            "seed = 1\nseeds = [1]\n[workload]",
            "seeds: seed is given too; one of both",
        ),
        ("[workload]", "name = 3\n[workload]", "name: it is a text, not 3"),
        ("[workload]", "[workload", "one.toml: no TOML file: "),
        (f"[workload]\n{BAG}", "", "one.toml: there is no table [workload]"),
        (f"[workload]\n{BAG}", "workload = 3", "[workload] it is a table, not 3"),
        ("[cluster]", "[clusters]", "clusters: unknown key; did you mean 'cluster'?"),
        # the workload
        (
            BAG,
            "",
            "[workload] exactly one of wfformat, generator, trace, stg, estee; there is none",
        ),
        (
            BAG,
            BAG + '\nstg = "x"',
            "exactly one of wfformat, generator, trace, stg, estee; there are",
        ),
        (BAG, 'genrator = "bag"', "[workload] genrator: unknown key; did you mean 'generator'?"),
        (BAG, 'generator = "bagg"', "[workload] generator: it is one of bag, chain"),
        (BAG, 'generator = "bagg"', "not 'bagg'; did you mean 'bag'?"),
        (BAG, "generator = 3", "[workload] generator: it is one of"),
        (BAG, BAG + "\ntaks = 3", "[workload] taks: unknown key; did you mean 'tasks'?"),
        (BAG, BAG + '\ntasks = "3"', "[workload] tasks: expected `int`, got `str`"),
        (BAG, BAG + "\ntasks = 0", "[workload] tasks is at least 1, not 0"),
        (BAG, BAG + "\nduration = -1", "[workload] duration: a duration is not negative: -1"),
        (BAG, BAG + '\nduration = "1 week"', "[workload] duration: a duration has no unit 'week'"),
        (BAG, BAG + '\nsize = "1ms"', "[workload] size: a size has no unit 'ms'"),
        (BAG, BAG + "\nsize = 1\nsize_bytes = 1", "it is there twice, with and without its unit"),
        (BAG, BAG + "\nseed = 1.5", "[workload] seed: a seed is a whole number"),
        (BAG, 'wfformat = "none.json"', "[workload] wfformat: there is no file none.json"),
        (BAG, "trace = 3", "[workload] trace: it is a text, not 3"),
        (BAG, 'stg = "one.toml"\ndummie = true', "dummie: unknown key; did you mean 'dummies'?"),
        (BAG, 'estee = "one.toml"', "[workload] graph: it is missing"),
        (
            BAG,
            'trace = "one.toml"\nfollow = "time"',
            "follow: it is one of times, causes, not 'time'",
        ),
        (BAG, 'wfformat = "one.toml"\nx = 1', "[workload] x: unknown key"),
        # the cluster
        ("nodes = 2", "", "[cluster] nodes: it is missing"),
        ("nodes = 2", "nodes = 0", "[cluster] nodes: it is from 1 to 1000000, not 0"),
        ("nodes = 2", "nodes = 2.5", "[cluster] nodes: expected `int`, got `float`"),
        ("nodes = 2", "nodes = 2\nspeed = 0", "[cluster] speed: it is from 0.001"),
        ("nodes = 2", "nodes = 2\nspeed = nan", "[cluster] speed: it is from 0.001"),
        (
            "nodes = 2",
            'nodes = 2\nstore = "-1GiB"',
            "[cluster] store: a size is a number or a text",
        ),
        (
            "nodes = 2",
            "nodes = 2\nresources = { CPU = 1 }",
            "[cluster.resources] CPU: they are said",
        ),
        ("nodes = 2", "nodes = 2\nresources = { GPU = 0 }", "[cluster.resources] GPU: an amount"),
        ("nodes = 2", "nodes = 2\nseed = 3", "[cluster] seed: unknown key; it belongs to the top"),
        ("nodes = 2\ncpus = 4", "group = 3", "[cluster] group: it is a list of tables"),
        ("nodes = 2\ncpus = 4", "group = []", "[cluster] group: it is a list of tables"),
        (
            "nodes = 2",
            "group = [{nodes = 1, cpus = 1}]",
            "cpus: with [[cluster.group]], it belongs",
        ),
        ("nodes = 2\ncpus = 4", "group = [{nodes = 1}]", "[cluster.group 0] cpus: it is missing"),
    ],
)
def test_mistakes_in_what_is_run_and_where(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """File, table, key, and what would do."""
    assert message in error(tmp_path, LEAST.replace(old, new, 1))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[network]\nmodel = "max-min"', "[network] model: it is one of instant, simple, maxmin"),
        ('[network]\nmodel = "simple"', "[network] bandwidth: the simple network needs one"),
        ('[network]\nbandwith = "1Gbit"', "bandwith: unknown key; did you mean 'bandwidth'?"),
        ('[network]\nbandwidth = "1Gbitt"', "[network] bandwidth: a bandwidth has no unit 'Gbitt'"),
        ("[network]\nlatency = -1", "[network] latency: a duration is not negative: -1"),
        ("[network]\nlatency = []", "[network] latency: a duration is a number or a text"),
        ('[policy]\nimode = "perfect"', "[policy] imode: it is one of exact, mean, user, blind"),
        ("[policy]\ndepth = 3", "[policy] depth: unknown key; known are name, imode"),
        ("[policy]\nname = 3", "[policy] name: expected `str`, got `int`"),
        ("[policy.parameters]\nx = [1]", "[policy] parameters"),
        ("[costs]\nsteps = 1", "[costs] steps: unknown key; did you mean 'step'?"),
        ('[costs]\nlatency = "1us"', "[costs] latency: it belongs to [network]"),
        ('[costs]\npreset = "real"', "[costs] preset: it is one of free, measured, not 'real'"),
        ("[costs]\nseed = 1", "[costs] seed: unknown key; it belongs to the top of the file"),
        ("[faults]\nx = {rat = 1}", "[faults.x] rat: unknown key; did you mean 'rate'?"),
        ("[faults]\nx = {for = 1}", "[faults.x] rate: it is missing"),
        ('[costs]\nstep = "-1us"', "[costs] step: a duration is a number or a text"),
        ("[faults]\nworker_killed = -1", "[faults] worker_killed: a rate is from 0"),
        ("[faults]\nworker_killed = inf", "[faults] worker_killed: a rate is from 0"),
        (
            '[faults]\nworker_killed = "1"',
            "[faults] worker_killed: it is a rate per simulated hour",
        ),
        (
            "[faults]\nplanned = 3",
            "[faults] planned: it is a list of tables with at, kind and node",
        ),
        ("[faults]\nplanned = [{kind = 'x'}]", "[faults.planned 0] at: it is missing"),
        ("[faults]\nplanned = [{at = 1}]", "[faults.planned 0] kind: it is missing"),
        ("[faults]\nplanned = [{at = -1, kind = 'x'}]", "[faults.planned 0] at: a duration is not"),
        ("[faults]\nplanned = [{at = 1, kind = 'x', node = 2}]", "node: nodes are 0 to 1, not 2"),
        ("[faults]\nplanned = [{at = 1, kind = 'x', nod = 1}]", "nod: unknown key; did you mean"),
    ],
)
def test_mistakes_in_how_it_goes(tmp_path: Path, more: str, message: str) -> None:
    """File, table, key, and what would do."""
    assert message in error(tmp_path, LEAST + more)


def test_names_are_checked_by_who_knows_them(tmp_path: Path) -> None:
    """Policies and kinds of faults belong to the simulator that is going to run it."""
    path = tmp_path / "one.toml"
    path.write_text(MOST)
    kinds = list(KINDS)
    assert load_scenario(path, ["blevel"], kinds).policy.name == "blevel"
    with pytest.raises(
        ScenarioError, match=r"\[policy\] name: it is one of tlevel, .*mean 'tlevel"
    ):
        load_scenario(path, ["tlevel"], kinds)
    with pytest.raises(ScenarioError, match=r"worker_killed: .* did you mean 'workers_killed'"):
        load_scenario(path, [], [kind for kind in kinds if kind != "worker_killed"])
    with pytest.raises(ScenarioError, match=r"planned 0\] kind: it is one of .*not 'node_crashes'"):
        load_scenario(path, [], [kind for kind in kinds if kind != "node_crashes"])


def test_faults_by_chance_come_by_time_and_by_seed(tmp_path: Path) -> None:
    """Planned ones in between; a seed always gives the same."""
    plan = read(tmp_path, MOST).faults
    hours = [islice(plan.occurrences(seed, 3), 400) for seed in (1, 1, 2)]
    first, again, other = (list(hour) for hour in hours)
    assert first == again != other
    assert [fault.at_ns for fault in first] == sorted(fault.at_ns for fault in first)
    assert set(plan.planned) < set(first)
    killed = [fault for fault in first if fault.kind == "worker_killed"]
    mean_gap_ns = killed[-1].at_ns / len(killed)
    assert mean_gap_ns == pytest.approx(HOUR_NS / 2.5, rel=0.2)
    assert {fault.node for fault in killed} == {0, 1, 2}
    assert all(fault.node != fault.peer for fault in killed)


def test_what_is_no_text_is_a_scenario_error(tmp_path: Path) -> None:
    """And a file that is not there an OSError."""
    path = tmp_path / "one.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="no TOML file"):
        load_scenario(path)
    with pytest.raises(FileNotFoundError):
        load_scenario(tmp_path / "none.toml")
