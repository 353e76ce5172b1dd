"""One visit: an engine in processes of its own, started, measured and ended.

Nothing of one engine is left when the next is measured. The parent starts `python -m
detray.bench.visit NAME JSON`; the child writes a JSON line a group to the descriptor it was given.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from detray.bench.groups import Values, measure_group
from detray.bench.rows import CLUSTER_GROUPS
from detray.bench.subjects import START_PROGRAMS, make

_GROUP_S_MAX = 240.0
_START_S_MAX = 60.0
_STARTS_ITSELF = frozenset({"recording", "million", *CLUSTER_GROUPS})
"""Groups that start and stop the engine themselves: each gets a visit of its own."""
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class VisitFailed(Exception):
    """An engine did not answer or died: its name, the group, what it printed last."""


def measure_start(name: str, *, workers: int, python: str = sys.executable) -> Values:
    """From a fresh interpreter to the first result, in milliseconds; raises VisitFailed."""
    program = START_PROGRAMS[name].replace("{workers}", str(workers))
    began_ns = time.monotonic_ns()
    child = _popen([python, "-c", program], stdout=subprocess.PIPE)
    try:
        output, _ = child.communicate(timeout=_START_S_MAX)
    except subprocess.TimeoutExpired:
        raise VisitFailed(name, "start", f"no result within {_START_S_MAX:.0f} s") from None
    finally:
        _end(child, patience_s=10)
    for line in output.decode(errors="replace").splitlines():
        if line.startswith("DONE "):
            init_ns, done_ns = map(int, line.split()[1:])
            return {"start": (done_ns - began_ns) / 1e6, "init": (done_ns - init_ns) / 1e6}
    raise VisitFailed(name, "start", "it ended without a result")


def visit(
    name: str,
    groups: tuple[str, ...],
    *,
    workers: int,
    quick: bool,
    python: str = sys.executable,
) -> Iterator[tuple[str, Values | str]]:
    """Start an engine, measure these groups, end it: (group, values or what went wrong).

    `python` is the interpreter that has the engine.
    """
    for group in sorted(_STARTS_ITSELF.intersection(groups)):
        try:
            yield from _visit(name, (group,), workers=workers, quick=quick, python=python)
        except VisitFailed as failure:
            yield group, f"gave up: {failure.args[2]}"
    together = tuple(group for group in groups if group not in _STARTS_ITSELF)
    if together:
        yield from _visit(name, together, workers=workers, quick=quick, python=python)


def _visit(
    name: str, groups: tuple[str, ...], *, workers: int, quick: bool, python: str
) -> Iterator[tuple[str, Values | str]]:
    read_end, write_end = os.pipe()
    request = {"groups": groups, "workers": workers, "quick": quick, "answers": write_end}
    with tempfile.TemporaryFile() as log:
        child = _popen(
            [python, "-m", "detray.bench.visit", name, json.dumps(request)],
            stdout=log,
            stderr=log,
            pass_fds=(write_end,),
        )
        os.close(write_end)
        patience_s = 0.0
        try:
            for group in groups:
                answer = _next_line(read_end, child)
                if answer is None:
                    raise VisitFailed(name, group, _tail(log))
                yield group, json.loads(answer)
            patience_s = 30.0
        finally:
            os.close(read_end)
            _end(child, patience_s)


def _popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": _our_place()}
    options.setdefault("stderr", subprocess.DEVNULL)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment, **options
    )


def _our_place() -> str:
    """Where another interpreter finds us, and what it found before."""
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH", ""))))


def _next_line(read_end: int, child: subprocess.Popen[bytes]) -> bytes | None:
    """The child's next line; None if it ended, or said nothing for too long."""
    line = b""
    deadline = time.monotonic() + _GROUP_S_MAX
    while time.monotonic() < deadline:
        readable, _, _ = select.select([read_end], [], [], 0.5)
        if readable:
            byte = os.read(read_end, 1)
            if not byte or byte == b"\n":
                return line or None
            line += byte
        elif child.poll() is not None:
            return None
    return None


def _end(child: subprocess.Popen[bytes], patience_s: float = 30) -> None:
    """Wait for the child to end by itself, then kill it and every process it started."""
    import psutil

    started: list[psutil.Process] = []
    try:
        started = psutil.Process(child.pid).children(recursive=True)
        child.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process = psutil.Process(child.pid)
        started = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        pass
    child.poll()
    _gone, alive = psutil.wait_procs(started, timeout=0 if patience_s == 0 else 3)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    child.wait()


def _tail(log: Any) -> str:  # a binary temporary file; typing has no short name for it
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return " / ".join(line.strip() for line in lines[-3:]) or "no answer, and nothing printed"


def main() -> None:
    """The child: start the engine, answer group by group, stop."""
    name, request = sys.argv[1], json.loads(sys.argv[2])
    os.set_inheritable(request["answers"], False)
    with os.fdopen(request["answers"], "w") as answers:
        subject = make(name)
        if not _STARTS_ITSELF.issuperset(request["groups"]):
            subject.start(request["workers"])
        for group in request["groups"]:
            try:
                answer: Values | str = measure_group(group, subject, quick=request["quick"])
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"[:500]
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        if not _STARTS_ITSELF.issuperset(request["groups"]):
            subject.stop()


if __name__ == "__main__":
    main()
