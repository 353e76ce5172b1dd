"""Starting heads and nodes of a cluster, as `detray start` and `cluster_utils.Cluster` do.

A cluster process is spawned like the service of a private session (`runtime/spawn.py`), told who
it is, and says once whether it is up. After that it needs its starter no more, unless it is tied to
it: then it ends when the starter's end of the log socket closes, whatever closed it.

The head's identity (the cluster's id and token) lies beside its log, so that a head that is started
again with the same store is the same cluster's.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from detray import machine, nearby
from detray.core.config import GlobalConfig, LocalConfig, Policy
from detray.errors import EngineError
from detray.runtime.boot import (
    BootConfig,
    ClusterBoot,
    DidNotStart,
    HeadBoot,
    Readiness,
    TlsFiles,
    tell_head,
    tell_service,
)
from detray.runtime.frames import FrameError, FrameReader
from detray.runtime.net.address import parse_address
from detray.runtime.net.security import find_token, make_token, read_token
from detray.runtime.session import home, sweep
from detray.runtime.spawn import SpawnedService, begin_service
from detray.settings import Settings
from detray.trace.replacing import write_whole

DEFAULT_PORT = 6379
READY_S = 30.0
"""How long a head or node may take to come up."""
_SLOW_S = 3.0
_LOG_LINES = 12
_IDENTITY_NAME = "identity.json"
_PAUSE_S = 0.02

Note = Callable[[str], None]
"""Takes a line for whoever waits."""


class LaunchError(EngineError):
    """A head or a node could not be started, or not reached; the message says why."""


class ClusterKey(NamedTuple):
    """What all processes of a cluster share."""

    cluster: str
    token: bytes


class Listen(NamedTuple):
    """Where a process listens, and what it tells others to connect to ("" : find out)."""

    host: str = ""
    port: int = 0
    advertise: str = ""


class Launched:
    """A head or a node that this process started: its parent, and perhaps its lifeline."""

    def __init__(self, kind: str, process: SpawnedService, *, tied: bool) -> None:
        self.kind = kind
        self.pid = process.pid
        self.session_dir = process.session_dir
        self.info: dict[str, str | int] = {}
        """What it said when it was ready (`cluster.json`)."""
        self._process = process
        self._tied = tied
        # Opened now: its directory may be gone by the time somebody wants to know why.
        self._log = open(os.path.join(process.session_dir, _log_name(kind)), "rb")  # noqa: SIM115

    @property
    def address(self) -> str:
        """host:port where it listens."""
        return str(self.info["address"])

    def wait_ready(self, timeout_s: float = READY_S, note: Note | None = None) -> None:
        """Wait until it is up. Raises LaunchError with its reason, or its last words; then it is
        dead."""
        try:
            self.info = self._await(timeout_s, note)
        except BaseException:
            self.kill()
            self.wait(5.0)
            self.close()
            raise
        self._process.client_socket.close()
        if not self._tied:
            self._process.log_socket.close()

    def refresh(self) -> None:
        """Learn who it is now: a node that was declared dead wrongly comes back as a new one, in
        the same process."""
        for process in nearby.find_local():
            if process.pid == self.pid and process.directory != self.session_dir:
                self.session_dir = process.directory
                self.info |= {"node": process.node, "address": process.address}

    def is_alive(self) -> bool:
        """True if the process has not ended."""
        return self._process.wait(0) is None

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; its exit status, None if it still lives."""
        return self._process.wait(timeout_s)

    def wait_over(self, timeout_s: float) -> bool:
        """Wait until all its processes are gone, and its session directory; False if they are not.

        Who was killed as a whole cleans up nothing: we do.
        """
        deadline = time.monotonic() + timeout_s
        if self.wait(timeout_s) is None:
            return False
        while os.path.exists(self.session_dir):
            if time.monotonic() >= deadline:
                return False
            sweep(os.path.dirname(self.session_dir))
            time.sleep(_PAUSE_S)
        return True

    def signal(self, number: int, *, whole: bool = False) -> None:
        """Send it a signal; with `whole` to its zygote and workers as well, as if the machine had
        stopped, or lost power."""
        if whole:
            _signal_all(self.pid, number)
        elif self.is_alive():
            os.kill(self.pid, number)

    def stop(self, timeout_s: float = 15.0) -> bool:
        """Ask it to leave in order; False if it is still there after so long."""
        self.signal(signal.SIGTERM)
        ended = self.wait(timeout_s) is not None
        if ended:
            self.close()
        return ended

    def kill(self, *, whole: bool = False) -> None:
        """SIGKILL. A node's zygote then ends the workers and cleans up, unless it is `whole`."""
        self.signal(signal.SIGKILL, whole=whole)

    def close(self) -> None:
        """Let go of it: a tied process ends by itself now."""
        self._process.client_socket.close()
        self._process.log_socket.close()
        self._log.close()

    def last_lines(self) -> str:
        """The end of what it wrote to its log file."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])

    def _await(self, timeout_s: float, note: Note | None) -> dict[str, str | int]:
        reader = FrameReader(1 << 20)
        sock = self._process.client_socket
        begun = time.monotonic()
        said = begun
        while (parts := reader.next()) is None:
            now = time.monotonic()
            if now - begun >= timeout_s:
                raise LaunchError(self._story(f"did not come up within {timeout_s:g} s"))
            if note is not None and now - said >= _SLOW_S:
                said = now
                note(f"still waiting for the {self.kind} (pid {self.pid}, {now - begun:.0f} s)")
            sock.settimeout(max(_PAUSE_S, min(_SLOW_S, timeout_s - (now - begun))))
            try:
                if not reader.receive(sock):
                    status = self.wait(5.0)
                    raise LaunchError(self._story(f"ended while it started (status {status})"))
            except TimeoutError:
                continue
            except (OSError, FrameError) as problem:
                raise LaunchError(self._story(f"said nothing sensible: {problem}")) from None
        answer = _readiness(bytes(parts[0]))
        if isinstance(answer, DidNotStart):
            raise LaunchError(f"the {self.kind} could not start: {answer.reason}")
        return answer.info

    def _story(self, what: str) -> str:
        lines = self.last_lines()
        return f"the {self.kind} {what}" + (f"; its last words:\n{lines}" if lines else "")


def _signal_all(leader: int, number: int) -> None:
    """Signal every process of the session that `leader` began, until no new one turns up.

    Workers are in process groups of their own, and may be forked while we look.
    """
    reached: set[int] = set()
    while found := [pid for pid in _pids() if pid not in reached and _session_of(pid) == leader]:
        for pid in found:
            reached.add(pid)
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _pids() -> list[int]:
    import psutil  # 20 ms that only tests of deaths need

    return [int(pid) for pid in psutil.pids()]


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


def start_head(
    *,
    key: ClusterKey,
    listen: Listen,
    store: str,
    store_dir: str,
    tls: TlsFiles | None = None,
    web_port: int = 0,
    record: str = "",
    tied: bool = False,
    policy: Policy | None = None,
) -> Launched:
    """Spawn a head; call `wait_ready` next.

    Raises OSError if it cannot be spawned.
    """
    cluster = _cluster_boot(key, listen, "", tls, tied)
    boot = HeadBoot(
        cluster=cluster,
        global_=GlobalConfig(policy=policy or Policy()),
        store=store,
        store_dir=store_dir,
        web_port=web_port,
        record=os.path.abspath(record) if record else "",
    )
    process = begin_service(sys_path(), "head", _log_name("head"))
    tell_head(process, boot)
    return Launched("head", process, tied=tied)


def port_of(process: Launched) -> int:
    """The port that it listens on."""
    return parse_address(process.address).port


def begin_node() -> SpawnedService:
    """Spawn what `start_node` makes a node of: it loads its code while its head comes up.

    Raises OSError.
    """
    return begin_service(sys_path(), "service", _log_name("node"))


def start_node(
    settings: Settings,
    *,
    key: ClusterKey,
    listen: Listen,
    head: str,
    tls: TlsFiles | None = None,
    tied: bool = False,
    is_beside_head: bool = False,
    policy: Policy | None = None,
    process: SpawnedService | None = None,
) -> Launched:
    """Spawn a node of the cluster whose head is at `head`; call `wait_ready` next.

    `process` is one that `begin_node` has spawned already. Raises OSError if none can be spawned.
    """
    cluster = msgspec.structs.replace(
        _cluster_boot(key, listen, head, tls, tied), is_with_head=is_beside_head
    )
    host = cluster.advertise or cluster.listen_host
    boot = BootConfig(
        sys_path=sys_path(),
        cwd=os.getcwd(),
        argv=["detray"],
        local=LocalConfig(
            node_name=settings.node_name or host,
            totals=settings.totals(host, is_beside_head),
            arena_bytes=settings.store_bytes(),
            stop_with_last_driver=False,
            prestart_workers=min(machine.count_cpus(), settings.whole_cpus()),
            labels=tuple(sorted(settings.labels.items())),
            policy=policy or Policy(),
        ),
        record=settings.record,
        record_payloads=settings.record_payloads,
        cluster=cluster,
    )
    process = process or begin_node()
    tell_service(process, boot)
    return Launched("node", process, tied=tied)


def _cluster_boot(
    key: ClusterKey, listen: Listen, head: str, tls: TlsFiles | None, tied: bool
) -> ClusterBoot:
    wildcard = "::" if head and ":" in parse_address(head).host else "0.0.0.0"
    host = listen.host or wildcard
    advertise = listen.advertise
    if not advertise and host in ("0.0.0.0", "::"):
        advertise = own_host(head, host)
    return ClusterBoot(
        cluster=key.cluster,
        token=key.token,
        listen_host=host,
        listen_port=listen.port,
        advertise=advertise,
        head=head,
        tls=tls,
        ends_with_starter=tied,
    )


def own_host(towards: str, listen_host: str) -> str:
    """This machine's address on the way to the head; or to the world, if we are the head.

    Nothing is sent: the kernel only looks up the route.
    """
    world = "2001:db8::1" if listen_host == "::" else "192.0.2.1"
    host = parse_address(towards).host if towards else world
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except OSError:
        return "::1" if listen_host == "::" else "127.0.0.1"


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """What looks or is spawned meanwhile finds these environment variables, too."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def sys_path() -> list[str]:
    """Where a node's workers look for modules: like us, but for the directory of a command's
    script, in whose place the working directory stands."""
    paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
    script = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and sys.argv[0] else ""
    if paths and paths[0] == script and os.path.basename(script) == "bin":
        paths[0] = os.getcwd()
    return list(dict.fromkeys(paths))


