"""Writing a transcript: what cores were told, in the words of transcripts, and what they answer.

Each stimulus is said by its directive if the directive, as it is understood at that place, means
exactly this stimulus; by `told` and its fields if not. What is written has been played: the output
is what came out.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.head_messages import NodeJoined
from detray.errors import Failure
from detray.ids import (
    OBJECT_ID_BYTES,
    TASK_ID_BYTES,
    ClientID,
    FunctionID,
    NodeID,
    ObjectID,
    TemplateID,
    is_put,
    job_of,
)
from detray.trace.format import HeadCore, LocalCore
from detray.trace.reducing.rehearsal import STEP_NS, RehearsedStep
from detray.trace.reducing.shrinking import NothingToShrink, Shrunk
from detray.trace.transcript.cast import Cast
from detray.trace.transcript.fields import LINKED, told
from detray.trace.transcript.script import Passage, render
from detray.trace.transcript.telling import Telling, core_line

SHRUNK = "# Shrunk from "
"""What the transcripts begin with that belong to no rule yet."""
STEPS_MAX = 250
"""Nobody reads a longer transcript of what might be shorter, and writing it takes minutes."""
_TIMES = ((60_000_000_000, "min"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))
_MAPPED = {TASK_ID_BYTES, OBJECT_ID_BYTES}


def shrunk_transcript(shrunk: Shrunk, name: str) -> str:
    """What is left of the trace called `name`.

    Raises NothingToShrink if it says another thing, or if too much is left to be read.
    """
    if not shrunk.is_minimal and len(shrunk.steps) > STEPS_MAX:
        raise NothingToShrink(
            f"{name}: the budget is spent ({shrunk.runs:,} runs, {shrunk.seconds:.0f} s), and "
            f"{shrunk.told:,} stimuli are left: too many for a transcript. Give it more --runs, or "
            "more --seconds"
        )
    heading = [
        f"{SHRUNK.removeprefix('# ')}{name}, {shrunk.told_before:,} stimuli to {shrunk.told:,}. "
        "It violates",
        f'"{shrunk.sentence}":',
        "{}.",
    ]
    if shrunk.told_anew:
        heading += [
            "Its first steps were gone: what was there then is told as if it had just come."
        ]
    cores = list(zip(shrunk.cores, shrunk.stores, strict=True))
    text = write_transcript(heading, cores, shrunk.sentence, shrunk.steps)
    if "\nviolated: " not in text:
        raise NothingToShrink(
            f"{name}: {shrunk.told} stimuli violate {shrunk.sentence!r}, and their transcript does "
            "not: this is a mistake in detray; please report it with the trace"
        )
    return text


def write_transcript(
    heading: Sequence[str],
    cores: Sequence[tuple[LocalCore | HeadCore, bool]],
    sentence: str,
    steps: Iterable[RehearsedStep],
) -> str:
    """The transcript of some steps. `cores` are infos, and whether a head has a store.

    `heading` are lines of prose; a `{}` in them is what the violation is in words.
    """
    writer = _Writer(cores)
    writer.begin(sentence)
    for step in steps:
        writer.step(step)
    violation = writer.finish()
    prose = [f"# {line}".rstrip().replace("{}", violation) for line in heading]
    return render([*prose, "", *writer.parts])


def core_names_for(cores: Sequence[tuple[LocalCore | HeadCore, bool]]) -> list[str]:
    """Short names of cores that differ: a transcript calls them so."""
    names: list[str] = []
    for info, _ in cores:
        base = info.name if info.name.isidentifier() else f"n{len(names)}"
        base = "head" if isinstance(info, HeadCore) else base
        name, count = base, 1
        while name in names:
            count += 1
            name = f"{base}-{count}"
        names.append(name)
    return names


class _Writer:
    def __init__(self, cores: Sequence[tuple[LocalCore | HeadCore, bool]]) -> None:
        self.parts: list[str | Passage] = []
        self._telling = Telling()
        self._cores = cores
        self._names = core_names_for(cores)
        self._known = Cast()
        """The same names, for the ids of the rehearsal."""
        self._templates: dict[tuple[int, ClientID, TemplateID], st.TemplateDefined] = {}
        self._letters = 0
        self._puts = 0

    # -------------------------------------------------------------- blocks

    def begin(self, sentence: str) -> None:
        """The cores, and what is expected of them."""
        lines = [
            core_line(name, info, has_store)
            for name, (info, has_store) in zip(self._names, self._cores, strict=True)
        ]
        self._block([*lines, f"expect {shlex.quote(sentence)}"])

    def step(self, step: RehearsedStep) -> None:
        """A block."""
        name = self._names[step.core]
        prefix = f"{name}: " if len(self._names) > 1 else ""
        self._telling.address(f"{name}: then")
        lines: list[str] = []
        gap = max(STEP_NS, step.now_ns - self._telling.now_ns)
        place = 0
        while place < len(step.stimuli):
            letter = step.letters[place]
            if letter is not None:
                line, count = f"hear {self._names[letter.source]}", 1
                self._hear(line)
            else:
                rest = step.stimuli[place:]
                line, count = self._said(step.core, rest)
            lines.append(prefix + line)
            place += count
        if gap != STEP_NS or not lines:
            lines.append(f"{prefix}advance {_time(gap)}")
        self._block(lines, is_said=True)
        for m in step.stimuli:
            self._note(step.core, m)

    def finish(self) -> str:
        """The end, if only that shows it; the violation in words."""
        watcher = self._telling.watcher
        if watcher is not None and watcher.violation is None:
            self._block(["end"])
        violation = watcher.violation if watcher is not None else None
        if violation is None:
            return "nothing is violated"
        return self._telling.cast.symbolic(violation.text(self._telling.cast.name))

    def _block(self, directives: list[str], is_said: bool = False) -> None:
        """Perform it on a telling that has said none of it yet, and keep what came out."""
        if is_said:
            self._telling = self._replay()
        output = self._telling.perform(directives)
        if self.parts:
            self.parts.append("")
        self.parts.append(Passage(0, directives, output))

    def _replay(self) -> Telling:
        """A telling that has performed all blocks so far: trying directives leaves traces."""
        telling = Telling()
        for part in self.parts:
            if isinstance(part, Passage):
                telling.perform(part.directives)
        return telling

    # -------------------------------------------------------------- directives

    def _hear(self, line: str) -> None:
        self._telling.stimuli_of(self._telling.address(f"{self._telling.seat.name}: {line}"))

    def _said(self, core: int, rest: Sequence[Any]) -> tuple[str, int]:  # Any: stimuli
        """The line that says the first of these stimuli, and how many it says."""
        count = next((n + 1 for n, m in enumerate(rest[:3]) if isinstance(m, st.TaskSubmitted)), 1)
        are_definitions = all(
            isinstance(m, st.FunctionExported | st.TemplateDefined) for m in rest[: count - 1]
        )
        self._name_new(rest[: count if are_definitions else 1])
        if are_definitions and count > 1:
            for m in rest[: count - 1]:
                self._note(core, m)
        group = rest[: count if are_definitions else 1]
        line = self._shortly(core, group[-1])
        if line is not None and self._means(line, group):
            return line, len(group)
        line = self._generally(rest[0])
        self._telling.stimuli_of(self._telling.address(f"{self._names[core]}: {line}"))
        return line, 1

    def _generally(self, m: Any) -> str:  # Any: a stimulus
        source = NodeID(-1)
        if type(m) in LINKED and hasattr(m, "node") and isinstance(m, pm.PeerMessage):
            source = m.node
        seq = self._telling.link_seq(type(m), self._source(m, source)) if type(m) in LINKED else 0
        return told(m, self._known, seq)

    def _source(self, m: Any, source: NodeID) -> NodeID:  # Any: a message of another core
        is_to_head = isinstance(self._telling.seat.info, HeadCore)
        return getattr(m, "node", source) if is_to_head else source

    def _means(self, line: str, group: Sequence[Any]) -> bool:  # Any: stimuli
        """True if the line says exactly this, here; then it has been said."""
        telling = self._telling
        if not line.isprintable():
            return False
        before = copy.deepcopy((telling.cast, telling.seat.__dict__ | {"core": None, "log": []}))
        wanted = [told(m, self._known) for m in group]
        try:
            words = telling.address(f"{telling.seat.name}: {line}")
            meant = telling.stimuli_of(words)
            words.finish()
            if [told(m, telling.cast) for m in meant] == wanted:
                return True
        except Exception:  # whatever it is: the general form says it
            pass
        telling.cast, books = before
        seat = telling.seat
        books["core"], books["log"] = seat.core, seat.log
        seat.__dict__.update(books)
        return False

    # -------------------------------------------------------------- names

    def _name_new(self, stimuli: Iterable[Any]) -> None:  # Any: as above
        """Names for all ids that are heard of for the first time."""
        for m in stimuli:
            if isinstance(m, st.FunctionExported):
                self._name_function(m.function, m.name)
            elif isinstance(m, pm.FunctionShipped):
                self._name_function(m.function, m.name + _job(m.function))
            elif isinstance(m, st.TaskSubmitted | pm.RunDelivered):
                self._name(m.task)
            for item in _ids(m):
                self._name(item)

    def _name_function(self, function: FunctionID, name: str) -> None:
        if function in self._known.functions.values():
            return
        unique, count = name, 1
        while unique in self._known.functions:
            count += 1
            base, at, job = name.partition("@")
            unique = f"{base}~{count}{at}{job}"
        self._known.functions[unique] = function
        self._known.learn(f"function {unique}", function)

    def _name(self, item: bytes) -> None:
        if self._known.knows(item) or not any(item[4:]):
            return
        if len(item) == TASK_ID_BYTES and item[12] >= 0x80:
            name = f"f{len(self._known.functions)}{_job(item)}"
            self._name_function(FunctionID(item), name)
        elif len(item) == TASK_ID_BYTES:
            name = self._next_letter(item)
            self._known.learn(name, item)
            self._known.learn(name, ObjectID(item + bytes(4)))
        elif is_put(ObjectID(item)):
            self._puts += 1
            self._known.learn(f"p{self._puts}{_job(item)}", item)
        else:
            self._name(item[:TASK_ID_BYTES])

    def _next_letter(self, item: bytes) -> str:
        number, name = self._letters, ""
        self._letters += 1
        while True:
            number, letter = divmod(number, 26)
            name = chr(ord("a") + letter) + name
            if not number:
                return name + _job(item)
            number -= 1

    def _note(self, core: int, m: Any) -> None:  # Any: a stimulus
        if isinstance(m, st.TemplateDefined):
            self._templates[core, m.client, m.template] = m
        self._name_new([m] if type(m) is not NodeJoined else [])

    # -------------------------------------------------------------- sayings

    def _shortly(self, core: int, m: Any) -> str | None:  # Any: a stimulus
        """What the directive for such a stimulus would be; None if there is none."""
        if isinstance(m, st.TaskSubmitted):
            template = self._templates.get((core, m.client, m.template))
            return None if template is None else _line("submit", *self._submit(m, template))
        saying = _SAYINGS.get(type(m))
        return None if saying is None else _line(*saying(self._known, m))

    def _submit(self, m: st.TaskSubmitted, t: st.TemplateDefined) -> Iterator[str]:
        known = self._known
        yield known.name(m.task)
        if m.packed:
            yield "packed"
        demand = dict(t.demand)
        options = {
            "name": t.name,
            "by": _by(known, m.client),
            "args": _list(known, m.args),
            "refs": _list(known, m.refs),
            "size": str(m.size_bytes or ""),
            "returns": str(t.num_returns) if t.num_returns != 1 else "",
            "retries": str(t.max_retries or ""),
            "retry_exceptions": "yes" if t.retry_application_errors else "",
            "max_calls": str(t.max_calls or ""),
            "cpus": "" if demand.get("CPU", 0) == 10_000 else f"{demand.get('CPU', 0) / 1e4:g}",
        }
        options |= {name: f"{n / 1e4:g}" for name, n in t.demand if name != "CPU"}
        yield from _options(options)


def _ids(value: Any) -> Iterator[bytes]:  # Any: a message, or a part of one
    """All task, object and function ids in it, in order."""
    if isinstance(value, bytes):
        if len(value) in _MAPPED:
            yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _ids(part)
    elif hasattr(value, "__struct_fields__"):
        for name in value.__struct_fields__:
            yield from _ids(getattr(value, name))


def _job(item: bytes) -> str:
    job = job_of(item)
    return "" if job == 1 else f"@{job}"


def _line(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _options(options: dict[str, str]) -> Iterator[str]:
    return (f"{key}={value}" for key, value in options.items() if value)


def _by(known: Cast, client: ClientID) -> str:
    return "" if client == -1 else known.client_name(client)


def _list(known: Cast, items: Iterable[bytes]) -> str:
    return ",".join(known.name(item) for item in items)


def _time(ns: int) -> str:
    for size, unit in _TIMES:
        if ns % size == 0 and ns >= size and unit != "min":
            return f"{ns // size}{unit}"
    return f"{ns}ns"


def _client(known: Cast, m: Any, verb: str, **options: str) -> Iterator[str]:  # Any: its kind
    yield verb
    yield known.client_name(m.client)
    yield from _options(options)


def _object(known: Cast, m: Any, verb: str, **options: str) -> Iterator[str]:  # Any: the same
    yield verb
    yield known.name(m.object)
    if hasattr(m, "client"):
        options["by"] = _by(known, m.client)
    if getattr(m, "refs", ()):
        options["refs"] = _list(known, m.refs)
    yield from _options(options)


def _several(known: Cast, m: st.RefsDropped | st.ViewsDropped, verb: str) -> Iterator[str]:
    yield verb
    yield from map(known.name, m.objects)
    yield from _options({"by": _by(known, m.client)})


def _get(known: Cast, m: st.GetRequested) -> Iterator[str]:
    yield "get" if m.fetch else "wait"
    yield from map(known.name, m.objects)
    if m.client > 0 and not m.blocks:
        yield "aside"
    needed = len(m.objects) if m.fetch else 1
    yield from _options(
        {
            "by": _by(known, m.client),
            "num": "" if m.needed == needed else str(m.needed),
            "timeout": "" if m.timeout_ns == -1 else str(m.timeout_ns),
            "also": _list(known, m.also),
        }
    )


def _finish(known: Cast, m: st.RunFinished) -> Iterator[str]:
    yield "finish"
    yield known.name(m.task)
    sizes = ",".join(f"{'block:' * part.in_block}{part.size_bytes}" for part in m.returns)
    refs = next((part.refs for part in m.returns), ())
    yield from _options(
        {
            "sizes": "" if sizes == "5" else sizes or "none",
            "refs": _list(known, refs),
            "took": "" if m.ended_ns == 5_000 else _time(m.ended_ns),
        }
    )


def _fail(known: Cast, m: st.RunFailed) -> Iterator[str]:
    yield "fail"
    yield known.name(m.task)
    if m.retryable:
        yield "retryable"
    kind = Failure(m.kind).name
    yield from _options(
        {
            "kind": "" if kind == "APPLICATION" else kind,
            "text": "" if m.summary == "ValueError: no" else m.summary,
            "size": "" if m.size_bytes == 7 else str(m.size_bytes),
            "took": "" if m.ended_ns == 5_000 else _time(m.ended_ns),
            "refs": _list(known, m.refs),
        }
    )


def _lost(known: Cast, m: st.WorkerLost) -> Iterator[str]:
    yield from _client(known, m, "lost", unclaimed=str(m.unclaimed or ""), reason=m.reason)
    if m.expected:
        yield "expected"


def _cancel(known: Cast, m: st.CancelRequested) -> Iterator[str]:
    yield from _object(known, m, "cancel")
    yield from (word for word in ("force", "recursive") if getattr(m, word))


_SAYINGS: dict[type, Callable[[Cast, Any], Iterator[str]]] = {  # Any: the kind that is its key
    st.DriverConnected: lambda c, m: _client(c, m, "driver"),
    st.ObserverConnected: lambda c, m: iter(("observer", f"o{-m.client}")),
    st.ClientLost: lambda c, m: _client(c, m, "client-lost", reason=m.reason),
    st.ProcessGone: lambda c, m: _client(c, m, "process-gone"),
    st.FunctionExported: lambda c, m: iter(
        ("export", m.name, *_options({"by": _by(c, m.client), "size": str(m.size_bytes),
                                      "refs": _list(c, m.refs)}))
    ),
    st.ObjectPut: lambda c, m: _object(c, m, "put", size=str(m.size_bytes)),
    st.BlockRequested: lambda c, m: _object(c, m, "block", size=str(m.size_bytes)),
    st.BlockSealed: lambda c, m: _object(c, m, "seal"),
    st.BlockAbandoned: lambda c, m: _object(c, m, "abandon"),
    st.GetRequested: _get,
    st.GetAbandoned: lambda c, m: iter(
        ("forget", f"r{m.request}", *_options({"by": _by(c, m.client)}))
    ),
    st.RefsDropped: lambda c, m: _several(c, m, "drop"),
    st.ViewsDropped: lambda c, m: _several(c, m, "views"),
    st.CancelRequested: _cancel,
    st.RunFinished: _finish,
    st.RunFailed: _fail,
    st.RefPinned: lambda c, m: _object(c, m, "pin"),
    st.RefClaimed: lambda c, m: _object(
        c, m, "claim", owner="" if m.owner < 0 else c.node_name(m.owner)
    ),
    st.StatusRequested: lambda c, m: iter(
        ("status", m.topic, *_options({"by": _by(c, m.client), "limit": str(m.limit)}))
    ),
    st.WorkerReady: lambda c, m: _client(c, m, "ready"),
    st.WorkerStartFailed: lambda c, m: _client(c, m, "start-failed", reason=m.reason),
    st.WorkerLost: _lost,
    st.RunsRetracted: lambda c, m: iter(("retracted", c.client_name(m.client), str(m.count))),
    st.ObjectMoved: lambda c, m: _object(c, m, "moved"),
    st.ObjectMoveFailed: lambda c, m: _object(c, m, "move-failed", reason=m.reason),
    st.SegmentOpened: lambda c, m: iter(("segment-opened", str(m.segment))),
    st.SegmentFailed: lambda c, m: iter(
        ("segment-failed", str(m.segment),
         *_options({"reason": m.reason, "free": str(m.free_bytes)}))
    ),
    st.NodeStarted: lambda c, m: iter(("started",)),
    st.NodeStopping: lambda c, m: iter(("stopping", *_options({"reason": m.reason}))),
    st.Fenced: lambda c, m: iter(("fenced", *_options({"reason": m.reason}))),
    st.HeadRestarted: lambda c, m: iter(("head-restarted", str(m.epoch))),
    st.PeerSilent: lambda c, m: iter(("silent", c.node_name(m.node))),
    st.PeerHeard: lambda c, m: iter(("heard", c.node_name(m.node))),
    st.ObjectCorrupted: lambda c, m: _object(c, m, "corrupted"),
}  # fmt: skip
