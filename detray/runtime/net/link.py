"""One link: a session, questions beside it and blocks, over whichever connection there is.

Theory of operation
-------------------
The session (`detray.core.session`) keeps what is not acknowledged, numbers it, and sorts out what
comes twice. A connection carries a message once: TCP loses nothing while it lasts, so what the
session would send again over the same connection is left out. On a new connection the two ends
first tell each other what they have handled, then send again what is missing.

The ends go on with a session only if both mean the same one: the greetings name the life of the
process and the number of the session in it (`identity.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import msgspec

from detray.core.session import NEVER, Frame, LinkSession
from detray.runtime.net.alarm import Alarm
from detray.runtime.net.blocks import KEY_BYTES_MAX, BlockTable
from detray.runtime.net.channel import Channel, InMessage
from detray.runtime.net.framing import (
    FRAME_BYTES_MAX,
    GOODBYE,
    LinkGarbage,
    encode_aside,
    encode_frame,
)
from detray.runtime.net.identity import Hello, Refusal
from detray.runtime.net.outlet import OutMessage

if TYPE_CHECKING:
    from detray.runtime.net.dialling import Dialler
    from detray.runtime.net.hub import Hub

SILENCE_NS = 1_000_000_000
"""Nothing acknowledged for so long, though something is owed: the owner hears of it."""
_STUCK_NS = 1_500_000_000
"""After so much of it, and no byte at all, who dials gives the connection up for a new one. TCP
waits twice as long with each attempt: after a cut of 3 s it may be silent for 3 more, and a node
that said nothing for 5 s is dead (`Policy.death_ns`)."""
_STUCK_LISTENER_NS = 5_000_000_000
"""The same for who is dialled, and can only wait."""
BLOCKS_WAIT_NS = 5_000_000_000
"""So long blocks wait for a link that is down."""
_STABLE_NS = 1_000_000_000
_PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - (1 << 24)

_encode = msgspec.msgpack.Encoder().encode


class Link:
    """This end of the link to one other process. Made by `Hub.new_link`; see there."""

    def __init__(self, hub: Hub, number: int, accepts: Any, name: str) -> None:
        """Any: a union of message types; None for a link without messages."""
        self.name = name
        """For people: whom it leads to."""
        self.peer: Hello | None = None
        """Who is at the other end, as it said last; None before the first connection."""
        self.is_closed = False
        self.session: LinkSession[OutMessage, InMessage] = LinkSession(hub.policy)
        self.session_number = number
        """Which session of this process it is: one number for each, never used again."""
        self.peer_session: tuple[str, int] | None = None
        """The life of the peer and the number of its session; None while ours is with nobody."""
        self.blocks = BlockTable(self._say, self._begin_bulk, self._divert)
        self.dialler: Dialler | None = None
        """Who connects and connects again, if this end does."""
        self.decode: Callable[[bytes], list[Any]] = msgspec.msgpack.Decoder(
            list if accepts is None else list[accepts]
        ).decode
        """Messages out of a msgpack array (Any: of the union that is accepted)."""
        self._has_session = accepts is not None
        self._soon_ns = min(hub.policy.ack_delay_ns, hub.policy.resend_ns)
        self._hub = hub
        self._channel: Channel | None = None
        self._carried = 0
        """The number of the last message that this connection was given."""
        self._delivered = 0
        self._is_silent = False
        self._refusal: Refusal | None = None
        self._is_greeting = False
        """True in `on_up` of a connection that began a session."""
        self._alarm = Alarm(hub.wakeups, self._on_deadline)
        self._blocks_alarm = Alarm(hub.wakeups, self._give_blocks_up)

    # ---------------------------------------------------------------------------- owner

    @property
    def is_up(self) -> bool:
        """True while there is a connection."""
        return self._channel is not None

    @property
    def is_owing(self) -> bool:
        """True while something that was sent is not acknowledged, or has not left yet."""
        channel = self._channel
        return bool(self.session.outgoing) or (channel is not None and not channel.outlet.is_empty)

    def send(self, messages: Sequence[tuple[Any, Sequence[bytes]]]) -> None:
        """Send messages with their payload: in order, each once, when the peer can be reached.

        A closed link takes nothing. Raises ValueError for more payload than a frame can have. (Any:
        messages of the union that the peer accepts.)
        """
        now_ns = monotonic_ns()
        encoded = [(_encode(message), tuple(payload)) for message, payload in messages]
        for _, payload in encoded:
            if payload and sum(map(len, payload)) > _PAYLOAD_BYTES_MAX:
                raise ValueError(f"a message brings {sum(map(len, payload))} bytes of payload")
        self._carry(self.session.send(encoded, now_ns))
        self._arm(now_ns)

    def aside(self, body: list[Any]) -> None:
        """Send plain data outside of the session, perhaps in vain: dropped while the link is down,
        or far behind. Raises TypeError for what msgpack does not have. (Any: plain data.)
        """
        channel = self._channel
        if channel is not None and not channel.outlet.put_aside(encode_aside(body)):
            self._hub.notes.trouble(
                channel.host, "asides", f"{self.name} does not read; answers and lines are dropped"
            )

    def send_block(self, key: bytes, view: memoryview, done: Callable[[], None]) -> None:
        """Send the bytes of `view` to whoever expects `key` there.

        `view` (of bytes, contiguous) is read until `done` is called: the receiver has it or does
        not want it, the link was closed, or it was down for 5 s. On a closed link that is at once.
        """
        if self.is_closed:
            done()
            return
        self.blocks.send(_check_key(key), _as_bytes(view), done)
        self._watch_blocks()

    def expect_block(self, key: bytes, view: memoryview, done: Callable[[str], None]) -> None:
        """Receive a block of just this size into `view`, before the peer begins to send it.

        `view` (of bytes, contiguous, writable) is written until `done` is called, with "" if all
        has come and is right, else with the reason. Raises ValueError if `key` is expected already.
        """
        if self.is_closed:
            done("the link was closed")
            return
        self.blocks.expect(_check_key(key), _as_bytes(view), done)
        self._watch_blocks()

    def abort_block(self, key: bytes) -> None:
        """The receiver gives up: `done("aborted")`, once nothing writes any more (now, in fact)."""
        self.blocks.abort(key)

    def restart(self) -> None:
        """Begin a new session: the peer is a new life. What was not acknowledged is forgotten.

        The connection ends. In `on_up` of a head that has a new life this does nothing: the
        session is a new one already.
        """
        if self.is_closed or (self._is_greeting and not self.session.sent):
            return
        self.drop_connection()
        self.begin_session()
        if self.dialler is not None:
            self.dialler.retry()

    def close(self, refusal: Refusal | None = None) -> None:
        """End the link for good; with a refusal the peer is told why, if it can be reached now.

        Every block in progress ends.
        """
        if self.is_closed:
            return
        self.is_closed = True
        self.session.close()
        self._alarm.end()
        self._blocks_alarm.end()
        if self.dialler is not None:
            self.dialler.close()
        channel, self._channel = self._channel, None
        if channel is not None and refusal is not None:
            self._hub.lingering[channel] = None
            channel.close_after(encode_frame(GOODBYE, _encode(_cut_short(refusal))))
        elif channel is not None:
            channel.close()
        self._hub.forget(self)
        self.blocks.end("the link was closed")

    # ---------------------------------------------------------------------- connections

    def may_go_on(self, life: str, session: int | None = None) -> bool:
        """True if this session is with that life of a process, in that session of its own if that
        is known; or with nobody yet, or if nothing was said on it.
        """
        if self.is_closed or self.peer_session is None:
            return not self.is_closed
        is_unused = self.session.sent == 0 and self.session.received == 0
        known_life, known_session = self.peer_session
        return life == known_life and (is_unused or session in (None, known_session))

    def begin_session(self) -> None:
        """A new session, with nobody yet."""
        self.session.close()
        self.session = LinkSession(self._hub.policy)
        self.session_number = self._hub.next_session()
        self.peer_session = None
        self._delivered = 0
        self._is_silent = False
        self._alarm.set(NEVER)
        self.blocks.end("the peer is another process now")

    def drop_connection(self) -> None:
        """End the connection, if there is one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            self._watch_blocks()

    def attach(self, channel: Channel, hello: Hello, session: int, handled: int) -> None:
        """A new connection, proved and agreed upon; it replaces an older one."""
        self.drop_connection()
        now_ns = monotonic_ns()
        if hello.kind == "tool":
            self._has_session = False
        is_first = self.peer_session is None
        self._refusal = None
        self.peer = hello
        self.peer_session = (hello.life, session)
        self._channel = channel
        self._blocks_alarm.set(NEVER)
        self._carried = 0
        if self._has_session:
            channel.outlet.put(self.blocks.connected())
            self.session.receive(Frame(1, handled), now_ns)
            self._carried = self.session.acked
            self._carry(self.session.reconnected(now_ns))
            if self.blocks.has_chunks:
                channel.outlet.begin_bulk()
        self._arm(now_ns)
        self._hear()
        if self._channel is channel:
            self._is_greeting = is_first
            self._hub.owner.on_up(self)
            self._is_greeting = False

    def on_lost(self, channel: Channel, reason: str) -> None:
        """The connection ended, from the other end or below."""
        is_old = channel is not self._channel
        if not is_old:
            self._channel = None
        channel.close()
        if is_old or self.is_closed:
            return
        if self.peer is not None and self.peer.kind == "tool":
            self.close()  # who asked has its answers, or does not want them any more
            return
        if reason:
            text = f"the connection to {self.name} ended: {reason}"
            self._hub.notes.trouble(self.name, "ended", text, "info")
        self._watch_blocks()
        if self.dialler is not None:
            is_stable = monotonic_ns() - channel.began_ns > _STABLE_NS
            self.dialler.retry(is_first=is_stable)

    def on_linger_end(self, channel: Channel) -> None:
        """The last frame of a closed link has gone, or had its time."""
        self._hub.lingering.pop(channel, None)

    def on_garbage(self, channel: Channel, reason: str) -> None:
        """What came makes no sense: a new connection, if it can be had, begins at a frame."""
        self._hub.notes.trouble(
            channel.host, "garbage", f"{self.name} ({channel.host}) sent garbage: {reason}"
        )
        self.on_lost(channel, "")

    def on_goodbye(self, channel: Channel, refusal: Refusal) -> None:
        """The peer ended the link."""
        if channel is self._channel:
            self._channel = None
        channel.close()
        self._watch_blocks()
        if not self.is_closed and self._channel is None and self.dialler is not None:
            self.dialler.retry(is_first=False)
        self.on_turned_away(refusal)

    def on_turned_away(self, refusal: Refusal) -> None:
        """The peer does not want us: tell the owner, once for each reason."""
        if not self.is_closed and refusal != self._refusal:
            self._refusal = refusal
            self._hub.owner.on_refused(self, refusal)

    # ----------------------------------------------------------------------------- frames

    def on_frame(self, frame: Frame[InMessage], meta: bytes, values: list[list[bytes]]) -> None:
        """A session frame came: hand over what its turn is."""
        if not self._has_session:
            raise LinkGarbage("a message on a link that has none")
        now_ns = monotonic_ns()
        session = self.session
        nonsense = session.stats.nonsense
        ready = session.receive(frame, now_ns)
        if session.stats.nonsense > nonsense:
            self._hub.notes.trouble(
                self.name, "nonsense", f"{self.name} acknowledged what it was never sent"
            )
        if self._is_silent:
            self._hear()
        if session.flown < session.sent or session.acked < session.resend_to:
            self._carry(session.due(now_ns))
        self._arm(now_ns)
        if ready:
            self._hub.owing[self] = None
            self._delivered += len(ready)
            if len(ready) != len(frame.messages):
                # Some came again: the array, without them, as it would have been sent.
                meta = _encode([message for message, _ in ready])
                values = [payload for _, payload in ready]
            messages = [message for message, _ in ready]
            self._hub.owner.on_messages(self, messages, meta, values)

    def on_aside(self, body: list[Any]) -> None:
        """Plain data came outside of the session."""
        self._hub.owner.on_aside(self, body)

    def settle(self) -> None:
        """What was delivered was handled, and may be acknowledged (PROTOCOL T5)."""
        count, self._delivered = self._delivered, 0
        if count and not self.is_closed:
            now_ns = monotonic_ns()
            session = self.session
            session.handled(count, now_ns)
            if session.ack_at_ns <= now_ns:
                self._carry(session.due(now_ns))
            self._arm(now_ns)

    def _carry(self, frames: list[Frame[OutMessage]]) -> None:
        channel = self._channel
        if channel is None:
            return  # a new connection begins with all that is in flight
        for frame in frames:
            last = frame.first + len(frame.messages) - 1
            if last > self._carried:
                self._carried = last
            elif frame.messages:
                frame = Frame(last + 1, frame.ack)
            channel.outlet.put(frame)

    def _hear(self) -> None:
        if self._is_silent:
            self._is_silent = False
            self._hub.owner.on_heard(self)

    # ----------------------------------------------------------------------------- timers

    def _arm(self, now_ns: int) -> None:
        """Look at the session soon. When exactly is computed then, not with every message."""
        soon_ns = now_ns + self._soon_ns
        if self._alarm.due_ns > soon_ns:
            self._alarm.set(soon_ns)

    def _arm_exactly(self, now_ns: int) -> None:
        session = self.session
        if session.is_closed:
            return
        at_ns = session.next_deadline_ns
        due_ns = NEVER if at_ns is None else at_ns
        channel = self._channel
        if session.outgoing and not self._is_silent:
            due_ns = min(due_ns, session.silent_since_ns + SILENCE_NS)
        elif session.outgoing and channel is not None:
            due_ns = min(
                due_ns, max(session.silent_since_ns, channel.heard_ns) + self._patience_ns()
            )
        # Never in the past: whoever is due and has nothing to say must not keep the loop busy.
        self._alarm.set(due_ns if due_ns == NEVER else max(due_ns, now_ns + 1_000_000))

    def _on_deadline(self) -> None:
        now_ns = monotonic_ns()
        self._carry(self.session.due(now_ns))
        silent_ns = self.session.silent_ns(now_ns)
        if not self._is_silent and silent_ns >= SILENCE_NS:
            self._is_silent = True
            self._hub.owner.on_silent(self)
        channel = self._channel
        patience_ns = self._patience_ns()
        is_stuck = silent_ns >= patience_ns and not self.is_closed
        if channel is not None and is_stuck and now_ns - channel.heard_ns >= patience_ns:
            self.on_lost(channel, f"nothing came for {patience_ns / 1e9:g} s")
        self._arm_exactly(now_ns)

    def _patience_ns(self) -> int:
        return _STUCK_LISTENER_NS if self.dialler is None else _STUCK_NS

    # ----------------------------------------------------------------------------- blocks

    def _watch_blocks(self) -> None:
        """While the link is down, blocks wait only so long."""
        is_waiting = self._blocks_alarm.due_ns != NEVER
        if self._channel is None and not is_waiting and not self.blocks.is_empty:
            self._blocks_alarm.set(monotonic_ns() + BLOCKS_WAIT_NS)

    def _give_blocks_up(self) -> None:
        if self._channel is None:
            self.blocks.end(f"the link to {self.name} was down for 5 s")

    def _say(self, frame: bytes) -> None:
        if self._channel is not None:
            self._channel.outlet.put(frame)

    def _begin_bulk(self) -> None:
        if self._channel is not None:
            self._channel.outlet.begin_bulk()

    def _divert(self, scratch: memoryview) -> None:
        if self._channel is not None:
            self._channel.divert(scratch)


def _check_key(key: bytes) -> bytes:
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"a block's key of {len(key)} bytes; 1 to {KEY_BYTES_MAX} are allowed")
    return key


def _as_bytes(view: memoryview) -> memoryview:
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _cut_short(refusal: Refusal) -> Refusal:
    return Refusal(refusal.is_buried, refusal.reason[:1000])
