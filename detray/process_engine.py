"""The engine of real processes: a service, a zygote, workers (docs/architecture.md).

A program either starts a service of its own, which ends with it, or joins a node of a cluster.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from detray import machine
from detray.errors import ServiceDiedError
from detray.nearby import LocalProcess, find_node
from detray.runtime.net.address import parse_address

if TYPE_CHECKING:
    from detray.driver_logs import DriverLogs
    from detray.runtime.boot import BootConfig
    from detray.runtime.client import Client
    from detray.runtime.spawn import SpawnedService
    from detray.settings import Settings

_SERVICE_END_S = 5.0
_LAST_LINES_S = 2.0


class JoinedSession:
    """A node of a cluster that this driver joined, and the connections to it."""

    def __init__(self, client: Client, node: LocalProcess, logs: DriverLogs) -> None:
        self.client = client
        self.logs = logs
        self.facts: dict[str, Any] = {  # Any: as in Ray, various facts
            "address": node.head,
            "gcs_address": node.head,
            "node_ip_address": parse_address(node.address).host,
            "raylet_ip_address": parse_address(node.address).host,
            "webui_url": node.web,
            "session_dir": node.directory,
            "object_store_address": node.directory,
        }

    def trace(self) -> bytes:
        """What the joined node has recorded so far. Raises TimeoutError, ConnectionError."""
        self.client.flush()
        return self.logs.request_trace()

    def end(self) -> None:
        """Leave; the cluster stays."""
        from detray.serialization.search_paths import travel_with

        travel_with(())
        self.logs.leave(_LAST_LINES_S)
        self.client.close()


class ProcessSession:
    """A service process that this driver started, and the connections to it."""

    def __init__(self, client: Client, service: SpawnedService, logs: DriverLogs) -> None:
        self.client = client
        self.service = service
        self.logs = logs
        self.facts: dict[str, Any] = {  # Any: as in Ray, various facts
            "session_dir": service.session_dir,
            "object_store_address": service.session_dir,
        }

    def trace(self) -> bytes:
        """The recording of the session so far. Raises TimeoutError, ConnectionError."""
        self.client.flush()
        return self.logs.request_trace()

    def end(self) -> None:
        """Leave; the service ends with its driver, by force if it must."""
        self.client.close()
        if self.service.wait(_SERVICE_END_S) is None:
            self.service.kill()
            self.service.wait(_SERVICE_END_S)
        self.logs.finish(_LAST_LINES_S)


def start(settings: Settings) -> ProcessSession | JoinedSession:
    """Join the cluster that the settings name, or that runs on this machine; else start a service.

    Raises ConnectionError if there is no such cluster, or it does not let us in; ServiceDiedError
    if a service of our own ends at once.
    """
    node = find_node(settings.address)
    return start_private(settings) if node is None else join(settings, node)


def join(settings: Settings, node: LocalProcess) -> JoinedSession:
    """Become a driver at a node of this machine that runs already. Raises as `start` does."""
    settings.check_joining(node.address)
    from detray import joining
    from detray.serialization.search_paths import travel_with

    client, logs = joining.join(
        node,
        namespace=settings.namespace,
        entrypoint=_entrypoint(),
        show=settings.log_to_driver,
    )
    # What the program imports from its own directory, workers find there, too.
    travel_with(settings.sys_path)
    joining.announce(node)
    return JoinedSession(client, node, logs)


def start_private(settings: Settings) -> ProcessSession:
    """Start a service process and connect to it. Raises ServiceDiedError if it ends at once."""
    from detray.runtime.spawn import begin_service

    service = begin_service(settings.sys_path)
    try:
        # The service needs some 50 ms to come up; meanwhile we load what it is told with, and what
        # the first call needs.
        from detray.runtime.boot import tell_service

        tell_service(service, boot_config(settings))
        import_module("detray.serialization.pickling")
        from detray.driver_logs import DriverLogs
        from detray.runtime.client import connect

        client = connect(service.client_socket, service.session_dir)
    except BaseException as problem:
        service.kill()
        status = service.wait(_SERVICE_END_S)
        if isinstance(problem, ServiceDiedError):
            raise ServiceDiedError(f"{problem} (exit status {status})") from None
        raise
    logs = DriverLogs(service.log_socket, show=settings.log_to_driver)
    logs.start()
    return ProcessSession(client, service, logs)


def boot_config(settings: Settings) -> BootConfig:
    """The order that starts a service."""
    from detray.core.config import LocalConfig
    from detray.runtime.boot import BootConfig

    return BootConfig(
        sys_path=settings.sys_path,
        cwd=os.getcwd(),
        argv=list(sys.argv),
        local=LocalConfig(
            node_name=settings.node_name or "127.0.0.1",
            labels=tuple(sorted(settings.labels.items())),
            totals=settings.totals(),
            arena_bytes=settings.store_bytes(),
            infeasible=settings.infeasible,
            prestart_workers=min(machine.count_cpus(), settings.whole_cpus()),
        ),
        record=settings.record,
        record_payloads=settings.record_payloads,
        namespace=settings.namespace,
        entrypoint=_entrypoint(),
        log_to_driver=settings.log_to_driver,
    )


def _entrypoint() -> str:
    return " ".join(sys.argv)[:1000]
