"""Links: which core said what to which, and whether it arrived as it was sent (PROTOCOL T15).

Theory of operation
-------------------
Every message between cores carries its number on an ordered link, from 1. A link leads from one
core to another: a node is named by its number, the head by its epoch, for a restarted head begins
new links. A node's very first message, by which it joins, is sent before it has a number, and again
to the next head if this one dies first: it is matched by what it says. The head gives numbers in
the order in which it handles such messages, so the answers of that step say whose they were.

A trace shows both ends of a link if both cores are in it. Of one that is not, or whose recording
begins in the middle or was cut, messages may arrive that nobody in the trace has sent: they are
counted apart (`unmatched`), not believed and not complained about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, get_args

from detray.core.effects import Effect, SendToHead, SendToNode, SendToPeer
from detray.core.head_messages import HeadMessage, NodeAdmitted, NodeJoined, NodeMessage
from detray.core.peer_messages import PeerMessage
from detray.core.stimuli import Stimulus
from detray.ids import NodeID
from detray.trace.format import Header, LocalCore
from detray.trace.names import describe
from detray.trace.reading import RecordedStep, Trace

TO_HEAD = frozenset(get_args(NodeMessage))
FROM_HEAD = frozenset(get_args(HeadMessage))
FROM_PEER = frozenset(get_args(PeerMessage))
LINK_MESSAGES = TO_HEAD | FROM_HEAD | FROM_PEER
AT_HEAD = NodeID(-1)
"""The head's end of a link, where others have the number of a node."""
NOBODY = NodeID(-2)
"""Whoever has no number, and is not known by another sign."""
_ADMITTED_TAG = b"\xcc" + bytes([NodeAdmitted.__struct_config__.tag])  # type: ignore[list-item]  # an integer


class CoreLink(NamedTuple):
    """One direction between two cores. `epoch` is the head's, 0 between nodes."""

    source: NodeID
    target: NodeID
    epoch: int

    def __str__(self) -> str:
        return f"the link from {self.source_name()} to {_end(self.target, self.epoch)}"

    @property
    def is_known(self) -> bool:
        """True if both ends have a number: else nobody can tell whose other end this is."""
        return self.source >= AT_HEAD and self.target >= AT_HEAD

    def source_name(self) -> str:
        """Who sends on it."""
        return _end(self.source, self.epoch)


def _end(node: NodeID, epoch: int) -> str:
    if node == AT_HEAD:
        return f"the head of epoch {epoch}" if epoch else "the head"
    return f"node {node}" if node >= 0 else "a node without a number"


class Passing(NamedTuple):
    """A message that a core sends or receives in a step, and its number on its link."""

    link: CoreLink
    seq: int
    message: Any  # Any: of all kinds that travel between cores


