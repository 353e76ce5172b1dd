"""Clusters whose nodes live on machines of their own, as far as the kernel can pretend.

Each machine is a network namespace with one address of a private net, and a directory of its own
for sessions. Its cable leads to a bridge in one more namespace. The namespaces have no names: they
last as long as a process or a descriptor is in them, and their interfaces and the bridge go with
them, whoever is killed. What has a name is under `/tmp/dtm-<pid>/`, which the next one sweeps.

A cut makes the sender's packets carry a hardware address that nobody has: they are lost in silence,
as with a broken cable, and one direction can be cut alone.

Needs root and `ip`; `why_not` says what is missing. `Machines(is_apart=False)` gives every node an
address of the loopback net instead; then nothing can be cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from detray.cluster_utils import Cluster, ClusterNode
from detray.launch import environment
from detray.startup import SessionInfo, init

T = TypeVar("T")

_CLONE_NEWNET = 0x4000_0000
_BASE = Path("/tmp")
_PREFIX = "dtm-"
_NOBODY = "02:00:00:00:ff:ff"
_LEFT_S = 20.0
QUICK = {
    "heartbeat_ns": 200_000_000,
    "death_ns": 3_000_000_000,
    "unreachable_grace_ns": 1_000_000_000,
    "return_grace_ns": 5_000_000_000,
}
"""A `_system_config` in which deaths are noticed within seconds."""


@cache
def why_not() -> str:
    """Why machines cannot have networks of their own here; "" if they can."""
    if os.geteuid():
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` (Debian: iproute2)"
    try:
        with contextlib.closing(Net()) as net:
            net.plug_in(net.new_namespace(), 0)
    except (OSError, subprocess.CalledProcessError) as problem:
        said = getattr(problem, "stderr", "") or problem
        return f"network namespaces are not allowed here: {said}"
    return ""


class Net:
    """A bridge, and the namespaces whose interfaces are plugged into it."""

    def __init__(self) -> None:
        """Raises OSError, CalledProcessError."""
        self._fds: list[int] = []
        self._ends: list[int] = []
        """The namespaces in the order of their numbers."""
        self._lock = threading.Lock()
        self._switch = self.new_namespace()
        self._run(self._switch, "ip link add br0 type bridge")
        self._run(self._switch, "ip link set br0 up")

    def new_namespace(self) -> int:
        """A descriptor of a new one."""
        made: list[int] = []

        def make() -> None:
            _call("unshare", _CLONE_NEWNET)
            own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
            made.append(os.open(own, os.O_RDONLY | os.O_CLOEXEC))

        _in_thread(make)
        self._fds += made
        return made[0]

    def plug_in(self, namespace: int, number: int) -> str:
        """Connect it as machine `number`; its address."""
        port = f"p{number}"
        end = f"/proc/{os.getpid()}/fd/{namespace}"
        self._run(
            self._switch,
            f"ip link add {port} type veth peer name eth0 address {_hardware(number)} netns {end}",
        )
        self._run(self._switch, f"ip link set {port} master br0 up")
        for line in ("addr add {}/24 dev eth0", "link set eth0 up", "link set lo up"):
            self._run(namespace, "ip " + line.format(_address(number)))
        for other, there in enumerate(self._ends):
            self._point(namespace, other, _hardware(other))
            self._point(there, number, _hardware(number))
        self._ends.append(namespace)
        return _address(number)

    def inside(self, namespace: int, act: Callable[[], T]) -> T:
        """Call it there; processes and sockets that it makes stay there."""

        def enter() -> T:
            _call("setns", namespace, _CLONE_NEWNET)
            return act()

        return _in_thread(enter)

    def cut(self, sender: int, receiver: int) -> None:
        """What machine `sender` sends to `receiver` is lost from now on."""
        self._point(self._ends[sender], receiver, _NOBODY)

    def heal(self, sender: int, receiver: int) -> None:
        """It arrives again."""
        self._point(self._ends[sender], receiver, _hardware(receiver))

    def impair(self, number: int, how: str) -> None:
        """What machine `number` sends goes by a queue of tc: "tbf rate 400mbit burst 512kb latency
        50ms" for a slow link, "netem delay 20ms loss 2%" for a bad one; "" for none any more.

        Raises CalledProcessError where tc or the kernel has no such queue.
        """
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run(self._ends[number], "tc qdisc del dev eth0 root")
        if how:
            self._run(self._ends[number], f"tc qdisc add dev eth0 root {how}")

    def close(self) -> None:
        """Let go of the namespaces; they end when nobody is in them any more."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)

    def _point(self, namespace: int, number: int, hardware: str) -> None:
        to = f"{_address(number)} lladdr {hardware} dev eth0 nud permanent"
        self._run(namespace, f"ip neigh replace {to}")

    def _run(self, namespace: int, line: str) -> None:
        def run() -> None:
            subprocess.run(line.split(), check=True, capture_output=True, text=True)

        with self._lock:
            self.inside(namespace, run)


