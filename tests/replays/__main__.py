"""`python -m tests.replays --runs 20 --steps 1000000`: record real runs, replay them elsewhere.

Each run is a stress run in a process of its own (`tests.stress`: worker kills, spills,
cancellations, timeouts, nested submission, references that are let go), with its own seed, CPUs and
store. Every recording is replayed by every `--python` (default: this one), each time in a new
process under another hash seed. Runs go on until there are as many as asked for, with as many
steps. What was in the recordings is counted from them and printed. Exit code 1 if one effect
differs anywhere, or if something of that list never happened.

`--fixtures` records the small runs that are kept in `traces/`, to be done after a change of
decisions on purpose.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.ids import job_of, root_task
from detray.trace.reading import open_trace

ROOT = Path(__file__).resolve().parents[2]
TROUBLES = (
    "workers killed",
    "spills",
    "cancellations",
    "timeouts",
    "nested submissions",
    "references let go",
    "failures",
    "retries",
)

SHAPES = ((2, 75), (4, 75), (8, 120))
"""CPUs, and MB of store: small, so that it spills."""
FIXTURE_SEEDS, FIXTURE_STEPS = (41, 53), 50


def main(argv: list[str]) -> int:
    """Record, replay, print; 0 if every effect of every run is the same everywhere."""
    options = _parse(argv)
    if options.fixtures:
        return _record_fixtures()
    print("replays:", *(f"--{key} {value}" for key, value in vars(options).items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="replays-") as scratch:
        folder = Path(options.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        totals: Counter[str] = Counter()
        run = 0
        while run < options.runs or totals["steps"] < options.steps:
            run += 1
            path = folder / f"run-{run}.trace"
            minutes = options.seconds / 60
            _record(path, options.seed * 1000 + run, SHAPES[run % len(SHAPES)], minutes, 150)
            found = troubles_in(path)
            replayed = Counter[str]()
            for python, seed in _interpreters(options, run):
                replayed += _replay(python, seed, path)
            totals += Counter(steps=found["steps"], stimuli=found["stimuli"]) + replayed
            totals += Counter({name: found[name] for name in TROUBLES})
            told = ", ".join(f"{found[name]:,} {name}" for name in TROUBLES)
            print(f"run {run}: {found['steps']:,} steps, {told}", flush=True)
            if not options.out:
                path.unlink()
    _report(options, run, totals)
    missing = [name for name in TROUBLES if not totals[name]]
    if missing:
        print(f"not in any run: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing or totals["differing"] else 0


def _record(
    path: Path,
    seed: int,
    shape: tuple[int, int],
    minutes: float,
    steps: int,
    folder: Path = ROOT,
    kill_every_s: float = 1.0,
) -> None:
    """One stress run on so many CPUs with so many MB. Raises SystemExit if it went wrong."""
    command = [sys.executable, "-m", "tests.stress", "--seed", str(seed), "--trace", path.name]
    command += ["--minutes", str(minutes), "--steps", str(steps)]
    command += ["--cpus", str(shape[0]), "--store-mb", str(shape[1]), "--kill-every"]
    command.append(str(kill_every_s))
    places = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(folder / "sim")))}
    done = subprocess.run(
        command, cwd=path.parent, env=places, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{path} went wrong:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def _record_fixtures() -> int:
    """The small runs in `traces/`. Their headers name the program: by a path that means nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        link = Path("/tmp/detray")
        link.symlink_to(ROOT)
        try:
            for number, seed in enumerate(FIXTURE_SEEDS, 1):
                path = Path(scratch, f"real-{number}.trace")
                shape = SHAPES[number % len(SHAPES)]
                _record(path, seed, shape, 0, FIXTURE_STEPS, link, 0.6)
                found = troubles_in(path)
                told = ", ".join(f"{found[name]:,} {name}" for name in TROUBLES)
                size = path.stat().st_size
                print(f"{path.name}: {size:,} bytes, {found['steps']:,} steps, {told}")
                shutil.copy(path, ROOT / "traces" / path.name)
        finally:
            link.unlink()
    return 0


def _interpreters(options: argparse.Namespace, run: int) -> Iterator[tuple[str, str]]:
    """Each interpreter with a hash seed that no other replay of this run has."""
    for place, python in enumerate(options.python or [sys.executable]):
        yield python, str(1 + 97 * run + place)


def _replay(python: str, seed: str, path: Path) -> Counter[str]:
    """Steps and effects that were compared, and how many steps differ."""
    done = subprocess.run(
        [python, "-m", "detray.cli", "replay", "--json", str(path)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{python} cannot replay {path}: {done.stderr}")
    said: dict[str, Any] = json.loads(done.stdout)
    if done.returncode or not said["identical"]:
        print(f"{path} under {python} (hash seed {seed}): {done.stdout}", file=sys.stderr)
    cores = said["cores"]
    return Counter(
        replays=1,
        compared_steps=sum(core["steps"] for core in cores),
        compared_effects=sum(core["effects"] for core in cores),
        differing=said["differing_steps"] or int(not said["identical"]),
    )


def troubles_in(path: Path) -> Counter[str]:
    """How often what happened in a recording."""
    count: Counter[str] = Counter()
    ordered: set[int] = set()
    for step in open_trace(path).steps():
        count["steps"] += 1
        for stimulus in step.stimuli():
            count["stimuli"] += 1
            match stimulus:
                case st.WorkerLost(expected=False) if stimulus.client not in ordered:
                    count["workers killed"] += 1
                case st.CancelRequested():
                    count["cancellations"] += 1
                case st.TaskSubmitted() if stimulus.parent != root_task(job_of(stimulus.task)):
                    count["nested submissions"] += 1
                case st.RefsDropped():
                    count["references let go"] += len(stimulus.objects)
                case st.RunFailed():
                    count["failures"] += 1
                case st.ObjectMoved():
                    count["spills"] += 1
        for effect in step.effects() or ():
            if isinstance(effect, ef.RunTask) and effect.attempt:
                count["retries"] += 1
            elif isinstance(effect, ef.GetAnswered) and effect.timed_out:
                count["timeouts"] += 1
            elif isinstance(effect, ef.KillWorker):
                ordered.add(effect.client)
    return count


def _report(options: argparse.Namespace, runs: int, totals: Counter[str]) -> None:
    effects, steps = totals["compared_effects"], totals["compared_steps"]
    print(
        f"{runs} runs, {totals['steps']:,} steps, {totals['stimuli']:,} stimuli; "
        f"replayed {totals['replays']} times, by {len(options.python) or 1} interpreters: "
        f"{steps:,} steps with {effects:,} effects, {totals['differing']} differ"
    )
    print("in them:", ", ".join(f"{totals[name]:,} {name}" for name in TROUBLES))


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.replays",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=20, help="at least so many (default: 20)")
    parser.add_argument("--steps", type=int, default=1_000_000, help="at least so many in all")
    parser.add_argument("--seconds", type=float, default=60.0, help="a run goes on for so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="an interpreter that has detray installed; may be given several times",
    )
    parser.add_argument("--fixtures", action="store_true", help="write traces/real-*.trace")
    parser.add_argument("--out", metavar="DIR", help="keep the recordings there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
