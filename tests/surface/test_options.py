"""Options of remote functions: accepted, refused with a reason, and turned into integers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detray import options


def demand(**given: Any) -> dict[str, int]:
    return dict(options.resolve(options.check(given), "f").demand)


def test_a_task_asks_for_one_cpu_unless_it_says_otherwise() -> None:
    """In units of 1/10,000; what is zero is left out."""
    assert demand() == {"CPU": 10_000}
    assert demand(num_cpus=0) == {}
    assert demand(num_cpus=0.25, num_gpus=2, memory=100, resources={"disk": 1}) == {
        "CPU": 2_500,
        "GPU": 20_000,
        "memory": 1_000_000,
        "disk": 10_000,
    }


def test_the_defaults_are_rays() -> None:
    """Three retries of crashes, none of exceptions, one return."""
    assert options.resolve({}, "f") == options.TaskOptions("f", 1, (("CPU", 10_000),), 3, False, 0)


def test_a_task_with_a_gpu_leaves_its_process_behind() -> None:
    """What it left on the GPU goes with the process."""
    assert options.resolve({"num_gpus": 0.5}, "f").max_calls == 1
    assert options.resolve({"num_gpus": 0.5, "max_calls": 0}, "f").max_calls == 0


@given(st.integers(0, 10_000_000))
def test_any_amount_down_to_a_ten_thousandth_is_exact(amount: int) -> None:
    """No float drift."""
    assert options.units("CPU", amount / 10_000) == amount


@pytest.mark.parametrize(
    "given_, kind, text",
    [
        ({"num_cpu": 1}, ValueError, r"keyword num_cpu .*mean 'num_cpus'. Valid ones are \['acc"),
        ({"num_cpus": "1"}, TypeError, "type of keyword 'num_cpus' must be int or float"),
        ({"num_cpus": True}, TypeError, "num_cpus"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": float("nan")}, ValueError, "num_cpus"),
        ({"num_cpus": 0.00001}, ValueError, "finer than 1/10,000"),
        ({"num_gpus": 1.5}, ValueError, "whole above 1"),
        ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' keyword"),
        ({"resources": {"x": -1}}, ValueError, "x"),
        ({"resources": {"x": 1.5}}, ValueError, "whole above 1"),
        ({"resources": ["x"]}, TypeError, "resources"),
        ({"num_returns": -1}, ValueError, "num_returns"),
        ({"num_returns": 1.0}, TypeError, "num_returns"),
        ({"num_returns": "streaming"}, NotImplementedError, "generators"),
        ({"max_retries": -2}, ValueError, "max_retries"),
        ({"max_calls": -1}, ValueError, "max_calls"),
        ({"retry_exceptions": "ValueError"}, TypeError, "retry_exceptions"),
        ({"retry_exceptions": [3]}, TypeError, "no exception class"),
        ({"name": 3}, TypeError, "name"),
        ({"scheduling_strategy": "FAST"}, ValueError, "SPREAD"),
        ({"scheduling_strategy": object()}, TypeError, "NodeAffinitySchedulingStrategy"),
        ({"runtime_env": {"pip": ["x"]}}, NotImplementedError, "runtime_env"),
        ({"label_selector": {"a": "b c"}}, ValueError, "Invalid label selector value 'b c'"),
        ({"label_selector": {"a": 1}}, TypeError, "must map str to str"),
        ({"label_selector": "a=b"}, TypeError, "label_selector"),
        ({"fallback_strategy": [{}]}, NotImplementedError, "fallback_strategy"),
        ({"placement_group": object()}, NotImplementedError, "placement_group"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(
    given_: dict[str, Any], kind: type[Exception], text: str
) -> None:
    """The error says which option, and why."""
    with pytest.raises(kind, match=text):
        options.check(given_)


@pytest.mark.parametrize(
    "given_",
    [
        {"scheduling_strategy": "SPREAD"},
        {"label_selector": {"zone": "in(eu, us)", "disk": "!hdd"}},
        {"runtime_env": {}},
        {"enable_task_events": False},
        {"retry_exceptions": [ValueError, OSError]},
        {"max_retries": -1},
        {"_metadata": {"a": 1}},
        {"placement_group": "default"},
        dict.fromkeys(options.NAMES),
    ],
    ids=str,
)
def test_what_programs_for_ray_say_is_accepted(given_: dict[str, Any]) -> None:
    """None always means: not said."""
    assert options.check(given_) == given_
