"""What a service is told before its first message."""

from __future__ import annotations

import os

import msgspec

from detray.core.config import GlobalConfig, LocalConfig
from detray.runtime.spawn import SpawnedService

_FLIGHT_BYTES = 64 << 20


class TlsFiles(msgspec.Struct, frozen=True):
    """Paths of PEM files: our certificate, its key, and the authority that signed all of them."""

    certificate: str
    key: str
    authority: str


class ClusterBoot(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of a cluster is told about it."""

    cluster: str
    """The cluster's id: 32 hexadecimal digits, made with its first head."""
    token: bytes
    """The secret that every process of the cluster has."""
    listen_host: str
    """The address to bind, "0.0.0.0" or "::" for all."""
    listen_port: int = 0
    """0: any that is free."""
    advertise: str = ""
    """The host that others are told to connect to; "" for the one that is bound."""
    head: str = ""
    """host:port of the head; "" in the head's own boot order."""
    tls: TlsFiles | None = None
    is_with_head: bool = False
    """It was started together with the head, on its machine."""
    ends_with_starter: bool = False
    """End when the log socket, whose other end the starter holds, reaches its end: for nodes and
    heads of a test. Otherwise a process of a cluster closes it and outlives who started it."""


class HeadBoot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a head process is told."""

    cluster: ClusterBoot
    global_: GlobalConfig = GlobalConfig()
    session_dir: str = ""
    store: str = ""
    """file:DIRECTORY, or redis://... with the local log in `store_dir`."""
    store_dir: str = ""
    """Where the local log is, whatever the store; made if missing."""
    web_port: int = 0
    """Of the page and of /metrics, on loopback; 0: any that is free, -1: none."""
    record: str = ""
    flight_bytes: int = _FLIGHT_BYTES


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
    record_payloads: bool = False
    """Keep arguments and values, too: beside the trace, or in a ring beside the one of steps."""
    namespace: str = ""
    entrypoint: str = ""
    log_to_driver: bool = True
    cluster: ClusterBoot | None = None
    """None for a private session, which has its head in itself and ends with its driver."""

    @property
    def digests(self) -> bool:
        """True if clients are to tell the digests of values: only what is kept for long has room
        and use for them."""
        return bool(self.record) or self.record_payloads


class DidStart(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """A cluster process is up; what it wrote into `cluster.json`."""

    info: dict[str, str | int]


class DidNotStart(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """It could not start, or not join, and ends."""

    reason: str


Readiness = DidStart | DidNotStart
"""The one frame that a cluster process sends to whoever started it, on the client socket."""


def tell_head(head: SpawnedService, boot: HeadBoot) -> None:
    """Complete `boot` with its session, and send it."""
    head.tell(msgspec.msgpack.encode(msgspec.structs.replace(boot, session_dir=head.session_dir)))


def tell_service(service: SpawnedService, boot: BootConfig) -> None:
    """Complete `boot` with what belongs to this session, and send it."""
    complete = msgspec.structs.replace(
        boot,
        session_dir=service.session_dir,
        driver_pid=os.getpid(),
        record=os.path.abspath(boot.record) if boot.record else "",
    )
    service.tell(msgspec.msgpack.encode(complete))
