"""Deadlocks over nodes: rounds of questions about who waits for whom (PROTOCOL T12)."""

from __future__ import annotations

from detray.core import waits
from detray.core.head_messages import GetDoomed, StallNoticed, WaitsAsked, WaitsReported
from detray.core.head_step import HeadStep
from detray.core.placement import find_able, may_fail


class Stalls:
    """Asks what waits, and dooms a get when two rounds agree that nothing else can help."""

    def __init__(self, s: HeadStep) -> None:
        self.s = s

    def on_stall_noticed(self, m: StallNoticed) -> None:
        t = self.s.t
        if self.s.sender(m.node, m.link_seq) is None:
            return
        if any(node.is_expected for node in t.nodes.values()):
            return  # who has not returned cannot be asked; the node says it again in a while
        policy = t.config.policy
        # A round under way is left alone, unless somebody who was asked must be dead by now.
        patience_ns = policy.death_ns if t.waits_open else policy.deadlock_check_ns
        if not t.waits_ns or t.now_ns - t.waits_ns >= patience_ns:
            t.doomed = []
            self._ask_waits()

    def _ask_waits(self) -> None:
        t = self.s.t
        t.waits_round += 1
        t.waits_ns = t.now_ns
        t.waits_open = True
        t.waits = {}
        for node in t.nodes.values():
            self.s.send(node, WaitsAsked, t.waits_round)

    def on_waits_reported(self, m: WaitsReported) -> None:
        t = self.s.t
        if self.s.sender(m.node, m.link_seq) is None or m.round != t.waits_round:
            return
        t.waits[m.node] = m
        if any(number not in t.waits for number in t.nodes):
            return
        reports = {number: t.waits[number] for number in t.nodes}
        t.waits = {}
        t.waits_open = False
        if not waits.is_consistent(reports):
            t.doomed = []
            return
        asked = {task: find_able(request, t.nodes) for task, request in t.requests.items()}
        for report in reports.values():
            for row in report.tasks:
                if row.leaves:
                    asked[row.task] = [] if may_fail(row, t.nodes) else find_able(row, t.nodes)
        search = waits.Search(reports, asked)
        stuck = search.run()
        doomed = [(node, get.client, get.request) for node, get in stuck]
        if not stuck:
            t.doomed = []
        elif doomed != t.doomed:
            t.doomed = doomed
            self._ask_waits()
        else:
            t.doomed = []
            node, get = max(stuck, key=lambda entry: (entry[1].number, entry[0]))
            text = waits.describe(stuck, search.left)
            self.s.send(t.nodes[node], GetDoomed, get.client, get.request, text)
