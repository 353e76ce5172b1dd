"""Both ends of every link, and whether they agree: what collecting finds out before it orders.

A message is known by its link and number. One that arrived and is not among those sent is either
the fault of somebody, or of a recording that lacks the step in which it was sent; which of the two
is decided here, once all recordings have been read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from detray.core.effects import Effect
from detray.core.head_messages import NodeJoined
from detray.core.stimuli import Stimulus
from detray.trace.links import CoreLink, Directory, Passing, differing

DIFFERENCES_MAX = 100
"""So many are described, the rest is counted."""
Place = tuple[int, int]
"""A step: the number of its recording, and its place therein."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stimulus).decode


class MessageEnd(NamedTuple):
    """One end of a message: the step in which it was sent or arrived, and what it was."""

    place: Place
    message: bytes


class Agreement(msgspec.Struct):
    """What the comparison found."""

    matched: int = 0
    unmatched: int = 0
    differences: list[str] = []
    notes: list[str] = []


class Ends:
    """Collects both ends of all messages. `late` and `cut` are cores by number.

    A core that is late may have sent or received more before its recording begins, one that is cut
    after it ends.
    """

    def __init__(
        self, directory: Directory, names: Sequence[str], late: set[int], cut: set[int]
    ) -> None:
        self.directory = directory
        self._names = names
        self._late = late
        self._cut = cut
        self._sent: dict[CoreLink, dict[int, MessageEnd]] = {}
        self._arrived: dict[CoreLink, dict[int, MessageEnd]] = {}
        self._again: list[Passing] = []
        self._joins_sent: dict[bytes, list[Place]] = {}
        self._joins_arrived: dict[bytes, list[tuple[Place, Passing]]] = {}
        """Messages by which nodes join, by what they say: their links have no name yet."""

    def take(
        self,
        place: Place,
        core: int,
        stimuli: Sequence[Stimulus],
        effects: Sequence[Effect] | None,
    ) -> None:
        """A step of a core; without effects, more than the recording shows may have been sent."""
        for passing in self.directory.received(core, stimuli, effects):
            link, seq, message = passing
            if type(message) is NodeJoined:
                joins = self._joins_arrived.setdefault(_encode(message), [])
                joins.append((place, passing))
                continue
            ends = self._arrived.setdefault(link, {})
            if seq in ends:
                self._again.append(passing)
            else:
                ends[seq] = MessageEnd(place, _encode(message))
        if effects is None:
            self._late.add(core)
            return
        for link, seq, message in self.directory.sent(core, effects):
            if type(message) is NodeJoined:
                self._joins_sent.setdefault(_encode(message), []).append(place)
                continue
            self._sent.setdefault(link, {})[seq] = MessageEnd(place, _encode(message))

    def needs(self) -> dict[Place, list[Place]]:
        """For each step the steps of other recordings that must come before it."""
        found: dict[Place, list[Place]] = {}

        def add(before: Place, after: Place) -> None:
            if before[0] != after[0] or before[1] >= after[1]:
                found.setdefault(after, []).append(before)

        for link, ends in self._arrived.items():
            sent = self._sent.get(link, {})
            for seq, end in ends.items():
                if seq in sent:
                    add(sent[seq].place, end.place)
        for said, arrivals in self._joins_arrived.items():
            places = self._joins_sent.get(said, [])
            # Said again to the next head, by the core or by its link, for which it is the same.
            for number, (place, _) in enumerate(arrivals if places else ()):
                add(places[min(number, len(places) - 1)], place)
        return found

    def compare(self) -> Agreement:
        """Set what arrived against what was sent."""
        found = Agreement()
        problems: list[str] = []
        strangers: Counter[str] = Counter()
        untold: Counter[str] = Counter()
        for link, ends in self._arrived.items():
            problems += self._compare_link(link, ends, found, strangers, untold)
        problems += self._compare_joins(found, strangers, untold)
        for link, seq, message in self._again:
            problems.append(f"{type(message).__name__} arrived twice (message {seq} of {link})")
        found.differences = problems[:DIFFERENCES_MAX]
        if len(problems) > DIFFERENCES_MAX:
            found.differences.append(f"... and {len(problems) - DIFFERENCES_MAX:,} more")
        for end, count in sorted(strangers.items()):
            found.notes.append(
                f"no recording of {end} was given: {count:,} of its messages arrived elsewhere"
            )
        for name, count in sorted(untold.items()):
            found.notes.append(
                f"{count:,} messages of {name} arrived elsewhere that its recording does not hold"
            )
        found.unmatched = strangers.total() + untold.total()
        return found

    def _compare_joins(
        self, found: Agreement, strangers: Counter[str], untold: Counter[str]
    ) -> Iterator[str]:
        for said, arrivals in self._joins_arrived.items():
            if said in self._joins_sent:
                found.matched += len(arrivals)
                continue
            for _, (link, seq, message) in arrivals:
                source = self.directory.core_at(link, source=True)
                if source is None:
                    strangers[link.source_name()] += 1
                elif source in self._late or source in self._cut:
                    untold[self._names[source]] += 1
                else:
                    yield f"{type(message).__name__} arrived, and nobody sent it ({seq} of {link})"

    def _compare_link(
        self,
        link: CoreLink,
        ends: dict[int, MessageEnd],
        found: Agreement,
        strangers: Counter[str],
        untold: Counter[str],
    ) -> Iterator[str]:
        sent = self._sent.get(link, {})
        source = self.directory.core_at(link, source=True)
        for seq, end in ends.items():
            other = sent.get(seq)
            if other is not None:
                if other.message == end.message:
                    found.matched += 1
                else:
                    yield differing(link, seq, _decode(other.message), _decode(end.message))
            elif source is None:
                strangers[link.source_name()] += 1
            elif not link.is_known or self._may_lack(source, seq, sent):
                untold[self._names[source]] += 1
            else:
                name = type(_decode(end.message)).__name__
                yield f"{name} arrived, and nobody sent it (message {seq} of {link})"
        yield from self._gaps(link, ends, sent)

    def _may_lack(self, source: int, seq: int, sent: dict[int, MessageEnd]) -> bool:
        """True if the sender's recording need not hold that message."""
        is_after = seq > max(sent, default=0)
        return source in self._late or (source in self._cut and is_after)

    def _gaps(
        self, link: CoreLink, ends: dict[int, MessageEnd], sent: dict[int, MessageEnd]
    ) -> Iterator[str]:
        """A link keeps its order: what arrived proves that all before it did."""
        target = self.directory.core_at(link, source=False)
        if target is None or target in self._late:
            return
        last = max(ends)
        for seq in sent:
            if seq < last and seq not in ends:
                yield f"message {seq} of {link} did not arrive, message {last} did"
