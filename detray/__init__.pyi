# What `__getattr__` in __init__.py finds, for type checkers.

from detray import errors, exceptions, util
from detray.api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    graph,
    kill,
    nodes,
    put,
    sleep,
    timeline,
    wait,
)
from detray.errors import DetrayError, TaskError
from detray.object_ref import ObjectRef
from detray.object_ref import ObjectRef as ObjectID
from detray.remote_function import RemoteFunction, remote
from detray.runtime_context import get_gpu_ids, get_runtime_context
from detray.startup import SessionInfo as SessionInfo
from detray.startup import init, is_initialized, shutdown

__version__: str
__commit__: str
SCRIPT_MODE: int
WORKER_MODE: int
LOCAL_MODE: int

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
