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

from detray.core import clients, deadlock, dispatch, gets, objects, runs, status, storage, tasks
from detray.core import head_messages as hm
from detray.core import stimuli as st
from detray.core.arena import new_arena
from detray.core.config import LocalConfig
from detray.core.effects import DropPayloads, Effect
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
        for stimulus in stimuli:
            _HANDLERS[type(stimulus)](s, stimulus)
        if s.available:
            _wake(s)
        now_ns = t.now_ns
        if t.timers and t.timers[0][0] <= now_ns:
            gets.expire_gets(s)
        if t.stall_ns and t.stall_ns <= now_ns:
            dispatch.check_stalls(s)
        if t.idle_ns and t.idle_ns <= now_ns:
            dispatch.retire_idle(s)
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
            dispatch.dispatch(s)
            if s.suspects:
                objects.free_suspects(s)
            if t.block_queue:
                storage.serve_blocks(s)
            if t.inline_order:
                storage.relieve_inline(s)
            if (t.blocked_count or t.deadlock_ns) and not s.available:
                deadlock.resolve(s)
            if not s.available and not s.suspects:
                break
        if s.drops:
            s.out.append(DropPayloads(tuple(s.drops)))
            s.drops.clear()

    @property
    def next_deadline_ns(self) -> int | None:
        """When `handle` wants to be called even if nothing happens; None: never."""
        t = self.tables
        due_ns = t.stall_ns
        if t.idle_ns and not 0 < due_ns <= t.idle_ns:
            due_ns = t.idle_ns
        if t.infeasible_ns and not 0 < due_ns <= t.infeasible_ns:
            due_ns = t.infeasible_ns
        if t.deadlock_ns and not 0 < due_ns <= t.deadlock_ns:
            due_ns = t.deadlock_ns
        if t.timers and not 0 < due_ns <= t.timers[0][0]:
            due_ns = t.timers[0][0]
        if t.start_retry_ns > t.now_ns and not 0 < due_ns <= t.start_retry_ns:
            due_ns = t.start_retry_ns
        return due_ns or None

    @property
    def state_size(self) -> int:
        """Rows in the tables that can grow."""
        t = self.tables
        return len(t.tasks) + len(t.objects) + len(t.workers) + len(t.templates)

    def snapshot(self) -> bytes:
        """All state between two steps, to be given to `restore`."""
        return encode_tables(self.tables)

    @classmethod
    def restore(cls, config: LocalConfig, data: bytes) -> LocalScheduler:
        """A scheduler that goes on exactly where `snapshot` was taken."""
        core = cls(config)
        core.tables = decode_tables(data)
        core._step = Step(core.tables)
        return core


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
    hm.NodeAdmitted: clients.on_node_admitted,
    hm.JobAdmitted: clients.on_job_admitted,
    hm.Placed: tasks.on_placed,
    hm.DemandInfeasible: tasks.on_demand_infeasible,
}
