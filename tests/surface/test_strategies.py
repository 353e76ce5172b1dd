"""Strategies as programs say them: what they may be, and what becomes of them."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable

import pytest

import detray as ray
from detray import options
from detray.core.strategy import AFFINITY, SPREAD, Expression, Strategy
from detray.exceptions import TaskUnschedulableError
from detray.ids import node_name
from detray.strategies import selected
from detray.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

GHOST = "ff" * 28
Affinity, Labels = NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy


def strategy_of(**given: object) -> Strategy | None:
    """What the cores get for these options."""
    return options.resolve(options.check(given), "f").strategy


@pytest.mark.parametrize(
    "given, strategy",
    [
        ({}, None),
        ({"scheduling_strategy": "DEFAULT"}, None),
        ({"scheduling_strategy": None, "label_selector": {}}, None),
        ({"scheduling_strategy": "SPREAD"}, Strategy(SPREAD)),
        (
            {"scheduling_strategy": Affinity(node_id=GHOST.upper(), soft=False)},
            Strategy(AFFINITY, GHOST),
        ),
        (
            {"scheduling_strategy": Affinity(GHOST, soft=True, _spill_on_unavailable=True)},
            Strategy(AFFINITY, GHOST, is_soft=True, spills=True),
        ),
        (
            {"scheduling_strategy": Affinity(GHOST, soft=False, _fail_on_unavailable=True)},
            Strategy(AFFINITY, GHOST, fails=True),
        ),
        (
            {
                "scheduling_strategy": Labels(
                    hard={"zone": In("eu", "us", "eu"), "a": Exists()},
                    soft={"disk": NotIn("hdd"), "b": DoesNotExist()},
                )
            },
            Strategy(
                hard=(Expression("a", "exists"), Expression("zone", "in", ("eu", "us"))),
                soft=(Expression("b", "!exists"), Expression("disk", "!in", ("hdd",))),
            ),
        ),
        (
            {"scheduling_strategy": "SPREAD", "label_selector": {"zone": "eu"}},
            Strategy(SPREAD, hard=(Expression("zone", "in", ("eu",)),)),
        ),
    ],
    ids=str,
)
def test_options_become_one_strategy(given: dict[str, object], strategy: Strategy | None) -> None:
    """Plain strings and numbers, equal if they mean the same."""
    assert strategy_of(**given) == strategy


@pytest.mark.parametrize(
    "text, operator, values",
    [
        ("eu", "in", ("eu",)),
        ("!eu", "!in", ("eu",)),
        ("in(eu, us)", "in", ("eu", "us")),
        ("in('eu','us')", "in", ("eu", "us")),
        (" !in(eu) ", "!in", ("eu",)),
        ("inn", "in", ("inn",)),
    ],
)
def test_a_selector_is_read_as_ray_reads_it(
    text: str, operator: str, values: tuple[str, ...]
) -> None:
    """A value, not a value, one of several, none of several."""
    assert selected({"zone": text}) == (Expression("zone", operator, values),)


@pytest.mark.parametrize("text", ["", "!", "in()", "in(eu", "a b", "a,b", "in(a,,b)", "!!a", "-a"])
def test_a_selector_that_says_nothing_is_refused(text: str) -> None:
    """With the forms that there are."""
    with pytest.raises(ValueError, match="Invalid label selector value"):
        selected({"zone": text})


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Affinity("abc", soft=False), "56 hexadecimal digits"),
        (lambda: Affinity("", soft=False), "56 hexadecimal digits"),
        (lambda: Affinity(GHOST, False, _spill_on_unavailable=True), "when soft is False"),
        (lambda: Affinity(GHOST, True, _fail_on_unavailable=True), "when soft is True"),
        (lambda: Labels(), "cannot both be empty"),
        (lambda: Labels({}, soft={}), "cannot both be empty"),
        (lambda: Labels(hard=[("a", In("b"))]), "must be a map"),
        (lambda: Labels(hard={1: In("b")}), "must be of type str"),
        (lambda: Labels(hard={"a": "b"}), "one of the operators In, NotIn"),
        (lambda: In(), "non-empty tuple"),
        (lambda: NotIn("a", 1), "position 1 for the NotIn operator must be str"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make: Callable[[], object], text: str) -> None:
    """As Ray refuses it."""
    with pytest.raises(ValueError, match=text):
        make()


def test_names_are_where_programs_for_ray_look_for_them() -> None:
    """Under `ray.util`, as a module and as an attribute."""
    module = sys.modules["detray.util.scheduling_strategies"]
    assert ray.util.scheduling_strategies is module
    assert module.NodeAffinitySchedulingStrategy is NodeAffinitySchedulingStrategy
    with pytest.raises(AttributeError, match="placement groups come with a later version"):
        _ = module.PlacementGroupSchedulingStrategy


def test_strategies_can_be_pickled_and_described() -> None:
    """A remote function takes its options along."""
    affinity = pickle.loads(pickle.dumps(Affinity(GHOST, soft=True)))
    labels = pickle.loads(pickle.dumps(Labels({"zone": In("eu")})))
    assert affinity.to_core() == Strategy(AFFINITY, GHOST, is_soft=True)
    assert repr(affinity) == f"NodeAffinitySchedulingStrategy('{GHOST}', soft=True)"
    assert repr(labels) == "NodeLabelSchedulingStrategy(hard={'zone': In('eu')}, soft={})"


def test_on_one_node_every_strategy_is_obeyed(session: object) -> None:
    """Spread and affinity to this node run here, a wish as well; what insists on another fails."""

    @ray.remote
    def where() -> str:
        found: str = ray.get_runtime_context().get_node_id()
        return found

    here = ray.nodes()[0]["NodeID"]
    for strategy in ("SPREAD", Affinity(here, soft=False), Affinity(GHOST, soft=True)):
        assert ray.get(where.options(scheduling_strategy=strategy).remote(), timeout=60) == here
    labelled = where.options(label_selector={"ray.io/node-id": here})
    assert ray.get(labelled.remote(), timeout=60) == here
    lost = where.options(scheduling_strategy=Affinity(GHOST, soft=False)).remote()
    with pytest.raises(TaskUnschedulableError, match=f"on the node {GHOST} and no other"):
        ray.get(lost, timeout=60)


def test_in_the_simulator_nodes_are_chosen_as_the_strategy_says(no_session: None) -> None:
    """Three simulated nodes: in turn, by name, by label."""
    with ray.init(engine="sim", nodes=3, num_cpus=2, labels={"zone": "eu"}):

        @ray.remote
        def where() -> str:
            found: str = ray.get_runtime_context().get_node_id()
            return found

        def places(count: int, **given: object) -> list[str]:
            return ray.get([where.options(**given).remote() for _ in range(count)])

        names = [node_name(number) for number in range(3)]
        assert sorted(places(3, scheduling_strategy="SPREAD")) == names
        for name in names:
            assert set(places(5, scheduling_strategy=Affinity(name, soft=False))) == {name}
        assert set(places(3, label_selector={"zone": "eu"})) == {names[0]}
        assert names[0] not in places(4, label_selector={"zone": "!eu"})
        with pytest.raises(TaskUnschedulableError, match="there never was such a node"):
            places(1, scheduling_strategy=Affinity(GHOST, soft=False))
