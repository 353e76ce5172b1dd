"""Transcripts in which cores are told what they were told, and answer nobody.

What `detray shrink` writes: each block is a step of one core. Unlike on the stages of the tests,
nothing happens by itself. What another core says is told (`told Placed ...`), or heard from one
that is in the transcript, too (`b: hear a`): the next message that it sent there.

    core n totals=CPU:2
    expect "no task waits more than 5 s while a CPU is idle"
    ----
    n with {CPU: 2}

    driver d1
    ----
    head <- NodeJoined name n, totals {CPU: 2}

A step that violates the expectation says so in its last line, and `end` does if only the end
violates it. A core that raises says that, too; it takes no more steps.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import msgspec

from detray.core import effects as ef
from detray.core.config import GlobalConfig, LocalConfig, Policy
from detray.core.effects import Effect
from detray.core.head_messages import NodeAdmitted, NodeAnnounced, NodeJoined
from detray.core.resources import format_demand
from detray.core.stimuli import HeadRestarted, Stimulus
from detray.core.tables import Tables
from detray.ids import NodeID
from detray.trace.format import HeadCore, LocalCore
from detray.trace.links import FROM_HEAD, FROM_PEER, LINK_MESSAGES
from detray.trace.reducing.expecting import Watcher, expect
from detray.trace.reducing.rehearsal import START_NS, STEP_NS, new_core
from detray.trace.transcript.cast import Cast
from detray.trace.transcript.directives import DIRECTIVES
from detray.trace.transcript.scene import Scene, SceneBooks
from detray.trace.transcript.script import Passage, ScriptError, Words, number, parse, split
from detray.trace.transcript.speech import say

HEAD_END = NodeID(-1)
ARENA_BYTES = 1 << 20
"""Of cores that say nothing of it."""


class ToldCore(SceneBooks):
    """A core of a transcript, with the books of its clients and all its steps."""

    def __init__(self, name: str, place: int, info: LocalCore | HeadCore, has_store: bool) -> None:
        super().__init__()
        self.name = name
        self.place = place
        self.info = info
        self.config: Any = info.config  # Any: of a node or a head
        self.has_store = has_store
        self.core: Any = new_core(info, has_store)  # Any: of both kinds
        self.log: list[tuple[int, list[Stimulus], list[Effect]]] = []
        self.seqs: Counter[NodeID] = Counter()
        """By who sends, messages of other cores that it was told."""
        self.has_begun = False
        self.has_raised = False

    def see(self, effect: Effect) -> None:
        """As the books of tests do; what was received is another's to say here."""
        if not isinstance(effect, ef.ReceiveObject):
            super().see(effect)

    @property
    def local(self) -> Any:  # Any: as above
        """The core, as the worlds of tests call it."""
        return self.core


