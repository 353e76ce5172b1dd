"""Words for numbers and reasons, as stories have them."""

from __future__ import annotations

from detray.core.resources import UNIT
from detray.trace.explaining.words import meanwhile_text
from detray.trace.names import amounts_text, why_stopped


def test_memory_is_told_in_bytes_and_the_rest_in_units() -> None:
    """A resource vector counts in 1/10,000."""
    amounts = (("CPU", 2 * UNIT), ("GPU", UNIT // 2), ("memory", 17_693_655_264 * UNIT))
    assert amounts_text(amounts) == "CPU 2, GPU 0.5, memory 17.7 GB"
    assert amounts_text(()) == "nothing"


def test_that_a_node_was_told_to_stop_is_said_once() -> None:
    """Another reason follows."""
    assert why_stopped("it was told to stop") == ""
    assert why_stopped("its machine goes down") == ": its machine goes down"


def test_runs_of_one_function_are_counted_once() -> None:
    """Runs that are told together."""
    assert meanwhile_text(["make"]) == "1 more run of make"
    assert meanwhile_text(["make"] * 3) == "3 more runs of make"
    assert meanwhile_text(["a", "b", "a"]) == "3 more runs: 2 of a, 1 of b"
