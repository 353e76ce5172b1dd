"""Long waits that show how far they are."""

from __future__ import annotations

import io

import pytest

from detray.progress import Bar, get_with_progress
from tests.surface.conftest import QuietClient, ref_id


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_values_come_in_order_whatever_order_they_arrive_in() -> None:
    """Duplicates included."""

    class Late(QuietClient):
        def wait(self, items, num_returns, timeout, fetch_local):  # type: ignore[no-untyped-def]  # as there
            return {max(items)}

        def get_many(self, items, timeout=None):  # type: ignore[no-untyped-def]  # as there
            return [int.from_bytes(item, "big") for item in items]

    items = [ref_id(number) for number in (3, 1, 2, 1)]
    assert get_with_progress(Late(), items, None) == [3, 1, 2, 1]


def test_a_failure_is_raised_when_it_happens() -> None:
    """Not when all the others are done."""

    class Failing(QuietClient):
        def wait(self, items, num_returns, timeout, fetch_local):  # type: ignore[no-untyped-def]  # as there
            return {ref_id(2)}

        def get_many(self, items, timeout=None):  # type: ignore[no-untyped-def]  # as there
            raise ValueError(items)

    with pytest.raises(ValueError):
        get_with_progress(Failing(), [ref_id(1), ref_id(2)], None)


def test_on_a_terminal_a_bar_rewrites_itself() -> None:
    """And its line is finished at the end."""
    out = Terminal()
    bar = Bar(4, out)
    bar.show(1)
    bar.end(4)
    first, last = out.getvalue().split("\r")[1:]
    assert first.startswith("\x1b[K[#######.......................] 1 of 4 in")
    assert last.startswith("\x1b[K[##############################] 4 of 4 in")
    assert last.endswith("\n")


def test_elsewhere_short_waits_say_nothing() -> None:
    """A line every ten seconds, no more."""
    out = io.StringIO()
    bar = Bar(4, out)
    bar.show(1)
    bar.end(4)
    assert out.getvalue() == ""
