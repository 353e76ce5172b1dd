"""A scenario: what is run on which cluster under which policy, read from a TOML file.

    seeds = [1, 2, 3]                   # or seed = 1

    [workload]                          # exactly one source
    generator = "grid"                  # and its parameters (workloads/generators.py)
    width = 20
    duration = "50ms"
    # wfformat = "montage.json"  |  trace = "run.trace"  |  stg = "rand0000.stg"
    # estee = "irw.zip" with graph = "gridcat"

    [cluster]
    nodes = 8
    cpus = 4                            # or several [[cluster.group]] with speed, store, resources

    [network]
    model = "maxmin"                    # or "instant", "simple"
    bandwidth = "1Gbit"
    latency = "100us"

    [policy]
    name = "hybrid"
    imode = "exact"                     # what it knows of durations: exact, mean, user, blind
    decision_interval = "100ms"

    [policy.parameters]                 # those of the policy itself
    [costs]                             # what the runtime itself takes (costs.py)
    preset = "free"                     # or "measured"; keys given replace it
    step = "10us"
    [faults]
    worker_killed = 2.5                 # kind = how often per simulated hour
    node_pauses = { rate = 1, for = "2s" }
    planned = [{ at = "10s", kind = "node_crashes", node = 1 }]

Paths are relative to the file. Every mistake is one line, a ScenarioError.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from detray_sim.costs import FREE, Costs
from detray_sim.draws import Draws
from detray_sim.network.links import NetworkShape, uniform
from detray_sim.result import NodeShape
from detray_sim.toml_tables import (
    Place,
    ScenarioError,
    Table,
    as_table,
    fill,
    one_of,
    read_toml,
    unknown_key,
)
from detray_sim.workload import UNIT, Workload
from detray_sim.workloads.estee import load_estee
from detray_sim.workloads.from_trace import FOLLOW, load_trace
from detray_sim.workloads.generators import GENERATORS
from detray_sim.workloads.layout import Generator, realise
from detray_sim.workloads.stg import load_stg
from detray_sim.workloads.wfformat import load_wfformat

__all__ = ["Scenario", "ScenarioError", "load_scenario", "parse_scenario"]

SOURCES = ("wfformat", "generator", "trace", "stg", "estee")
NETWORKS = ("instant", "simple", "maxmin")
IMODES = ("exact", "mean", "user", "blind")
"""What a policy knows of a duration: the truth; the mean of all; what the workload says that a user
would expect; nothing."""
PRESETS = {"free": FREE, "measured": Costs()}
NODES_MAX = 1_000_000
HOUR_NS = 3600 * 1_000_000_000


class WorkloadChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Where the workload comes from."""

    source: str
    """One of SOURCES."""
    path: str = ""
    """Of the file, for all but generators."""
    kind: str = ""
    """Name of the generator."""
    generator: Generator | None = None
    graph: str = ""
    """Which graph of a file of several (estee)."""
    follow: str = "times"
    """How a recording tells when tasks may begin (trace): "times" or "causes"."""
    dummies: bool = False
    """Whether the empty first and last task are kept (stg)."""
    seed: int | None = None
    """Of the generator; None: that of the run."""

    def load(self, seed: int = 0) -> Workload:
        """The workload of a run with this seed. Raises OSError, WorkloadError."""
        if self.generator is not None:
            return realise(self.generator, self.kind, seed if self.seed is None else self.seed)
        if self.source == "wfformat":
            return load_wfformat(self.path)
        if self.source == "trace":
            return load_trace(self.path, self.follow)
        if self.source == "stg":
            return load_stg(self.path, self.dummies)
        return load_estee(self.path, self.graph)


class NetworkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """How data travels: every node has a card of this bandwidth, both ways."""

    model: str = "instant"
    """One of NETWORKS."""
    bandwidth_bytes_per_s: int = 0
    latency_ns: int = 0

    def shape(self, nodes: int) -> NetworkShape:
        """So many equal nodes on one switch."""
        return uniform(nodes, self.bandwidth_bytes_per_s, self.latency_ns)


class PolicyChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Who places tasks, what it knows and what thinking costs."""

    name: str = "hybrid"
    imode: str = "exact"
    """One of IMODES."""
    decision_interval_ns: int = 0
    """It decides at most this often."""
    decision_cost_ns: int = 0
    """How long a decision takes."""
    parameters: dict[str, bool | int | float | str] = {}


class PlannedFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault at a time that is known. What `amount` means depends on the kind."""

    kind: str
    at_ns: int
    node: int = 0
    peer: int = 1
    """The other end, for faults between two nodes."""
    for_ns: int = 0
    amount: int = 0


class FaultRate(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of fault that happens by chance, so often per simulated hour on average."""

    kind: str
    per_hour: float
    for_ns: int = 0
    amount: int = 0

    def occurrences(self, seed: int, nodes: int) -> Iterator[PlannedFault]:
        """One after the other, for ever: exponential gaps, every node as likely."""
        draws = Draws(seed, f"fault {self.kind}")
        at_ns, k = 0, 0
        while True:
            at_ns += max(1, round(draws.exponential("gap", k, HOUR_NS / self.per_hour)))
            node = draws.integer("node", k, nodes)
            # Some other node, as likely each; of one node, itself.
            peer = (node + 1 + draws.integer("peer", k, max(1, nodes - 1))) % nodes
            yield PlannedFault(
                kind=self.kind,
                at_ns=at_ns,
                node=node,
                peer=peer,
                for_ns=self.for_ns,
                amount=self.amount,
            )
            k += 1


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong."""

    rates: tuple[FaultRate, ...] = ()
    planned: tuple[PlannedFault, ...] = ()
    """By time."""

    def occurrences(self, seed: int, nodes: int) -> Iterator[PlannedFault]:
        """All faults by time, planned and by chance. Endless if there are rates: take what fits."""
        streams = [iter(self.planned), *(rate.occurrences(seed, nodes) for rate in self.rates)]
        return heapq.merge(*streams, key=lambda fault: fault.at_ns)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment; a run for each of its seeds."""

    name: str
    file: str
    workload: WorkloadChoice
    nodes: tuple[NodeShape, ...]
    network: NetworkChoice = NetworkChoice()
    policy: PolicyChoice = PolicyChoice()
    faults: FaultPlan = FaultPlan()
    costs: Costs = FREE
    seeds: tuple[int, ...] = (0,)
    description: str = ""


def load_scenario(
    path: str | os.PathLike[str],
    policies: Sequence[str] = (),
    fault_kinds: Sequence[str] = (),
) -> Scenario:
    """The scenario in a file. Raises OSError, ScenarioError.

    Names of policies and faults are checked against those given; with none given, any will do.
    """
    return parse_scenario(read_toml(path), str(path), policies, fault_kinds)


def parse_scenario(
    top: Table, file: str, policies: Sequence[str] = (), fault_kinds: Sequence[str] = ()
) -> Scenario:
    """The scenario of a table; paths are relative to the folder of `file`. Raises ScenarioError."""
    place = Place(file)
    for key in top:
        if key not in _TOP:
            raise unknown_key(key, _TOP, place)
    for key in ("workload", "cluster"):
        if key not in top:
            raise place.error(f"there is no table [{key}]")
    nodes = _nodes(top["cluster"], place.inner("cluster"))
    policy = fill(PolicyChoice, top.get("policy", {}), place.inner("policy"), _BELONGS)
    one_of(policy.imode, IMODES, place.inner("policy"), "imode")
    if policies:
        one_of(policy.name, policies, place.inner("policy"), "name")
    faults = _faults(top.get("faults", {}), place.inner("faults"), len(nodes), fault_kinds)
    return Scenario(
        name=_text(top.get("name", Path(file).stem), place, "name"),
        description=_text(top.get("description", ""), place, "description"),
        file=file,
        workload=_workload(top["workload"], place.inner("workload")),
        nodes=nodes,
        network=_network(top.get("network", {}), place.inner("network")),
        policy=policy,
        faults=faults,
        costs=_costs(top.get("costs", {}), place.inner("costs")),
        seeds=_seeds(top, place),
    )


_TOP = (
    "name",
    "description",
    "seed",
    "seeds",
    "workload",
    "cluster",
    "network",
    "policy",
    "faults",
    "costs",
)
_ABOVE = "it belongs to the top of the file, above the first table"
_BELONGS = dict.fromkeys(("name", "description", "seed", "seeds"), _ABOVE)


def _text(value: object, place: Place, key: str) -> str:
    if not isinstance(value, str):
        raise place.error(f"it is a text, not {value!r}", key)
    return value


def _seeds(top: Table, place: Place) -> tuple[int, ...]:
    if "seed" in top and "seeds" in top:
        raise place.error("seed is given too; one of both", "seeds")
    key = "seed" if "seed" in top else "seeds"
    seeds = top.get("seeds", [top.get("seed", 0)])
    if not isinstance(seeds, list) or not seeds:
        raise place.error(f"it is a list of whole numbers, not {seeds!r}", key)
    for seed in seeds:
        if type(seed) is not int or seed < 0:
            raise place.error(f"a seed is a whole number from 0 on, not {seed!r}", key)
    if len(dict.fromkeys(seeds)) < len(seeds):
        raise place.error("a seed is there twice", key)
    return tuple(seeds)


# --------------------------------------------------------------------------- workload


def _workload(value: object, place: Place) -> WorkloadChoice:
    table = as_table(value, place)
    given = [source for source in SOURCES if source in table]
    if len(given) != 1:
        found = f"there are {' and '.join(given)}" if given else "there is none"
        if not given:
            for key in table:
                raise unknown_key(key, SOURCES, place)
        raise place.error(f"exactly one of {', '.join(SOURCES)}; {found}")
    source = given[0]
    rest = {key: value for key, value in table.items() if key != source}
    if source == "generator":
        return _generated(table[source], rest, place)
    path = Path(place.file).parent / _text(table[source], place, source)
    if not path.is_file():
        raise place.error(f"there is no file {path}", source)
    options = fill(_OPTIONS[source], rest, place)
    if isinstance(options, _TraceOptions):
        one_of(options.follow, FOLLOW, place, "follow")
    return WorkloadChoice(source=source, path=str(path), **msgspec.structs.asdict(options))


def _generated(name: object, rest: Table, place: Place) -> WorkloadChoice:
    kind = one_of(name, GENERATORS, place, "generator")
    seed = rest.get("seed")
    if seed is not None and (type(seed) is not int or seed < 0):
        raise place.error(f"a seed is a whole number from 0 on, not {seed!r}", "seed")
    parameters = {key: value for key, value in rest.items() if key != "seed"}
    generator = fill(GENERATORS[kind], parameters, place)
    return WorkloadChoice(source="generator", kind=kind, generator=generator, seed=seed)


class _NoOptions(msgspec.Struct):
    pass


class _TraceOptions(msgspec.Struct):
    follow: str = "times"


class _StgOptions(msgspec.Struct):
    dummies: bool = False


class _EsteeOptions(msgspec.Struct):
    graph: str


_Options = type[_NoOptions] | type[_TraceOptions] | type[_StgOptions] | type[_EsteeOptions]
_OPTIONS: dict[str, _Options] = {
    "wfformat": _NoOptions,
    "trace": _TraceOptions,
    "stg": _StgOptions,
    "estee": _EsteeOptions,
}


# ---------------------------------------------------------------- cluster and network


class _Group(msgspec.Struct):
    nodes: int
    cpus: int
    speed: float = 1.0
    store_bytes: int = 8 << 30
    resources: dict[str, float] = {}


def _nodes(value: object, place: Place) -> tuple[NodeShape, ...]:
    table = as_table(value, place)
    if "group" not in table:
        return _group(table, place)
    for key in table:
        if key != "group":
            raise place.error("with [[cluster.group]], it belongs into the groups", key)
    groups = table["group"]
    if not isinstance(groups, list) or not groups:
        raise place.error(f"it is a list of tables, [[cluster.group]], not {groups!r}", "group")
    nodes: list[NodeShape] = []
    for number, group in enumerate(groups):
        nodes += _group(group, place.inner(f"group {number}"))
    return tuple(nodes)


def _group(table: object, place: Place) -> tuple[NodeShape, ...]:
    group = fill(_Group, table, place, _BELONGS)
    if not 1 <= group.nodes <= NODES_MAX:
        raise place.error(f"it is from 1 to {NODES_MAX}, not {group.nodes}", "nodes")
    if not 1 <= group.cpus <= NODES_MAX:
        raise place.error(f"it is from 1 to {NODES_MAX}, not {group.cpus}", "cpus")
    if not 0.001 <= group.speed <= 1_000_000:
        raise place.error(f"it is from 0.001 to 1000000, not {group.speed!r}", "speed")
    shape = NodeShape(
        cpus=group.cpus,
        store_bytes=group.store_bytes,
        speed_permille=round(group.speed * 1000),
        resources=_resources(group.resources, place.inner("resources")),
    )
    return (shape,) * group.nodes


def _resources(resources: dict[str, float], place: Place) -> tuple[tuple[str, int], ...]:
    for name, amount in resources.items():
        if name == "CPU":
            raise place.error("they are said by cpus", name)
        if not 0 < amount <= 2**50:
            raise place.error(f"an amount is above 0, not {amount!r}", name)
    return tuple(sorted((name, round(amount * UNIT)) for name, amount in resources.items()))


def _network(value: object, place: Place) -> NetworkChoice:
    network = fill(NetworkChoice, value, place, _BELONGS)
    one_of(network.model, NETWORKS, place, "model")
    if network.model != "instant" and network.bandwidth_bytes_per_s == 0:
        raise place.error(f'the {network.model} network needs one, like "1Gbit"', "bandwidth")
    return network


def _costs(value: object, place: Place) -> Costs:
    table = dict(as_table(value, place))
    preset = one_of(table.pop("preset", "free"), PRESETS, place, "preset")
    for key in ("latency", "bandwidth"):
        if key in table:
            raise place.error("it belongs to [network]", key)
    return fill(Costs, table, place, _BELONGS, PRESETS[preset])


# ----------------------------------------------------------------------------- faults


def _faults(value: object, place: Place, nodes: int, kinds: Sequence[str]) -> FaultPlan:
    rates, planned = [], []
    for key, given in as_table(value, place).items():
        if key == "planned":
            planned = _planned(given, place, nodes, kinds)
            continue
        if kinds and key not in kinds:
            raise unknown_key(key, [*kinds, "planned"], place, _BELONGS)
        rate = _rate(key, given, place)
        if rate.per_hour > 0:
            rates.append(rate)
    return FaultPlan(rates=tuple(rates), planned=tuple(planned))


class _Rate(msgspec.Struct):
    rate: float
    for_ns: int = 0
    amount: int = 0


def _rate(kind: str, given: object, place: Place) -> FaultRate:
    """Of a number, or a table that says how long and how much too."""
    if isinstance(given, bool) or not isinstance(given, int | float | dict):
        raise place.error(f"it is a rate per simulated hour, not {given!r}", kind)
    read = fill(_Rate, given if isinstance(given, dict) else {"rate": given}, place.inner(kind))
    if not 0 <= read.rate <= 10**9:
        raise place.error(f"a rate is from 0 to 1000000000 per hour, not {read.rate!r}", kind)
    return FaultRate(kind=kind, per_hour=read.rate, for_ns=read.for_ns, amount=read.amount)


def _planned(given: object, place: Place, nodes: int, kinds: Sequence[str]) -> list[PlannedFault]:
    if not isinstance(given, list):
        raise place.error(
            f"it is a list of tables with at, kind and node, not {given!r}", "planned"
        )
    faults = []
    for number, table in enumerate(given):
        here = place.inner(f"planned {number}")
        fault = fill(PlannedFault, table, here)
        if kinds:
            one_of(fault.kind, kinds, here, "kind")
        for key, node in (("node", fault.node), ("peer", fault.peer)):
            if node < 0 or (node >= nodes and key in table):
                raise here.error(f"nodes are 0 to {nodes - 1}, not {node}", key)
        faults.append(fault)
    return sorted(faults, key=lambda fault: fault.at_ns)
