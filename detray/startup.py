"""The session of this process: its start, its end, and the start that happens by itself.

This is the only place at the top floor that keeps state of its own: `_running`, what `init`
started. (The client itself is bound in `object_ref`, where references find it.)
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from detray import __version__, object_ref
from detray.engine import EngineSession, find_engine
from detray.errors import NotStartedError
from detray.ids import node_name
from detray.settings import Settings, read_settings


class SessionInfo(Mapping[str, Any]):
    """What `init` returns: facts about the session, and a `with` block that ends it."""

    def __init__(self, address_info: dict[str, Any]) -> None:
        self.address_info = address_info
        self.dashboard_url = str(address_info.get("webui_url", "")).removeprefix("http://")
        self.python_version = ".".join(map(str, sys.version_info[:3]))
        self.ray_version = self.detray_version = __version__

    def __getitem__(self, key: str) -> Any:  # Any: as in Ray, a dict of various facts
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> SessionInfo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """End the session, as `detray.shutdown` does."""
        if _running is not None and _running.context is self:
            shutdown()

    def __repr__(self) -> str:
        return f"SessionInfo(address={self.address_info['address']!r}, detray {__version__})"


class Running:
    """What `init` started and `shutdown` has to end."""

    def __init__(self, session: EngineSession, context: SessionInfo, settings: Settings) -> None:
        self.session = session
        self.context = context
        self.settings = settings
        self.pid = os.getpid()
        self.sigterm: Any = None  # Any: what signal.signal returned
        """The SIGTERM handler that ours stands in for, if ours was installed."""


_running: Running | None = None
_lock = threading.RLock()
_imposed: dict[str, Any] = {}
"""Keywords that `init` takes for given, whatever the program says. (Any: their values.)"""


def init(address: str | None = None, **given: Any) -> SessionInfo:
    """Start detray in this process: join a cluster, or start a service process of its own.

    Where to go says `address`, else DETRAY_ADDRESS or RAY_ADDRESS in the environment: "host:port"
    of a head joins the node of its cluster on this machine, "auto" whatever cluster runs here,
    "local" is a session of its own. If nobody says, a cluster that `detray start` began on this
    machine is joined, else the session is its own. Which cluster was joined is told on stderr.

    Every other keyword has a default. Resources of this machine: `num_cpus` (cores that may be
    used), `num_gpus` (those there are), `resources` (custom ones, name to amount), `memory` and
    `object_store_memory` (bytes). Behaviour: `namespace`, `log_to_driver` (print what workers
    print), `ignore_reinit_error`, `infeasible` ("wait", or "raise": fail at once what no node can
    ever run), `record` (a path: write a trace of every decision there), `record_payloads` (keep
    arguments and values, too, for `detray rerun`). `engine="sim"` runs the
    program in a simulated cluster instead of real processes, `local_mode=True` on one simulated
    node (docs/simulation-programs.md).

    Raises RuntimeError if a session runs already and `ignore_reinit_error` is not set, or for an
    unknown keyword; ValueError, TypeError or NotImplementedError for a value that cannot be, and
    ValueError for what describes a node where one is joined that runs already; ConnectionError if
    no such cluster runs here, or it does not let us in.
    """
    global _running
    settings = read_settings(address, {**given, **_imposed})
    with _lock:
        client = object_ref.bound()
        if client is not None:
            if not settings.ignore_reinit_error:
                raise RuntimeError(
                    "Maybe you called detray.init twice by accident? This process has a session. "
                    "Pass ignore_reinit_error=True to go on with it, or call detray.shutdown()"
                )
            return _running.context if _running is not None else _worker_context(client)
        _running = _start(settings)
        return _running.context


def shutdown(_exiting_interpreter: bool = False) -> None:
    """End the session: tasks end, objects are gone, references cannot be used any more.

    Does nothing if there is no session. Inside of a task it does nothing either: the session is the
    driver's.
    """
    global _running
    with _lock:
        running = _running
        if running is None or running.session.client.is_worker:
            return
        _running = None
        if running.pid != os.getpid():  # In a fork: all this is the parent's.
            object_ref.unbind()
            return
        atexit.unregister(shutdown)
        _restore_sigterm(running)
        object_ref.unbind()
        running.session.end()


@contextmanager
def imposing(**given: Any) -> Iterator[None]:  # Any: whatever `init` takes
    """Sessions that start meanwhile take these keywords, whatever the program says.

    For tools that run programs under another engine than the programs know.
    """
    global _imposed
    before, _imposed = _imposed, {**_imposed, **given}
    try:
        yield
    finally:
        _imposed = before


def is_initialized() -> bool:
    """True if this process has a session."""
    return object_ref.bound() is not None


def require() -> Any:  # Any: the client's class lives in the runtime
    """This process's client; starts a session if there is none.

    Raises NotStartedError if DETRAY_ENABLE_AUTO_CONNECT=0 (or Ray's name for it) forbids that.
    """
    client = object_ref.bound()
    if client is not None:
        return client
    for name in ("DETRAY_ENABLE_AUTO_CONNECT", "RAY_ENABLE_AUTO_CONNECT"):
        if os.environ.get(name) == "0":
            raise NotStartedError(
                f"detray has not been started yet, and {name}=0 forbids that it starts by itself. "
                "Call detray.init()"
            )
    with _lock:
        if object_ref.bound() is None:
            init()
        return object_ref.bound()


def require_started() -> Any:  # Any: as above
    """This process's client, without starting anything. Raises NotStartedError."""
    client = object_ref.bound()
    if client is None:
        raise NotStartedError("detray has not been started yet: call detray.init() first")
    return client


def running() -> Running:
    """What `init` started in this driver. Raises NotStartedError, RuntimeError in a worker."""
    if _running is None or _running.session.client.is_worker:
        if object_ref.bound() is not None:
            raise RuntimeError("only the driver can do this, not a task")
        raise NotStartedError("detray has not been started yet: call detray.init() first")
    return _running


def _start(settings: Settings) -> Running:
    session = find_engine(settings.engine)(settings)
    context = SessionInfo(
        {
            "address": "local",
            "node_ip_address": "127.0.0.1",
            "session_dir": "",
            "node_id": node_name(session.client.node),
            "webui_url": "",
            "gcs_address": "",
            "object_store_address": "",
            "raylet_ip_address": "127.0.0.1",
            **session.facts,
        }
    )
    running = Running(session, context, settings)
    object_ref.bind(session.client)
    settings.configure_logging()
    atexit.register(shutdown, True)
    _install_sigterm(running)
    return running


def node_labels(node: int) -> dict[str, str]:
    """A node's labels, as far as this process knows them: `init` has told its own driver only."""
    given = _running.settings.labels if _running is not None else {}
    return {"ray.io/node-id": node_name(node), **given}


def _worker_context(client: Any) -> SessionInfo:  # Any: the client's class lives in the runtime
    return SessionInfo({"address": "local", "node_id": node_name(client.node), "session_dir": ""})


def _install_sigterm(running: Running) -> None:
    """Turn SIGTERM into an orderly exit, unless the program handles it itself."""
    if threading.current_thread() is not threading.main_thread():
        return
    import signal

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        running.sigterm = signal.signal(signal.SIGTERM, _on_sigterm)


def _restore_sigterm(running: Running) -> None:
    if running.sigterm is None or threading.current_thread() is not threading.main_thread():
        return
    import signal

    if signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, running.sigterm)


def _on_sigterm(number: int, frame: object) -> None:
    sys.exit(128 + number)
