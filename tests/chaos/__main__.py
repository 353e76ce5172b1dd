"""`python -m tests.chaos --seed 7 --minutes 3`: programs on a cluster that is being broken.

Each round must give the answers of a serial run, or an error that names its cause where that is
allowed, and nothing may begin more often than it was promised. At the end nothing may be left in
any store, no process and no file, nothing may have crashed, and the recordings of all processes
must replay to the same decisions, each alone and all of them collected.

Exit code 0: all of that held; 1: something did not; 2: it could not be tried.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from detray import startup
from detray.cluster_utils import ClusterNode
from detray.launch import LaunchError
from tests.chaos.checks import CrashWatch, check_quiet, check_traces
from tests.chaos.program import Round, Wrong
from tests.chaos.trouble import Trouble
from tests.support.netns import Machines, why_not

_STORE_BYTES = 160 << 20


class Chaos:
    """One run: the cluster, what was tried on it, and what came of it."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.summary: dict[str, Any] = {"seed": options.seed, "minutes": options.minutes}
        self._options = options
        self._scratch = scratch
        self._traces = scratch / "traces"
        self._traces.mkdir()
        self._marks = scratch / "marks"
        self._marks.mkdir()
        self._began = time.monotonic()
        self._nodes = 0
        times = {} if options.patient else None
        self._machines = Machines(is_apart=not why_not(), times=times)

    def run(self) -> None:
        """Everything. Raises Wrong with the first thing that was."""
        with self._machines:
            for _ in range(self._options.nodes):
                self._add_node(wait=False)
            self._machines.wait_ready()
            self._machines.connect()
            self.tell(f"{self._options.nodes} nodes are up; {why_not() or 'links can be cut'}")
            with CrashWatch(self._machines) as crashes:
                try:
                    self._break_it()
                    self._calm_down()
                finally:
                    startup.shutdown()
                    self._machines.shutdown()
            crashes.raise_any()
        if self._machines.left_behind:
            raise Wrong(f"left behind: {', '.join(self._machines.left_behind)}")
        self.tell("left behind: nothing")
        self.summary["replayed"] = check_traces(sorted(self._traces.iterdir()), self.tell)

    def tell(self, text: str) -> None:
        """A line of progress."""
        if not self._options.json:
            print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    def _break_it(self) -> None:
        options = self._options
        trouble = Trouble(
            self._machines, f"trouble {options.seed}", self._add_node, self.tell, options.only
        )
        performed: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        rounds = 0
        if not options.calm:
            trouble.start()
        try:
            while rounds == 0 or time.monotonic() - self._began < options.minutes * 60:
                program = Round(f"{options.seed}-{rounds}", self._marks)
                program.run(options.steps)
                program.finish()
                performed += program.performed
                failed += program.failed
                rounds += 1
                self.tell(f"round {rounds}: right")
                if trouble.problem is not None:
                    break
        finally:
            if not options.calm:
                trouble.stop()
            if trouble.problem is not None:
                self.summary["no more trouble"] = repr(trouble.problem)
            self.summary |= {
                "rounds": rounds,
                "performed": dict(sorted(performed.items())),
                "failed as allowed": dict(sorted(failed.items())),
                "trouble": dict(sorted(trouble.happened.items())),
            }

        if trouble.problem is not None:
            raise Wrong(f"trouble could not be made: {trouble.problem!r}") from trouble.problem

    def _calm_down(self) -> None:
        gc.collect()
        check_quiet(self._machines)
        self.tell("all stores are empty")

    def _add_node(self, wait: bool = True) -> ClusterNode:
        self._nodes += 1
        record = self._traces / f"node-{self._nodes}.trace"
        try:
            return self._machines.add_node(
                wait=wait,
                machine=self._machines.free_machine(),
                num_cpus=2,
                object_store_memory=_STORE_BYTES,
                record=str(record),
            )
        except LaunchError as problem:
            self.tell(f"a node did not come up: {problem}")
            raise


def main(argv: list[str]) -> int:
    """Run; the exit code."""
    options = _parse(argv)
    with tempfile.TemporaryDirectory(prefix="dtc-", dir="/tmp") as scratch:
        try:
            return _run(options, Path(scratch))
        except LaunchError as problem:
            print(f"chaos: no cluster could be started: {problem}", file=sys.stderr)
            return 2


def _run(options: argparse.Namespace, scratch: Path) -> int:
    chaos = Chaos(options, scratch)
    problem = ""
    try:
        chaos.run()
    except Wrong as wrong:
        problem = str(wrong)
        if wrong.__cause__ is not None:
            problem += f"\n  because of {type(wrong.__cause__).__name__}: {wrong.__cause__}"
    chaos.summary["seconds"] = round(time.monotonic() - chaos._began, 1)
    chaos.summary["wrong"] = problem
    if problem:
        kept = Path(f"/tmp/chaos-{options.seed}")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(scratch / "traces", kept)
        chaos.summary["traces"] = str(kept)
    if options.json:
        print(json.dumps(chaos.summary, indent=1))
    else:
        for name, value in chaos.summary.items():
            print(f"{name}: {value}")
    return 1 if problem else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--nodes", type=int, default=4, choices=range(3, 9))
    parser.add_argument("--steps", type=int, default=100, help="tasks of a round")
    parser.add_argument("--only", action="append", metavar="TROUBLE", help="this kind, repeatable")
    parser.add_argument("--patient", action="store_true", help="with the times of real clusters")
    parser.add_argument("--calm", action="store_true", help="no trouble at all")
    parser.add_argument("--json", action="store_true", help="for programs: the summary alone")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
