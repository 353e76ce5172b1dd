"""`python -m tests.stress --seed 7 --minutes 3`: rounds of made-up programs until the time is up.

Each round must give the answers of a serial run. At the end nothing may be left in the store, no
process and no file, and the trace of the whole run must replay to the same decisions.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import detray
from detray.startup import running
from tests.stress.killer import Killer
from tests.stress.program import Program, Wrong

_MARK = "DETRAY_STRESS_RUN"
_EMPTY_S = 15.0


def main(argv: list[str]) -> int:
    """Run; 0 if everything was right, 1 with the first thing that was not."""
    options = _parse(argv)
    given = (f"--{name.replace('_', '-')} {value}" for name, value in vars(options).items())
    print("stress:", *given, flush=True)
    scratch = Path(tempfile.mkdtemp(prefix="ds-", dir="/tmp"))
    os.environ["TMPDIR"] = os.environ[_MARK] = str(scratch)
    trace = Path(options.trace).absolute() if options.trace else scratch / "stress.trace"
    try:
        detray.init(
            num_cpus=options.cpus,
            record=trace,
            log_to_driver=False,
            object_store_memory=options.store_mb << 20,
        )
        performed = _rounds(options, scratch)
        print(
            "performed:", ", ".join(f"{name} {count}" for name, count in sorted(performed.items()))
        )
        _assert_store_empty()
        print("store: empty")
        detray.shutdown()
        _assert_nothing_left(scratch)
        print("left behind: nothing")
        _assert_replays(trace)
    except (Wrong, AssertionError) as wrong:
        print(f"WRONG: {wrong}", file=sys.stderr)
        cause = wrong.__cause__
        if cause is not None:
            print(f"  because of {type(cause).__name__}: {cause}", file=sys.stderr)
        kept = trace
        if trace.exists() and not options.trace:
            kept = Path(shutil.copy(trace, f"/tmp/stress-{options.seed}.trace"))
        print(f"  trace: {kept}; again with --seed {options.seed}", file=sys.stderr)
        return 1
    finally:
        detray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _rounds(options: argparse.Namespace, scratch: Path) -> Counter[str]:
    """Programs one after the other, with a killer beside them."""
    killer = Killer(f"{options.seed}", options.kill_every)
    if options.kill_every:
        killer.start()
    performed: Counter[str] = Counter()
    began = time.monotonic()
    number = 0
    try:
        while number == 0 or time.monotonic() - began < options.minutes * 60:
            program = Program(f"{options.seed}-{number}", scratch)
            round_began = time.monotonic()
            program.run(options.steps)
            program.finish()
            performed += program.performed
            number += 1
            took = time.monotonic() - round_began
            print(f"round {number}: right, {took:.1f} s, {killer.killed} workers killed so far")
            sys.stdout.flush()
    finally:
        if options.kill_every:
            killer.stop()
    return performed


def _assert_store_empty() -> None:
    """Everything was forgotten: no task, no object, no byte in the arena."""
    deadline = time.monotonic() + _EMPTY_S
    while True:
        gc.collect()
        status = running().session.client.status("summary")
        store = status["store"]
        left = {
            "objects": sum(status["objects"].values()),
            "tasks": sum(status["tasks"].values()),
            "arena bytes": store["used_bytes"],
            "inline bytes": store["inline_bytes"],
            "segment bytes": store["segment_bytes"],
        }
        if not any(left.values()):
            return
        if time.monotonic() > deadline:
            rows = running().session.client.status("objects", limit=10)
            listed = "".join(f"\n    {row}" for row in rows)
            raise AssertionError(
                f"still in the store {_EMPTY_S:.0f} s after the last use: {left}{listed}"
            )
        time.sleep(0.1)


def _assert_nothing_left(scratch: Path) -> None:
    """No process that this run started, and no session directory."""
    mark = f"{_MARK}={scratch}".encode()
    deadline = time.monotonic() + 5
    while True:
        left = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and mark in Path("/proc", entry, "environ").read_bytes():
                    left.append(f"process {entry}")
            except OSError:
                continue
        left += [str(path) for path in scratch.glob("detray-*/*") if path.name != "flights"]
        if not left:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {', '.join(left)}")
        time.sleep(0.1)


def _assert_replays(trace: Path) -> None:
    """Fresh cores decide the same when they are told the same."""
    print(f"replaying {trace.stat().st_size / 1e6:.1f} MB ...", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "detray.cli", "replay", str(trace)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout.rstrip())
    if done.returncode != 0:
        raise AssertionError(f"replay differs (exit {done.returncode}):\n{done.stderr[-2000:]}")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=400, help="operations in a round")
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--store-mb", type=int, default=400, help="small, so that it spills")
    parser.add_argument("--trace", default="", help="keep the recording here")
    parser.add_argument(
        "--kill-every", type=float, default=0.5, help="seconds between deaths; 0: none"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
