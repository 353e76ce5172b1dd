"""A cluster of several nodes on one machine, for tests: `Cluster`, as Ray has it.

Every node is a service of its own, with its own store, workers and address. All of them end with
the process that started them, however it ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from detray import launch
from detray.core.config import Policy
from detray.errors import NotStartedError
from detray.ids import node_name
from detray.launch import Launched, LaunchError, Listen, environment
from detray.runtime.session import home
from detray.runtime.spawn import SpawnedService
from detray.settings import DEFAULTS, read_settings
from detray.startup import SessionInfo, init, running, shutdown

_STORE_PREFIX = "head-of-"
_STOP_S = 15.0
_POLL_S = 0.02
_HEAD_ONLY = ("store", "web_port", "port", "_system_config")
_LOOPBACK = "127.0.0.1"


class ClusterNode:
    """A node of a `Cluster`."""

    def __init__(self, launched: Launched) -> None:
        self._launched = launched

    @property
    def number(self) -> int:
        """Its NodeID."""
        return int(self._launched.info["node"])

    @property
    def node_id(self) -> str:
        """Its id as `detray.nodes()` gives it."""
        return node_name(self.number)

    unique_id = node_id

    @property
    def address(self) -> str:
        """host:port where it listens."""
        return self._launched.address

    @property
    def pid(self) -> int:
        """Its service process."""
        return self._launched.pid

    @property
    def session_dir(self) -> str:
        """Where its files are."""
        return self._launched.session_dir

    def is_alive(self) -> bool:
        """True if its service runs."""
        return self._launched.is_alive()

    def kill_service(self) -> None:
        """kill -9 of the service; its zygote then ends the workers and cleans up."""
        self._launched.kill()
        self._launched.wait_over(_STOP_S)

    kill_raylet = kill_service

    def kill_machine(self) -> None:
        """kill -9 of everything at once, as if the machine lost power."""
        self._launched.kill(whole=True)
        self._launched.wait_over(_STOP_S)

    def freeze(self) -> None:
        """Stop every process of the node where it stands, as if the machine froze."""
        self._launched.signal(signal.SIGSTOP, whole=True)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        self._launched.signal(signal.SIGCONT, whole=True)

    def last_lines(self) -> str:
        """The end of its log file."""
        return self._launched.last_lines()

    def __repr__(self) -> str:
        return f"ClusterNode({self.number}, {self.address}, pid {self.pid})"


class Cluster:
    """A head and nodes, each in processes of its own, on this machine."""

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        """With `initialize_head` the first node is started (by `head_node_args`, which `add_node`
        explains), with `connect` this process joins as a driver.

        Raises LaunchError if a process does not come up, ValueError for `head_node_args` of a node
        that is not started here.
        """
        if head_node_args and not (initialize_head or connect):
            raise ValueError(
                "head_node_args are for initialize_head=True; without it nothing is started here: "
                "give them to add_node(...) instead"
            )
        self._key = launch.new_key()
        self._head: Launched | None = None
        self._head_options: dict[str, Any] = {}
        self._policy = Policy()
        self._nodes: list[ClusterNode] = []
        self._own_dir = ""
        """The head's log, unless the first node named another store."""
        if shutdown_at_exit:
            atexit.register(self.shutdown)
        if initialize_head or connect:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def address(self) -> str:
        """host:port of the head, for `detray.init(address=...)`. Raises LaunchError without one."""
        return self._running_head().address

    gcs_address = address

    @property
    def head_pid(self) -> int:
        """The head's process."""
        return self._running_head().pid

    @property
    def head_node(self) -> ClusterNode:
        """The node that was started with the head. Raises IndexError if it was removed."""
        return self._nodes[0]

    @property
    def worker_nodes(self) -> list[ClusterNode]:
        """The nodes but the first, in the order in which they were added."""
        return self._nodes[1:]

    def list_all_nodes(self) -> list[ClusterNode]:
        """All nodes, in the order in which they were added."""
        return list(self._nodes)

    def add_node(self, wait: bool = True, **options: Any) -> ClusterNode:
        """Start a node; the first one brings the head.

        Options are those of `detray.init` that describe a node (`num_cpus` is 1 if not given),
        `node_ip_address` (127.0.0.1), `env_vars`, and, for the first node, `port`, `store` and
        `web_port` of the head, and `_system_config`: fields of `detray.core.config.Policy`, such as
        `{"death_ns": 2_000_000_000}`, for the head and all nodes. The head records to `record` of
        the first node with `.head` after it. With `wait` the node is a member on return.

        Raises LaunchError if it does not come up, ValueError or TypeError for unknown options.
        """
        [node] = self.add_nodes(1, wait=wait, **options)
        return node

    def add_nodes(self, count: int, wait: bool = True, **options: Any) -> list[ClusterNode]:
        """Start several nodes at once; see `add_node`."""
        host = options.pop("node_ip_address", None) or _LOOPBACK
        variables = options.pop("env_vars", None) or {}
        head_options = {name: options.pop(name) for name in _HEAD_ONLY if name in options}
        options = {"num_cpus": 1, **{n: v for n, v in options.items() if not _is_ignored(n, v)}}
        settings = read_settings("local", options)
        started: list[Launched] = []
        with environment(variables), _begun_nodes(count) as begun:
            is_first = self._head is None
            if is_first:
                self._policy = _read_policy(head_options.pop("_system_config", None))
                self._head_options = {"host": host, "record": options.get("record"), **head_options}
                self._begin_head()
            elif head_options:
                raise ValueError(f"{', '.join(head_options)}: only the first node has a head")
            for index in range(count):
                started.append(
                    launch.start_node(
                        settings,
                        key=self._key,
                        listen=Listen(host, 0, host),
                        head=self.address,
                        tied=True,
                        is_beside_head=is_first and index == 0,
                        policy=self._policy,
                        process=begun.pop(),
                    )
                )
        nodes = [ClusterNode(node) for node in started]
        self._nodes += nodes
        if wait:
            self.wait_ready()
        return nodes

    def wait_ready(self) -> None:
        """Wait until every node that was added with `wait=False` is a member.

        Raises LaunchError; the node that did not come up is none of the cluster's any more.
        """
        for node in self.list_all_nodes():
            if not node._launched.info:
                try:
                    node._launched.wait_ready()
                except BaseException:
                    self._nodes.remove(node)
                    raise

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """End a node: in order, so that the others know at once, or by kill -9.

        What only it had is lost either way, and made again where somebody wants it.

        Raises ValueError if it is none of this cluster's.
        """
        if node not in self._nodes:
            raise ValueError(f"{node!r} is no node of this cluster (any more)")
        self._nodes.remove(node)
        if not allow_graceful or not node._launched.stop(_STOP_S):
            node.kill_service()
        node._launched.close()

    def kill_head(self) -> None:
        """kill -9 of the head; its log stays."""
        head = self._running_head()
        head.kill()
        head.wait(_STOP_S)
        self._head_options["port"] = launch.port_of(head)
        head.close()

    def restart_head(self) -> None:
        """Start the head again after `kill_head`, on the same port, with the same log."""
        self._begin_head()

    def connect(self, namespace: str | None = None) -> SessionInfo:
        """Make this process a driver of the cluster, on its first node."""
        return init(address=self.address, namespace=namespace, ignore_reinit_error=True)

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Wait until the head counts as many living nodes as there are here.

        Raises TimeoutError.
        """
        deadline = time.monotonic() + timeout
        while (found := self._living_numbers()) != (wanted := self._wanted_numbers()):
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"after {timeout:g} s the head counts the nodes {sorted(found)} as alive, not "
                    f"{sorted(wanted)}"
                )
            time.sleep(_POLL_S)

    def ask(self, topic: str, *arguments: Any) -> Any:  # Any: plain data
        """Ask the head (`detray/runtime/asking.py`). Raises EngineError without an answer."""
        from detray.runtime.asking import ask
        from detray.runtime.net.security import Security

        return ask(self.address, Security(self._key.token), self._key.cluster, topic, *arguments)

    def remaining_processes_alive(self) -> bool:
        """True if the head and all nodes run that were not removed."""
        head = self._head is not None and self._head.is_alive()
        return head and all(node.is_alive() for node in self._nodes)

    def shutdown(self) -> None:
        """End this process's session, all nodes and the head; nothing of them is left."""
        atexit.unregister(self.shutdown)
        if self._head is not None and self._is_joined():
            shutdown()
        nodes, self._nodes = self._nodes, []
        head, self._head = self._head, None
        processes = [node._launched for node in nodes]
        for process in processes:
            process.signal(signal.SIGCONT, whole=True)  # it may be frozen
            process.signal(signal.SIGTERM)
        _end_all(processes)
        if head is not None:
            head.signal(signal.SIGTERM)
            _end_all([head])
        if self._own_dir:
            launch.remove_store(self._own_dir)
            self._own_dir = ""

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *problem: object) -> None:
        self.shutdown()

    # -------------------------------------------------------------- inside

    def _begin_head(self) -> None:
        options = self._head_options
        if not self._own_dir:
            _sweep_stores()
            name = f"{_STORE_PREFIX}{os.getpid()}-{self._key.cluster[:8]}"
            self._own_dir = os.path.join(home(), name)
        store, store_dir = launch.place_store(options.get("store") or "", self._own_dir)
        launch.save_key(store_dir, self._key)
        record = options["record"]
        head = launch.start_head(
            key=self._key,
            listen=Listen(options["host"], options.get("port") or 0, options["host"]),
            store=store,
            store_dir=store_dir,
            web_port=options.get("web_port", -1),
            record=f"{record}.head" if record else "",
            tied=True,
            policy=self._policy,
        )
        self._head = head
        try:
            head.wait_ready()
        except BaseException:
            self._head = None
            raise

    def _running_head(self) -> Launched:
        if self._head is None:
            raise LaunchError("this cluster has no head yet: add_node() starts it")
        return self._head

    def _is_joined(self) -> bool:
        """True if this process is a driver of this cluster."""
        try:
            return bool(running().context["address"] == self.address)
        except (NotStartedError, RuntimeError):
            return False

    def _wanted_numbers(self) -> set[int]:
        """Of the nodes whose services run; one that came back has a new number."""
        for node in self._nodes:
            node._launched.refresh()
        return {node.number for node in self._nodes if node.is_alive()}

    def _living_numbers(self) -> set[int]:
        nodes = self.ask("status")["nodes"]
        return {node["number"] for node in nodes if node["alive"]}