def _readiness(meta: bytes) -> Readiness:
    try:
        [answer] = msgspec.msgpack.decode(meta, type=list[Readiness])
    except (msgspec.MsgspecError, ValueError) as problem:
        raise LaunchError(f"the process did not say whether it is up: {problem}") from None
    return answer


def _log_name(kind: str) -> str:
    return "head.log" if kind == "head" else "service.log"


# ------------------------------------------------------------------ tokens and identities


def new_key(token: bytes = b"") -> ClusterKey:
    """A cluster that has not been there before; with a token of the user's, or a random one."""
    return ClusterKey(secrets.token_hex(16), token or make_token())


def given_token(token_file: str = "") -> bytes:
    """The token that the user names: by `token_file`, DETRAY_TOKEN or DETRAY_TOKEN_FILE; b"" if
    by none. Raises LaunchError if what is named cannot be used."""
    try:
        return read_token(token_file) if token_file else find_token() or b""
    except PermissionError as problem:
        raise LaunchError(str(problem)) from None
    except OSError as problem:
        raise LaunchError(
            f"the token file {problem.filename} cannot be read: {problem.strerror}"
        ) from None
    except ValueError as problem:
        raise LaunchError(str(problem)) from None


def load_key(store_dir: str) -> ClusterKey | None:
    """The cluster whose head kept its log there; None if none did. Raises LaunchError."""
    path = os.path.join(store_dir, _IDENTITY_NAME)
    if not os.path.exists(path):
        return None
    facts = _read_key(store_dir)
    if not facts.get("cluster") or not facts.get("token"):
        raise LaunchError(
            f"{path} does not say whose log this is: name another --store, or remove {store_dir}"
        )
    return ClusterKey(str(facts["cluster"]), str(facts["token"]).encode())


