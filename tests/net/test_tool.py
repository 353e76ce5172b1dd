"""A tool asks, and waits: the other end runs in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

import pytest

from detray.errors import EngineError
from detray.runtime.net.address import Address
from detray.runtime.net.hub import Link
from detray.runtime.net.identity import Refusal
from detray.runtime.net.security import Security
from detray.runtime.net.tool import connect_tool
from tests.net.peers import CLUSTER, TOKEN, End, Loop


class _Answering(End):
    """Answers what it is asked, in its own words."""

    def on_aside(self, link: Link, body: list[Any]) -> None:
        match body:
            case ["ask", number, "status", *arguments]:
                link.aside(["log", "something else"])
                link.aside(["answer", number, {"you asked": arguments}])
            case ["ask", number, "large"]:
                link.aside(["answer", number, b"x" * 5_000_000])
            case ["ask", number, "nothing"]:
                link.aside(["no", number, "there is nothing"])
            case ["ask", _, "goodbye"]:
                link.close(Refusal(False, "we are closed"))


@pytest.fixture
def head() -> Iterator[tuple[_Answering, Address]]:
    loop = Loop()
    end = _Answering(loop, 0, kind="head")
    address = end.listen()
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            loop.run_for(10)
        end.hub.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield end, address
    is_over.set()
    thread.join()


def test_it_gets_answers(head: tuple[_Answering, Address]) -> None:
    """Small and large ones, one after the other."""
    with connect_tool(head[1], Security(TOKEN), CLUSTER) as tool:
        assert tool.ask("status", 1, "x") == {"you asked": [1, "x"]}
        assert tool.ask("large") == b"x" * 5_000_000
        assert tool.ask("status") == {"you asked": []}
        assert tool.peer is not None and tool.peer.kind == "head"


def test_it_needs_no_cluster_id_but_a_right_one_if_any(head: tuple[_Answering, Address]) -> None:
    """The token says enough."""
    connect_tool(head[1], Security(TOKEN)).close()
    with pytest.raises(EngineError, match="cluster"):
        connect_tool(head[1], Security(TOKEN), "d" * 32)


def test_errors_say_what(head: tuple[_Answering, Address], taken: Address) -> None:
    """Refusals, silence, a wrong token, nobody there."""
    with connect_tool(head[1], Security(TOKEN), CLUSTER) as tool:
        with pytest.raises(EngineError, match="cannot answer 'nothing': there is nothing"):
            tool.ask("nothing")
        with pytest.raises(TimeoutError, match=r"did not answer 'sleep' within 0.1 s"):
            tool.ask("sleep", timeout=0.1)
        with pytest.raises(TimeoutError, match=r"did not answer 'sleep' within 0 s"):
            tool.ask("sleep", timeout=0)
        assert tool.ask("status") == {"you asked": []}
        with pytest.raises(EngineError, match="we are closed"):
            tool.ask("goodbye")
    with pytest.raises(EngineError, match="does not accept our token"):
        connect_tool(head[1], Security(b"wrong" * 10), CLUSTER)
    with pytest.raises(OSError, match="refused"):
        connect_tool(taken, Security(TOKEN), CLUSTER)


def test_its_link_ends_with_it(head: tuple[_Answering, Address]) -> None:
    """A thousand questions of a thousand tools leave nothing at the other end."""
    end, address = head
    for _ in range(20):
        with connect_tool(address, Security(TOKEN), CLUSTER) as tool:
            tool.ask("status")
    deadline = monotonic() + 20
    while end.hub._links:
        assert monotonic() < deadline, "links of tools that have gone"
        sleep(0.02)
