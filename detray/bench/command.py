"""`detray bench`: rounds over the engines, then the table.

A round visits every engine once, each in fresh processes, and the next round begins with another
one. So all engines meet the same quiet and busy minutes of the machine, and a median over the
rounds compares like with like.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from typing import Any

from detray.bench.clusters import CLUSTER_ENGINES
from detray.bench.rows import BY_NAME, CLUSTER_GROUPS, GROUPS, ON_REQUEST, chosen_groups
from detray.bench.subjects import PEERS, is_installed
from detray.bench.table import Samples, as_json, as_text
from detray.bench.visit import VisitFailed, measure_start, visit

_VERSIONS = """
import importlib.metadata, json
found = {package: [d.version for d in importlib.metadata.distributions(name=package)][:1]
         for package in ("detray", "ray", "distributed", "joblib", "numpy", "msgspec")}
print(json.dumps({package: "".join(version) for package, version in found.items()}))
"""


def main(argv: list[str]) -> int:
    """Run the command; the exit code is 0 even if a goal was missed: a speed is no error."""
    options = _parse(argv)
    groups = chosen_groups(options.rows, cluster=options.cluster)
    engines = ["detray"]
    for peer in _chosen_peers(options.peers):
        if is_installed(peer, options.peer_python):
            engines.append(peer)
        else:
            _say(f"{peer}: not installed, left out (pip install 'detray[peers]')")
    about = _about(options, groups)
    samples: Samples = {engine: {} for engine in engines}
    rounds = 1 if options.quick else options.repeat
    for turn in range(rounds):
        order = engines[turn % len(engines) :] + engines[: turn % len(engines)]
        for engine in order:
            _say(f"round {turn + 1} of {rounds}: {engine}")
            _visit_once(engine, groups, options, samples[engine])
    about["load_after"] = os.getloadavg()
    document = as_json(samples, tuple(engines), about)
    if options.output:
        with open(options.output, "w") as file:
            json.dump(document, file, indent=1)
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        print(as_text(samples, tuple(engines)))
        print(
            f"\n{_about_line(about)}\nmedians of {rounds} rounds; (x): times better than the peer"
        )
    return 0


def _visit_once(
    engine: str,
    groups: tuple[str, ...],
    options: argparse.Namespace,
    samples: dict[str, list[float]],
) -> None:
    python = sys.executable if engine == "detray" else options.peer_python
    try:
        if "start" in groups:
            started = measure_start(engine, workers=options.workers, python=python)
            for name, value in started.items():
                samples.setdefault(name, []).append(value)
        rest = tuple(group for group in groups if group != "start" and _is_for(engine, group))
        for group, values in visit(
            engine, rest, workers=options.workers, quick=options.quick, python=python
        ):
            if isinstance(values, str):
                _say(f"  {engine}, {group}: {values}")
                continue
            for name, value in values.items():
                assert name in BY_NAME, name
                samples.setdefault(name, []).append(value)
    except VisitFailed as failure:
        name, group, why = failure.args
        _say(f"  {name} gave up in {group}: {why}")


def _is_for(engine: str, group: str) -> bool:
    """True if the engine has what the group is about."""
    if group in CLUSTER_GROUPS:
        return engine in CLUSTER_ENGINES
    return engine == "detray" or group not in ("recording", "million")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="detray bench",
        description="Measure detray and its peers in one run, interleaved, and print the table.",
    )
    parser.add_argument(
        "--peers", default="", help=f"all, or some of {','.join(PEERS)} (default: none)"
    )
    parser.add_argument(
        "--rows",
        default="",
        help=f"all, or some of {','.join(GROUPS)} "
        f"(default: all but {','.join(group for group in GROUPS if group in ON_REQUEST)})",
    )
    parser.add_argument(
        "--cluster",
        action="store_true",
        help=f"measure clusters of several nodes: {','.join(CLUSTER_GROUPS)}",
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="FILE",
        help="interpreter that has the peers installed (default: this one)",
    )
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--output", metavar="FILE", help="also write the JSON there")
    options = parser.parse_args(argv)
    try:
        chosen_groups(options.rows)
        _chosen_peers(options.peers)
    except ValueError as error:
        parser.error(str(error))
    if shutil.which(options.peer_python) is None:
        parser.error(f"--peer-python: {options.peer_python} cannot be run")
    return options


def _chosen_peers(names: str) -> tuple[str, ...]:
    if names in ("", "none"):
        return ()
    if names == "all":
        return PEERS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise ValueError(f"no such peers: {', '.join(unknown)}; there are {', '.join(PEERS)}, all")
    return tuple(wanted)


def _about(options: argparse.Namespace, groups: tuple[str, ...]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cpus": os.cpu_count(),
        "workers": options.workers,
        "load_before": os.getloadavg(),
        "versions": _versions(options.peer_python),
        "groups": groups,
    }


def _versions(peer_python: str) -> dict[str, str]:
    """Of what is measured and of what it stands on, as far as it is installed."""
    ours = json.loads(subprocess.check_output([sys.executable, "-c", _VERSIONS]))
    peers = json.loads(subprocess.check_output([peer_python, "-c", _VERSIONS]))
    return {name: version for name, version in (peers | ours).items() if version}


def _about_line(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    loads = f"load {about['load_before'][0]:.1f} before, {about['load_after'][0]:.1f} after"
    return f"Python {about['python']}, {about['cpus']} CPUs, {loads}; {versions}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
