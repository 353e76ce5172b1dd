"""What a policy remembers of its own decisions: who holds which core and, soon, which bytes.

Theory of operation
-------------------
A node's report says what runs and what is queued there, not what is on its way, nor what waits for
its arguments. An estimate made from reports alone takes a node that was just given a hundred tasks
for an idle one (Estee's schedulers did, see docs on the re-study). So everything placed counts here
from the moment of the decision until its end, with its cores and with the bytes that it will make
or fetch. Ends are told by whoever runs the experiment, at the moment at which they happen.
"""

from __future__ import annotations

from heapq import heappop

from detray.core.head_tables import GlobalTables
from detray.core.placement import Demand, Node
from detray.ids import NodeID
from detray_sim.policies.knowledge import Knowledge, Output

Ends = list[tuple[int, int]]
"""Heap of (end of a run in ns, number of its task); ends that are to come may be in it."""


class Load:
    """What one node was given and has not finished."""

    __slots__ = ("open", "speed_permille", "total", "used")

    def __init__(self, total: int, speed_permille: int) -> None:
        self.total = total
        """CPU in 1/10,000."""
        self.used = 0
        self.speed_permille = speed_permille
        self.open: dict[int, int] = {}
        """By task number, when it should end, as estimated when it was placed."""


class Tracker:
    """Loads and whereabouts. `speeds`: by the name of a node, permille of a core of speed 1."""

    def __init__(
        self, knowledge: Knowledge, tables: GlobalTables, ends: Ends, speeds: dict[str, int]
    ) -> None:
        self.knowledge = knowledge
        self.tables = tables
        self.offset_ns = 0
        """What the head's clock shows when the world's shows 0."""
        self._ends = ends
        self._speeds = speeds
        self._loads: dict[NodeID, Load] = {}
        self._placed: dict[int, NodeID] = {}
        self._holders: dict[Output, dict[NodeID, None]] = {}

    @property
    def now_ns(self) -> int:
        """The head's time, as the world has it."""
        return self.tables.now_ns - self.offset_ns

    def load(self, node: Node) -> Load:
        """What a node was given."""
        found = self._loads.get(node.id)
        if found is None:
            speed = self._speeds.get(node.name, 1000)
            found = self._loads[node.id] = Load(node.totals.get("CPU", 0), speed)
        return found

    # -------------------------------------------------------------- what happened

    def catch_up(self) -> None:
        """Take note of all runs that have ended by now."""
        ends, now_ns = self._ends, self.now_ns
        while ends and ends[0][0] <= now_ns:
            self.forget(heappop(ends)[1])

    def forget(self, number: int) -> None:
        """A task ended, or has to be placed anew."""
        node = self._placed.pop(number, None)
        if node is not None:
            load = self._loads[node]
            load.used -= self.knowledge.units[number]
            del load.open[number]

    def place(self, number: int, node: Node) -> None:
        """A task goes to a node."""
        self.forget(number)
        end_ns = self.end_ns(number, node, self.start_ns(number, node))
        load = self.load(node)
        load.used += self.knowledge.units[number]
        load.open[number] = end_ns
        self._placed[number] = node.id
        for item in self.knowledge.tasks[number].inputs:
            self._holders.setdefault(item, {})[node.id] = None
        for output in range(len(self.knowledge.tasks[number].outputs)):
            self._holders[number, output] = {node.id: None}

    # -------------------------------------------------------------- estimates

    def fullness(self, node: Node) -> tuple[int, int]:
        """By how much more a node was given than it can run; of equals the older comes first."""
        load = self.load(node)
        return (load.used - load.total, node.id)

    def missing_bytes(self, number: int, node: Node) -> int:
        """Bytes of a task's arguments that neither are at a node nor on their way there."""
        tasks, holders = self.knowledge.tasks, self._holders
        return sum(
            tasks[item[0]].outputs[item[1]]
            for item in tasks[number].inputs
            if node.id not in holders.get(item, ())
        )

    def free_at_ns(self, number: int, node: Node) -> int:
        """When a node's cores can take a task, after all that the node was given before."""
        load = self.load(node)
        room = load.total - load.used - self.knowledge.units[number]
        now_ns = self.now_ns
        if room >= 0:
            return now_ns
        units = self.knowledge.units
        for end_ns, other in sorted((end_ns, other) for other, end_ns in load.open.items()):
            room += units[other]
            if room >= 0:
                return max(now_ns, end_ns)
        return now_ns

    def start_ns(self, number: int, node: Node) -> int:
        """The earliest time at which a task can begin at a node."""
        data_ns = self.now_ns + self.knowledge.transfer_ns(self.missing_bytes(number, node))
        return max(data_ns, self.free_at_ns(number, node))

    def end_ns(self, number: int, node: Node, start_ns: int) -> int:
        """When it ends if it begins then."""
        return start_ns + self.knowledge.durations[number] * 1000 // self.load(node).speed_permille

    def roomy(self, number: int, demand: Demand, rounds: int) -> list[Node]:
        """Nodes that were given less than they can run, and queue for so many rounds."""
        units, loads = self.knowledge.units[number], self._loads
        is_plain = len(demand) <= 1 and units > 0
        found = []
        for node in self.tables.nodes.values():
            load = loads.get(node.id) or self.load(node)
            if load.used + units <= load.total * (1 + rounds) and (
                load.total >= units if is_plain else node.can_ever(demand)
            ):
                found.append(node)
        return found
