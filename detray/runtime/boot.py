"""What a service is told before its first message."""

from __future__ import annotations

import os

import msgspec

from detray.core.config import GlobalConfig, LocalConfig
from detray.runtime.spawn import SpawnedService

_FLIGHT_BYTES = 64 << 20


class BootConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that a service and its zygote are told, the module search path aside."""

    sys_path: list[str]
    cwd: str
    argv: list[str]
    local: LocalConfig
    global_: GlobalConfig = GlobalConfig()
    session_dir: str = ""
    """Left empty by whoever boots: the directory is made with the process."""
    driver_pid: int = 0
    record: str = ""
    """The trace file that keeps everything; "" for the ring in memory."""
    flight_bytes: int = _FLIGHT_BYTES
    namespace: str = ""
    entrypoint: str = ""
    log_to_driver: bool = True


def tell_service(service: SpawnedService, boot: BootConfig) -> None:
    """Complete `boot` with what belongs to this session, and send it."""
    complete = msgspec.structs.replace(
        boot,
        session_dir=service.session_dir,
        driver_pid=os.getpid(),
        record=os.path.abspath(boot.record) if boot.record else "",
    )
    service.tell(msgspec.msgpack.encode(complete))
