"""The head of a transcript: its lives one after the other, and what its store has."""

from __future__ import annotations

from dataclasses import dataclass, field

from detray.core import effects as ef
from detray.core.config import GlobalConfig
from detray.core.durable import apply, decode_snapshot, digest, encode_snapshot
from detray.core.effects import Effect
from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_invariants import check_head
from detray.core.stimuli import Stimulus
from detray.trace.transcript.script import ScriptError

SAVED, UNSAVED = "saved", "unsaved"
"""When a head crashes in its next step that must be persisted: after its commit, or before."""


@dataclass
class HeadLife:
    """One process of the head: the tables that it found, and all its steps."""

    found: bytes | None
    began_ns: int
    log: list[tuple[int, list[Stimulus], list[Effect]]] = field(default_factory=list)

    def begin(self, config: GlobalConfig) -> GlobalScheduler:
        """A core as this life had it at first."""
        if self.found is None:
            return GlobalScheduler(config)
        return GlobalScheduler.recover(config, decode_snapshot(self.found), self.began_ns)


class Head:
    """At most one core at a time. With a store the next one goes on from what was committed."""

    def __init__(self, config: GlobalConfig, has_store: bool) -> None:
        self.config = config
        self.store = decode_snapshot(_EMPTY) if has_store else None
        self.lives = [HeadLife(_EMPTY if has_store else None, 1_000)]
        self.core = self.lives[0].begin(config)
        self.is_alive = True
        self.crashes = ""
        """SAVED or UNSAVED: how the next step that must be persisted ends."""
        if has_store:
            self.step(1_000)

    def step(self, now_ns: int, *stimuli: Stimulus) -> list[Effect]:
        """One step; what of it leaves: of a head that dies in it, at most what it wrote."""
        effects = self.core.handle(*stimuli, now_ns=now_ns)  # type: ignore[arg-type]  # for it
        self.lives[-1].log.append((now_ns, list(stimuli), effects))
        check_head(self.core.tables)
        if not effects or type(effects[0]) is not ef.Persist:
            assert not any(type(effect) is ef.Persist for effect in effects)
            return effects
        if self.crashes:
            self.is_alive = False
            effects = effects[: self.crashes == SAVED]
        if self.crashes != UNSAVED:
            assert self.store is not None, "a head without a store has nothing to persist"
            for event in effects[0].events:  # type: ignore[union-attr]  # a Persist
                apply(self.store, event)
            assert digest(self.store) == digest(self.core.tables.durable)
        self.crashes = ""
        return effects

    def crash(self, when: str) -> None:
        """The process dies: now, or in the next step that must be persisted."""
        if not self.is_alive or self.store is None:
            raise ScriptError("the head is dead already, or has no store")
        self.is_alive, self.crashes = bool(when), when

    def restart(self, now_ns: int) -> list[Effect]:
        """The next process begins; it has read its store, and committed its epoch."""
        if self.is_alive or self.store is None:
            raise ScriptError("the head lives")
        self.lives.append(HeadLife(encode_snapshot(self.store), now_ns))
        self.core = self.lives[-1].begin(self.config)
        self.is_alive = True
        return self.step(now_ns)


_EMPTY = encode_snapshot(GlobalScheduler(GlobalConfig()).tables.durable)