def _end_all(processes: list[Launched]) -> None:
    """Wait for processes that were told to stop; by force if it takes too long."""
    deadline = time.monotonic() + _STOP_S
    for process in processes:
        if process.wait(max(0.1, deadline - time.monotonic())) is None:
            process.kill(whole=True)
        process.wait_over(_STOP_S)
        process.close()


def _is_ignored(name: str, value: Any) -> bool:
    """Options of Ray's that mean nothing here, and those that say nothing."""
    return value is None and name in DEFAULTS


def _read_policy(config: dict[str, Any] | None) -> Policy:
    """What `_system_config` makes of the policy. Raises ValueError for what it has not."""
    fields = Policy.__struct_fields__
    if unknown := [name for name in config or () if name not in fields]:
        raise ValueError(
            f"_system_config: {', '.join(map(repr, unknown))} is no field of "
            f"detray.core.config.Policy; those are {', '.join(fields)}"
        )
    try:
        return msgspec.convert(config or {}, Policy)
    except msgspec.ValidationError as problem:
        raise ValueError(f"_system_config: {problem}") from None


def _sweep_stores() -> None:
    """Remove the logs of clusters whose programs were killed."""
    base = home()
    for name in os.listdir(base):
        if name.startswith(_STORE_PREFIX):
            pid = name.removeprefix(_STORE_PREFIX).split("-")[0]
            if not os.path.exists(f"/proc/{pid}"):
                launch.remove_store(os.path.join(base, name))


@contextmanager
def _begun_nodes(count: int) -> Iterator[list[SpawnedService]]:
    """Processes that will be nodes; those that nobody took out of the list are killed."""
    begun = [launch.begin_node() for _ in range(count)]
    try:
        yield begun
    finally:
        for process in begun:
            process.kill()
            process.wait(_STOP_S)


__all__ = ["Cluster", "ClusterNode"]
