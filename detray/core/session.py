"""Sessions: a link between two cores, ordered and exactly once over whatever carries it.

Theory of operation
-------------------
A transport between two nodes may lose, duplicate, reorder and delay frames, be cut and come back.
A session turns it into what the cores count on: every message handled once, in the order in which
it was sent. It belongs to one pair of ids; ids are never reused, so neither are sequence numbers.

- Messages are numbered from 1 in each direction, as their `link_seq` says. A frame carries
  consecutive ones, the number of the first, and an acknowledgement: the number of the last message
  of the other direction that its sender has *handled*, like all before it. What was only received
  may still be lost with the process (PROTOCOL T5).
- What is not acknowledged is kept. At most `window` messages are in flight, the rest waits.
- A timer runs while anything is in flight and starts anew with every progress. When it expires,
  one frame with the oldest messages goes out again, and the next wait is twice as long: a silent
  peer costs a frame now and then, not a window full of payload. The answer shows how much the peer
  lacks. What was in flight at that time follows frame by frame, each as soon as the peer has all
  that went before; so one expiry resends a message at most once.
- Messages that come before their turn wait for it, up to `reorder_max` numbers ahead. Beyond that
  they are dropped, and the sender's timer brings them again.
- An acknowledgement rides on the next frame. If none goes, it travels alone: `ack_delay_ns` after
  the handling, or in the same step when `ack_messages_max` messages wait for it. A message that
  comes twice is acknowledged again, since the first time may have been lost.

Who calls what, in one step of a core::

    for message in session.receive(frame, now_ns):     a frame came
        ...handle it...
    session.handled(count, now_ns)                     now it may be acknowledged
    frames = session.send(messages, now_ns)            what the handling says to the peer
    frames += session.due(now_ns)                      whatever else is owed by now

and `due` again at `next_deadline_ns`. No frame can make a session raise: what makes no sense is
counted and changes nothing. Sessions are rows: msgpack writes and reads them with their messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

MS = 1_000_000
NEVER = (1 << 63) - 1
"""A deadline that does not come; the largest integer that fits into a signed word."""

Out = TypeVar("Out")
"""What this end sends. A session never looks inside a message."""
In = TypeVar("In")
"""What the other end sends."""


class Frame(msgspec.Struct, Generic[Out], frozen=True, array_like=True, gc=False, tag=1):
    """One end of a session told the other something: messages, an acknowledgement, or both.

    `first` is the number of the first message. The sender of this frame has handled the messages
    1..`ack` of the other direction. Without messages it is a pure acknowledgement.
    """

    first: int
    ack: int
    messages: tuple[Out, ...] = ()


class Goodbye(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """The answer to a frame of a session that is over; no answer follows a goodbye.

    With `is_receiver_buried` the cluster goes on without whoever gets this, and it must come back
    under a new id, empty (PROTOCOL N16). Else the end that says goodbye was buried, or left.
    """

    is_receiver_buried: bool


class SessionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Every number that steers a session. Times in nanoseconds, the others count messages.

    Raises ValueError if one of them is not positive (`reorder_max` may be 0).
    """

    window: int = 4096
    """Messages in flight, not yet acknowledged; further ones wait at the sender."""
    frame_messages_max: int = 512
    ack_delay_ns: int = 2 * MS
    ack_messages_max: int = 64
    """As many handled messages are acknowledged without delay."""
    resend_ns: int = 200 * MS
    resend_max_ns: int = 5_000 * MS
    """The wait doubles from `resend_ns` up to this while nothing is acknowledged."""
    reorder_max: int = 4096
    """How far ahead of its turn a message may come. Less than the other end's window costs
    resends."""
    dedupe_off: bool = False
    """Safeguard switch for test builds: what comes twice is delivered twice."""
    resend_off: bool = False
    """Safeguard switch for test builds: what is lost stays lost."""
    order_off: bool = False
    """Safeguard switch for test builds: a message is delivered when it comes."""

    def __post_init__(self) -> None:
        """Refuse what would make a session stand still."""
        least = min(
            self.window,
            self.frame_messages_max,
            self.ack_delay_ns,
            self.ack_messages_max,
            self.resend_ns,
            self.resend_max_ns,
            self.reorder_max + 1,
        )
        if least < 1:
            raise ValueError(f"a session needs positive numbers: {self}")


class SessionStats(msgspec.Struct, gc=False):
    """What a session went through; all zero on a quiet link, except for `pure_acks`."""

    resent: int = 0
    """Messages that went out once more."""
    duplicates: int = 0
    """Messages that came once more."""
    reordered: int = 0
    """Messages that came before their turn, and waited for it."""
    refused: int = 0
    """Messages that came too far before their turn, and were dropped."""
    nonsense: int = 0
    """Frames that no session could have sent."""
    pure_acks: int = 0


