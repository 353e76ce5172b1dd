"""The head's process: feeds the global scheduler, keeps its log, answers questions.

Rules
-----
- Nothing is decided here. Who is a member is what the core's tables say; links follow them.
- The durable events of a step are committed before anything else of that step leaves, and before
  what the step handled is acknowledged (PROTOCOL N8, T5). A store that does not take them ends this
  process: the next head goes on from what is in it.
- Stimuli come before deadlines: before a step that only a deadline caused, all that has arrived is
  read (PROTOCOL T4).
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, NoReturn

from detray import __version__
from detray.core.durable import Buried, digest, encode_snapshot
from detray.core.effects import Persist, SendToNode
from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_messages import HeadMessage, NodeJoined, NodeMessage
from detray.core.stimuli import GlobalStimulus
from detray.ids import NodeID
from detray.runtime.boot import HeadBoot
from detray.runtime.children import rename_process
from detray.runtime.daemon import Daemon
from detray.runtime.head import newest_trace
from detray.runtime.head.inquiries import Finish, Inquiries
from detray.runtime.head.overview import HeadFacts, Overview, Page
from detray.runtime.head.recording import HeadRecording
from detray.runtime.head.store import HeadStore, StoreError, read_tables
from detray.runtime.head.stores import HasCopy, make_view, open_store
from detray.runtime.head.web import TraceAnswer, WebPage
from detray.runtime.log_channel import Answer
from detray.runtime.member import find_host
from detray.runtime.net.address import Address
from detray.runtime.net.hub import Hub, Link
from detray.runtime.net.identity import CLUSTER_STOPPED, Hello, Refusal
from detray.runtime.net.security import make_security
from detray.runtime.service import allow_many_descriptors, read_order
from detray.runtime.session import remove_session
from detray.runtime.wakeups import Wakeups

_READS_BEFORE_DEADLINE_MAX = 1_000
_LAST_WORDS_NS = 500_000_000
_REPORT_NS = 1_000_000_000
_SLOW_PATIENCE_NS = 10_000_000_000
_GC_ALLOCATIONS = 100_000
_PIECE_BYTES_MAX = 1 << 20


def main(*, client_fd: int, log_fd: int, boot_fd: int, lock_fd: int) -> NoReturn:
    """Be the head until somebody stops it. The descriptors are those of `entry.py`."""
    for fd in (client_fd, log_fd, lock_fd):
        os.set_inheritable(fd, False)
    rename_process("detray:head")
    boot = read_order(boot_fd, HeadBoot)
    wakeups = Wakeups()
    daemon = Daemon(
        boot.cluster,
        boot.session_dir,
        starter=socket.socket(fileno=client_fd),
        lifeline=socket.socket(fileno=log_fd),
        wakeups=wakeups,
    )
    status = 1
    try:
        head = Head(boot, daemon, wakeups)
        allow_many_descriptors()
        gc.freeze()
        gc.set_threshold(_GC_ALLOCATIONS, 50, 100)
        head.run()
        status = 0
    except (StoreError, OSError, ValueError) as problem:
        print(f"detray head: {problem}", file=sys.stderr, flush=True)
        daemon.tell_not_ready(str(problem))
    except BaseException:
        import traceback

        # A bug of ours. What was promised is in the store; the next head goes on from there.
        print(f"detray head: {traceback.format_exc()}", file=sys.stderr, flush=True)
        daemon.tell_not_ready("the head crashed; its log says how")
    if not status:
        remove_session(boot.session_dir)
    os._exit(status)


class Head:
    """Implements `LinkOwner` for the head, and what its core orders."""

    def __init__(self, boot: HeadBoot, daemon: Daemon, wakeups: Wakeups) -> None:
        """Take the store, raise the epoch, listen. Raises StoreError, OSError."""
        self._boot = boot
        self._daemon = daemon
        self._wakeups = wakeups
        self._life = os.urandom(16).hex()
        self._inbox: list[GlobalStimulus] = []
        self._joining: dict[Link, None] = {}
        """Whose wish to join the core has heard and not answered, oldest first."""
        self._lives: dict[str, Link] = {}
        """Links of nodes by their lives."""
        self._links: dict[NodeID, Link] = {}
        self._numbers: dict[Link, NodeID] = {}
        self._store: HeadStore = open_store(boot, self._note)
        loaded = self._store.load()
        self._core = GlobalScheduler.recover(
            boot.global_,
            read_tables(loaded, self._store.place),
            monotonic_ns(),
            is_complete=loaded.is_complete,
        )
        self._recording = HeadRecording(boot, self._core, life=self._life, wakeups=wakeups)
        self._handle([])
        self._hub = Hub(wakeups, self, make_security(boot.cluster), note=self._note)
        bound = self._hub.listen(boot.cluster.listen_host, boot.cluster.listen_port)
        host = boot.cluster.advertise or find_host(boot.cluster, bound.host)
        self.address = Address(host, bound.port)
        self._inquiries = Inquiries(wakeups)
        self._readers = 0
        """How often the page was asked for the newest trace."""
        self._page = (
            None if boot.web_port < 0 else WebPage(wakeups, self._fetch_trace, boot.web_port)
        )
        self._overview = Overview(
            HeadFacts(
                cluster=boot.cluster.cluster,
                version=__version__,
                pid=os.getpid(),
                address=str(self.address),
                epoch=self._epoch,
                started_ns=monotonic_ns(),
                store=self._store.place,
                web=self._page.url if self._page else "",
            )
        )
        self._view = make_view(boot, self._note)
        self._look_around()

    @property
    def _epoch(self) -> int:
        return self._core.tables.durable.epoch

    def run(self) -> None:
        """Serve until somebody asks for the end. Raises StoreError."""
        wakeups, core, daemon = self._wakeups, self._core, self._daemon
        web = self._page.url if self._page else ""
        address = str(self.address)
        daemon.tell_ready(
            {"kind": "head", "head": address, "address": address, "node": -1, "web": web}
        )
        while not daemon.stop_asked:
            deadline_ns = core.next_deadline_ns
            wakeups.dispatch(deadline_ns)
            if deadline_ns is not None and monotonic_ns() >= deadline_ns:
                for _ in range(_READS_BEFORE_DEADLINE_MAX):
                    if not wakeups.dispatch_arrived():
                        break
                self._take_step()
            elif self._inbox:
                self._take_step()
        self._note("info", f"the head ends: {daemon.stop_asked}")
        for link in self._links.values():
            link.close(Refusal(False, CLUSTER_STOPPED))
        until_ns = monotonic_ns() + _LAST_WORDS_NS
        while self._hub.lingering and monotonic_ns() < until_ns:
            wakeups.dispatch(until_ns)
        self._hub.close()
        self._store.close()
        self._recording.close(daemon.stop_asked)
        if self._view is not None:
            self._view.close()
        if self._page is not None:
            self._page.close()

    # -------------------------------------------------------------- steps

    def _take_step(self) -> None:
        stimuli, self._inbox = self._inbox, []
        self._handle(stimuli)
        self._follow_tables()
        self._hub.settle()

    def _handle(self, stimuli: list[GlobalStimulus]) -> None:
        frames: dict[Link, list[tuple[HeadMessage, tuple[bytes, ...]]]] = {}
        now_ns = monotonic_ns()
        try:
            effects = self._core.handle(*stimuli, now_ns=now_ns)
        except Exception as error:
            self._recording.step_raised(now_ns, stimuli, f"{type(error).__name__}: {error}")
            raise
        self._recording.step(now_ns, stimuli, effects)
        for effect in effects:
            if type(effect) is Persist:
                self._store.commit(effect.events)
                if self._store.is_long:
                    self._store.compact(encode_snapshot(self._core.tables.durable))
                self._note_verdicts(effect)
            elif type(effect) is SendToNode:
                link = self._link_to(effect.node)
                if link is not None:
                    frames.setdefault(link, []).append((effect.message, ()))
        for link, messages in frames.items():
            link.send(messages)

    def _link_to(self, number: NodeID) -> Link | None:
        """The link of a node. The first that it hears is its number: its process has that link."""
        link = self._links.get(number)
        if link is None:
            member = self._core.tables.durable.members.get(number)
            link = self._lives.get(member.life) if member is not None else None
            if link is not None:
                self._joining.pop(link, None)
                self._enter(number, link)
        return link

    def _enter(self, number: NodeID, link: Link) -> None:
        self._links[number] = link
        self._numbers[link] = number

    def _note_verdicts(self, order: Persist) -> None:
        for event in order.events:
            if type(event) is Buried:
                self._note("warning", f"node {event.node} is dead: {event.reason}")
                self._overview.buried(event.node, event.reason, monotonic_ns())

    def _follow_tables(self) -> None:
        """End the links of nodes that are no members any more: they are told, and come back new."""
        nodes = self._core.tables.nodes
        for number, link in list(self._links.items()):
            if number not in nodes:
                del self._links[number], self._numbers[link]
                self._lives = {life: other for life, other in self._lives.items() if other != link}
                link.close(Refusal(True, f"node {number} was declared dead"))

    def _note(self, level: str, text: str) -> None:
        print(f"{level}: {text}", file=sys.stderr, flush=True)

    # -------------------------------------------------------------- LinkOwner

    def hello(self) -> Hello:
        """Who we are."""
        return Hello(
            kind="head", cluster=self._boot.cluster.cluster, version=__version__, life=self._life,
            epoch=self._epoch, address=str(self.address), name="head",
        )  # fmt: skip

    def on_hello(self, hello: Hello) -> Link | Refusal:
        """Somebody who has the token connected."""
        if hello.kind == "tool":
            return self._hub.new_link(NodeMessage, "a tool")
        if hello.kind != "node":
            return Refusal(False, "there is one head, and this is it")
        if hello.epoch > self._epoch:
            return Refusal(False, f"this head is of epoch {self._epoch}, there is a later one")
        link = self._lives.get(hello.life)
        if link is None:
            if hello.node >= 0 and hello.node not in self._core.tables.nodes:
                return Refusal(True, f"node {hello.node} was declared dead")
            if hello.node in self._links:
                return Refusal(True, f"node {hello.node} is another process")
            link = self._lives[hello.life] = self._hub.new_link(
                NodeMessage, f"node {hello.name} at {hello.address}"
            )
            if hello.node >= 0:
                self._enter(NodeID(hello.node), link)
        return link

    def on_up(self, link: Link) -> None:
        """A node or a tool is connected."""

    def on_messages(
        self, link: Link, messages: list[Any], metas: bytes, payloads: list[list[bytes]]
    ) -> None:
        """The next messages of a node, in order. (Any: `NodeMessage`.)"""
        number = self._numbers.get(link)
        for message in messages:
            if type(message) is NodeJoined:
                if number is not None or link in self._joining:
                    link.close(Refusal(False, "you have joined already"))
                    return
                self._joining[link] = None
            elif message.node != number:
                link.close(Refusal(False, "you spoke in another node's name"))
                return
        self._inbox += messages

    def on_silent(self, link: Link) -> None:
        """The core counts signs of life itself."""

    def on_heard(self, link: Link) -> None:
        """See `on_silent`."""

    def on_refused(self, link: Link, refusal: Refusal) -> None:
        """A node turned away from us: it has seen a later head, or ends."""
        self._note("info", f"{link.name} ended its link: {refusal.reason}")

    def on_aside(self, link: Link, body: list[Any]) -> None:
        """Questions of nodes and tools, answers of nodes. (Any: plain data.)"""
        match body:
            case ["answer", int() as number, answered]:
                self._inquiries.on_answer(link, number, answered, "")
            case ["no", int() as number, str() as problem]:
                self._inquiries.on_answer(link, number, None, problem)
            case ["ask", int() as number, str() as topic, *arguments]:

                def answer(answered: Any, problem: str) -> None:
                    link.aside(["no", number, problem] if problem else ["answer", number, answered])

                self._answer(topic, arguments, answer)

    # -------------------------------------------------------------- questions

    def _answer(self, topic: str, arguments: list[Any], answer: Answer) -> None:
        """What the cluster knows. (Any: plain data, from whoever asks.)"""
        match topic, arguments:
            case "status", []:
                self._ask_status(lambda: answer(self._report(), ""))
            case "digest", []:
                answer(digest(self._core.tables.durable), "")
            case "list", [str() as kind, int() as limit]:
                self._ask_rows(kind, limit, answer)
            case "trace", [-1, int() as offset, int() as size_bytes, int() as reader]:
                size_bytes = min(size_bytes, _PIECE_BYTES_MAX)
                answer(self._recording.piece(offset, size_bytes, reader), "")
            case (("trace" | "payloads" | "logs"), [int() as node, *rest]):
                link = self._links.get(NodeID(node))
                if link is None:
                    answer(None, f"there is no living node {node}")
                else:
                    self._inquiries.ask(
                        {NodeID(node): link}, topic, rest, _only(answer), _SLOW_PATIENCE_NS
                    )
            case _:
                answer(None, f"a head cannot answer {topic!r:.40} with these arguments")

    def _fetch_trace(self, answer: TraceAnswer) -> None:
        """Somebody wants the newest trace of all processes."""

        self._readers += 1
        reader = -self._readers  # Those of tools are positive.

        def ask(number: NodeID, offset: int, then: Answer) -> None:
            link = self._links.get(number)
            self._inquiries.ask(
                {number: link} if link is not None else {},
                "trace",
                [offset, newest_trace.PIECE_BYTES, reader],
                _only(then),
                _SLOW_PATIENCE_NS,
            )

        up = [number for number, link in self._links.items() if link.is_up]
        newest_trace.begin(up, ask, self._recording.read, answer)

    def _ask_status(self, then: Callable[[], None]) -> None:
        def finish(answers: dict[NodeID, Any], problems: dict[NodeID, str]) -> None:
            now_ns = monotonic_ns()
            for number, body in answers.items():
                try:
                    self._overview.heard(number, body, now_ns)
                except ValueError as problem:
                    self._note("warning", str(problem))
            then()

        self._inquiries.ask(self._links, "status", [], finish)

    def _ask_rows(self, kind: str, limit: int, answer: Answer) -> None:
        if kind == "nodes":
            self._ask_status(lambda: answer(self._report()["nodes"], ""))
            return
        if kind == "jobs":
            answer(self._report()["jobs"], "")
            return

        def finish(answers: dict[NodeID, Any], problems: dict[NodeID, str]) -> None:
            rows: list[dict[str, Any]] = []
            for n, found in answers.items():
                if isinstance(found, list) and all(type(row) is dict for row in found):
                    rows += ({"node": n, **row} for row in found)
                else:
                    problems[n] = f"it has no rows of {kind!r:.40}"
            answer({"rows": rows[:limit], "missing": problems}, "")

        self._inquiries.ask(self._links, "rows", [kind, limit], finish)

    def _report(self) -> Page:
        state = self._store.state if isinstance(self._store, HasCopy) else None
        return self._overview.report(self._core.tables, monotonic_ns(), state)

    def _look_around(self) -> None:
        """Once a second: ask nodes how they are, show it. Raises StoreError if a head of a later
        epoch has our store."""

        def publish() -> None:
            report = self._report()
            if self._page is not None:
                self._page.publish(report, monotonic_ns())
            if self._view is not None:
                self._view.show(report)

        if isinstance(self._store, HasCopy):
            self._store.check()
        self._ask_status(publish)
        for number, link in self._links.items():
            seen = self._view.wants(number) if self._view is not None else None
            if seen is not None:
                self._inquiries.ask({number: link}, "changes", [seen], self._take_changes)
        self._wakeups.call_at(monotonic_ns() + _REPORT_NS, self._look_around)

    def _take_changes(self, answers: dict[NodeID, Any], problems: dict[NodeID, str]) -> None:
        for number, body in answers.items():
            try:
                if self._view is not None:
                    self._view.take(number, body)
            except ValueError as problem:
                self._note("warning", str(problem))


def _only(answer: Answer) -> Finish:
    """Turns the answer of the one node that was asked into `answer`."""

    def finish(answers: dict[NodeID, Any], problems: dict[NodeID, str]) -> None:
        for body in answers.values():
            answer(body, "")
        for problem in problems.values():
            answer(None, problem)
        if not answers and not problems:
            answer(None, "it is not there any more")

    return finish