class Telling(Scene):
    """Performs blocks of directives; `cores` are the cores by name, in order."""

    def __init__(self) -> None:
        self.cast = Cast()
        self.cores: dict[str, ToldCore] = {}
        self.now_ns = START_NS
        self.watcher: Watcher | None = None
        self._links: dict[tuple[str, str], deque[Any]] = {}
        self._joining: list[str] = []
        self._target: ToldCore | None = None
        self._steps = 0
        self._has_told = False

    # -------------------------------------------------------------- as a scene

    @property
    def seat(self) -> ToldCore:
        """The core that is spoken to."""
        if self._target is None:
            raise ScriptError("no core is there: core NAME totals=CPU:1")
        return self._target

    @property
    def tables(self) -> Tables:
        """Its tables."""
        tables: Tables = self.seat.core.tables
        return tables

    def link_seq(self, kind: type, source: NodeID) -> int:
        """The number of the next message from there."""
        if kind is NodeJoined:
            return 1
        return self.seat.seqs[source] + 1

    @property
    def worlds(self) -> list[ToldCore]:
        """The nodes."""
        return [core for core in self.cores.values() if isinstance(core.info, LocalCore)]

    @property
    def heads(self) -> list[ToldCore]:
        """The heads."""
        return [core for core in self.cores.values() if isinstance(core.info, HeadCore)]

    # -------------------------------------------------------------- blocks

    def perform(self, directives: list[str]) -> list[str]:
        """One block: a step of one core, or something that feeds none; what came out."""
        lines: list[str] = []
        stimuli: list[Stimulus] = []
        advance_ns, is_step = 0, False
        targets = set()
        for directive in directives:
            words = self.address(directive)
            if words.verb in _SETTINGS:
                lines += _SETTINGS[words.verb](self, words)
            else:
                is_step = True
                targets.add(self.seat.name)
                if words.verb == "advance":
                    advance_ns += number(words.names[0])
                else:
                    stimuli += self.stimuli_of(words)
            words.finish()
        if len(targets) > 1 or (is_step and lines):
            raise ScriptError("a block is one step of one core")
        return self._step(stimuli, advance_ns) if is_step else lines

    def address(self, directive: str) -> Words:
        """Take a directive apart, and turn to the core that it names (default: the first)."""
        first, _, rest = directive.partition(" ")
        if first.endswith(":"):
            if first[:-1] not in self.cores:
                raise ScriptError(f"{first[:-1]}: no such core")
            self._target = self.cores[first[:-1]]
            return split(rest)
        self._target = next(iter(self.cores.values()), None)
        return split(directive)

    def stimuli_of(self, words: Words) -> list[Stimulus]:
        """What a directive says to the core that was turned to."""
        if words.verb == "hear":
            return self._hear(words)
        if words.verb == "then":
            return []
        if words.verb not in DIRECTIVES:
            raise ScriptError(f"no directive {words.verb}")
        stimuli = DIRECTIVES[words.verb](self, words)
        for stimulus in stimuli:
            self._count(stimulus)
        return stimuli

    def _hear(self, words: Words) -> list[Stimulus]:
        """`b: hear a 2`: the next two messages that a sent to b."""
        source, *count = words.names
        link = self._links.get((source, self.seat.name), deque())
        wanted = int(count[0]) if count else 1
        if len(link) < wanted:
            raise ScriptError(f"{source} sent {len(link)} more messages to {self.seat.name}")
        heard = [link.popleft() for _ in range(wanted)]
        for message in heard:
            if type(message) is NodeJoined:
                self._joining.append(source)
        return heard

    def _count(self, m: Any) -> None:  # Any: a stimulus
        kind, seqs = type(m), self.seat.seqs
        if kind in FROM_PEER:
            seqs[m.node] = m.link_seq
        elif kind in FROM_HEAD:
            seqs[HEAD_END] = m.link_seq
        elif kind is HeadRestarted:
            seqs[HEAD_END] = 0
        elif kind is NodeJoined:
            self._joining.append("")
        elif kind in LINK_MESSAGES:
            seqs[m.node] = m.link_seq

    # -------------------------------------------------------------- a step

    def _step(self, stimuli: list[Stimulus], advance_ns: int) -> list[str]:
        seat = self.seat
        self.now_ns += advance_ns or STEP_NS
        if seat.has_raised:
            raise ScriptError(f"{seat.name} has raised: it takes no more steps")
        self._has_told = True
        had_violation = self._violation() is not None
        if self.watcher is not None:
            self.watcher.step = self._steps
            if not seat.has_begun:
                self.watcher.begin(seat.place, seat.core.tables)
            self.watcher.before(seat.place, self.now_ns)
        self._steps += 1
        seat.has_begun = True
        self._name_nodes(seat, stimuli)
        state = seat.core.snapshot()
        try:
            effects = seat.core.handle(*stimuli, now_ns=self.now_ns)
        except Exception as error:
            if self.watcher is not None:
                self.watcher.raised(seat.place, error)
            seat.has_raised = True
            seat.core = type(seat.core).restore(seat.config, state)
            lines = [f"raises {type(error).__name__}: {self.cast.symbolic(str(error))}"]
        else:
            seat.log.append((self.now_ns, stimuli, effects))
            if self.watcher is not None:
                self.watcher.after(seat.place, stimuli, effects, seat.core.tables)
            lines = self._see(seat, effects)
        if len(self.cores) > 1:
            lines = [f"{seat.name}: {line}" for line in lines]
        if not had_violation:
            lines += self._violated()
        return lines or ["nothing"]

    def _violation(self) -> Any:  # Any: a Violation, or None
        return self.watcher.violation if self.watcher is not None else None

    def _violated(self) -> list[str]:
        violation = self._violation()
        if violation is None:
            return []
        text = self.cast.symbolic(violation.text(self.cast.name))
        return [f'violated: "{violation.sentence}": {text}']

    def _name_nodes(self, seat: ToldCore, stimuli: list[Stimulus]) -> None:
        for m in stimuli:
            if isinstance(m, NodeAdmitted) and not self.cast.has_node(m.node):
                self.cast.name_node(m.node, seat.name)
            elif isinstance(m, NodeAnnounced) and not self.cast.has_node(m.node):
                self.cast.name_node(m.node, m.name)

    def _see(self, seat: ToldCore, effects: list[Effect]) -> list[str]:
        lines = []
        for effect in effects:
            if isinstance(effect, ef.SendToNode) and isinstance(effect.message, NodeAdmitted):
                name = self._joining.pop(0) if self._joining else ""
                if name:
                    self.cast.name_node(effect.node, name)
        for effect in effects:
            seat.see(effect)
            self._carry(seat, effect)
            lines += say(effect, self.cast)
        return lines

    def _carry(self, seat: ToldCore, effect: Effect) -> None:
        """What goes to another core of the transcript waits until that one hears it."""
        match effect:
            case ef.SendToHead():
                target = self.heads[0].name if self.heads else ""
            case ef.SendToPeer() | ef.SendToNode():
                target = self.cast.node_name(effect.node)
            case _:
                return
        if target in self.cores:
            self._links.setdefault((seat.name, target), deque()).append(effect.message)

    # -------------------------------------------------------------- settings

    def core_directive(self, words: Words) -> list[str]:
        """`core n totals=CPU:2`, `core head kind=head`: a core; see `core_line`."""
        if self._has_told:
            raise ScriptError("cores must come first")
        name = words.names[0] if words.names else ""
        info, has_store = _core_of(name, words)
        if words.names != [name] or name in self.cores:
            raise ScriptError("core takes a name of its own")
        core = self.cores[name] = ToldCore(name, len(self.cores), info, has_store)
        self._target = core
        if isinstance(info, HeadCore):
            return [f"{name}, the head"]
        return [f"{name} with {format_demand(info.config.totals)}"]

    def expect_directive(self, words: Words) -> list[str]:
        """`expect "no task fails"`: checked after each step from here on."""
        if self.watcher is not None or self._has_told:
            raise ScriptError("one expectation, before the first step")
        sentence = " ".join(words.names)
        self.watcher = Watcher(lambda core, now_ns: now_ns, [expect(sentence)])
        return []

    def end_directive(self, words: Words) -> list[str]:
        """`end`: nothing comes any more; says what this violates."""
        if self.watcher is None or self.watcher.violation is not None:
            return ["nothing"]
        self.watcher.end()
        return self._violated() or ["nothing"]


