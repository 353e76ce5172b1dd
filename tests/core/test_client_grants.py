"""What a client holds ends exactly when nothing in it uses it, and all its grants come back."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from detray.core.grants import SETTLE_MAX, Grants
from detray.ids import ObjectID

A, B = ObjectID(b"a" * 20), ObjectID(b"b" * 20)


def test_the_last_use_gives_back_every_grant_received() -> None:
    """Three messages granted one object; its one drop returns three."""
    grants = Grants()
    for _ in range(3):
        grants.receive([A])
        grants.created.append(A)
        grants.release([A])
    grants.dropped.extend([A, A, A])
    assert grants.settle() == ([A], [3])


def test_a_carrier_keeps_an_object_until_its_references_are_made() -> None:
    """Between the message and the unpickling nothing but the carrier uses the object."""
    grants = Grants()
    grants.receive([A])
    assert grants.settle() == ([], [])
    grants.created.append(A)
    grants.release([A])
    assert grants.settle() == ([], [])
    grants.dropped.append(A)
    assert grants.settle() == ([A], [1])


def test_a_drop_that_crosses_a_new_grant_returns_only_what_was_received() -> None:
    """The grant that is still on the wire opens a new row, with a count of its own."""
    grants = Grants()
    grants.receive([A])
    grants.release([A])
    first = grants.settle()
    grants.receive([A])
    grants.release([A])
    assert (first, grants.settle()) == (([A], [1]), ([A], [1]))


def test_a_reference_made_by_hand_returns_nothing() -> None:
    """Nobody granted it, so there is nothing to give back."""
    grants = Grants()
    grants.created.append(A)
    grants.dropped.append(A)
    assert grants.settle() == ([], [])
    assert (grants.uses, grants.received) == ({}, {})


def test_a_new_name_outlives_a_settling_before_its_first_reference() -> None:
    """A submission is counted before its reference exists; another thread may settle in between."""
    grants = Grants()
    grants.received[A] = 1
    assert grants.settle() == ([], [])
    grants.created.append(A)
    grants.dropped.append(A)
    assert grants.settle() == ([A], [1])


def test_one_settling_is_bounded() -> None:
    """What is over the limit waits for the next time; nothing is lost."""
    grants = Grants()
    many = [ObjectID(number.to_bytes(20, "big")) for number in range(SETTLE_MAX + 5)]
    grants.receive(many)
    grants.release(many)
    assert [len(grants.settle()[0]) for _ in range(3)] == [SETTLE_MAX, 5, 0]


class GrantsMachine(RuleBasedStateMachine):
    """A process that is granted, copies, drops and settles at will, against a sender that counts.

    `references` is what a program has: the model of `Grants.uses`. `outstanding` is the sender's
    side: granted minus returned.
    """

    carriers = Bundle("carriers")

    def __init__(self) -> None:
        super().__init__()
        self.grants = Grants()
        self.outstanding: Counter[ObjectID] = Counter()
        self.references: Counter[ObjectID] = Counter()
        self.carried: Counter[ObjectID] = Counter()

    @rule(target=carriers, items=st.lists(st.sampled_from([A, B]), min_size=1, max_size=4))
    def a_message_grants(self, items: list[ObjectID]) -> list[ObjectID]:
        self.outstanding.update(items)
        self.carried.update(items)
        self.grants.receive(items)
        return items

    @rule(items=st.lists(st.sampled_from([A, B]), min_size=1, max_size=2, unique=True))
    def a_name_is_claimed(self, items: list[ObjectID]) -> None:
        for item in items:
            self.outstanding[item] += 1
            self.grants.claim(item)
            self.grants.created.append(item)
            self.references[item] += 1

    @rule(carrier=carriers, is_read=st.booleans())
    def a_carrier_ends(self, carrier: list[ObjectID], is_read: bool) -> None:
        if any(self.carried[item] < carrier.count(item) for item in carrier):
            return  # Hypothesis chose one that ended already.
        if is_read:
            self.grants.created.extend(carrier)
            self.references.update(carrier)
        self.carried.subtract(carrier)
        self.grants.release(carrier)

    @rule(item=st.sampled_from([A, B]))
    def a_reference_is_copied(self, item: ObjectID) -> None:
        if self.references[item]:
            self.references[item] += 1
            self.grants.created.append(item)

    @rule(item=st.sampled_from([A, B]))
    def a_reference_dies(self, item: ObjectID) -> None:
        if self.references[item]:
            self.references[item] -= 1
            self.grants.dropped.append(item)

    @rule()
    def the_books_are_settled(self) -> None:
        for item, count in zip(*self.grants.settle(), strict=True):
            assert self.references[item] + self.carried[item] == 0, "dropped while in use"
            self.outstanding[item] -= count
            assert self.outstanding[item] == 0, "the counts did not meet"
        for item in (A, B):
            in_use = self.references[item] + self.carried[item] > 0
            assert (item in self.grants.received) == in_use
            assert self.grants.received.get(item, 0) == self.outstanding[item]

    @invariant()
    def no_count_is_negative(self) -> None:
        assert all(count > 0 for count in self.grants.received.values())
        assert all(count > 0 for count in self.grants.uses.values())
        assert all(count >= 0 for count in self.outstanding.values())


TestCountsAlwaysMeet = GrantsMachine.TestCase