def _read_key(store_dir: str) -> dict[str, object]:
    """What `save_key` wrote; nothing if that cannot be read."""
    try:
        with open(os.path.join(store_dir, _IDENTITY_NAME)) as file:
            facts = json.load(file)
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def save_key(store_dir: str, key: ClusterKey, *, keep: bool = False) -> None:
    """Write down whose log is kept there, for a head that comes after. Raises OSError.

    `keep`: the user has named the store, and it stays when the cluster is stopped.
    """
    os.makedirs(store_dir, 0o700, exist_ok=True)
    path = os.path.join(store_dir, _IDENTITY_NAME)
    facts = {"cluster": key.cluster, "token": key.token.decode(), "keep": keep}
    write_whole(path, [json.dumps(facts).encode()])


def place_store(store: str, default_dir: str) -> tuple[str, str]:
    """What `--store` says as (store, directory of the local log); "" is a file store by default.

    Raises ValueError for what is neither file:PATH nor redis://...
    """
    if not store:
        return f"file:{default_dir}", default_dir
    if store.startswith("file:") and len(store) > len("file:"):
        path = os.path.abspath(os.path.expanduser(store.removeprefix("file:")))
        return f"file:{path}", path
    if store.startswith(("redis://", "rediss://", "unix://")):
        return store, default_dir
    raise ValueError(f"store {store!r} is unknown: say file:PATH, or redis://HOST:PORT/0")


