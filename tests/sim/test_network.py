"""Network models: rates that are fair, bytes that are conserved, times that anybody can check."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detray_sim.network import (
    InstantNetwork,
    Link,
    MaxMinNetwork,
    Network,
    NetworkShape,
    Nic,
    SimpleNetwork,
    matrix,
    uniform,
)
from detray_sim.network import levels as levels_module
from detray_sim.network.levels import UNFILLED, WaterLevels
from detray_sim.network.links import RATE_BITS
from detray_sim.network.maxmin import NEVER
from tests.sim.fair_share import fair_rates

MB = 1_000_000
MS = 1_000_000
GBIT = 125 * MB

# ---------------------------------------------------------------- by hand


def run(network: Network) -> list[tuple[int, int]]:
    """Every flow's end and id, in the order they are reported."""
    ends, now_ns = [], 0
    while (end_ns := network.next_finish_ns()) is not None:
        assert end_ns >= now_ns
        now_ns = end_ns
        ends += [(now_ns, flow) for flow in network.finished(now_ns)]
    return ends


def test_one_flow_takes_size_by_bandwidth_and_latency() -> None:
    for network in (MaxMinNetwork(uniform(2, GBIT, 50)), SimpleNetwork(uniform(2, GBIT, 50))):
        network.start(7, 0, 1, 125 * MB, 0)
        assert network.next_finish_ns() == 1_000_000_050
        assert network.finished(1_000_000_049) == []
        assert network.finished(1_000_000_050) == [7]
        assert network.next_finish_ns() is None


def test_two_flows_into_one_node_have_half_each_until_one_is_done() -> None:
    network = MaxMinNetwork(uniform(3, 100 * MB, 0))
    network.start(1, 0, 2, 50 * MB, 0)
    network.start(2, 1, 2, 100 * MB, 0)
    assert network.rate(1) == network.rate(2) == 50 * MB
    assert run(network) == [(1000 * MS, 1), (1500 * MS, 2)]


def test_without_contention_two_flows_into_one_node_have_all_each() -> None:
    network = SimpleNetwork(uniform(3, 100 * MB, 0))
    network.start(1, 0, 2, 50 * MB, 0)
    network.start(2, 1, 2, 100 * MB, 0)
    assert run(network) == [(500 * MS, 1), (1000 * MS, 2)]


def test_both_directions_of_a_card_are_independent() -> None:
    network = MaxMinNetwork(uniform(2, 100 * MB, 0))
    network.start(1, 0, 1, 100 * MB, 0)
    network.start(2, 1, 0, 100 * MB, 0)
    assert run(network) == [(1000 * MS, 1), (1000 * MS, 2)]


def test_what_a_limited_flow_leaves_goes_to_the_others() -> None:
    """Node 1's slow card limits its flow to 20; the other two share the remaining 80 of node 3."""
    slow, fast = Nic(20 * MB, 20 * MB), Nic(100 * MB, 100 * MB)
    network = MaxMinNetwork(NetworkShape(nics=(fast, slow, fast, fast)))
    for flow, source in enumerate((0, 1, 2)):
        network.start(flow, source, 3, 80 * MB, 0)
    assert [network.rate(flow) for flow in range(3)] == [40 * MB, 20 * MB, 40 * MB]


def test_a_link_of_its_own_limits_all_its_flows_together() -> None:
    shape = NetworkShape(
        nics=(Nic(100 * MB, 100 * MB),) * 3,
        links=(Link(source=0, target=1, bytes_per_s=10 * MB, latency_ns=5),),
        latency_ns=3,
    )
    network = MaxMinNetwork(shape)
    for flow, target in enumerate((1, 1, 2)):
        network.start(flow, 0, target, 10 * MB, 0)
    assert [network.rate(flow) for flow in range(3)] == [5 * MB, 5 * MB, 90 * MB]
    assert run(network) == [(111_111_112 + 3, 2), (2000 * MS + 5, 0), (2000 * MS + 5, 1)]
    assert network.latency_ns(0, 1, 10, 9_000_000_000) == 1005
    assert network.latency_ns(0, 2, 10, 9_000_000_000) == 103


@pytest.mark.parametrize("model", [MaxMinNetwork, SimpleNetwork])
def test_a_slowed_link_slows_what_is_on_it(model: type[MaxMinNetwork | SimpleNetwork]) -> None:
    network = model(uniform(3, 100 * MB, 0))
    network.start(1, 0, 1, 100 * MB, 0)
    network.scale_link(0, 1, 100, 500 * MS)
    network.start(2, 0, 2, 90 * MB, 500 * MS)
    assert network.latency_ns(0, 1, 1000, 500 * MS) == 100_000
    network.scale_link(0, 1, 1000, 1500 * MS)
    assert run(network)[-1] == (1900 * MS, 1)


