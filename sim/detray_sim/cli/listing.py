"""`detray-sim list`: what a scenario may name."""

from __future__ import annotations

import argparse

from detray.trace.documents import document
from detray_sim.faults import KINDS
from detray_sim.policies import CATALOGUE
from detray_sim.workloads.generators import GENERATORS

NETWORKS = {
    "instant": "transfers and messages take no time",
    "simple": "every transfer has the whole bandwidth, however many there are",
    "maxmin": "transfers share the network cards, max-min fair",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = commands.add_parser(
        "list",
        help="generators, policies, networks and faults that there are",
        description="What a scenario may name, with a line for each.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    groups = {
        "generators": {name: _first_line(kind) for name, kind in GENERATORS.items()},
        "policies": {entry.name: entry.line for entry in CATALOGUE.values()},
        "networks": NETWORKS,
        "faults": {name: _spelled(name) for name in KINDS},
    }
    if options.json:
        print(document("detray-sim list", groups))
        return 0
    for title, group in groups.items():
        print(f"{title}:")
        width = max(map(len, group))
        for name, line in group.items():
            print(f"  {name:<{width}}  {line}")
        print()
    return 0


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").split("\n\n")[0].replace("\n    ", " ").replace("`", "")


def _spelled(name: str) -> str:
    kind = KINDS[name]
    loses = ", ".join(failure.name.lower() for failure in kind.excuses)
    length = "" if kind.undo is None else "for a while; "
    return f"{length}may cause {loses}" if loses else f"{length}no task may fail of it"
