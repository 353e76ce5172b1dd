"""A head that comes back, and what a node says to it: single steps, all effects."""

from __future__ import annotations

from typing import Any

import pytest

from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.config import GlobalConfig, LocalConfig, Policy
from detray.core.durable import (
    Admitted,
    Buried,
    DurableTables,
    EpochRaised,
    JobBegan,
    JobOver,
    apply,
    decode_snapshot,
    digest,
    encode_snapshot,
)
from detray.core.effects import Effect, Persist, SendToHead, SendToNode
from detray.core.global_scheduler import NUMBERS_SKIPPED, GlobalScheduler
from detray.core.head_invariants import check_head
from detray.core.local import LocalScheduler
from detray.ids import ClientID, JobNumber, NodeID, ObjectID

SECOND = 1_000_000_000
CPU = (("CPU", 10_000),)
CONFIG = GlobalConfig()


def node(number: int) -> NodeID:
    """A node's number."""
    return NodeID(number)


def job(number: int) -> JobNumber:
    """A job's number."""
    return JobNumber(number)


def tables(*events: Any) -> DurableTables:
    """What a log has after these events. (Any: `DurableEvent`.)"""
    durable = DurableTables()
    for event in events:
        apply(durable, event)
    return durable


def two_nodes() -> DurableTables:
    """Nodes 0 and 1, and job 1, whose driver is at node 0."""
    return tables(
        EpochRaised(1, node(0), job(1)),
        Admitted(node(0), 1, "a", CPU, "h:1"),
        Admitted(node(1), 1, "b", CPU, "h:2"),
        JobBegan(job(1), node(0), "a.py"),
    )


def recovered(durable: DurableTables, **options: Any) -> GlobalScheduler:
    """A head that has taken its first step. (Any: those of `recover`.)"""
    head = GlobalScheduler.recover(CONFIG, durable, SECOND, **options)
    head.handle(now_ns=SECOND)
    return head


def step(head: GlobalScheduler, *stimuli: Any, now_ns: int = SECOND) -> list[Effect]:
    """One step, with its invariants. (Any: `GlobalStimulus`.)"""
    effects = head.handle(*stimuli, now_ns=now_ns)
    check_head(head.tables)
    return effects


def returned(number: int, peers: tuple[int, ...] = (0, 1), **fields: Any) -> hm.NodeReturned:
    """Node `number` is back. (Any: its fields.)"""
    others = tuple([node(peer) for peer in peers if peer != number])
    fields = {"free": (10_000,), "backlog": 0, "received": 0, "highest_node": node(1)} | fields
    return hm.NodeReturned(1, node(number), 1, peers=others, **fields)


def told(effects: list[Effect], number: int) -> list[hm.HeadMessage]:
    """What a node hears."""
    return [e.message for e in effects if type(e) is SendToNode and e.node == number]


# ------------------------------------------------------------------ the head


def test_the_first_step_persists_the_epoch_also_from_a_snapshot_before_it() -> None:
    head = GlobalScheduler.recover(CONFIG, two_nodes(), SECOND)
    again = GlobalScheduler.restore(CONFIG, head.snapshot())
    expected = [Persist((EpochRaised(2, node(2), job(2)),))]
    assert head.handle(now_ns=SECOND) == again.handle(now_ns=SECOND) == expected
    assert head.snapshot() == again.snapshot()
    check_head(head.tables)


def test_a_head_without_a_store_persists_nothing() -> None:
    head = GlobalScheduler(CONFIG)
    effects = step(head, hm.NodeJoined(1, "a", CPU), hm.JobRequested(2, node(0), ClientID(-1), ""))
    assert {type(effect) for effect in effects} == {SendToNode}
    assert head.tables.durable.epoch == 0