@pytest.mark.parametrize("model", [MaxMinNetwork, SimpleNetwork])
def test_a_cut_node_holds_its_flows_until_it_is_back(
    model: type[MaxMinNetwork | SimpleNetwork],
) -> None:
    network = model(uniform(3, 100 * MB, 0))
    network.start(1, 0, 1, 100 * MB, 0)
    network.start(2, 2, 1, 0, 0)
    assert network.finished(500 * MS) == [2]
    network.scale_node(0, 0, 500 * MS)
    network.start(3, 1, 0, 0, 500 * MS)
    assert network.next_finish_ns() is None
    assert network.latency_ns(0, 1, 0, 500 * MS) is None
    network.scale_node(0, 500, 700 * MS)
    assert [flow for _, flow in run(network)] == [3, 1]


def test_an_instant_network_takes_no_time_unless_it_is_cut() -> None:
    network = InstantNetwork()
    network.scale_node(3, 0, 0)
    network.start(9, 3, 0, 5, 10)
    network.start(2, 0, 1, 1 << 40, 10)
    network.start(1, 1, 0, 1 << 40, 10)
    assert network.next_finish_ns() == 10
    assert network.finished(10) == [1, 2]
    assert network.next_finish_ns() is None
    assert (network.latency_ns(0, 1, 99, 10), network.latency_ns(0, 3, 99, 10)) == (0, None)
    network.scale_node(3, 1000, 20)
    assert run(network) == [(20, 9)]