class Machine:
    """Where a head or a node lives."""

    def __init__(self, number: int, directory: Path, address: str, namespace: int) -> None:
        self.number = number
        self.directory = directory
        """TMPDIR of its processes."""
        self.address = address
        self.namespace = namespace
        """-1 if it has none of its own."""


class Machines(Cluster):
    """A `Cluster` whose head and nodes are on machines of their own; machine 0 has the head."""

    def __init__(self, *, is_apart: bool = True, times: dict[str, int] | None = None) -> None:
        """`times`: the `_system_config`. Raises OSError, CalledProcessError."""
        sweep()
        super().__init__()
        self._config = QUICK if times is None else times
        self.base = _BASE / f"{_PREFIX}{os.getpid()}"
        self._net = Net() if is_apart else None
        self._machines: list[Machine] = []
        self._homes: dict[ClusterNode, Machine] = {}
        self._here = self.new_machine()
        self.left_behind: list[str] = []
        """After `shutdown`: processes, session directories and anonymous memory that are left."""

    @property
    def is_apart(self) -> bool:
        """True if links can be cut."""
        return self._net is not None

    def new_machine(self, disk_bytes: int = 0) -> Machine:
        """One that no node is on yet; with `disk_bytes` its disk has no more than that."""
        number = len(self._machines)
        directory = self.base / f"{time.monotonic_ns() % 10**6}-{number}"
        directory.mkdir(parents=True)
        if disk_bytes:
            _mount(directory, disk_bytes)
        if self._net is None:
            machine = Machine(number, directory, f"127.0.0.{number + 2}", -1)
        else:
            namespace = self._net.new_namespace()
            address = self._net.plug_in(namespace, number)
            machine = Machine(number, directory, address, namespace)
        self._machines.append(machine)
        return machine

    def free_machine(self) -> Machine:
        """One that no node is on any more, or a new one."""
        taken = [self._here, *(self._homes[node] for node in self._nodes)]
        free = [machine for machine in self._machines if machine not in taken]
        return free[0] if free else self.new_machine()

    def on(self, machine: Machine, act: Callable[[], T]) -> T:
        """Call it in that machine's network and with its TMPDIR."""
        with environment({"TMPDIR": str(machine.directory)}):
            if self._net is None:
                return act()
            return self._net.inside(machine.namespace, act)

    def home_of(self, node: ClusterNode | None) -> Machine:
        """Where a node is; None: the head."""
        return self._here if node is None else self._homes[node]

    # -------------------------------------------------------------- what `Cluster` does

    def add_nodes(
        self, count: int, wait: bool = True, machine: Machine | None = None, **options: Any
    ) -> list[ClusterNode]:
        """As `Cluster.add_nodes`, each node on a new machine, or on `machine`. (Any: as there.)"""
        nodes = []
        for _ in range(count):
            place = machine or self.new_machine()
            if self._head is None:
                options["_system_config"] = self._config
            [node] = self.on(
                place, partial(super().add_nodes, 1, False, **self._at(place, options))
            )
            options.pop("_system_config", None)
            self._homes[node] = place
            nodes.append(node)
        if wait:
            self.wait_ready()
        return nodes

    def _at(self, place: Machine, options: dict[str, Any]) -> dict[str, Any]:
        variables = {**options.get("env_vars", {}), "TMPDIR": str(place.directory)}
        return {**options, "node_ip_address": place.address, "env_vars": variables}

    def _begin_head(self) -> None:
        self._head_options["host"] = self._here.address
        self.on(self._here, super()._begin_head)

    def connect(self, namespace: str | None = None, node: ClusterNode | None = None) -> SessionInfo:
        """Make this process a driver by a node, the first one if none is named."""
        with environment({"TMPDIR": str(self.home_of(node or self.head_node).directory)}):
            return init(
                self.address, namespace=namespace, ignore_reinit_error=True, log_to_driver=False
            )

    def ask(self, topic: str, *arguments: Any) -> Any:  # Any: plain data
        """Ask the head, from its own machine."""
        return self.on(self._here, lambda: super(Machines, self).ask(topic, *arguments))

    def shutdown(self) -> None:
        """End everything, note in `left_behind` what did not end, and remove what has a name."""
        is_first = bool(self._machines)
        try:
            super().shutdown()
            if is_first:
                self.left_behind = self._find_left()
        finally:
            net, self._net = self._net, None
            if net is not None:
                net.close()
            for machine in self._machines:
                remove(machine.directory)
            self._machines = []
            with contextlib.suppress(OSError):
                self.base.rmdir()

    # -------------------------------------------------------------- trouble

    def cut(
        self, left: ClusterNode | None, right: ClusterNode | None, one_way: bool = False
    ) -> None:
        """Nothing comes through between two nodes (None: the head); `one_way`: from left to right
        only."""
        ends = self.home_of(left).number, self.home_of(right).number
        for sender, receiver in (ends, ends[::-1])[: 1 if one_way else 2]:
            self._cables.cut(sender, receiver)

    def heal(self, left: ClusterNode | None, right: ClusterNode | None) -> None:
        """Everything comes through again."""
        ends = self.home_of(left).number, self.home_of(right).number
        for sender, receiver in (ends, ends[::-1]):
            self._cables.heal(sender, receiver)

    def impair(self, node: ClusterNode | None, how: str) -> None:
        """Slow down, delay or lose what it sends (`Net.impair`)."""
        self._cables.impair(self.home_of(node).number, how)

    @property
    def _cables(self) -> Net:
        assert self._net is not None, "on the loopback net nothing can be cut"
        return self._net

    # -------------------------------------------------------------- what is left

    def logs(self) -> Iterator[tuple[Path, str]]:
        """What processes of this cluster, the living ones, have written to their log files."""
        for machine in self._machines:
            for path in find_paths(machine.directory, "detray-*/*/*.log"):
                with contextlib.suppress(OSError):
                    yield path, path.read_text(errors="replace")

    def _find_left(self) -> list[str]:
        gc.collect()  # arrays that lie in a circle of garbage are not left behind
        deadline = time.monotonic() + _LEFT_S
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _left(self) -> list[str]:
        left = [f"{pid}: {name}" for pid, name in processes_with(f"TMPDIR={self.base}/")]
        paths = find_paths(self.base, "*/detray-*/*")
        left += [str(path) for path in paths if path.name != "flights"]
        maps = Path("/proc/self/maps").read_text()
        return left + [line for line in maps.splitlines() if "/memfd:detray" in line]


