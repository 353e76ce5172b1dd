"""Several nodes and a head on stage, with links between them that a transcript can hold back.

Rules
-----
- `a->b` and `a->head` are ordered links: each letter is delivered once, in order, when the
  transcript says so (`settle`, `deliver`). `a~>b` carries the bytes of transfers, in order of its
  own. `a!` is what the driver of a will tell its own core: a worker is up, a file is open.
- `settle` delivers everything that is not held, the oldest letter of all first, each in a step of
  its own, and then lets the head see to its deadline.
- A dead node sends nothing more and hears nothing; what it had sent may still arrive.
- A head that crashed hears nothing either. The next one greets the nodes: from then on what is on
  its way between a node and the old one does not count (their session is another).
- Invariants and payload bytes are checked after each step of each core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from detray.core import effects as ef
from detray.core import head_messages as hm
from detray.core import stimuli as st
from detray.core.config import GlobalConfig, Policy
from detray.core.effects import Effect
from detray.core.global_scheduler import GlobalScheduler
from detray.core.payloads import INCOMING
from detray.core.tasks import format_demand
from detray.ids import NodeID
from detray.trace.transcript.cast import Cast
from detray.trace.transcript.script import ScriptError
from detray.trace.transcript.speech import say
from tests.golden.heads import Head
from tests.golden.seats import NodeWorld, Seat
from tests.support.world import World

HEAD = "head"
STEPS_MAX = 2_000
DRIVER_ANSWERS: dict[type, Callable[[Any], st.Stimulus]] = {
    ef.StartWorker: lambda e: st.WorkerReady(e.client, 1_000 + e.client),
    ef.OpenSegment: lambda e: st.SegmentOpened(e.segment),
    ef.MoveObject: lambda e: st.ObjectMoved(e.object, e.to_segment, e.to_offset),
}
"""Orders that the driver of a node carries out by itself, and what it says then."""


class Letter(NamedTuple):
    """Something on its way: a message, and the payload that goes with it."""

    number: int
    message: Any  # Any: a message, a stimulus, or an order to send bytes
    payload: tuple[int, ...] = ()


class Cluster:
    """The cores, the links and the clock."""

    def __init__(
        self, cast: Cast, options: dict[str, Any], policy: Policy, totals: dict[str, int],
        apart: bool = False, store: bool = False, nameless: bool = False,
    ) -> None:  # fmt: skip
        self.cast = cast
        self.options, self.policy, self.totals = options, policy, totals
        self.apart = apart
        self.has_lives = store and not nameless
        self.shows_loads = False
        self.now_ns = 1_000
        self.head_config = GlobalConfig(policy=policy)
        self.heads = Head(self.head_config, store)
        self.greeted: set[str] = set()
        """Nodes that talk to the head that lives, not to an earlier one."""
        self.seats: dict[str, Seat] = {}
        self.worlds: list[World] = []
        self.links: dict[str, deque[Letter]] = {}
        self.held: set[str] = set()
        self.at: dict[NodeID, str] = {}
        """By number, the name of a living node."""
        self._letters = 0

    @property
    def head(self) -> GlobalScheduler:
        """The head's core; the last one if it is dead."""
        return self.heads.core

    def open(self, names: list[str]) -> list[str]:
        """Make the nodes; unless they stand apart, all have joined and know each other."""
        lines = []
        for name in names:
            lines += self._make(name)
        if not self.apart:
            for name in names:
                self.step(name, st.NodeStarted())
            self.settle()
        return lines

    def _make(self, name: str) -> list[str]:
        own = {key.split(".")[1]: n for key, n in self.totals.items() if key.startswith(f"{name}.")}
        common = {key: n for key, n in self.totals.items() if "." not in key}
        options = {"cpus": 1, **self.options, "stop_with_last_driver": False}
        labels = options.get("labels", ())
        options["labels"] = tuple(label[1:] for label in labels if label[0] == name)
        if "CPU" in own:
            options["cpus"] = own.pop("CPU") // 10_000
        totals = {**common, **own}
        mine = {name: 100 * 10_000}
        life = f"{name}{len(self.worlds)}" if self.has_lives else ""
        world = NodeWorld(name, life, policy=self.policy, totals=totals | mine, **options)
        self.seats[name] = Seat(world, name)
        if self.heads.is_alive:
            self.greeted.add(name)
        self.worlds.append(world)
        shown = tuple(part for part in world.config.totals if part[0] != name)
        return [f"node {name} with {format_demand(shown)}"]

    def seat(self, name: str) -> Seat:
        """The seat of a living node; "" is the first."""
        if not name:
            return next(iter(self.seats.values()))
        if name not in self.seats:
            raise ScriptError(f"{name}: no such node")
        return self.seats[name]

    # -------------------------------------------------------------- steps

    def step(self, name: str, *stimuli: st.Stimulus, advance_ns: int = 1_000) -> list[str]:
        """One step of one core; what came out, in words."""
        self.now_ns += advance_ns
        if name == HEAD:
            return self._step_head(*stimuli)
        seat = self.seat(name)
        world = seat.world
        assert isinstance(world, NodeWorld)
        effects = world.take(self.now_ns, *stimuli)
        lines = []
        for effect in effects:
            seat.see(effect)
            self._carry_out(seat, world, effect)
            if self.shows_loads or not _is_load(effect):
                lines += [f"{name}: {line}" for line in say(effect, self.cast)]
        return lines or ["nothing"]

    def _step_head(self, *stimuli: st.Stimulus) -> list[str]:
        lines = self._see(self.heads.step(self.now_ns, *stimuli))
        if not self.heads.is_alive:
            self.greeted.clear()
            lines.append(f"{HEAD}: crashes")
        return lines or ["nothing"]

    def _see(self, effects: list[Effect]) -> list[str]:
        lines = []
        for effect in effects:
            if type(effect) is ef.SendToNode:
                name = self.at.get(effect.node)
                if name is not None and name in self.seats:
                    self._post(f"{HEAD}->{name}", effect.message)
            else:
                assert type(effect) is ef.Persist
            lines += [f"{HEAD}: {line}" for line in say(effect, self.cast)]
        return lines

    def _carry_out(self, seat: Seat, world: NodeWorld, effect: Effect) -> None:
        name = seat.name
        match effect:
            case ef.SendToHead():
                self._post(f"{name}->{HEAD}", effect.message)
            case ef.SendToPeer():
                target = self.at.get(effect.node)
                if target in self.seats:
                    payload = world.payload_of(effect.message)
                    self._post(f"{name}->{target}", effect.message, payload)
            case ef.SendObject():
                self._post(f"{name}~>{self.at.get(effect.node)}", effect)
            case ef.AbortReceive():
                if seat.receiving.pop((effect.object, effect.attempt), None) is not None:
                    text = "the source broke off"
                    failed = st.ObjectArrivalFailed(effect.object, effect.attempt, text)
                    self._post(f"{name}!", failed)
            case _:
                if answer := DRIVER_ANSWERS.get(type(effect)):
                    self._post(f"{name}!", answer(effect))

    def _post(self, link: str, message: Any, payload: tuple[int, ...] = ()) -> None:
        self._letters += 1
        self.links.setdefault(link, deque()).append(Letter(self._letters, message, payload))

    # -------------------------------------------------------------- links

    def deliver(self, link: str) -> list[str]:
        """The oldest letter of a link reaches its end."""
        if not self.links.get(link):
            raise ScriptError(f"{link}: nothing is on its way")
        letter = self.links[link].popleft()
        if link.endswith("!"):
            return self.step(link[:-1], letter.message)
        if "~>" in link:
            return self._deliver_bytes(*link.split("~>"), letter.message)
        source, target = link.split("->")
        if target == HEAD:
            if source not in self.greeted:
                return ["nothing"]
            if type(letter.message) is hm.NodeJoined:
                number = self.head.tables.durable.next_node
                self.at[number] = source
                self.cast.name_node(number, source)
            return self.step(HEAD, letter.message)
        if brings := INCOMING.get(type(letter.message)):
            said = tuple(size for _, size in brings(letter.message))
            assert said == letter.payload, f"{letter.message}: {letter.payload} bytes were sent"
        return self.step(target, letter.message)

    def _deliver_bytes(self, source: str, target: str, order: ef.SendObject) -> list[str]:
        """The last byte of a transfer is read, and written if anybody still wants it."""
        lines = []
        if source in self.seats:
            node = order.node
            lines += self.step(source, st.ObjectSent(order.object, node))
        seat = self.seats.get(target)
        key = (order.object, order.attempt)
        if seat is not None and self.at.get(seat.receiving.get(key, NodeID(-1))) == source:
            del seat.receiving[key]
            lines += self.step(target, st.ObjectArrived(*key))
        return _quiet(lines)

    def break_off(self, link: str) -> list[str]:
        """A transfer under way fails, at the sending end and at the receiving one."""
        source, target = link.split("~>")
        order = self.links[link].popleft().message
        lines = []
        if source in self.seats:
            lines += self.step(source, st.ObjectSent(order.object, order.node))
        key = (order.object, order.attempt)
        if target in self.seats and self.seats[target].receiving.pop(key, None) is not None:
            failed = st.ObjectArrivalFailed(*key, "its checksum is wrong")
            lines += self.step(target, failed)
        return _quiet(lines)

    def settle(self) -> list[str]:
        """Deliver until nothing that may move is on its way; then the head sees to its deadline."""
        lines: list[str] = []
        for _ in range(STEPS_MAX):
            ready = [
                (letters[0].number, link)
                for link, letters in self.links.items()
                if letters and link not in self.held
            ]
            if ready:
                lines += self.deliver(min(ready)[1])
            elif self.heads.is_alive and self._is_due(self.head.next_deadline_ns):
                lines += self.step(HEAD)
            else:
                return _quiet(lines)
        raise ScriptError("it never settles")

    def tick(self, advance_ns: int) -> list[str]:
        """Time passes: every node whose deadline has come sees to it."""
        self.now_ns += advance_ns
        lines = []
        for name, seat in self.seats.items():
            if self._is_due(seat.world.local.next_deadline_ns):
                lines += self.step(name)
        return _quiet(lines)

    def _is_due(self, deadline_ns: int | None) -> bool:
        return deadline_ns is not None and deadline_ns <= self.now_ns

    # -------------------------------------------------------------- life and death

    def kill(self, name: str) -> list[str]:
        """The node's machine is gone: it hears nothing more. What it sent may still arrive."""
        self.seat(name)
        del self.seats[name]
        self.at = {number: other for number, other in self.at.items() if other != name}
        for link in self.links:
            if link.endswith((f">{name}", f"{name}!")) or link.startswith(f"{name}~>"):
                self.links[link].clear()
        return ["nothing"]

    def lose(self, link: str) -> list[str]:
        """What is on its way over a link never arrives: its sender is dead."""
        self.links[link].clear()
        return ["nothing"]

    def bury(self, name: str) -> list[str]:
        """Time passes until the head gives up the node of this name; everybody else lives on."""
        lines: list[str] = []
        for _ in range(100):
            members = [node.name for node in self.head.tables.nodes.values()]
            if name not in members:
                return _quiet(lines)
            lines += self.tick(self.policy.heartbeat_ns) + self.settle()
        raise ScriptError(f"{name} lives")

    def restart(self, name: str) -> list[str]:
        """A machine comes (back) and joins as a new node."""
        if name in self.seats:
            self.kill(name)
        for link in list(self.links):
            if link.startswith((f"{name}->", f"{name}~>")) or link.endswith(f">{name}"):
                del self.links[link]
        self._make(name)
        return self.step(name, st.NodeStarted())

    # -------------------------------------------------------------- the head's

    def crash_head(self, when: str) -> list[str]:
        """The head's process dies: now, or in its next step that it must persist."""
        self.heads.crash(when)
        if not when:
            self.greeted.clear()
        return ["nothing"]

    def restart_head(self, without: list[str]) -> list[str]:
        """It is started again, and greets the nodes, but for those it cannot reach yet."""
        lines = self._see(self.heads.restart(self.now_ns))
        for name in self.seats:
            if name not in without:
                lines += self.greet(name)
        return lines

    def greet(self, name: str) -> list[str]:
        """A node's link finds the new head at its end, and begins a new session with it."""
        for link in (f"{name}->{HEAD}", f"{HEAD}->{name}"):
            self.links.pop(link, None)
        self.greeted.add(name)
        return self.step(name, st.HeadRestarted(self.head.tables.durable.epoch))


def _is_load(effect: Effect) -> bool:
    return type(effect) is ef.SendToHead and type(effect.message) is hm.LoadReported


def _quiet(lines: list[str]) -> list[str]:
    """Without the steps in which nothing came out."""
    return [line for line in lines if line != "nothing"] or ["nothing"]