class Directory:
    """Knows the links of the cores of a trace by what they say in the order of its steps."""

    def __init__(self, header: Header, nodes: Sequence[NodeID]) -> None:
        """`nodes` are the cores' nodes by core number (`nodes_of`)."""
        self.nodes = nodes
        self._is_head = [not isinstance(core, LocalCore) for core in header.cores]
        self._me = [NodeID(NOBODY - 1 - n) if node < 0 else node for n, node in enumerate(nodes)]
        self._epochs = [0 if isinstance(core, LocalCore) else core.epoch for core in header.cores]
        """A head's own epoch; for a node, that of the head it talks to."""
        self.admitted: dict[NodeID, int] = {}
        """The epoch of the first head that admitted each node."""
        self._cores: dict[tuple[NodeID, int], int] = {}
        for number, me in enumerate(self._me):
            if self._is_head[number]:
                self._cores.setdefault((AT_HEAD, self._epochs[number]), number)
                self._cores.setdefault((AT_HEAD, 0), number)
            else:
                self._cores.setdefault((me, 0), number)

    def begin(self, core: int, state: object) -> None:
        """A core is played from here on, with this state: it knows the epoch of its head."""
        tables = getattr(state, "tables", None)
        durable = getattr(tables, "durable", tables)
        self._epochs[core] = epoch = max(self._epochs[core], getattr(durable, "epoch", 0))
        if self._is_head[core]:
            self._cores.setdefault((AT_HEAD, epoch), core)

    def core_at(self, link: CoreLink, *, source: bool) -> int | None:
        """The number of the core at one end, None if it is not in the trace."""
        node = link.source if source else link.target
        return self._cores.get((node, link.epoch if node == AT_HEAD else 0))

    def received(
        self, core: int, stimuli: Iterable[Stimulus], effects: Iterable[Effect] | None
    ) -> Iterator[Passing]:
        """The messages of other cores in a step; `effects` tell a head who joined."""
        joined: Iterator[NodeID] | None = None
        for stimulus in stimuli:
            kind = type(stimulus)
            if not self._is_head[core]:  # the head may have begun a new life
                self._epochs[core] = max(self._epochs[core], getattr(stimulus, "epoch", 0))
            if kind not in LINK_MESSAGES:
                continue
            if kind is NodeJoined:
                if joined is None:
                    joined = iter(admissions(stimuli, effects))
                node = next(joined, NOBODY)
                if node >= 0:
                    self.admitted.setdefault(node, self._epochs[core])
                # Before its number is known, a node does not know the head's epoch either.
                link = CoreLink(node, AT_HEAD, 0)
            else:
                link = self._link_in(core, stimulus)
            yield Passing(link, stimulus.link_seq, stimulus)  # type: ignore[union-attr]  # its kind says so

    def sent(self, core: int, effects: Iterable[Effect]) -> Iterator[Passing]:
        """The messages to other cores in a step."""
        me, epoch = self._me[core], self._epochs[core]
        for effect in effects:
            kind = type(effect)
            if kind is SendToPeer:
                link = CoreLink(me, effect.node, 0)  # type: ignore[union-attr]  # its kind says so
            elif kind is SendToNode:
                link = CoreLink(AT_HEAD, effect.node, epoch)  # type: ignore[union-attr]  # the same
            elif kind is SendToHead:
                is_joining = type(effect.message) is NodeJoined  # type: ignore[union-attr]  # the same
                link = CoreLink(me, AT_HEAD, 0 if is_joining else self._epoch_of(core))
            else:
                continue
            message = effect.message  # type: ignore[union-attr]  # the same
            yield Passing(link, message.link_seq, message)

    def _link_in(self, core: int, message: Any) -> CoreLink:  # Any: a message between cores
        kind = type(message)
        if kind in FROM_PEER:
            return CoreLink(message.node, self._me[core], 0)
        if kind in FROM_HEAD:
            return CoreLink(AT_HEAD, self._me[core], self._epoch_of(core))
        return CoreLink(message.node, AT_HEAD, self._epochs[core])

    def _epoch_of(self, core: int) -> int:
        """Of the head that a node talks to: the one that it was told of, or that admitted it."""
        return self._epochs[core] or self.admitted.get(self.nodes[core], 0)


def admissions(stimuli: Iterable[Stimulus], effects: Iterable[Effect] | None) -> Sequence[NodeID]:
    """The numbers that a head gives in a step, to those who joined, in that order.

    None if it is not known who got which.
    """
    numbers = [
        effect.node
        for effect in effects or ()
        if type(effect) is SendToNode and type(effect.message) is NodeAdmitted
    ]
    joined = sum(type(stimulus) is NodeJoined for stimulus in stimuli)
    return numbers if len(numbers) == joined else ()


def nodes_of(trace: Trace) -> list[NodeID]:
    """The node of each core by core number, -1 for heads and where it is not said.

    Raises TraceError. Reads the trace up to where the last node is admitted.
    """
    nodes = [core.node if isinstance(core, LocalCore) else AT_HEAD for core in trace.header.cores]
    unknown = {n for n, core in trace.header.local_cores() if core.node < 0}
    if not unknown:
        return nodes
    for step in trace.steps():
        if step.core in unknown and any(_ADMITTED_TAG in meta for meta in step.metas):
            for stimulus in step.stimuli():
                if type(stimulus) is NodeAdmitted:
                    nodes[step.core] = stimulus.node
                    unknown.discard(step.core)
            if not unknown:
                break
    return nodes


