"""The engine of real processes: a service, a zygote, workers (docs/architecture.md)."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from detray import machine
from detray.errors import ServiceDiedError

if TYPE_CHECKING:
    from detray.driver_logs import DriverLogs
    from detray.runtime.boot import BootConfig
    from detray.runtime.client import Client
    from detray.runtime.spawn import SpawnedService
    from detray.settings import Settings

_SERVICE_END_S = 5.0
_LAST_LINES_S = 2.0


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


def start(settings: Settings) -> ProcessSession:
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
            node_name=settings.node_name,
            totals=settings.totals(),
            arena_bytes=settings.store_bytes(),
            infeasible=settings.infeasible,
            prestart_workers=min(machine.count_cpus(), settings.whole_cpus()),
        ),
        record=settings.record,
        namespace=settings.namespace,
        entrypoint=" ".join(sys.argv)[:1000],
        log_to_driver=settings.log_to_driver,
    )