def find_paths(directory: Path, pattern: str) -> list[Path]:
    """The paths that match, sorted, though sessions that end remove directories meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return sorted(directory.glob(pattern))


def processes_with(mark: str) -> list[tuple[int, str]]:
    """Living processes whose environment has a variable that begins so, and their names."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environ = Path("/proc", entry, "environ").read_bytes()
            if any(item.startswith(mark.encode()) for item in environ.split(b"\0")):
                found.append((int(entry), Path("/proc", entry, "comm").read_text().strip()))
        except OSError:
            continue
    return found


def sweep() -> None:
    """Remove what machines of dead processes left."""
    for base in _BASE.glob(f"{_PREFIX}*"):
        if not os.path.exists(f"/proc/{base.name.removeprefix(_PREFIX)}"):
            with contextlib.suppress(OSError):  # somebody else may sweep it, too
                for directory in base.iterdir():
                    remove(directory)
                base.rmdir()


def remove(directory: Path) -> None:
    """A machine's directory and its disk, if it had one."""
    if os.path.ismount(directory):
        subprocess.run(["umount", "--lazy", directory], check=False, capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)


def _mount(directory: Path, size_bytes: int) -> None:
    options = f"size={size_bytes},mode=0700"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True, capture_output=True
    )


def _hardware(number: int) -> str:
    return f"02:00:00:00:00:{number + 1:02x}"


def _address(number: int) -> str:
    return f"10.210.77.{number + 1}"


def _call(name: str, *arguments: int) -> None:
    """A function of the C library that Python has only since 3.12. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _in_thread(act: Callable[[], T]) -> T:
    """Call it in a thread of its own, whose namespaces end with it."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(act())
        except BaseException as problem:
            failed.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
