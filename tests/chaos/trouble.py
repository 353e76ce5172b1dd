"""What happens to the cluster meanwhile: a seeded schedule of deaths, freezes and cuts.

The driver's node is spared: with it goes the driver's job, and nothing could be checked. Its links
are cut only while nothing else troubles it, so that it never is the one that the head gives up.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from detray.cluster_utils import ClusterNode
from tests.support.netns import Machines, processes_with

_PAUSE_S = (0.3, 2.5)
_LOOK_S = 0.02
_HEALINGS_MAX = 10
_FOR_S = (0.2, 6.0)
_SHORT_S = 0.8
"""So long may the driver's node be without the head."""

_OTHER_DRIVER = """
import sys, numpy, detray
detray.init(address=sys.argv[1], log_to_driver=False)
@detray.remote(scheduling_strategy="SPREAD")
def add(n, *arrays):
    return numpy.full(100_000, n) + sum(map(numpy.sum, arrays))
kept = [detray.put(numpy.zeros(300_000))]
for n in range(1_000_000):
    kept.append(add.remote(n, *kept[-2:]))
    kept = kept[-20:]
    if n % 10 == 9:
        try:
            detray.get(kept[-1])
        except Exception:
            pass
"""


class Ending(NamedTuple):
    """What ends a trouble, and when."""

    at_s: float
    what: str
    """Said when it comes, unless it is empty."""
    act: Callable[[], Any]
    touches_driver: bool


