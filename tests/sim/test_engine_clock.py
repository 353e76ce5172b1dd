"""Virtual time: order, deadlines, clocks that lie, and simpy's own processes beside ours."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from detray_sim.clock import NEVER, Clock, ClockView, Timer


def test_equal_moments_keep_the_order_of_planning_and_deadlines_come_last() -> None:
    """Nothing but (time, priority, number) decides."""
    clock, seen = Clock(), list[str]()
    clock.late(5, seen.append, "deadline")
    clock.after(5, seen.append, "first")
    clock.after(4, clock.after, 1, seen.append, "third")
    clock.after(5, seen.append, "second")
    assert not clock.run_until()
    assert seen == ["first", "second", "third", "deadline"]
    assert clock.now_ns == clock.now == 5


def test_a_run_ends_at_its_end_and_goes_on_from_there() -> None:
    """Up to and including the last moment; a halt stops at once."""
    clock, seen = Clock(), list[int]()
    for at_ns in (1, 2, 3):
        clock.after(at_ns, seen.append, at_ns)
    assert not clock.run_until(2)
    assert seen == [1, 2]
    clock.after(0, setattr, clock, "halts", True)
    assert clock.run_until()
    assert seen == [1, 2]
    assert clock.run_until(done=lambda: len(seen) == 3)


def test_processes_of_simpy_live_in_the_same_time() -> None:
    """A timeout of simpy's and a call of ours are entries of one queue."""
    clock, seen = Clock(), list[tuple[str, int]]()

    def process() -> Generator[Any, None, None]:  # Any: simpy is not typed for us
        for _ in range(3):
            yield clock.timeout(10)
            seen.append(("simpy", clock.now_ns))

    clock.process(process())
    clock.after(15, lambda: seen.append(("ours", clock.now_ns)))
    clock.run_until()
    assert seen == [("simpy", 10), ("ours", 15), ("simpy", 20), ("simpy", 30)]
    clock.after(5, seen.clear)
    clock.run()
    assert seen == []


def test_a_timer_fires_once_at_the_last_moment_it_was_set_to() -> None:
    """Earlier, later, never: what is in the queue already does not matter."""
    clock, seen = Clock(), list[int]()
    timer = Timer(clock, lambda: seen.append(clock.now_ns))
    timer.set(10)
    timer.set(20)
    timer.set(5)
    timer.set(15)
    clock.run_until()
    assert seen == [15]
    timer.set(30)
    timer.set(NEVER)
    clock.run_until()
    assert seen == [15]


def test_a_clock_may_be_off_go_wrong_and_jump() -> None:
    """What it shows, and when it will show something, are inverse to each other."""
    view = ClockView(1_000)
    assert (view.read(50), view.when(1_050, 0)) == (1_050, 50)
    view.set(100, drift_ppm=500_000)
    assert view.read(300) == 1_100 + 300
    view.set(300, jump_ns=-200, drift_ppm=-250_000)
    for shown_ns in range(1_200, 1_300):
        at_ns = view.when(shown_ns, 300)
        assert view.read(at_ns) >= shown_ns
        assert at_ns == 300 or view.read(at_ns - 1) < shown_ns
    assert view.when(0, 777) == 777
