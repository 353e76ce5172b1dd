"""Two sessions over a transport that does its worst keep every promise once it heals.

A script is a list of what happens: messages are sent, frames are delivered in any order, twice, or
never, the transport is cut and comes back, time passes, an end is read back from its bytes, peace
comes and goes. What is wrong afterwards has a name: the safeguards are switched off one by one, and
hypothesis must find exactly the wrong that each of them prevents.
"""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from detray.core.session import Frame, LinkSession, SessionPolicy

POLICY = SessionPolicy(
    window=8,
    frame_messages_max=3,
    ack_delay_ns=20,
    ack_messages_max=4,
    resend_ns=100,
    resend_max_ns=1_000,
    reorder_max=5,
)
LATENCY_NS = 30
"""Of the healed transport."""
STEPS_MAX = 2_000
"""A healed transport that needs more has come to a stop."""

End = LinkSession[int, int]
Action = tuple[str, int, int]
"""What happens, at which end (0, 1), and how much of it or which frame."""

OFTEN = ("send", "deliver", "lose", "duplicate", "handle", "pass")
ACTIONS = (*OFTEN, "black out", "cut", "restore", "rest")
actions = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1), st.integers(0, 12))
scripts = st.lists(actions, max_size=60)


class Link:
    """Two ends, the frames between them, and what the test knows better than they do."""

    def __init__(self, policy: SessionPolicy) -> None:
        self.policy = policy
        self.now_ns = 0
        self.ends = [End(policy=policy), End(policy=policy)]
        self.wires: list[list[Frame[int]]] = [[], []]
        """On their way to end 0 and to end 1."""
        self.sent = [0, 0]
        self.delivered: list[list[int]] = [[], []]
        self.handled = [0, 0]
        self.wrong: Counter[str] = Counter()

    def act(self, kind: str, side: int, number: int) -> None:
        """One line of a script; what cannot be done is not."""
        wire = self.wires[side]
        index = number % len(wire) if wire else 0
        if kind == "send":
            messages = range(self.sent[side], self.sent[side] + number)
            self.sent[side] += number
            self.fly(side, self.ends[side].send(messages, self.now_ns))
        elif kind == "deliver" and wire:
            self.deliver(side, wire.pop(index))
        elif kind == "lose" and wire:
            del wire[index]
        elif kind == "duplicate" and wire:
            wire.append(wire[index])
        elif kind == "handle":
            self.handle(side, number)
        elif kind == "pass":
            self.now_ns += number * 20
            self.settle()
        elif kind == "black out":
            self.wires = [[], []]
        elif kind == "cut":
            self.cut()
        elif kind == "rest":
            self.heal()
        elif kind == "restore":
            data = msgspec.msgpack.encode(self.ends[side])
            self.ends[side] = msgspec.msgpack.decode(data, type=End)
        self.check_bounds()

    def cut(self) -> None:
        """All frames are gone; both ends have a new transport."""
        self.wires = [[], []]
        for side in (0, 1):
            self.fly(side, self.ends[side].reconnected(self.now_ns))

    def fly(self, side: int, frames: list[Frame[int]]) -> None:
        """An end sent frames."""
        for frame in frames:
            self.wires[1 - side].append(frame)
            if frame.ack > self.handled[side]:
                self.wrong["acknowledged before handled"] += 1
            if len(frame.messages) > self.policy.frame_messages_max:
                self.wrong["large frame"] += 1

    def deliver(self, side: int, frame: Frame[int]) -> None:
        """An end gets a frame."""
        self.delivered[side] += self.ends[side].receive(frame, self.now_ns)

    def handle(self, side: int, count: int) -> None:
        """An end handles up to `count` of what was delivered."""
        count = min(count, len(self.delivered[side]) - self.handled[side])
        self.handled[side] += count
        self.ends[side].handled(count, self.now_ns)

    def settle(self) -> None:
        """Both ends say what is owed."""
        for side, end in enumerate(self.ends):
            self.fly(side, end.due(self.now_ns))
            deadline_ns = end.next_deadline_ns
            if deadline_ns is not None and deadline_ns <= self.now_ns:
                self.wrong["still owed after due"] += 1

    def check_bounds(self) -> None:
        """Nothing grows beyond what the policy says."""
        for end in self.ends:
            if len(end.ahead) > self.policy.reorder_max:
                self.wrong["too much waits for its turn"] += 1
            if end.flown - end.acked > self.policy.window:
                self.wrong["too much in flight"] += 1
            if len(end.outgoing) != end.sent - end.acked:
                self.wrong["payload kept without need"] += 1

    def heal(self) -> None:
        """From now on frames arrive, in order, and are handled; until nobody owes anything."""
        for _ in range(STEPS_MAX):
            for side in (0, 1):
                wire, self.wires[side] = self.wires[side], []
                for frame in wire:
                    self.deliver(side, frame)
                self.handle(side, len(self.delivered[side]))
            self.settle()
            self.check_bounds()
            deadlines_ns = [at for end in self.ends if (at := end.next_deadline_ns) is not None]
            if any(self.wires):
                self.now_ns += LATENCY_NS
            elif deadlines_ns:
                self.now_ns = min(deadlines_ns)
            else:
                return
        self.wrong["never at rest"] += 1

    def judge(self) -> set[str]:
        """Everything that went wrong, by name."""
        for side in (0, 1):
            got, want = self.delivered[side], list(range(self.sent[1 - side]))
            if len(set(got)) < len(got):
                self.wrong["delivered twice"] += 1
            if set(got) != set(want):
                self.wrong["lost"] += 1
            if got != sorted(got) and list(dict.fromkeys(got)) != sorted(set(got)):
                self.wrong["out of order"] += 1
            if self.ends[side].unacked:
                self.wrong["never acknowledged"] += 1
            if self.ends[side].stats.nonsense:
                self.wrong["nonsense"] += 1
        return set(self.wrong)


