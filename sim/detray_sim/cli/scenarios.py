"""Scenarios from files, with what the command line replaces in them."""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detray_sim.cli.refusal import Refused
from detray_sim.faults import KINDS
from detray_sim.policies import check_policy
from detray_sim.scenario import SOURCES, Scenario, parse_scenario
from detray_sim.toml_tables import read_toml

Table = dict[str, Any]  # Any: whatever TOML can hold
_PATHS = tuple(f"workload.{source}" for source in SOURCES if source != "generator")


JOBS_MAX = 256
"""Processes that a command may start: more than any machine has use for."""
_FAULTS = tuple(name for name, kind in KINDS.items() if not kind.needs_store)
"""An experiment's head has a policy of its own and no log: it cannot die."""


def add_changes(parser: argparse.ArgumentParser) -> None:
    """The option --set."""
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a key of the file, as cluster.nodes=16 or network.bandwidth=10Gbit",
    )


def load(path: str, changes: Sequence[str] = (), policy: str = "", seed: int = -1) -> Scenario:
    """The scenario in a file. Raises OSError, ScenarioError, Refused."""
    top = _copied(read_toml(path))
    for change in changes:
        _apply(top, change)
    if policy:
        _put(top, ["policy", "name"], policy, "--policy")
    if seed >= 0:
        top.pop("seeds", None)
        top["seed"] = seed
    scenario = parse_scenario(top, path, fault_kinds=_FAULTS)
    if ":" in scenario.policy.name and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a policy of the user's own
    check_policy(scenario)
    return scenario


def _copied(table: Mapping[str, Any]) -> Table:
    return {k: _copied(v) if isinstance(v, dict) else v for k, v in table.items()}


def _apply(top: Table, change: str) -> None:
    key, equals, written = change.partition("=")
    if not equals or not key or "" in key.split("."):
        raise Refused(f"--set {change!r}: it is KEY=VALUE, as cluster.nodes=16")
    value = read_value(written)
    if key in _PATHS and isinstance(value, str):
        # Paths in a file count from the file, those on the command line from here.
        value = str(Path(value).resolve())
    _put(top, key.split("."), value, f"--set {key}")


def read_value(written: str) -> object:
    """A value as TOML has it; what is no TOML is a text (`10Gbit`)."""
    try:
        return tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        return written


def _put(top: Table, path: list[str], value: object, what: str) -> None:
    table = top
    for name in path[:-1]:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise Refused(f"{what}: {name} is no table")
        table = inner
    table[path[-1]] = value


def whole_numbers(text: str, what: str, least: int = 1) -> list[int]:
    """`1,2,4` as numbers. Raises Refused."""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise Refused(f"{what}: whole numbers with commas between, not {text!r}") from None
    if any(number < least for number in numbers):
        raise Refused(f"{what}: numbers from {least} on, not {text!r}")
    return list(dict.fromkeys(numbers))


def check_out(path: str | None) -> None:
    """Refuse an output folder that would be overwritten or cannot be made, before anything runs."""
    if path is None:
        return
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"--out {path}: it is there already, and not an empty folder")
    parent = folder.resolve().parent
    if not parent.is_dir():
        raise Refused(f"--out {path}: there is no folder {parent}")
