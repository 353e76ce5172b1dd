"""Questions of the head to nodes: asked of several at once, gathered until all answered or late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import Any

from detray.ids import NodeID
from detray.runtime.net.hub import Link
from detray.runtime.wakeups import Wakeups

PATIENCE_NS = 1_000_000_000

Finish = Callable[[dict[NodeID, Any], dict[NodeID, str]], None]
"""Takes the answers and, of the other nodes, why there is none. (Any: plain data.)"""


class _Inquiry:
    """One question, on its way to several nodes."""

    __slots__ = ("answers", "finish", "problems", "waiting")

    def __init__(self, waiting: dict[Link, NodeID], finish: Finish) -> None:
        self.waiting = waiting
        self.finish = finish
        self.answers: dict[NodeID, Any] = {}
        self.problems: dict[NodeID, str] = {}


class Inquiries:
    """All that are open, by number."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._open: dict[int, _Inquiry] = {}
        self._last = 0

    def ask(
        self,
        links: Mapping[NodeID, Link],
        topic: str,
        arguments: list[Any],
        finish: Finish,
        patience_ns: int = PATIENCE_NS,
    ) -> None:
        """Ask all of `links`; `finish` is called once, in the loop. (Any: plain data.)"""
        self._last += 1
        number = self._last
        inquiry = _Inquiry({link: node for node, link in links.items() if link.is_up}, finish)
        for node, link in links.items():
            if not link.is_up:
                inquiry.problems[node] = "it cannot be reached now"
        if not inquiry.waiting:
            finish({}, inquiry.problems)
            return
        self._open[number] = inquiry
        for link in list(inquiry.waiting):
            link.aside(["ask", number, topic, *arguments])
        self._wakeups.call_at(monotonic_ns() + patience_ns, lambda: self._give_up(number))

    def on_answer(self, link: Link, number: int, body: Any, problem: str) -> None:
        """A node answered, or said why it does not. What nobody asked for is nothing."""
        inquiry = self._open.get(number)
        node = inquiry.waiting.pop(link, None) if inquiry is not None else None
        if inquiry is None or node is None:
            return
        if problem:
            inquiry.problems[node] = problem
        else:
            inquiry.answers[node] = body
        if not inquiry.waiting:
            del self._open[number]
            inquiry.finish(inquiry.answers, inquiry.problems)

    def _give_up(self, number: int) -> None:
        inquiry = self._open.pop(number, None)
        if inquiry is not None:
            for node in inquiry.waiting.values():
                inquiry.problems[node] = "it did not answer in time"
            inquiry.finish(inquiry.answers, inquiry.problems)
