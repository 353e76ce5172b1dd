"""What an executor tells the owner of a task that it was handed."""

from __future__ import annotations

from detray.core import objects, places
from detray.core.effects import CopyPayload
from detray.core.lending import lend, proxy, shared_of
from detray.core.lifecycle import move_object
from detray.core.links import tell
from detray.core.payloads import error_key, value_key
from detray.core.peer_messages import Returned, RunDone, RunErred, RunLost, RunReturned
from detray.core.states import PENDING, Elsewhere, Stored
from detray.core.step import Step
from detray.core.stimuli import Return, RunFailed, RunFinished
from detray.core.tables import Block, Object, Task
from detray.errors import Failure
from detray.ids import ObjectID, return_object

SUMMARY_CHARS_MAX = 2_000


def report_done(s: Step, task: Task, m: RunFinished) -> None:
    """Send small returns along, keep large ones, throw away what is not wanted."""
    client = s.t.clients[m.client]
    wanted = task.away.wanted if task.away is not None else ()
    returns = []
    refused = False
    for index, part in enumerate(m.returns):
        item = return_object(m.task, index)
        block = client.blocks.pop(item, None) if part.in_block else None
        if wanted and index not in wanted and not s.t.config.policy.wanted_check_off:
            _discard(s, item, m.attempt, part, block)
            returns.append(Returned(-1))
        elif not part.in_block:
            if part.size_bytes:
                s.drops.append(value_key(item, m.attempt))
            returns.append(Returned(part.size_bytes, False, lend(s, part.refs, task.owner)))
        elif block is None or block.segment < 0 or not _keep(s, item, task, block, part.refs):
            refused = True
            break
        else:
            returns.append(Returned(block.size_bytes, True, lend(s, part.refs, task.owner)))
    if refused:
        text = "an older copy of its result is still being read on the node that ran it again"
        report_lost(s, task, Failure.OBJECT_LOST, text)
        return
    duration_ns = m.ended_ns - m.started_ns
    tell(s, task.owner, RunDone, m.task, m.attempt, duration_ns, tuple(returns))


def _discard(s: Step, item: ObjectID, attempt: int, part: Return, block: Block | None) -> None:
    if block is not None and block.segment >= 0:
        places.free_block(s, block.segment, block.offset, block.size_bytes)
    elif not part.in_block and part.size_bytes:
        s.drops.append(value_key(item, attempt))


def _keep(s: Step, item: ObjectID, task: Task, block: Block, refs: tuple[ObjectID, ...]) -> bool:
    """The block becomes the primary copy; False if an older copy is in the way."""
    row = proxy(s, item, task.owner)
    shared = shared_of(row)
    state = row.state
    if type(state) is Stored:
        if row.pins or row.moving:
            places.free_block(s, block.segment, block.offset, block.size_bytes)
            return False
        places.release(s, row)
        move_object(row, PENDING)
    elif type(state) is Elsewhere:
        move_object(row, PENDING)
    elif state is not PENDING:
        places.free_block(s, block.segment, block.offset, block.size_bytes)
        return False
    shared.attempt = task.attempt
    shared.is_primary = True
    shared.is_wanted = shared.orphan = shared.is_unlisted = False
    objects.seal(s, row, Stored(block.segment, block.offset, block.size_bytes), refs)
    return True


def report_failed(s: Step, task: Task, m: RunFailed) -> None:
    """User code raised; the owner decides what follows."""
    refs = lend(s, m.refs, task.owner)
    tell(
        s, task.owner, RunErred, m.task, m.attempt, m.kind, m.retryable, m.summary, m.size_bytes,
        refs,
    )  # fmt: skip


def report_error(s: Step, task: Task, failure: int, text: str) -> None:
    """The run ends for a reason that this node's core knows."""
    summary = text[:SUMMARY_CHARS_MAX]
    tell(s, task.owner, RunErred, task.spec.task, task.attempt, int(failure), False, summary, 0)


def report_failed_argument(s: Step, task: Task, argument: ObjectID, row: Object) -> None:
    """An argument failed: the run's error is the argument's."""
    state = row.state
    size_bytes: int = state.size_bytes  # type: ignore[union-attr]  # Failed
    if size_bytes:
        key = error_key(task.spec.task, task.attempt)
        s.out.append(CopyPayload(argument, key))
        s.drops.append(key)
    failure, text = state.failure, state.text  # type: ignore[union-attr]  # Failed
    refs = lend(s, row.refs, task.owner)
    tell(
        s, task.owner, RunErred, task.spec.task, task.attempt, failure, False, text, size_bytes,
        refs,
    )  # fmt: skip


def report_lost(s: Step, task: Task, failure: int, reason: str) -> None:
    """The worker that had begun the run died."""
    summary = reason[:SUMMARY_CHARS_MAX]
    tell(s, task.owner, RunLost, task.spec.task, task.attempt, int(failure), summary)


def report_returned(s: Step, task: Task, reason: str) -> None:
    """The run has not begun, and goes back."""
    tell(s, task.owner, RunReturned, task.spec.task, task.attempt, reason)
