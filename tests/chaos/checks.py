"""What must hold at the end of a chaos run, and while it lasts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from detray.errors import EngineError
from detray.trace.format import TraceError
from detray.trace.reading import open_trace
from tests.chaos.program import Wrong
from tests.support.netns import Machines, find_paths

_QUIET_S = 40.0
_LOOK_S = 0.2
_STORE_KEYS = ("used_bytes", "inline_bytes", "segment_bytes")


class CrashWatch:
    """Looks for processes that end by a bug: they say so in their log, which does not stay long."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._found: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> CrashWatch:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop.set()
        self._thread.join()

    def raise_any(self) -> None:
        """Raises Wrong if there was one."""
        if self._found:
            raise Wrong("crashed:\n" + "\n".join(self._found.values()))

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            for path, text in list(self._machines.logs()):
                if "Traceback" in text:
                    self._found[str(path)] = f"{path}:\n{text}"
            for path in find_paths(self._machines.base, "*/detray-*/flights/*.trace"):
                with suppress(OSError, ValueError):
                    reason = open_trace(path, salvage=True).reason
                    if "crashed" in reason:
                        self._found.setdefault(str(path), f"{path}: {reason}")


def check_quiet(machines: Machines) -> None:
    """Every node is there, without a task, an object or a byte. Raises Wrong if that takes long."""
    deadline = time.monotonic() + _QUIET_S
    while left := _find_left(machines):
        if time.monotonic() >= deadline:
            raise Wrong(f"still there {_QUIET_S:.0f} s after the last use: {left}")
        time.sleep(0.2)


def _find_left(machines: Machines) -> dict[str, Any]:
    try:
        nodes = [node for node in machines.ask("status")["nodes"] if node["alive"]]
        rows = {kind: machines.ask("list", kind, 20) for kind in ("tasks", "objects")}
    except EngineError as problem:
        return {"the head": str(problem)}
    left: dict[str, Any] = {}
    wanted = len(machines.list_all_nodes())
    if len(nodes) != wanted:
        left["nodes"] = f"{len(nodes)} of {wanted}"
    for kind, found in rows.items():
        if found["rows"] or found["missing"]:
            left[kind] = found
    for node in nodes:
        store = {key: node["store"][key] for key in _STORE_KEYS if node["store"][key]}
        if store or node["age_s"] is None:
            left[f"store of node {node['number']}"] = store
    return left


def check_traces(paths: Sequence[Path], tell: Callable[[str], None]) -> dict[str, Any]:
    """Each recording replays, and so do all together; what was replayed. Raises Wrong."""
    paths = [path for path in paths if _has_steps(path)]
    size = sum(path.stat().st_size for path in paths)
    tell(f"replaying {len(paths)} recordings, {size / 1e6:.1f} MB ...")
    steps = 0
    for path in paths:
        found = _detray("replay", "--salvage", "--check", "--json", str(path))
        steps += sum(core["steps"] for core in found["cores"])
    whole = paths[0].parent / "cluster.trace"
    collected = _detray("trace", "collect", "--json", "-o", str(whole), *map(str, paths))
    _detray("replay", "--salvage", "--json", str(whole))
    tell(f"{steps:,} steps replayed to the same decisions, each alone and all together")
    return {"steps": steps, "recordings": len(paths), "matched": collected.get("matched", 0)}


def _has_steps(path: Path) -> bool:
    """False for that of a process which died before it had written anything."""
    try:
        return open_trace(path, salvage=True).step_count > 0
    except TraceError:
        return False


def _detray(*arguments: str) -> dict[str, Any]:  # Any: JSON
    done = subprocess.run(
        [sys.executable, "-m", "detray.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        raise Wrong(f"detray {' '.join(arguments)} (exit code {done.returncode}):\n{said}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