class Links:
    """Compares what arrives with what was sent, step by step; keeps what is under way."""

    def __init__(self, trace: Trace) -> None:
        """Raises TraceError."""
        header = trace.header
        self.directory = Directory(header, nodes_of(trace))
        self.matched = 0
        """Messages that arrived as they were sent."""
        self.unmatched = 0
        """Messages whose sending the trace does not show, and need not."""
        self._cut = {n for n in range(len(header.cores)) if header.process_of(n).note}
        """Cores that may have sent more than the trace shows, after its end."""
        if not trace.complete:
            self._cut.update(range(len(header.cores)))
        self._late: dict[int, int] = {}
        """By core, the first segment that names it: it began before if it had no step yet."""
        for start in trace.starts:
            for core in () if start.begins else start.cores:
                self._late.setdefault(core, start.first_step)
        self._under_way: dict[CoreLink, dict[int, Any]] = {}
        self._joins: set[NodeJoined] = set()
        """What was sent to join, by whichever core."""
        self._last: dict[CoreLink, int] = {}
        self._unsent: dict[CoreLink, set[int]] = {}

    def follow(
        self, step: RecordedStep, stimuli: Sequence[Stimulus], effects: Sequence[Effect] | None
    ) -> str:
        """Take a step's messages; says what is wrong with them, "" if nothing is.

        `effects` are None if they are not known: then messages of this core may be missing.
        """
        problem = ""
        core = step.core
        if self._late.get(core, -1) > step.number:
            del self._late[core]  # it did begin here
        if effects is None:
            self._late[core] = -1
        for passing in self.directory.received(core, stimuli, effects):
            problem = problem or self._receive(passing, core)
        for passing in self.directory.sent(core, effects or ()):
            problem = problem or self._send(passing)
        return problem

    def _send(self, sent: Passing) -> str:
        link, seq, message = sent
        if type(message) is NodeJoined:
            self._joins.add(message)
            return ""
        if seq in self._unsent.get(link, ()):
            return f"{type(message).__name__} is sent after it arrived ({_where(link, seq)})"
        if self.directory.core_at(link, source=False) is not None:
            self._under_way.setdefault(link, {})[seq] = message
        return ""

    def _receive(self, arrived: Passing, core: int) -> str:
        link, seq, message = arrived
        if type(message) is NodeJoined:
            if message not in self._joins:
                return self._receive_unsent(arrived, 0)
            self.matched += 1
            return ""
        last = self._last.get(link, 0)
        self._last[link] = max(last, seq)
        under_way = self._under_way.get(link)
        if under_way is None or seq not in under_way:
            return self._receive_unsent(arrived, last)
        sent = under_way.pop(seq)
        if sent != message:
            return differing(link, seq, sent, message)
        self.matched += 1
        skipped = [number for number in islice(under_way, 1) if number < seq]
        if skipped and core not in self._late:
            return f"message {skipped[0]} of {link} did not arrive, message {seq} did"
        for number in skipped:
            del under_way[number]
        return ""

    def _receive_unsent(self, arrived: Passing, last: int) -> str:
        link, seq, message = arrived
        source = self.directory.core_at(link, source=True)
        if source is None or not link.is_known or source in self._cut or source in self._late:
            self.unmatched += 1
            if source is not None:
                self._unsent.setdefault(link, set()).add(seq)
            return ""
        how = "arrived twice" if seq <= last else "arrived, and nobody sent it"
        return f"{type(message).__name__} {how} ({_where(link, seq)})"


def _where(link: CoreLink, seq: int) -> str:
    return f"message {seq} of {link}"


def differing(link: CoreLink, seq: int, sent: Any, arrived: Any) -> str:  # Any: messages
    """In words: a message did not arrive as it was sent; both versions."""
    if type(sent) is not type(arrived):
        what = f"{type(arrived).__name__} arrived where {type(sent).__name__} was sent"
    else:
        what = f"{type(sent).__name__} did not arrive as it was sent"
    return f"{what} ({_where(link, seq)}): sent {describe(sent)}, arrived {describe(arrived)}"