class LinkSession(msgspec.Struct, Generic[Out, In]):
    """One end of a session. "Session" alone is the directory of a service.

    0 <= `acked` <= `flown` <= `sent` count the messages of this end, so each is also the number of
    the last such message. `outgoing` keeps by number what is not acknowledged: a driver drops the
    payload of message n once n <= `acked`. 0 <= `told` <= `done` <= `received` count the messages
    of the other end.
    """

    policy: SessionPolicy = SessionPolicy()
    is_closed: bool = False

    outgoing: dict[int, Out] = {}
    sent: int = 0
    """Given to `send`."""
    flown: int = 0
    """Of these, put into a frame."""
    acked: int = 0
    """Of these, handled by the peer, as far as it is known here."""

    ahead: dict[int, In] = {}
    """Came before their turn, by number."""
    received: int = 0
    """Delivered by `receive`."""
    done: int = 0
    """Of these, handled."""
    told: int = 0
    """Of these, acknowledged by the newest frame."""

    ack_at_ns: int = NEVER
    resend_at_ns: int = NEVER
    backoff_ns: int = 0
    resend_from: int = 0
    resend_to: int = 0
    """While `acked` < `resend_to` the flight of the last expiry goes out again; it got as far as
    `resend_from`."""
    silent_since_ns: int = 0
    stats: SessionStats = msgspec.field(default_factory=SessionStats)

    # -------------------------------------------------------------------------- sending

    def send(self, messages: Sequence[Out], now_ns: int) -> list[Frame[Out]]:
        """Take messages for the peer; returns the frames that may go now, the rest waits.

        A closed session takes nothing.
        """
        if self.is_closed or not messages:
            return []
        outgoing = self.outgoing
        if not outgoing:
            self.silent_since_ns = now_ns
        last = self.sent
        for message in messages:
            last += 1
            outgoing[last] = message
        self.sent = last
        if self.flown == last - 1 < self.acked + self.policy.window:
            return [self._fly_alone(message, now_ns)]
        return self._fly(now_ns)

    def due(self, now_ns: int) -> list[Frame[Out]]:
        """All that is owed by now: resends, messages the window lets through, acknowledgements.

        Afterwards `next_deadline_ns` lies in the future.
        """
        if self.is_closed:
            return []
        frames: list[Frame[Out]] = []
        if self.acked < self.resend_to and self.acked >= self.resend_from:
            frames += self._resend_oldest()
            self._start_timer(now_ns)
        elif now_ns >= self.resend_at_ns:
            self.resend_to = self.flown
            frames += self._resend_oldest()
            self.backoff_ns = min(2 * self.backoff_ns, self.policy.resend_max_ns)
            self.resend_at_ns = now_ns + self.backoff_ns
        if self.flown < self.sent:
            frames += self._fly(now_ns)
        if now_ns >= self.ack_at_ns:  # unless a frame above took it along
            frames.append(Frame(self.flown + 1, self._tell()))
            self.stats.pure_acks += 1
        return frames

    def reconnected(self, now_ns: int) -> list[Frame[Out]]:
        """The transport is a new one: everything in flight again, and what the window lets follow.

        Whoever waited for a timer that had backed off far need not wait for it.
        """
        if self.is_closed:
            return []
        frames: list[Frame[Out]] = []
        if self.acked < self.flown and not self.policy.resend_off:
            frames = self._frames(self.acked, self.flown)
            self.stats.resent += self.flown - self.acked
            self.resend_from = self.resend_to = 0
            self._start_timer(now_ns)
        return frames + self._fly(now_ns)

    def _fly(self, now_ns: int) -> list[Frame[Out]]:
        """Put into frames what waits, as far as the window goes."""
        before = self.flown
        last = min(self.sent, self.acked + self.policy.window)
        if before >= last:
            return []
        self.flown = last
        if self.resend_at_ns == NEVER:
            self._start_timer(now_ns)
        return self._frames(before, last)

    def _fly_alone(self, message: Out, now_ns: int) -> Frame[Out]:
        """What `_fly` does, for one message: most frames are so, and a core sends many."""
        self.flown = number = self.flown + 1
        if self.resend_at_ns == NEVER:
            self._start_timer(now_ns)
        return Frame(number, self._tell(), (message,))

    def _start_timer(self, now_ns: int) -> None:
        """Wait the shortest time from now."""
        if not self.policy.resend_off:
            self.backoff_ns = self.policy.resend_ns
            self.resend_at_ns = now_ns + self.backoff_ns

    def _resend_oldest(self) -> list[Frame[Out]]:
        """One frame of what is being sent again, as the peer shows no sign of having it."""
        last = min(self.acked + self.policy.frame_messages_max, self.resend_to)
        self.resend_from = last
        self.stats.resent += last - self.acked
        return self._frames(self.acked, last)

    def _frames(self, before: int, last: int) -> list[Frame[Out]]:
        """The messages before+1..last in as few frames as may be; each takes an acknowledgement."""
        ack = self._tell()
        outgoing = self.outgoing
        step = self.policy.frame_messages_max
        return [
            Frame(
                first, ack, tuple([outgoing[n] for n in range(first, min(first + step, last + 1))])
            )
            for first in range(before + 1, last + 1, step)
        ]

    def _tell(self) -> int:
        """The acknowledgement for a frame that goes out now."""
        self.ack_at_ns = NEVER
        done = self.done
        if done > self.received:  # only with a safeguard off: see `handled`
            done = self.received
        self.told = done
        return done

    # ------------------------------------------------------------------------ receiving

    def receive(self, frame: Frame[In], now_ns: int) -> list[In]:
        """Take a frame of the peer; returns the messages whose turn it is, each exactly once.

        What the frame makes possible to send comes from `due`, at once if asked. A closed session
        delivers nothing; its owner answers with a `Goodbye`.
        """
        if self.is_closed:
            return []
        first, ack = frame.first, frame.ack
        if ack > self.flown or ack < 0 or first < 1:
            self.stats.nonsense += 1
            return []
        self.silent_since_ns = now_ns
        if ack > self.acked:
            self._on_progress(ack, now_ns)
        messages = frame.messages
        if not messages:
            return []
        if first == self.received + 1 and not self.ahead:
            self.received += len(messages)
            return list(messages)
        return self._receive_out_of_turn(first, messages, now_ns)

    def handled(self, count: int, now_ns: int) -> None:
        """The next `count` delivered messages were handled and may be acknowledged.

        Raises ValueError if fewer were delivered and not handled yet.
        """
        done = self.done + count
        if count < 1 or done > self.received:
            if self.is_closed or count == 0:
                return
            # A message that was delivered twice or early is handled before or after it counts.
            if count < 0 or not (self.policy.dedupe_off or self.policy.order_off):
                raise ValueError(f"{count} messages handled, {self.received - self.done} delivered")
        self.done = done
        if done - self.told >= self.policy.ack_messages_max:
            self.ack_at_ns = now_ns
        elif self.ack_at_ns == NEVER:
            self.ack_at_ns = now_ns + self.policy.ack_delay_ns

    def _on_progress(self, ack: int, now_ns: int) -> None:
        """The peer handled more than we knew: forget it, and give the rest a fresh timer."""
        outgoing = self.outgoing
        for number in range(self.acked + 1, ack + 1):
            del outgoing[number]
        self.acked = ack
        if ack < self.flown:
            self._start_timer(now_ns)
        else:
            self.resend_at_ns = NEVER

    def _receive_out_of_turn(self, first: int, messages: tuple[In, ...], now_ns: int) -> list[In]:
        """What came too early waits, what came again is acknowledged again."""
        policy, stats, ahead = self.policy, self.stats, self.ahead
        ready: list[In] = []
        for number, message in enumerate(messages, first):
            if number == self.received + 1:
                self.received += 1
                ready.append(message)
                self._take_followers(ready)
            elif number <= self.received or number in ahead:
                stats.duplicates += 1
                self.ack_at_ns = min(self.ack_at_ns, now_ns + policy.ack_delay_ns)
                if policy.dedupe_off:
                    ready.append(message)
            elif number > self.received + 1 + policy.reorder_max:
                stats.refused += 1
            else:
                stats.reordered += 1
                ahead[number] = message
                if policy.order_off:
                    ready.append(message)
        return ready

    def _take_followers(self, ready: list[In]) -> None:
        """Move to `ready` what waited for the message that just came."""
        ahead = self.ahead
        while self.received + 1 in ahead:
            self.received += 1
            message = ahead.pop(self.received)
            if not self.policy.order_off:  # else it was delivered when it came
                ready.append(message)

    # ------------------------------------------------------------------------- the whole

    @property
    def next_deadline_ns(self) -> int | None:
        """When `due` has something to say unless a frame comes first; None: not of its own."""
        if self.is_closed:
            return None
        acked, flown = self.acked, self.flown
        if (flown < self.sent and flown < acked + self.policy.window) or (
            acked < self.resend_to and acked >= self.resend_from
        ):
            return self.silent_since_ns  # the frame that made this possible came then
        resend_at_ns, ack_at_ns = self.resend_at_ns, self.ack_at_ns
        if ack_at_ns < resend_at_ns:
            return ack_at_ns
        return None if resend_at_ns == NEVER else resend_at_ns

    @property
    def unacked(self) -> tuple[Out, ...]:
        """The messages that are not acknowledged, oldest first; the first is number `acked` + 1."""
        return tuple(self.outgoing.values())

    def silent_ns(self, now_ns: int) -> int:
        """How long nothing came from the peer while it had something to acknowledge."""
        return now_ns - self.silent_since_ns if self.outgoing else 0

    def close(self) -> None:
        """End this end: it sends, delivers and keeps nothing any more."""
        self.is_closed = True
        self.outgoing.clear()
        self.ahead.clear()