def test_events_alone_make_the_durable_tables() -> None:
    """Whatever a head decided, its log gives the same tables (PROTOCOL N8)."""
    durable = two_nodes()
    log = decode_snapshot(encode_snapshot(durable))
    head = GlobalScheduler.recover(CONFIG, durable, SECOND)
    now_ns = SECOND
    script: list[Any] = [
        (),
        (returned(0, jobs=(hm.KnownJob(job(1), "a.py"),)),),
        (hm.NodeJoined(1, "c", CPU, True), hm.JobRequested(2, node(0), ClientID(-2), "b.py")),
        (hm.JobEnded(3, node(0), job(1)),),
        (hm.NodeLeft(2, node(2), "told to"),),
        *[()] * 40,
    ]
    for stimuli in script:
        effects = step(head, *stimuli, now_ns=now_ns)
        now_ns += SECOND // 2
        persisted = [effect for effect in effects if type(effect) is Persist]
        assert effects[: len(persisted)] == persisted and len(persisted) <= 1
        for order in persisted:
            for event in order.events:
                apply(log, event)
        assert digest(log) == digest(head.tables.durable)
    assert not head.tables.nodes, "all were silent for long"
    assert log.next_node == 3 and log.next_job == 3 and not log.jobs


def test_who_returns_hears_what_it_missed() -> None:
    head = recovered(two_nodes())
    effects = step(head, returned(1, (0, 7), jobs_elsewhere=(job(9),), highest_node=node(0)))
    assert told(effects, 1) == [
        hm.NodeBuried(1, node(7), "it died while the head was away"),
        hm.JobOpened(2, job(1), node(0), ""),
        hm.NodeReadmitted(3, 2, node(1), job(2)),
    ]
    assert told(effects, 0) == [], "it has not returned"


def test_a_job_that_its_node_does_not_name_is_over() -> None:
    head = recovered(two_nodes())
    step(head, returned(1, jobs_elsewhere=(job(1),)))
    effects = step(head, returned(0))
    assert effects[0] == Persist((JobOver(job(1)),))
    assert told(effects, 1) == [hm.JobClosed(2, job(1))]


def test_who_joins_from_the_address_of_an_expected_node_shows_that_it_is_dead() -> None:
    head = recovered(two_nodes())
    effects = step(head, hm.NodeJoined(1, "b", CPU, True, "h:2", (), "new"))
    assert effects[0] == Persist(
        (
            Buried(node(1), "another node joined from h:2"),
            Admitted(node(2), 2, "b", CPU, "h:2", (), "new"),
        )
    )
    assert [type(m) for m in told(effects, 2)] == [
        hm.NodeAnnounced,
        hm.NodeAdmitted,
        hm.JobOpened,
    ]


def test_a_process_that_asks_a_living_head_twice_is_answered_once() -> None:
    head = recovered(DurableTables())
    join = hm.NodeJoined(1, "a", CPU, True, "h:1", (), "life")
    assert told(step(head, join), 0) != []
    assert step(head, join) == []


