"""Which engines there are, whether they are installed, and how a user starts each."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

from detray.bench.subjects.subject import Subject

_CLASSES = {
    "detray": ("detray", "ray_like", "Detray"),
    "ray": ("ray", "ray_like", "Ray"),
    "dask": ("distributed", "dask", "Dask"),
    "pool": ("multiprocessing", "pools", "StandardPool"),
    "executor": ("concurrent.futures", "pools", "StandardExecutor"),
    "loky": ("joblib", "pools", "Loky"),
}
PEERS = tuple(name for name in _CLASSES if name != "detray")

_TASK = "def task():\n    return 7\n"
_BEFORE = "import time\nbegan = time.monotonic_ns()\n"
_AFTER = "print('DONE', began, time.monotonic_ns(), flush=True)\n"
_RAY_LIKE = """import {name}
{task}{before}{name}.init(num_cpus={{workers}}{options})
assert {name}.get({name}.remote(task).remote()) == 7
{after}{name}.shutdown()
"""
START_PROGRAMS = {
    "detray": _RAY_LIKE.format(name="detray", task=_TASK, before=_BEFORE, options="", after=_AFTER),
    "ray": _RAY_LIKE.format(
        name="ray",
        task=_TASK,
        before=_BEFORE,
        options=", logging_level='ERROR', include_dashboard=False",
        after=_AFTER,
    ),
    "dask": f"""from distributed import Client
{_TASK}{_BEFORE}client = Client(n_workers={{workers}}, threads_per_worker=1, dashboard_address=None)
assert client.submit(task).result() == 7
{_AFTER}client.shutdown()
""",
    "pool": f"""import multiprocessing
{_TASK}{_BEFORE}pool = multiprocessing.Pool({{workers}})
assert pool.apply_async(task).get() == 7
{_AFTER}pool.terminate()
""",
    "executor": f"""import concurrent.futures
{_TASK}{_BEFORE}pool = concurrent.futures.ProcessPoolExecutor({{workers}})
assert pool.submit(task).result() == 7
{_AFTER}pool.shutdown()
""",
    "loky": f"""from joblib.externals.loky import get_reusable_executor
{_TASK}{_BEFORE}pool = get_reusable_executor(max_workers={{workers}})
assert pool.submit(task).result() == 7
{_AFTER}pool.shutdown()
""",
}
"""Programs of a fresh interpreter up to the first result, as a user of each would write them.

They print when `init` began and when the first result was there, on the machine's monotonic clock.
"""


def is_installed(name: str, python: str = sys.executable) -> bool:
    """True if the engine can be imported, by that interpreter. Raises OSError if there is none."""
    module = _CLASSES[name][0]
    if python == sys.executable:
        return importlib.util.find_spec(module) is not None
    program = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", program], check=False).returncode == 0


def make(name: str) -> Subject:
    """The engine `name`, not started."""
    _module, home, class_name = _CLASSES[name]
    subject: Subject = getattr(
        importlib.import_module(f"detray.bench.subjects.{home}"), class_name
    )()
    return subject
