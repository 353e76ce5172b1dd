"""The local scheduler: one node's core.

Contract: the same configuration and the same stimuli in the same steps give the same effects, in
any process, under any hash seed, on any supported Python.

Theory of operation
-------------------
`handle` applies each stimulus by a table of handlers, then settles to a fixed point: objects that
became available wake the tasks and gets that wait for them; blocked runs resume; ready tasks go to
workers; requests for memory are served; what nobody reaches is freed. There is one timer,
`next_deadline_ns`, to be read again after each call.

A core cannot be made to raise by a user or a peer: a message that makes no sense is answered by
`FailRequest`, a stale one is counted. An exception out of `handle` is a bug of ours and stops the
node with its story.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detray.core import (
    clients,
    deadlock,
    definitions,
    dispatch,
    freeing,
    gets,
    handover,
    lending,
    lineage,
    membership,
    notices,
    placing,
    pulls,
    runs,
    status,
    storage,
    tasks,
    values,
    waits,
)
from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.arena import new_arena
from detray.core.config import LocalConfig
from detray.core.effects import DropPayloads, Effect
from detray.core.links import from_peer
from detray.core.resources import new_pool
from detray.core.snapshot import decode_tables, encode_tables
from detray.core.step import Step
from detray.core.tables import Tables


class LocalScheduler:
    """Owns the tasks and objects of its node's clients; decides when and where each run happens."""

    def __init__(self, config: LocalConfig) -> None:
        self.tables = Tables(
            config=config, pool=new_pool(config.totals), arena=new_arena(config.arena_bytes)
        )
        self._step = Step(self.tables)

    def handle(self, *stimuli: st.LocalStimulus, now_ns: int) -> list[Effect]:
        """Apply what happened up to `now_ns`, settle; what is to be done, in order.

        Without stimuli it is a step for a deadline only.
        """
        s = self._step
        t = s.t
        if now_ns > t.now_ns:
            t.now_ns = now_ns
        if t.fenced:
            return []
        for stimulus in stimuli:
            _HANDLERS[type(stimulus)](s, stimulus)
        if t.early:
            for message in membership.take_early(s):
                _HANDLERS[type(message)](s, message)
        if s.available:
            _wake(s)
        now_ns = t.now_ns
        if t.timers and t.timers[0][0] <= now_ns:
            gets.expire_gets(s)
        if t.stall_ns and t.stall_ns <= now_ns:
            dispatch.check_stalls(s)
        if t.idle_ns and t.idle_ns <= now_ns:
            dispatch.retire_idle(s)
        if t.offer_ns <= now_ns:
            t.offer_ns = 0  # `balance` looks at it in this very step
        if t.pull_ns and t.pull_ns <= now_ns:
            pulls.end_pauses(s)
        if t.infeasible_ns and t.infeasible_ns <= now_ns:
            tasks.report_infeasible(s)
        self._settle()
        out, s.out = s.out, []
        return out

    def _settle(self) -> None:
        """Repeat until nothing follows from anything any more."""
        s = self._step
        t = s.t
        while True:
            if s.available:
                _wake(s)
            if t.resuming:
                gets.resume_blocked(s)
            if s.answered:
                handover.accept_parked(s)
            s.is_fresh = False
            dispatch.dispatch(s)
            if s.leased:
                handover.deliver_leased(s)
            if t.peers:
                placing.balance(s)
                handover.return_stalled(s)
            if s.suspects:
                freeing.free_suspects(s)
            if t.pull_queue:
                pulls.admit(s)
            if t.block_queue:
                storage.serve_blocks(s)
            self._settle_copies()
            if t.inline_order:
                storage.relieve_inline(s)
            if (t.blocked_count or t.deadlock_ns) and not s.available:
                deadlock.resolve(s)
            if not (
                s.available or s.suspects or s.answered or s.rebuilds or s.again
                or s.is_fresh or s.queued or s.leased
            ):  # fmt: skip
                break
        if s.settled or s.returned or s.freed:
            lending.flush(s)
        if t.reporting:
            membership.report_load(s)
        if s.drops:
            s.out.append(DropPayloads(tuple(s.drops)))
            s.drops.clear()

    def _settle_copies(self) -> None:
        """What other nodes have to do with the objects here."""
        s = self._step
        if s.rooms:
            pulls.enter_rooms(s)
        if s.roomless:
            tasks.fail_roomless(s)
        if s.evicted or s.corrupted or s.missing or s.orphans or s.again:
            values.enter_losses(s)
        if s.rebuilds:
            lineage.recover(s)

    @property
    def next_deadline_ns(self) -> int | None:
        """When `handle` wants to be called even if nothing happens; None: never."""
        t = self.tables
        due_ns = t.stall_ns
        if t.idle_ns and not 0 < due_ns <= t.idle_ns:
            due_ns = t.idle_ns
        if t.pull_ns and not 0 < due_ns <= t.pull_ns:
            due_ns = t.pull_ns
        if t.infeasible_ns and not 0 < due_ns <= t.infeasible_ns:
            due_ns = t.infeasible_ns
        if t.deadlock_ns and not 0 < due_ns <= t.deadlock_ns:
            due_ns = t.deadlock_ns
        if t.timers and not 0 < due_ns <= t.timers[0][0]:
            due_ns = t.timers[0][0]
        if t.offer_ns and not 0 < due_ns <= t.offer_ns:
            due_ns = t.offer_ns
        if t.report_ns and not 0 < due_ns <= t.report_ns:
            due_ns = t.report_ns
        if t.start_retry_ns > t.now_ns and not 0 < due_ns <= t.start_retry_ns:
            due_ns = t.start_retry_ns
        return due_ns or None if not t.fenced else None

    @property
    def state_size(self) -> int:
        """Rows in the tables that can grow."""
        t = self.tables
        return len(t.tasks) + len(t.objects) + len(t.workers) + len(t.templates)

    def describe(self, topic: str, limit: int = 1000) -> object:
        """Plain data for people, between two steps (`status.describe`)."""
        return status.describe(self._step, topic, limit)

    def snapshot(self) -> bytes:
        """All state between two steps, to be given to `restore`."""
        return encode_tables(self.tables)

    @classmethod
    def restore(cls, config: LocalConfig, data: bytes) -> LocalScheduler:
        """A scheduler that goes on exactly where `snapshot` was taken."""
        core = cls(config)
        core.adopt(decode_tables(data))
        return core

    def adopt(self, tables: Tables) -> None:
        """Go on from these tables, which are no other core's."""
        self.tables = tables
        self._step = Step(tables)