MODELS = {
    "instant": InstantNetwork,
    "simple": lambda: SimpleNetwork(uniform(4, GBIT, 7)),
    "maxmin": lambda: MaxMinNetwork(uniform(4, GBIT, 7)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_flow_within_a_node_ends_when_it_starts(name: str) -> None:
    network = MODELS[name]()
    network.start(1, 2, 2, 1 << 40, 5)
    assert network.next_finish_ns() == 5
    assert network.finished(5) == [1]
    assert network.latency_ns(2, 2, 100, 5) == 0


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_used_once_at_a_time(name: str) -> None:
    network = MODELS[name]()
    network.start(1, 0, 1, 10, 0)
    with pytest.raises(ValueError, match="flow 1"):
        network.start(1, 2, 3, 10, 0)
    with pytest.raises(ValueError, match="negative"):
        network.start(2, 2, 3, -1, 0)
    with pytest.raises(ValueError, match="no flow 2"):
        network.cancel(2, 0)
    network.cancel(1, 0)
    assert network.next_finish_ns() is None
    network.start(1, 0, 1, 10, 0)
    assert [flow for _, flow in run(network)] == [1]


def test_a_flow_whose_last_byte_travels_can_be_cancelled() -> None:
    network = MaxMinNetwork(uniform(2, GBIT, 1000))
    network.start(1, 0, 1, 125, 0)
    assert network.finished(1500) == []
    assert network.rate(1) == 0
    assert network.cancel(1, 1500) == 0
    assert run(network) == []


def test_time_does_not_run_backwards() -> None:
    network = MaxMinNetwork(uniform(2, GBIT, 0))
    network.start(1, 0, 1, 10, 100)
    with pytest.raises(ValueError, match="100 ns"):
        network.start(2, 0, 1, 10, 99)


def test_equal_ends_are_reported_by_id() -> None:
    network = MaxMinNetwork(uniform(4, GBIT, 0))
    for flow, (source, target) in zip((5, 3, 4), ((0, 1), (1, 2), (2, 0)), strict=True):
        network.start(flow, source, target, MB, 0)
    assert [flow for _, flow in run(network)] == [3, 4, 5]


def test_asking_late_changes_no_end() -> None:
    """Ends in between are worked off in their order, at their times."""
    asked, late = (MaxMinNetwork(uniform(5, GBIT, 0)) for _ in range(2))
    for network in (asked, late):
        for flow in range(4):
            network.start(flow, flow, 4, MB * (flow + 1), 0)
    ends = run(asked)
    assert late.finished(ends[2][0]) == [flow for _, flow in ends[:3]]
    assert late.next_finish_ns() == ends[3][0]


def test_a_matrix_gives_every_pair() -> None:
    shape = matrix([[0, 5, 6], [7, 0, 8], [9, 3, 0]], [[0, 1, 2], [3, 0, 4], [5, 6, 0]])
    network = SimpleNetwork(shape)
    assert network.latency_ns(2, 1, 3, 0) == 1_000_000_006
    assert network.latency_ns(1, 2, 0, 0) == 4
    assert shape.nics == (Nic(6, 9), Nic(8, 5), Nic(9, 8))


@pytest.mark.parametrize(
    "shape",
    [
        NetworkShape(nics=(Nic(0, 1),)),
        NetworkShape(nics=(Nic(1, 1),), links=(Link(source=0, target=1),)),
        NetworkShape(nics=(Nic(1, 1),), links=(Link(source=0, target=0),)),
        NetworkShape(nics=(Nic(1, 1),) * 2, links=(Link(source=0, target=1),) * 2),
    ],
)
def test_an_impossible_shape_is_refused(shape: NetworkShape) -> None:
    with pytest.raises(ValueError, match=r"needs|leads|more than one"):
        MaxMinNetwork(shape)


# ------------------------------------------------------- max-min fairness, at random

NODES = 5


@dataclass
class Play:
    """A max-min network, driven by random moves, and what it should know."""

    shape: NetworkShape
    network: MaxMinNetwork = field(init=False)
    now_ns: int = 0
    flows: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    node_permille: dict[int, int] = field(default_factory=dict)
    link_permille: dict[tuple[int, int], int] = field(default_factory=dict)
    history: list[tuple[int, int]] = field(default_factory=list)
    started: int = 0

    def __post_init__(self) -> None:
        self.network = MaxMinNetwork(self.shape)

    def collect(self) -> None:
        """What has ended by now leaves the books."""
        for flow in self.network.finished(self.now_ns):
            self.history.append((self.now_ns, flow))
            del self.flows[flow]

    def start(self, source: int, target: int, size_bytes: int) -> None:
        self.flows[self.started] = (source, target, size_bytes)
        self.network.start(self.started, source, target, size_bytes, self.now_ns)
        self.started += 1

    def cancel(self, choice: int) -> None:
        if self.flows:
            flow = sorted(self.flows)[choice % len(self.flows)]
            size_bytes = self.flows.pop(flow)[2]
            assert 0 <= self.network.cancel(flow, self.now_ns) <= size_bytes

    def scale_node(self, node: int, permille: int) -> None:
        self.node_permille[node] = permille
        self.network.scale_node(node, permille, self.now_ns)

    def scale_link(self, source: int, target: int, permille: int) -> None:
        self.link_permille[source, target] = permille
        self.network.scale_link(source, target, permille, self.now_ns)

    def step(self) -> None:
        """To the next end."""
        end_ns = self.network.next_finish_ns()
        if end_ns is not None:
            assert end_ns >= self.now_ns
            self.now_ns = end_ns
            self.collect()

    def wait(self, passed_ns: int) -> None:
        self.now_ns += passed_ns
        self.collect()

    def capacities(self) -> dict[str, Fraction]:
        """Of cards and links by name, in bytes per second."""
        found: dict[str, Fraction] = {}
        for node, nic in enumerate(self.shape.nics):
            scale = Fraction(self.node_permille.get(node, 1000), 1000)
            found[f"up{node}"] = nic.up_bytes_per_s * scale
            found[f"down{node}"] = nic.down_bytes_per_s * scale
        for link in self.shape.links:
            if link.bytes_per_s:
                found[f"{link.source}-{link.target}"] = Fraction(link.bytes_per_s)
        for (source, target), permille in self.link_permille.items():
            nics = self.shape.nics
            cards = min(nics[source].up_bytes_per_s, nics[target].down_bytes_per_s)
            name = f"{source}-{target}"
            found[name] = found.get(name, Fraction(cards)) * permille / 1000
        return found

    def paths(self, capacities: dict[str, Fraction]) -> dict[int, list[str]]:
        """What each flow that still sends goes across."""
        return {
            flow: [
                name
                for name in (f"up{source}", f"down{target}", f"{source}-{target}")
                if name in capacities
            ]
            for flow, (source, target, _) in self.flows.items()
            if source != target and flow not in self.network._arriving
        }


def check_fairness(play: Play) -> None:
    """The rates are the unique fair ones: by the book, and by what makes them fair."""
    capacities = play.capacities()
    paths = play.paths(capacities)
    rates = {flow: Fraction(play.network.rate(flow)) for flow in paths}
    unit = Fraction(1, 1 << RATE_BITS) * (len(paths) + 1)
    for flow, rate in fair_rates(capacities, paths).items():
        assert abs(rates[flow] - rate) <= max(unit, rate / 10**9), (flow, rates[flow], rate)
    used = {name: sum(rates[f] for f, path in paths.items() if name in path) for name in capacities}
    assert all(used[name] <= capacities[name] for name in capacities), "more than there is"
    for flow, path in paths.items():
        assert any(
            used[name] >= capacities[name] - unit
            and all(rates[flow] >= rates[f] - unit for f in paths if name in paths[f])
            for name in path
        ), f"flow {flow} could have more"


def check_levels(play: Play) -> None:
    """The levels are exactly what computing them from nothing gives."""
    play.network.next_finish_ns()
    levels = play.network._levels
    before = list(levels.level)
    levels._fill()
    assert levels.level == before
    assert levels.changed == {}
    levels.crossed.clear()


nodes = st.integers(0, NODES - 1)
pairs = st.tuples(nodes, nodes)
bandwidths = st.sampled_from([MB, 3 * MB, 10 * MB, 10 * MB, 7_654_321, 1250 * MB])
permilles = st.sampled_from([0, 1, 300, 500, 1000, 2000])
moves = st.one_of(
    st.tuples(st.just("start"), nodes, nodes, st.sampled_from([0, 1, 1000, MB, 12_345_678])),
    st.tuples(st.just("start"), nodes, nodes, st.integers(0, 1 << 24)),
    st.tuples(st.just("cancel"), st.integers(0, 99)),
    st.tuples(st.just("step")),
    st.tuples(st.just("wait"), st.integers(0, 1000 * MS)),
    st.tuples(st.just("scale_node"), nodes, permilles),
    st.tuples(st.just("scale_link"), nodes, nodes, permilles),
)
shapes = st.builds(
    NetworkShape,
    nics=st.one_of(
        st.just((Nic(10 * MB, 10 * MB),) * NODES),
        st.tuples(*[st.builds(Nic, bandwidths, bandwidths)] * NODES),
    ),
    latency_ns=st.sampled_from([0, 50_000]),
    links=st.lists(pairs.filter(lambda pair: pair[0] != pair[1]), max_size=3, unique=True).map(
        lambda chosen: tuple(
            Link(source=a, target=b, bytes_per_s=2 * MB * (a % 2), latency_ns=b * 1000 - 1)
            for a, b in chosen
        )
    ),
)


WAYS = {"spreading": (0, 100), "from nothing": (1000, 100), "giving up": (0, 0.2)}
"""How levels are computed: FILL_SHARE and LOOKS_MAX (five nodes would always be from nothing)."""


@pytest.fixture(params=WAYS, scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each of them once."""
    with pytest.MonkeyPatch.context() as patch:
        share, looks = WAYS[request.param]
        patch.setattr(levels_module, "FILL_SHARE", share)
        patch.setattr(levels_module, "LOOKS_MAX", looks)
        yield


@pytest.mark.usefixtures("way")
@settings(max_examples=100, deadline=None)
@given(shapes, st.lists(moves, max_size=40))
def test_rates_are_fair_after_every_move(shape: NetworkShape, program: list[tuple]) -> None:
    """Also: levels that were kept up to date are those computed from nothing."""
    play = Play(shape)
    for name, *arguments in program:
        getattr(play, name)(*arguments)
        check_fairness(play)
        check_levels(play)


@pytest.mark.usefixtures("way")
@settings(max_examples=100, deadline=None)
@given(shapes, st.lists(moves, max_size=60))
def test_every_flow_ends_and_every_run_is_equal(shape: NetworkShape, program: list[tuple]) -> None:
    """Asking for rates in between changes nothing; nothing remains once nothing is cut."""
    histories = []
    for asks in (False, True):
        play = Play(shape)
        for name, *arguments in program:
            getattr(play, name)(*arguments)
            if asks:
                play.network.next_finish_ns()
        for node in range(NODES):
            play.scale_node(node, 1000)
            for other in range(NODES):
                play.scale_link(node, other, 1000)
        while play.flows:
            assert play.network.next_finish_ns() is not None
            play.step()
        histories.append(play.history)
        assert play.network.next_finish_ns() is None
        assert set(play.network._levels.level[: 2 * NODES]) == {UNFILLED}
    assert histories[0] == histories[1]


@settings(max_examples=100, deadline=None)
@given(shapes, st.lists(moves, max_size=40))
def test_bytes_are_conserved(shape: NetworkShape, program: list[tuple]) -> None:
    """What the rates add up to over time is what has been sent, to the byte."""
    play = Play(shape)
    sent: dict[int, Fraction] = {}
    for name, *arguments in [*program, ("stop",)]:
        goal_ns = play.now_ns + (arguments[0] if name == "wait" else 0)
        if name == "step":
            goal_ns = play.network.next_finish_ns() or play.now_ns
        while play.now_ns < goal_ns:
            if (next_ns := sent_after(play)) is None:
                next_ns = goal_ns
            next_ns = min(goal_ns, max(next_ns, play.now_ns))
            for flow in play.flows:
                passed = Fraction(next_ns - play.now_ns, 10**9)
                sent[flow] = (
                    sent.get(flow, Fraction(0)) + Fraction(play.network.rate(flow)) * passed
                )
            sizes = dict(play.flows)
            play.now_ns = next_ns
            play.collect()
            for flow in sizes:
                if flow not in play.flows and sizes[flow][0] != sizes[flow][1]:
                    assert_all_sent(sent[flow], sizes[flow][2], play)
        if name not in ("wait", "step", "stop"):
            getattr(play, name)(*arguments)
        play.network.next_finish_ns()
    for flow in sorted(play.flows):
        source, target, size_bytes = play.flows[flow]
        left = play.network.cancel(flow, play.now_ns)
        if source == target:
            assert left == 0
        else:
            assert -1 < size_bytes - sent.get(flow, Fraction(0)) - left <= 0 or left == 0


def sent_after(play: Play) -> int | None:
    """When the next last byte leaves, which is when rates change."""
    play.network.next_finish_ns()
    return None if play.network._sent_ns == NEVER else play.network._sent_ns


def assert_all_sent(sent: Fraction, size_bytes: int, play: Play) -> None:
    """Everything, and no more than what its rate gives in the nanosecond in which it ended."""
    fastest = max(nic.up_bytes_per_s for nic in play.shape.nics) * 2
    assert 0 <= sent - max(size_bytes, 1) <= Fraction(fastest, 10**9)


# ----------------------------------------------------------------- levels alone


@pytest.mark.parametrize(
    ("capacities", "flows", "expected"),
    [
        ((10, 10, 10, 10), [], [UNFILLED] * 4),
        ((10, 10, 10, 10), [(0, 2), (0, 2), (0, 3)], [3, UNFILLED, UNFILLED, UNFILLED]),
        ((10, 10, 10, 10), [(0, 2), (0, 3), (1, 3)], [5, UNFILLED, UNFILLED, 5]),
        ((2, 10, 10, 10), [(0, 2), (1, 2)], [2, UNFILLED, 8, UNFILLED]),
        ((2, 8, 10, 10), [(0, 2), (1, 2)], [2, 8, 8, UNFILLED]),
        ((3, 9, 7, 10), [(0, 2), (1, 2)], [3, UNFILLED, 3, UNFILLED]),
        ((0, 10, 5, 10), [(0, 2), (1, 2)], [0, UNFILLED, 5, UNFILLED]),
    ],
)
def test_levels_by_hand(
    capacities: tuple[int, ...], flows: list[tuple[int, int]], expected: list[int]
) -> None:
    """The last but one: at 3 port 2 cannot give both one more, whatever limits the first."""
    levels = WaterLevels(list(capacities))
    for flow, (up, down) in enumerate(flows):
        levels.add(flow, up, down)
    levels.settle()
    assert levels.level == expected
    levels.changed.clear()
    for port in range(4):
        levels.set_capacity(port, capacities[port])
        levels.settle()
    assert (levels.level, levels.changed) == (expected, {})


@pytest.mark.parametrize(("ports", "concurrent"), [(8, 10), (64, 64), (64, 512), (16, 300)])
def test_levels_kept_are_levels_computed(ports: int, concurrent: int) -> None:
    """With many flows: after each start and end the same as from nothing."""
    chance = random.Random(ports * concurrent)
    levels = WaterLevels([1_310_720_000_000_000] * ports)
    flows: list[tuple[int, int, int]] = []
    for flow in range(concurrent * 2):
        up, down = chance.randrange(ports // 2), ports // 2 + chance.randrange(ports // 2)
        levels.add(flow, up, down)
        flows.append((flow, up, down))
        if len(flows) > concurrent:
            levels.settle()
            levels.remove(*flows.pop(chance.randrange(concurrent)))
        levels.settle()
        kept = list(levels.level)
        levels._fill()
        assert levels.level == kept


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_network_gives_equal_times_again(seed: int) -> None:
    """The order in which a batch of flows is announced does not matter either."""
    chance = random.Random(seed)
    flows = [(*chance.sample(range(8), 2), chance.randrange(MB)) for _ in range(200)]
    histories = []
    for order in (list(range(200)), list(range(200)), chance.sample(range(200), 200)):
        network = MaxMinNetwork(uniform(8, GBIT, 100))
        for flow in order:
            source, target, size_bytes = flows[flow]
            network.start(flow, source, target, size_bytes, 0)
        histories.append(run(network))
    assert histories[0] == histories[1] == histories[2]
    assert len(histories[0]) == 200