def test_what_only_an_expected_node_can_run_is_not_infeasible_until_it_is_buried() -> None:
    durable = two_nodes()
    apply(durable, Admitted(node(2), 1, "c", (("GPU", 10_000),)))
    head = recovered(durable)
    step(head, returned(0, jobs=(hm.KnownJob(job(1), "a.py"),)))
    task: Any = b"t" * 16
    gpu = (("GPU", 10_000),)
    asked = hm.PlacementRequested(2, node(0), task, 0, "f", gpu)
    assert step(head, asked) == []
    effects: list[Effect] = []
    for tick in range(1, 23):
        report = hm.LoadReported(2 + tick, node(0), (10_000,), 0, 0)
        effects += step(head, report, now_ns=SECOND + tick * SECOND // 2)
    [infeasible] = [m for m in told(effects, 0) if type(m) is hm.DemandInfeasible]
    assert infeasible.task == task
    assert {e.node for o in effects if type(o) is Persist for e in o.events} == {1, 2}  # type: ignore[union-attr]  # burials


def test_a_log_that_may_lack_its_end_costs_numbers_and_no_jobs() -> None:
    """A copy that lags: what it lacks is not given out again, and drivers keep their jobs (N8)."""
    head = GlobalScheduler.recover(CONFIG, two_nodes(), SECOND, is_complete=False)
    raised = EpochRaised(2, node(2 + NUMBERS_SKIPPED), job(2 + NUMBERS_SKIPPED))
    assert step(head) == [Persist((raised,))]
    effects = step(head, returned(1, jobs_elsewhere=(job(1), job(2))))
    assert hm.JobClosed not in map(type, told(effects, 1)), "the driver's node knows"
    known = hm.KnownJob(job(2), "late.py", "mine")
    effects = step(head, returned(0, jobs=(hm.KnownJob(job(1), "a.py"), known)))
    assert effects[0] == Persist((JobBegan(job(2), node(0), "late.py", "mine"),))
    assert told(effects, 1) == [hm.JobOpened(2, job(2), node(0), "mine")]
    # A node that was admitted in the part that is missing is nobody's.
    assert step(head, returned(5)) == []


def test_stalls_wait_until_everybody_is_back() -> None:
    head = recovered(two_nodes())
    step(head, returned(0))
    assert step(head, hm.StallNoticed(2, node(0))) == []
    step(head, returned(1))
    effects = step(head, hm.StallNoticed(3, node(0)))
    assert [type(e.message) for e in effects if type(e) is SendToNode] == [hm.WaitsAsked] * 2


@pytest.mark.parametrize("first", [hm.LoadReported(1, node(0), (0,), 5, 5), None])
def test_nothing_counts_before_the_return(first: hm.LoadReported | None) -> None:
    """A late message of the link that was, or a node that says it twice."""
    head = recovered(two_nodes())
    if first is not None:
        assert step(head, first) == []
    assert told(step(head, returned(0)), 0) != []
    assert step(head, returned(0)) == []


# ------------------------------------------------------------------ the node


def member(*stimuli: Any) -> LocalScheduler:
    """Node 3 of a cluster, of epoch 1, that was told this. (Any: `LocalStimulus`.)"""
    config = LocalConfig(node_name="n", totals=CPU, arena_bytes=1 << 20, policy=Policy())
    core = LocalScheduler(config)
    core.handle(st.NodeStarted(), now_ns=SECOND)
    core.handle(hm.NodeAdmitted(1, node(3), 1, 1), *stimuli, now_ns=SECOND)
    return core


def said(effects: list[Effect]) -> list[hm.NodeMessage]:
    """What the head hears."""
    return [effect.message for effect in effects if type(effect) is SendToHead]


def test_what_a_step_said_to_the_old_head_is_not_said_to_the_new_one() -> None:
    """The numbers begin anew with the return, whatever stands before it in the step."""
    core = member(hm.NodeAnnounced(2, node(4), 1, "x", CPU))
    effects = core.handle(
        st.DriverConnected(ClientID(-1), 1, "mine", "a.py"),
        st.PeerSilent(node(4)),
        st.HeadRestarted(2),
        now_ns=2 * SECOND,
    )
    assert said(effects) == [
        hm.NodeReturned(1, node(3), 1, (10_000,), 0, 0, peers=(node(4),), highest_node=node(4)),
        hm.JobRequested(2, node(3), ClientID(-1), "a.py", "mine"),
        hm.PeerUnreachable(3, node(3), node(4)),
    ]


def test_a_node_that_was_not_admitted_joins_again() -> None:
    config = LocalConfig(node_name="n", totals=CPU, arena_bytes=1 << 20, life="me")
    core = LocalScheduler(config)
    [first] = said(core.handle(st.NodeStarted(), now_ns=SECOND))
    assert said(core.handle(st.HeadRestarted(1), now_ns=SECOND)) == [first]
    assert said(core.handle(st.HeadRestarted(1), now_ns=SECOND)) == []


def test_one_that_spoke_unannounced_and_died_is_dead_once_the_head_has_told_all() -> None:
    """Its announcement was lost with a head, its burial came before this node returned."""
    item: Any = ObjectID(b"o" * 20)
    core = member(pm.BorrowClaimed(1, node(5), item))
    assert list(core.tables.peers) == [5]
    core.handle(st.HeadRestarted(2), now_ns=SECOND)
    core.handle(hm.NodeReadmitted(1, 2, node(6), job(1)), now_ns=SECOND)
    assert not core.tables.peers
    assert core.handle(pm.BorrowClaimed(2, node(5), item), now_ns=SECOND) == []
    assert core.tables.counts["from the dead"] == 1
