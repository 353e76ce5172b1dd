"""A core and whoever drives it, as one server in virtual time.

Theory of operation
-------------------
What arrives goes into the inbox. An idle server takes all of it into one step; what arrives while
that step is in service waits and is taken together into the next. The effects take place when the
service time is over. A deadline of the core is the last thing that happens at its moment, so
everything that arrives at that moment is in the same step (PROTOCOL T4). A paused server does
nothing; what comes meanwhile it finds when it goes on, as after SIGSTOP and SIGCONT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from detray.core.effects import Effect
from detray.core.session import Goodbye
from detray.ids import NodeID
from detray_sim.clock import NEVER, ClockView, Timer
from detray_sim.transport import Hail, Packet, Wire

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster

BASE_NS = 1_000_000_000
"""What a machine's own clock shows when the world begins: 0 means "unset" to a core."""
_IDLE_STEPS_MAX = 10_000


class SteppedCore(Protocol):
    """What the two kinds of cores have in common."""

    tables: Any
    """For invariants and reports only."""

    def handle(self, *stimuli: Any, now_ns: int) -> list[Effect]:
        """One step. (Any: each core takes messages of its own.)"""

    @property
    def next_deadline_ns(self) -> int | None:
        """When it wants to be called again even if nothing happens."""

    def snapshot(self) -> bytes:
        """Its whole state, encoded."""


