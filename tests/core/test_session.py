"""A session, one call at a time: every frame and every delivery of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from detray.core.session import Frame, Goodbye, LinkSession, SessionPolicy, SessionStats

POLICY = SessionPolicy(
    window=4,
    frame_messages_max=2,
    ack_delay_ns=10,
    ack_messages_max=3,
    resend_ns=100,
    resend_max_ns=400,
    reorder_max=3,
)
End = LinkSession[str, str]


def an_end(**changes: Any) -> End:  # Any: fields of the policy
    """One end, with a small policy."""
    return End(policy=msgspec.structs.replace(POLICY, **changes))


def flown(count: int, **changes: Any) -> End:  # Any: fields of the policy
    """An end with `count` messages "1", "2", ... in flight since 0."""
    end = an_end(**changes)
    for number in range(1, count + 1):
        end.send([str(number)], 0)
    return end


# ---------------------------------------------------------------------------- the quiet link


def test_a_message_travels_in_a_frame_of_its_number() -> None:
    end = an_end()
    assert end.send(["a"], 5) == [Frame(1, 0, ("a",))]
    assert end.send(["b"], 6) == [Frame(2, 0, ("b",))]
    assert end.unacked == ("a", "b")


def test_messages_of_one_call_share_frames() -> None:
    end = an_end()
    assert end.send(["a", "b", "c"], 0) == [Frame(1, 0, ("a", "b")), Frame(3, 0, ("c",))]


def test_nothing_to_say_makes_no_frame() -> None:
    end = an_end()
    assert end.send([], 0) == []
    assert end.due(10**12) == []
    assert end.next_deadline_ns is None


def test_messages_in_order_are_delivered_as_they_come() -> None:
    end = an_end()
    assert end.receive(Frame(1, 0, ("a", "b")), 0) == ["a", "b"]
    assert end.receive(Frame(3, 0, ("c",)), 0) == ["c"]
    assert end.stats == SessionStats()


def test_an_acknowledgement_tells_what_was_handled_not_what_was_received() -> None:
    """T5: what was only received may still be lost with the process."""
    end = an_end()
    end.receive(Frame(1, 0, ("a", "b", "c")), 0)
    assert end.send(["x"], 0) == [Frame(1, 0, ("x",))]
    end.handled(2, 0)
    assert end.send(["y"], 0) == [Frame(2, 2, ("y",))]


def test_an_acknowledgement_travels_alone_after_a_delay() -> None:
    end = an_end()
    end.receive(Frame(1, 0, ("a",)), 0)
    assert end.next_deadline_ns is None
    end.handled(1, 3)
    assert end.next_deadline_ns == 13
    assert end.due(12) == []
    assert end.due(13) == [Frame(1, 1)]
    assert end.next_deadline_ns is None
    assert end.stats == SessionStats(pure_acks=1)


def test_further_handling_does_not_put_off_an_acknowledgement() -> None:
    end = an_end()
    end.receive(Frame(1, 0, ("a", "b")), 0)
    end.handled(1, 0)
    end.handled(1, 9)
    assert end.due(10) == [Frame(1, 2)]


def test_many_handled_messages_are_acknowledged_without_delay() -> None:
    end = an_end()
    end.receive(Frame(1, 0, ("a", "b", "c")), 0)
    end.handled(2, 3)
    assert end.due(3) == []
    end.handled(1, 4)
    assert end.due(4) == [Frame(1, 3)]


def test_an_acknowledgement_that_rode_on_a_frame_does_not_travel_again() -> None:
    end = an_end()
    end.receive(Frame(1, 0, ("a",)), 0)
    end.handled(1, 0)
    end.send(["x"], 1)
    end.receive(Frame(2, 1), 2)
    assert end.next_deadline_ns is None
    assert end.due(10**9) == []


def test_what_is_acknowledged_is_forgotten() -> None:
    end = flown(3)
    assert end.receive(Frame(1, 2), 50) == []
    assert (end.acked, end.unacked) == (2, ("3",))
    assert end.next_deadline_ns == 150, "progress starts the timer anew"
    end.receive(Frame(1, 3), 60)
    assert (end.acked, end.unacked, end.next_deadline_ns) == (3, (), None)


def test_an_old_acknowledgement_changes_nothing() -> None:
    end = flown(3)
    end.receive(Frame(1, 2), 50)
    end.receive(Frame(1, 1), 60)
    assert (end.acked, end.next_deadline_ns) == (2, 150)


def test_the_window_bounds_what_is_in_flight() -> None:
    """The rest waits for acknowledgements; whoever asks `due` after a frame gets it at once."""
    end = an_end()
    assert end.send(list("abcdef"), 0) == [Frame(1, 0, ("a", "b")), Frame(3, 0, ("c", "d"))]
    assert end.send(["g"], 0) == []
    assert end.due(0) == []
    end.receive(Frame(1, 1), 7)
    assert end.next_deadline_ns == 7
    assert end.due(7) == [Frame(5, 0, ("e",))]
    assert end.next_deadline_ns == 107
    end.receive(Frame(1, 5), 8)
    assert end.send(["h"], 8) == [Frame(6, 0, ("f", "g")), Frame(8, 0, ("h",))]


def test_messages_sent_one_by_one_meet_the_same_window() -> None:
    end = flown(4)
    assert end.send(["5"], 0) == []
    assert end.unacked == ("1", "2", "3", "4", "5")


# ------------------------------------------------------------------------------------ losses


def test_silence_brings_the_oldest_frame_again_and_the_wait_doubles_up_to_a_bound() -> None:
    end = flown(3)
    again = [Frame(1, 0, ("1", "2"))]
    sent = []
    for _ in range(5):
        now_ns = end.next_deadline_ns
        assert now_ns is not None
        assert end.due(now_ns - 1) == []
        sent.append((now_ns, end.due(now_ns)))
    assert sent == [(100, again), (300, again), (700, again), (1100, again), (1500, again)]
    assert end.stats == SessionStats(resent=10)


def test_progress_after_a_resend_brings_the_rest_of_the_flight_at_once() -> None:
    end = flown(4)
    assert end.due(100) == [Frame(1, 0, ("1", "2"))]
    end.receive(Frame(1, 1), 120)
    assert end.due(120) == [], "2 is on its way again"
    end.receive(Frame(1, 2), 130)
    assert end.next_deadline_ns == 130
    assert end.due(130) == [Frame(3, 0, ("3", "4"))]
    assert end.next_deadline_ns == 230
    end.receive(Frame(1, 3), 140)
    assert end.due(140) == [], "one expiry resends a message once"


def test_the_rest_of_a_flight_that_goes_late_has_the_full_time_to_be_answered() -> None:
    end = flown(4)
    end.due(100)
    end.receive(Frame(1, 2), 130)
    assert end.due(900) == [Frame(3, 0, ("3", "4"))]
    assert end.next_deadline_ns == 1000


def test_progress_beyond_the_flight_of_the_expiry_resends_nothing() -> None:
    """The frames were late, not lost."""
    end = flown(4)
    end.due(100)
    end.receive(Frame(1, 4), 120)
    assert end.due(120) == []
    assert end.next_deadline_ns is None


def test_a_message_that_comes_twice_is_delivered_once_and_acknowledged_again() -> None:
    end = an_end()
    end.receive(Frame(1, 0, ("a",)), 0)
    end.handled(1, 0)
    assert end.due(10) == [Frame(1, 1)]
    assert end.receive(Frame(1, 0, ("a",)), 20) == []
    assert end.due(30) == [Frame(1, 1)]
    assert end.stats == SessionStats(duplicates=1, pure_acks=2)


def test_the_new_part_of_a_known_frame_is_delivered() -> None:
    end = an_end()
    end.receive(Frame(1, 0, ("a", "b")), 0)
    assert end.receive(Frame(2, 0, ("b", "c")), 0) == ["c"]


def test_a_message_before_its_turn_waits_for_it() -> None:
    end = an_end()
    assert end.receive(Frame(4, 0, ("d",)), 0) == []
    assert end.receive(Frame(2, 0, ("b",)), 0) == []
    assert end.receive(Frame(2, 0, ("b",)), 0) == []
    assert end.receive(Frame(1, 0, ("a",)), 0) == ["a", "b"]
    assert end.receive(Frame(3, 0, ("c", "d", "e")), 0) == ["c", "d", "e"]
    assert end.ahead == {}
    assert end.stats == SessionStats(reordered=2, duplicates=2)


def test_a_message_too_far_before_its_turn_is_dropped() -> None:
    end = an_end()
    assert end.receive(Frame(3, 0, ("c", "d", "e", "f")), 0) == []
    assert end.ahead == {3: "c", 4: "d"}
    assert end.stats == SessionStats(reordered=2, refused=2)
    assert end.receive(Frame(1, 0, ("a", "b")), 0) == ["a", "b", "c", "d"]


def test_a_new_transport_brings_the_whole_flight_at_once() -> None:
    end = an_end()
    end.send(list("abcdef"), 0)
    end.due(100)
    end.due(300)
    end.receive(Frame(1, 1, ("x",)), 310)
    end.handled(1, 310)
    assert end.reconnected(320) == [
        Frame(2, 1, ("b", "c")),
        Frame(4, 1, ("d",)),
        Frame(5, 1, ("e",)),
    ]
    assert end.stats == SessionStats(resent=7)
    assert end.next_deadline_ns == 420, "the wait is short again, the acknowledgement is told"


def test_what_a_new_transport_brought_does_not_go_again_with_the_next_progress() -> None:
    end = flown(4)
    end.due(100)
    end.reconnected(110)
    end.receive(Frame(1, 2), 120)
    assert end.due(120) == []


def test_a_new_transport_brings_nothing_if_nothing_is_in_flight() -> None:
    end = an_end()
    assert end.reconnected(0) == []
    assert end.next_deadline_ns is None


def test_silence_counts_from_when_the_peer_had_something_to_acknowledge() -> None:
    end = an_end()
    assert end.silent_ns(1_000) == 0
    end.send(["a"], 1_000)
    end.send(["b"], 1_500)
    assert end.silent_ns(1_700) == 700
    end.receive(Frame(1, 0, ("x",)), 1_800)
    assert end.silent_ns(1_900) == 100
    end.receive(Frame(1, 2), 2_000)
    assert end.silent_ns(9_000) == 0


# -------------------------------------------------------------------- what makes no sense


@pytest.mark.parametrize("frame", [Frame(1, 3, ("x",)), Frame(0, 0, ("x",)), Frame(1, -1, ("x",))])
def test_a_frame_that_no_session_sent_changes_nothing(frame: Frame[str]) -> None:
    end = flown(2)
    before = msgspec.structs.asdict(end)
    assert end.receive(frame, 50) == []
    assert end.stats == SessionStats(nonsense=1)
    assert {**msgspec.structs.asdict(end), "stats": before["stats"]} == before


@pytest.mark.parametrize("count", [-1, 2])
def test_handling_what_was_not_delivered_is_an_error_that_changes_nothing(count: int) -> None:
    end = an_end()
    end.receive(Frame(1, 0, ("a",)), 0)
    with pytest.raises(ValueError, match="delivered"):
        end.handled(count, 0)
    assert (end.done, end.next_deadline_ns) == (0, None)


def test_handling_nothing_acknowledges_nothing() -> None:
    end = an_end()
    end.handled(0, 0)
    assert end.next_deadline_ns is None


@pytest.mark.parametrize("field", ["window", "frame_messages_max", "resend_ns", "ack_delay_ns"])
def test_a_policy_that_would_stand_still_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        SessionPolicy(**{field: 0})  # type: ignore[arg-type]  # integers, by name


def test_a_closed_session_says_and_keeps_nothing() -> None:
    """Frames to it are answered by its owner: `Goodbye`."""
    end = an_end()
    end.send(list("abcdef"), 0)
    end.receive(Frame(1, 1, ("x",)), 0)
    end.receive(Frame(3, 1, ("z",)), 0)
    end.close()
    end.handled(1, 0)
    assert end.is_closed
    assert end.send(["g"], 0) == end.due(10**9) == end.reconnected(0) == []
    assert end.receive(Frame(2, 2, ("y",)), 0) == []
    assert (end.unacked, end.ahead, end.next_deadline_ns) == ((), {}, None)
    assert end.silent_ns(10**9) == 0


# ------------------------------------------------------------------------ bytes, and switches


def test_frames_are_told_from_goodbyes_by_their_bytes() -> None:
    for said in (Frame(4, 2, ("a",)), Frame(4, 2), Goodbye(is_receiver_buried=True)):
        data = msgspec.msgpack.encode(said)
        assert msgspec.msgpack.decode(data, type=Frame[str] | Goodbye) == said


def test_a_session_is_read_back_as_it_was() -> None:
    end = an_end()
    end.send(list("abcdef"), 0)
    end.receive(Frame(1, 1, ("x",)), 5)
    end.receive(Frame(3, 1, ("z",)), 6)
    end.handled(1, 7)
    end.due(300)
    data = msgspec.msgpack.encode(end)
    again = msgspec.msgpack.decode(data, type=End)
    assert again == end
    assert msgspec.msgpack.encode(again) == data
    assert again.due(10**6) == end.due(10**6)


def test_without_dedupe_a_message_is_delivered_twice() -> None:
    end = an_end(dedupe_off=True)
    assert end.receive(Frame(1, 0, ("a",)), 0) == ["a"]
    end.handled(1, 0)
    assert end.receive(Frame(1, 0, ("a",)), 0) == ["a"]
    end.handled(1, 0)
    assert end.due(10) == [Frame(1, 1)]


def test_without_order_a_message_is_delivered_when_it_comes() -> None:
    end = an_end(order_off=True)
    assert end.receive(Frame(2, 0, ("b",)), 0) == ["b"]
    end.handled(1, 0)
    assert end.receive(Frame(2, 0, ("b",)), 0) == []
    assert end.receive(Frame(1, 0, ("a",)), 0) == ["a"]
    end.handled(1, 0)
    assert end.due(10) == [Frame(1, 2)]


def test_without_resends_what_is_lost_stays_lost() -> None:
    end = flown(2, resend_off=True)
    assert end.next_deadline_ns is None
    assert end.due(10**12) == end.reconnected(10**12) == []