_SETTINGS: dict[str, Callable[[Telling, Words], list[str]]] = {
    "core": Telling.core_directive,
    "expect": Telling.expect_directive,
    "end": Telling.end_directive,
}


def is_telling(text: str) -> bool:
    """True if a transcript's first directive is `core`."""
    return next((p.directives[0] for p in parse(text) if isinstance(p, Passage)), "")[:5] == "core "


def play_telling(
    text: str, after_step: Callable[[Telling], object] | None = None
) -> tuple[list[str | Passage], Telling]:
    """The transcript with the output that it has now; `after_step` may look after each block.

    Raises ScriptError.
    """
    telling = Telling()
    played: list[str | Passage] = []
    for part in parse(text):
        if isinstance(part, Passage):
            try:
                output = telling.perform(part.directives)
            except Exception as error:
                error.add_note(f"in the block on line {part.line}: {'; '.join(part.directives)}")
                raise
            part = Passage(part.line, part.directives, output)
            if after_step is not None:
                after_step(telling)
        played.append(part)
    return played, telling


# ------------------------------------------------------------------ configurations

_POLICY = {field.name: field.default for field in msgspec.structs.fields(Policy)}
_LOCAL = {"infeasible": "wait", "prestart_workers": 0, "address": "", "life": ""}
_HEAD = {"first_job": 1, "placement": "hybrid", "seed": 0}


def core_line(name: str, info: LocalCore | HeadCore, has_store: bool) -> str:
    """The directive that makes such a core; what is as it is by default is left out."""
    config: Any = info.config  # Any: of a node or a head
    words = ["core", shlex.quote(name)]
    if isinstance(info, LocalCore):
        totals = [f"{resource}:{_amount(n)}" for resource, n in config.totals]
        words.append(shlex.quote(f"totals={','.join(totals)}"))
        if config.arena_bytes != ARENA_BYTES:
            words.append(f"arena={config.arena_bytes}")
        if config.node_name != name:
            words.append(shlex.quote(f"name={config.node_name}"))
        if not config.stop_with_last_driver:
            words.append("shared")
        if config.labels:
            words.append(shlex.quote(f"labels={json.dumps(config.labels)}"))
    else:
        words += ["kind=head", *(["store"] if has_store else [])]
    for key, default in (_LOCAL if isinstance(info, LocalCore) else _HEAD).items():
        if getattr(config, key) != default:
            words.append(shlex.quote(f"{key}={getattr(config, key)}"))
    for key, default in _POLICY.items():
        value = getattr(config.policy, key)
        if value != default:
            words.append(f"{key}={int(value) if isinstance(value, bool) else value}")
    return " ".join(words)


def _amount(units: int) -> str:
    whole, rest = divmod(units, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") if rest else str(whole)


def _units(text: str) -> int:
    whole, _, rest = text.partition(".")
    return int(whole) * 10_000 + int(rest.ljust(4, "0")[:4])


def _core_of(name: str, words: Words) -> tuple[LocalCore | HeadCore, bool]:
    policy = {}
    for key, default in _POLICY.items():
        if key in words.options:
            text = words.text(key)
            policy[key] = text if isinstance(default, str) else type(default)(number(text))
    own: dict[str, Any] = {"policy": Policy(**policy)}  # type: ignore[arg-type]  # keys are its fields
    is_head = words.text("kind") == "head"
    for key, default in (_HEAD if is_head else _LOCAL).items():
        if key in words.options:
            text = words.text(key)
            own[key] = text if isinstance(default, str) else number(text)
    if is_head:
        return HeadCore(name=name, config=GlobalConfig(**own)), words.flag("store")
    totals = [part.rpartition(":") for part in words.list("totals")]
    config = LocalConfig(
        node_name=words.text("name", name),
        totals=tuple((resource, _units(n)) for resource, _, n in totals),
        arena_bytes=words.number("arena", ARENA_BYTES),
        stop_with_last_driver=not words.flag("shared"),
        labels=tuple(tuple(pair) for pair in json.loads(words.text("labels", "[]"))),
        **own,
    )
    return LocalCore(name=name, config=config), False