def wrongs(script: list[Action], policy: SessionPolicy = POLICY) -> set[str]:
    """What goes wrong when a script is played, all under way is lost, and the transport heals."""
    link = Link(policy)
    for kind, side, number in script:
        link.act(kind, side, number)
    link.wires = [[], []]
    link.heal()
    return link.judge()


@settings(max_examples=300, deadline=None)
@given(scripts)
def test_every_message_comes_once_and_in_order_once_the_transport_heals(
    script: list[Action],
) -> None:
    """Nothing is acknowledged before it is handled, and memory stays within its bounds."""
    assert wrongs(script) == set()


@settings(max_examples=100, deadline=None)
@given(scripts, st.integers(1, 6), st.integers(1, 4), st.integers(0, 6))
def test_the_promises_hold_under_any_bounds(
    script: list[Action], window: int, frame: int, reorder: int
) -> None:
    """Also where the one end sends further ahead than the other end keeps."""
    policy = msgspec.structs.replace(
        POLICY, window=window, frame_messages_max=frame, reorder_max=reorder
    )
    assert wrongs(script, policy) == set()


@pytest.mark.parametrize("seed", range(20))
def test_long_trouble_changes_nothing(seed: int) -> None:
    """A thousand lines each, more than hypothesis draws."""
    draw = random.Random(seed)
    script = [
        (draw.choice(OFTEN * 6 + ACTIONS), draw.randrange(2), draw.randrange(13))
        for _ in range(1_000)
    ]
    assert wrongs(script) == set()


@pytest.mark.parametrize(
    ("switch", "wrong"),
    [
        ("dedupe_off", "delivered twice"),
        ("resend_off", "lost"),
        ("order_off", "out of order"),
    ],
)
def test_each_safeguard_prevents_a_wrong_that_happens_without_it(switch: str, wrong: str) -> None:
    """Hypothesis finds a script that shows it; the same script is harmless with the safeguard."""
    broken = msgspec.structs.replace(POLICY, **{switch: True})
    script = find(
        scripts,
        lambda script: wrong in wrongs(script, broken),
        settings=settings(max_examples=2_000, deadline=None, database=None),
        random=random.Random(0),
    )
    assert wrongs(script) == set()


def test_a_duplicate_or_a_late_frame_costs_no_second_resend_of_the_flight() -> None:
    """Resends are bounded by expiries: a slow peer does not multiply the traffic."""
    link = Link(POLICY)
    link.act("send", 0, 8)
    link.act("pass", 0, 5)
    assert link.ends[0].stats.resent == 3
    link.heal()
    assert link.judge() == set()
    assert link.ends[0].stats.resent <= 8
