"""The keywords of `init`: accepted, refused with a reason, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from detray import machine
from detray.settings import read_settings


def totals(**given: Any) -> dict[str, int]:
    return dict(read_settings(None, given).totals())


def test_resources_become_integers_of_a_ten_thousandth() -> None:
    """Sorted by name; memory in bytes like any other."""
    found = totals(num_cpus=4, num_gpus=1, memory=1000, resources={"disk": 2.0, "zz": 0.5})
    assert (found["CPU"], found["GPU"], found["memory"]) == (40_000, 10_000, 10_000_000)
    assert (found["disk"], found["zz"]) == (20_000, 5_000)
    assert list(found) == sorted(found)


def test_the_machine_tells_what_nobody_said() -> None:
    """Cores that may be used, and memory beside the store."""
    settings = read_settings(None, {})
    assert dict(settings.totals())["CPU"] == machine.count_cpus() * 10_000
    assert machine.STORE_MIN_BYTES <= settings.store_bytes() < machine.memory_bytes()


def test_a_container_with_a_quota_has_fewer_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """But at least one."""
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)))
    for quota, cpus in ((0.0, 8), (2.5, 2), (0.3, 1)):
        monkeypatch.setattr(machine, "_cpu_quota", lambda quota=quota: quota)
        assert machine.count_cpus() == cpus


@pytest.mark.parametrize("visible, gpus", [("", 0), ("0,1", 2), ("-1", 0), ("GPU-5a", 1)])
def test_visible_devices_are_the_gpus(
    visible: str, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA_VISIBLE_DEVICES lists them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.count_gpus() == gpus


@pytest.mark.parametrize(
    "address, given, kind, text",
    [
        (None, {"nonsense": 1}, RuntimeError, r"Unknown keyword argument\(s\): nonsense"),
        (None, {"num_cpu": 1}, RuntimeError, r"Did you mean 'num_cpus'\? Valid ones are \['conf"),
        (None, {"record": 3}, TypeError, "path"),
        (None, {"record": "/proc"}, IsADirectoryError, "name a file"),
        (None, {"record": "/nowhere/run.trace"}, FileNotFoundError, "'/nowhere'. Make it first"),
        ("ray://host:1", {}, NotImplementedError, "from outside of a cluster"),
        ("auto", {"engine": "sim"}, NotImplementedError, "joins no cluster"),
        (7, {}, TypeError, "address"),
        (None, {"record_payloads": 1}, TypeError, "record_payloads must be True or False"),
        (
            None,
            {"record_payloads": True, "engine": "another"},
            NotImplementedError,
            "'another' keeps no arguments and values.* that does: processes, sim",
        ),
        (None, {"runtime_env": {"pip": []}}, NotImplementedError, "sys.path"),
        (None, {"num_cpus": "2"}, TypeError, "num_cpus"),
        (None, {"num_cpus": -1}, ValueError, "num_cpus"),
        (None, {"num_cpus": 1.5}, ValueError, "whole"),
        (None, {"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        (None, {"object_store_memory": 1000}, ValueError, "75 MiB"),
        (None, {"namespace": 3}, TypeError, "namespace"),
        (None, {"infeasible": "maybe"}, ValueError, "'wait' or 'raise'"),
        (None, {"labels": {"ray.io/x": "y"}}, ValueError, "reserved"),
        (None, {"labels": {"x": 3}}, TypeError, "labels"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    address: str | None, given: dict[str, Any], kind: type[Exception], text: str
) -> None:
    """Before anything is started."""
    with pytest.raises(kind, match=text):
        read_settings(address, given)


@pytest.mark.parametrize("name", ["DETRAY_ADDRESS", "RAY_ADDRESS"])
def test_the_environment_names_the_cluster_if_the_program_does_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument comes first; a simulated cluster is not asked for by the environment."""
    monkeypatch.setenv(name, "somewhere:1")
    assert read_settings(None, {}).address == "somewhere:1"
    assert read_settings("auto", {}).address == "auto"
    assert read_settings(None, {"engine": "sim"}).address == ""


def test_what_describes_a_node_is_refused_where_one_is_joined() -> None:
    """With Ray's words, and the names of what was given."""
    read_settings("auto", {"namespace": "n", "num_cpus": None}).check_joining("h:1")
    with pytest.raises(ValueError, match=r"existing cluster, num_cpus.*: num_cpus, record\."):
        read_settings("auto", {"num_cpus": 2, "record": "/tmp/x.trace"}).check_joining("h:1")


def test_what_programs_for_ray_say_is_accepted() -> None:
    """Names without a meaning here do no harm."""
    read_settings(
        "local",
        {
            "include_dashboard": False,
            "dashboard_host": "0.0.0.0",
            "dashboard_port": 8265,
            "_temp_dir": "/tmp/x",
            "_system_config": {"a": 1},
            "runtime_env": {},
            "configure_logging": False,
            "logging_level": "info",
            "local_mode": False,
        },
    )