class CoreServer:
    """Feeds a core and performs what it orders. `machine` is the index of its machine."""

    decides_last = False
    """In a cluster that gathers: whether it waits until all others are at rest."""

    def __init__(self, cluster: SimCluster, name: str, machine: int, core: SteppedCore) -> None:
        self.cluster = cluster
        self.clock = cluster.clock
        self.costs = cluster.costs
        self.name = name
        self.machine = machine
        self.core = core
        self.number = cluster.enter(self)
        """Counts the cores of the world in the order in which they began."""
        self.view = ClockView(BASE_NS)
        self.node_id: NodeID | None = None
        """Given by the head; None before, and for the head itself."""
        self.is_alive = True
        self.is_paused = False
        self.inbox: list[Any] = []  # Any: whatever its core takes
        self.wires: dict[CoreServer, Wire] = {}
        self.owing: list[Wire] = []
        """Wires whose session has to hear when messages in the inbox are handled."""
        self.steps = 0
        self._handled: list[tuple[Wire, int]] = []
        self._busy = False
        self._timer = Timer(self.clock, self._on_deadline)
        self._stalled: list[Effect] | None = None
        """Effects of a step that was in service when the server was paused."""
        self._held: list[tuple[CoreServer, Packet]] = []
        """What the network brought meanwhile."""
        self._idle_steps = 0
        self._deadline_ns: int | None = None
        """What the core said last, by its own clock, and when that is in the world's time."""
        self._due_ns = NEVER

    def __repr__(self) -> str:
        return f"<{self.name} #{self.number}>"

    # -------------------------------------------------------------- steps

    def shown_ns(self) -> int:
        """What the machine's own clock shows."""
        return self.view.read(self.clock.now_ns)

    def wake(self) -> None:
        """Something is in the inbox: take a step unless one is in service."""
        if not self._busy and not self.is_paused and self.is_alive:
            self._busy = True
            if not self.cluster.gathers:
                self._step()
            elif self.decides_last:
                self.clock.last(self._step_gathered)
            else:
                self.clock.late(self.clock.now_ns, self._step_gathered)

    def _step_gathered(self) -> None:
        if self.is_paused or not self.is_alive:
            self._busy = False  # `resume` wakes it
        else:
            self._step()

    def tell(self, *stimuli: Any) -> None:
        """Facts of the server itself. (Any: whatever its core takes.)"""
        if self.is_alive:
            self.inbox += stimuli
            self.wake()

    def _step(self) -> None:
        """Steps until one takes time, or nothing is left to do."""
        costs = self.costs
        while True:
            inbox, self.inbox = self.inbox, []
            self.begin_step()
            if self.owing:
                self._handled = [(wire, wire.take_count()) for wire in self.owing]
                self.owing.clear()
            now_ns = self.view.read(self.clock.now_ns)
            self.cluster.steps += 1
            self.steps += 1
            effects = self.core.handle(*inbox, now_ns=now_ns)
            if self.cluster.observes:
                self.cluster.observe(self, now_ns, inbox, effects)
            service_ns = (
                costs.step_ns + len(inbox) * costs.stimulus_ns + len(effects) * costs.effect_ns
            )
            if service_ns:
                self.clock.after(service_ns, self._finish, effects)
                return
            if not self._perform(effects):
                return

    def begin_step(self) -> None:
        """The inbox is about to be handled."""

    def _finish(self, effects: list[Effect]) -> None:
        if not self.is_alive:
            return
        if self.is_paused:
            self._stalled = effects
        elif self._perform(effects):
            self._step()

    def _perform(self, effects: list[Effect]) -> bool:
        """Let the effects take place; True if another step must follow at once."""
        if effects:
            self.perform(effects)
            if not self.is_alive:
                return False
        if self._handled:
            handled, self._handled = self._handled, []
            for wire, count in handled:
                wire.settle(count)
        if self.inbox:
            self._idle_steps = 0
            return True
        deadline_ns = self.core.next_deadline_ns
        if deadline_ns != self._deadline_ns:
            self._deadline_ns = deadline_ns
            self._due_ns = NEVER
            if deadline_ns is not None:
                self._due_ns = self.view.when(deadline_ns, self.clock.now_ns)
            self._timer.set(self._due_ns)
        if self._due_ns <= self.clock.now_ns:
            self._idle_steps += 1
            if self._idle_steps > _IDLE_STEPS_MAX:
                raise AssertionError(f"{self!r} wants to be called at {deadline_ns} for ever")
            return True
        self._idle_steps = 0
        self._busy = False
        return False

    def _on_deadline(self) -> None:
        self.wake()

    def clock_changed(self) -> None:
        """Its clock jumped or goes at another pace: the deadline comes at another moment."""
        if self.is_alive and self._deadline_ns is not None:
            self._due_ns = self.view.when(self._deadline_ns, self.clock.now_ns)
            self._timer.set(self._due_ns)

    def perform(self, effects: Sequence[Effect]) -> None:
        """Let effects take place."""
        raise NotImplementedError

    # -------------------------------------------------------------- pauses and ends

    def pause(self) -> None:
        """Stand still."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on where it stood."""
        if not self.is_paused or not self.is_alive:
            return
        self.is_paused = False
        held, self._held = self._held, []
        for source, packet in held:
            self.arrive(source, packet)
        effects, self._stalled = self._stalled, None
        if effects is not None:
            if self._perform(effects):
                self._step()
        elif not self._busy:
            self.wake()

    def end(self) -> None:
        """The server is no more."""
        self.is_alive = False
        self.inbox.clear()
        for wire in self.wires.values():
            wire.close()

    # -------------------------------------------------------------- the network

    def wire_to(self, remote: CoreServer) -> Wire:
        """This server's end of the link to another one."""
        wire = self.wires.get(remote)
        if wire is None:
            wire = self.wires[remote] = self.cluster.transport.connect(self, remote)
        return wire

    def arrive(self, source: CoreServer, packet: Packet) -> None:
        """The network brought something."""
        if not self.is_alive:
            return
        if self.is_paused:
            self._held.append((source, packet))
        elif type(packet) is Hail:
            self.hailed(source, packet.epoch)
        elif type(packet) is Goodbye:
            self.refused(source, packet)
        elif self.refuses(source):
            self.cluster.transport.carry(self, source, Goodbye(True))
        else:
            self.wire_to(source).receive(packet)

    def refuses(self, source: CoreServer) -> bool:
        """True if the other end is buried, so that nothing it says counts."""
        return False

    def hailed(self, source: CoreServer, epoch: int) -> None:
        """A head greets."""

    def refused(self, source: CoreServer, goodbye: Goodbye) -> None:
        """The other end said goodbye."""

    def deliver(self, source: CoreServer, message: Any, values: Sequence[Any]) -> None:
        """Take a message of another core, with its payload, into the inbox. (Any: see `inbox`.)"""
        raise NotImplementedError
