"""`import detray` is light and starts nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NOT_AT_IMPORT = (
    "asyncio",
    "cloudpickle",
    "concurrent.futures",
    "ctypes",
    "detray_sim",
    "logging",
    "multiprocessing",
    "networkx",
    "numpy",
    "psutil",
    "rich",
    "simpy",
    "subprocess",
)
_PROGRAM = """
import json, os, sys, threading
import detray
print(json.dumps({
    "modules": sorted(sys.modules),
    "threads": threading.active_count(),
    "descriptors": len(os.listdir("/proc/self/fd")),
}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, object]:
    """What a fresh interpreter looks like after `import detray`."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _with_path(_PROGRAM)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def _with_path(program: str) -> str:
    # -S keeps .pth files of the environment from importing things before us.
    return f"import sys; sys.path[:] = {sys.path!r}\n{program}"


@pytest.mark.parametrize("name", NOT_AT_IMPORT)
def test_import_loads_no(name: str, imported: dict[str, object]) -> None:
    """What takes tens of milliseconds to import is imported when it is used."""
    assert name not in imported["modules"]  # type: ignore[operator]


def test_import_starts_nothing(imported: dict[str, object]) -> None:
    """No thread, and no descriptor but the standard ones and the listing's own."""
    assert imported["threads"] == 1
    assert imported["descriptors"] == 4