def _wake(s: Step) -> None:
    """Tell tasks, then gets, of what became available; that may make more available."""
    rows = s.t.objects
    for item in s.available:
        row = rows.get(item)
        if row is None:
            continue
        if row.takers:
            tasks.wake_takers(s, row)
        if row.getters:
            gets.wake_getters(s, row)
        if row.shared is not None and row.shared.watchers:
            values.answer_watchers(s, row, row.shared)
    s.available.clear()


# Any: each handler takes the stimulus type that is its key (completeness: tests/core).
_HANDLERS: dict[type, Callable[[Step, Any], None]] = {
    st.FunctionExported: clients.on_function_exported,
    st.TemplateDefined: clients.on_template_defined,
    st.TaskSubmitted: tasks.on_task_submitted,
    st.ObjectPut: clients.on_object_put,
    st.BlockRequested: storage.on_block_requested,
    st.BlockSealed: storage.on_block_sealed,
    st.BlockAbandoned: storage.on_block_abandoned,
    st.GetRequested: gets.on_get_requested,
    st.GetAbandoned: gets.on_get_abandoned,
    st.RefsDropped: clients.on_refs_dropped,
    st.ViewsDropped: clients.on_views_dropped,
    st.CancelRequested: runs.on_cancel_requested,
    st.RunFinished: runs.on_run_finished,
    st.RunFailed: runs.on_run_failed,
    st.RefPinned: clients.on_ref_pinned,
    st.RefClaimed: clients.on_ref_claimed,
    st.StatusRequested: status.on_status_requested,
    st.WorkerReady: runs.on_worker_ready,
    st.DriverConnected: clients.on_driver_connected,
    st.ObserverConnected: clients.on_observer_connected,
    st.ClientLost: clients.on_client_lost,
    st.ProcessGone: clients.on_process_gone,
    st.WorkerStartFailed: runs.on_worker_start_failed,
    st.WorkerLost: runs.on_worker_lost,
    st.RunsRetracted: runs.on_runs_retracted,
    st.ObjectMoved: storage.on_object_moved,
    st.ObjectMoveFailed: storage.on_object_move_failed,
    st.SegmentOpened: storage.on_segment_opened,
    st.SegmentFailed: storage.on_segment_failed,
    hm.NodeAdmitted: membership.on_node_admitted,
    hm.NodeReadmitted: membership.on_node_readmitted,
    hm.JobAdmitted: clients.on_job_admitted,
    hm.Placed: handover.on_placed,
    hm.DemandInfeasible: tasks.on_demand_infeasible,
    hm.PlacementRefused: tasks.on_placement_refused,
    hm.NodeAnnounced: membership.on_node_announced,
    hm.NodeBuried: membership.on_node_buried,
    hm.JobOpened: membership.on_job_opened,
    hm.JobClosed: membership.on_job_closed,
    hm.RunsRecalled: handover.on_runs_recalled,
    hm.WaitsAsked: waits.on_waits_asked,
    hm.GetDoomed: waits.on_get_doomed,
    st.NodeStarted: membership.on_node_started,
    st.NodeStopping: membership.on_node_stopping,
    st.HeadRestarted: membership.on_head_restarted,
    st.Fenced: membership.on_fenced,
    st.PeerSilent: membership.on_peer_silent,
    st.PeerHeard: membership.on_peer_heard,
    st.ObjectArrived: pulls.on_object_arrived,
    st.ObjectArrivalFailed: pulls.on_object_arrival_failed,
    st.ObjectSent: pulls.on_object_sent,
    st.ObjectCorrupted: storage.on_object_corrupted,
    pm.FunctionShipped: from_peer(definitions.on_function_shipped),
    pm.FunctionWanted: from_peer(definitions.on_function_wanted),
    pm.FunctionRefused: from_peer(definitions.on_function_refused),
    pm.NoticeSent: from_peer(notices.on_notice_sent),
    pm.TemplateShipped: from_peer(handover.on_template_shipped),
    pm.RunDelivered: from_peer(handover.on_run_delivered),
    pm.RunCancelled: from_peer(handover.on_run_cancelled),
    pm.RunDone: from_peer(handover.on_run_done),
    pm.RunErred: from_peer(handover.on_run_erred),
    pm.RunLost: from_peer(handover.on_run_lost),
    pm.RunReturned: from_peer(handover.on_run_returned),
    pm.BorrowClaimed: from_peer(lending.on_borrow_claimed),
    pm.BorrowConfirmed: from_peer(lending.on_borrow_confirmed),
    pm.BorrowRefused: from_peer(lending.on_borrow_refused),
    pm.RefsSettled: from_peer(lending.on_refs_settled),
    pm.BorrowDropped: from_peer(lending.on_borrow_dropped),
    pm.ValueWanted: from_peer(values.on_value_wanted),
    pm.ValueSent: from_peer(values.on_value_sent),
    pm.ValueFound: from_peer(values.on_value_found),
    pm.ValueFailed: from_peer(values.on_value_failed),
    pm.CopyMissing: from_peer(values.on_copy_missing),
    pm.CopyEvicted: from_peer(values.on_copy_evicted),
    pm.CopyPromoted: from_peer(values.on_copy_promoted),
    pm.CopiesFreed: from_peer(values.on_copies_freed),
    pm.PullRequested: from_peer(pulls.on_pull_requested),
    pm.PullRefused: from_peer(pulls.on_pull_refused),
}
