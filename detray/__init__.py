"""detray: distributed execution for Python, every decision made by a pure state machine.

Names are loaded when they are used: a service or worker process that imports `detray.runtime` does
not pay for what only programs call. `__init__.pyi` tells type checkers the same.
"""

from importlib import import_module

__version__ = "0.1.0"
__commit__ = ""
SCRIPT_MODE, WORKER_MODE, LOCAL_MODE = 0, 1, 2
"""Ray's names for kinds of processes."""

_HOMES = {
    "api": "available_resources cancel cluster_resources get get_actor graph kill nodes put"
    " sleep timeline wait",
    "errors": "DetrayError TaskError",
    "object_ref": "ObjectRef",
    "remote_function": "RemoteFunction remote",
    "runtime_context": "get_gpu_ids get_runtime_context",
    "startup": "SessionInfo init is_initialized shutdown",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
_LATER = {
    "actor": "actors",
    "method": "actors",
    "autoscaler": "clusters",
    "dag": "lazy task graphs",
    "runtime_env": "runtime environments",
    "ObjectRefGenerator": "generators",
}
"""Names that Ray has and detray has not yet, and what they belong to."""
_MODULES = ("errors", "exceptions", "util")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"detray.{name}")  # From now on an attribute of the package.
    if name == "ObjectID":  # Ray's first name for it
        return __getattr__("ObjectRef")
    home = _HOME.get(name)
    if home is None:
        later = f": {_LATER[name]} come with a later version of detray" if name in _LATER else ""
        raise AttributeError(f"module 'detray' has no attribute {name!r}{later}")
    found = globals()[name] = getattr(import_module(f"detray.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES, "ObjectID"})


__all__ = [
    "DetrayError",
    "LOCAL_MODE",
    "ObjectID",
    "ObjectRef",
    "RemoteFunction",
    "SCRIPT_MODE",
    "SessionInfo",
    "TaskError",
    "WORKER_MODE",
    "__commit__",
    "__version__",
    "available_resources",
    "cancel",
    "cluster_resources",
    "errors",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "graph",
    "init",
    "is_initialized",
    "kill",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "sleep",
    "timeline",
    "util",
    "wait",
]