def default_store(port: int) -> str:
    """The directory of the log of a head on that port, unless the user names one."""
    return os.path.join(home(), f"head-{port}")


def remove_default_stores(cluster: str) -> None:
    """A cluster was stopped in order: its log goes, unless the user had named a place for it."""
    base = home()
    for name in os.listdir(base):
        path = os.path.join(base, name)
        if name.removeprefix("head-").isdigit():
            facts = _read_key(path)
            if facts.get("cluster") == cluster and not facts.get("keep"):
                remove_store(path)


def remove_store(store_dir: str) -> None:
    """Remove a head's log; not an error if it is gone already."""
    import shutil

    shutil.rmtree(store_dir, ignore_errors=True)


# ------------------------------------------------------------------ stopping what others started


def stop_process(process: nearby.LocalProcess, *, timeout_s: float, force: bool) -> str:
    """End a cluster process of this machine: "stopped", "killed", "gone" already, or "stuck".

    Waits until its session is over, its workers' and files' included.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return "gone" if _wait_over(process, timeout_s) else "stuck"
    try:
        if not _is_there(process):  # The number may be another process's by now.
            return "gone"
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if _wait_over(process, timeout_s):
            return "stopped"
        if not force:
            return "stuck"
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return "killed" if _wait_over(process, timeout_s) else "stuck"
    except ProcessLookupError:
        return "stopped" if _wait_over(process, timeout_s) else "stuck"
    finally:
        os.close(handle)


def _wait_over(process: nearby.LocalProcess, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while _is_there(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def _is_there(process: nearby.LocalProcess) -> bool:
    from detray.runtime.session import live_sessions

    return any(session.directory == process.directory for session in live_sessions())