class Trouble:
    """A thread that makes trouble until it is told to stop, then ends all of it."""

    def __init__(
        self,
        machines: Machines,
        seed: str,
        add_node: Callable[[], ClusterNode],
        tell: Callable[[str], None],
        kinds: list[str] | None = None,
    ) -> None:
        """`kinds`: only these."""
        self.happened: Counter[str] = Counter()
        self.problem: BaseException | None = None
        """What went wrong with the making of trouble itself."""
        self._machines = machines
        self._random = random.Random(seed)
        self._add_node = add_node
        self._tell = tell
        self._endings: list[Ending] = []
        self._has_head = True
        self._troubled: set[int] = set()
        """Machines that are frozen or cut off now."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        every: dict[str, tuple[Callable[[], None], int]] = {
            "kill a worker": (self._kill_worker, 6),
            "kill a service": (self._kill_service, 2),
            "kill a machine": (self._kill_machine, 2),
            "kill the head": (self._kill_head, 2),
            "freeze a machine": (self._freeze, 2),
            "freeze the head": (self._freeze_head, 1),
            "remove a node": (self._remove, 1),
            "kill a driver": (self._kill_driver, 2),
        }
        if machines.is_apart:
            every |= {
                "cut a link": (self._cut_link, 4),
                "cut off from the head": (self._cut_head, 3),
            }
        self._acts = {name: act for name, act in every.items() if not kinds or name in kinds}

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more of it; everything is healed when this returns."""
        self._stop.set()
        self._thread.join()

    # -------------------------------------------------------------- the schedule

    def _run(self) -> None:
        try:
            next_s = time.monotonic()
            while not self._stop.wait(_LOOK_S):
                self._end_what_is_due(time.monotonic())
                if time.monotonic() >= next_s and len(self._endings) < 3:
                    next_s = time.monotonic() + self._random.uniform(*_PAUSE_S)
                    names = list(self._acts)
                    weights = [weight for _, weight in self._acts.values()]
                    [name] = self._random.choices(names, weights)
                    self._acts[name][0]()
        except BaseException as problem:
            self.problem = problem
        try:
            for _ in range(_HEALINGS_MAX):
                self._end_what_is_due(float("inf"))
        except BaseException as problem:
            self.problem = self.problem or problem

    def _end_what_is_due(self, now_s: float) -> None:
        due = [ending for ending in self._endings if ending.at_s <= now_s]
        for ending in due:
            self._endings.remove(ending)
            if ending.what:
                self._tell(ending.what)
            ending.act()

    def _until_later(
        self, what: str, act: Callable[[], Any], seconds: float, touches_driver: bool = False
    ) -> None:
        self._endings.append(Ending(time.monotonic() + seconds, what, act, touches_driver))

    def _note(self, what: str, about: str = "") -> None:
        self.happened[what] += 1
        self._tell(f"{what} {about}".rstrip())

    def _seconds(self) -> float:
        return self._random.uniform(*_FOR_S)

    # -------------------------------------------------------------- deaths

    def _kill_worker(self) -> None:
        nodes = [node for node in self._machines.list_all_nodes() if self._is_well(node)]
        node = self._random.choice(nodes)
        home = self._machines.home_of(node)
        pids = [
            pid
            for pid, name in processes_with(f"TMPDIR={home.directory}")
            if name == "detray:worker"
        ]
        if not pids:
            return
        try:
            os.kill(self._random.choice(sorted(pids)), signal.SIGKILL)
        except ProcessLookupError:
            return
        self._note("kill a worker", f"on machine {home.number}")

    def _kill_service(self) -> None:
        node = self._choose_victim()
        if node is not None:
            self._note("kill a service", self._name(node))
            node.kill_service()
            self._bury(node)

    def _kill_machine(self) -> None:
        node = self._choose_victim()
        if node is not None:
            self._note("kill a machine", self._name(node))
            node.kill_machine()
            self._bury(node)

    def _remove(self) -> None:
        node = self._choose_victim()
        if node is not None:
            self._note("remove a node", self._name(node))
            self._machines.remove_node(node)
            self._until_later("add a node", self._add, self._random.uniform(0, 2))

    def _bury(self, node: ClusterNode) -> None:
        self._machines.remove_node(node, allow_graceful=False)
        self._until_later("add a node", self._add, self._random.uniform(0, 2))

    def _add(self) -> None:
        """In the place of one that has gone, once there is a head to join."""
        if self._has_head:
            self._add_node()
        else:
            self._until_later("", self._add, 0.2)

    def _kill_head(self) -> None:
        if not self._has_head or self._touches_driver():
            return
        self._note("kill the head")
        self._machines.kill_head()
        self._has_head = False

        def restart() -> None:
            self._machines.restart_head()
            self._has_head = True

        self._until_later("start the head again", restart, self._seconds() / 2, True)

    def _kill_driver(self) -> None:
        """Another program is at work for a while, and is killed in the middle."""
        if any(ending.what == "kill the other driver" for ending in self._endings):
            return
        directory = self._machines.home_of(self._machines.head_node).directory
        program = subprocess.Popen(
            [sys.executable, "-c", _OTHER_DRIVER, self._machines.address],
            env={**os.environ, "TMPDIR": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def kill() -> None:
            program.kill()
            program.wait()

        self._note("kill a driver", f"begins (pid {program.pid})")
        self._until_later("kill the other driver", kill, 1 + self._seconds())

    # -------------------------------------------------------------- freezes and cuts

    def _freeze(self) -> None:
        node = self._choose_victim()
        if node is not None:
            self._note("freeze a machine", self._name(node))
            node.freeze()
            self._trouble(node, "thaw machine", node.thaw)

    def _freeze_head(self) -> None:
        if not self._has_head or self._touches_driver():
            return
        self._note("freeze the head")
        pid = self._machines.head_pid
        os.kill(pid, signal.SIGSTOP)
        self._has_head = False

        def thaw() -> None:
            os.kill(pid, signal.SIGCONT)
            self._has_head = True

        self._until_later("thaw the head", thaw, self._seconds(), True)

    def _cut_link(self) -> None:
        node = self._choose_victim()
        others = [n for n in self._machines.list_all_nodes() if n is not node and self._is_well(n)]
        if node is None or not others:
            return
        other = self._random.choice(others)
        if other is self._machines.head_node and self._touches_driver():
            return
        is_one_way = self._random.random() < 0.5
        ends = (node, other) if self._random.random() < 0.5 else (other, node)
        how = "from" if is_one_way else "between"
        self._note("cut a link", f"{how} {self._name(ends[0])} and {self._name(ends[1])}")
        self._machines.cut(*ends, one_way=is_one_way)
        self._trouble(
            node, "heal machine", lambda: self._machines.heal(*ends), other is self._nodes[0]
        )

    def _cut_head(self) -> None:
        node = self._choose_victim()
        seconds = self._seconds()
        if self._random.random() < 0.2 and not self._touches_driver() and self._has_head:
            node, seconds = self._machines.head_node, self._random.uniform(0.1, _SHORT_S)
        if node is None:
            return
        is_one_way = self._random.random() < 0.5
        ends = (None, node) if self._random.random() < 0.5 else (node, None)
        self._note("cut off from the head", self._name(node))
        self._machines.cut(*ends, one_way=is_one_way)
        self._trouble(
            node,
            "heal machine",
            lambda: self._machines.heal(*ends),
            node is self._nodes[0],
            seconds,
        )

    def _trouble(
        self,
        node: ClusterNode,
        what: str,
        end: Callable[[], Any],
        touches_driver: bool = False,
        seconds: float = 0.0,
    ) -> None:
        """A node is troubled until `end` is called."""
        number = self._machines.home_of(node).number
        self._troubled.add(number)

        def act() -> None:
            self._troubled.discard(number)
            end()

        self._until_later(f"{what} {number}", act, seconds or self._seconds(), touches_driver)

    # -------------------------------------------------------------- who

    @property
    def _nodes(self) -> list[ClusterNode]:
        return self._machines.list_all_nodes()

    def _choose_victim(self) -> ClusterNode | None:
        """Any that is well, but the driver's; two others must stay."""
        nodes = [node for node in self._machines.worker_nodes if self._is_well(node)]
        return self._random.choice(nodes) if len(nodes) > 1 else None

    def _is_well(self, node: ClusterNode) -> bool:
        return self._machines.home_of(node).number not in self._troubled

    def _touches_driver(self) -> bool:
        return any(ending.touches_driver for ending in self._endings)

    def _name(self, node: ClusterNode) -> str:
        return f"machine {self._machines.home_of(node).number}"
