"""The tape of a trace: its stimuli one by one, each with who said it, to be played in parts.

A stimulus of a worker belongs to the run that the worker had begun: in a part of the tape that run
may be another worker's. A message of another core is known by the link that it came on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.ids import ClientID, NodeID, TaskID
from detray.trace.format import CoreInfo, Header, TraceError
from detray.trace.links import LINK_MESSAGES, Directory, nodes_of
from detray.trace.play import Makers, Opening, play, schedulers
from detray.trace.reading import Trace

NO_ACTOR = TaskID(b"")


class Item(NamedTuple):
    """The `place`-th stimulus of a tape, None for a step without any, of a core by its number.

    `actor` is the run that the client which says it has begun. `source` is the core that sent it,
    -1 if that is nobody or not in the trace; `node` the number of its node (-1: the head, or none).
    """

    place: int
    step: int
    core: int
    stimulus: Any  # Any: of all kinds
    actor: TaskID
    source: int
    node: NodeID


class Tape(NamedTuple):
    """What the cores of a trace were told up to a step; times are dates from 0 on, by step.

    `infos` are what the cores are made of: at first those of the header.
    """

    header: Header
    infos: list[CoreInfo]
    nodes: Sequence[NodeID]
    items: list[Item]
    dates_ns: dict[int, int]
    states: dict[int, bytes]
    """By core, the state that it began with, of those that did not begin fresh."""
    late: frozenset[int]
    """Cores of which the trace does not have the beginning."""

    @property
    def node_numbers(self) -> set[NodeID]:
        """All numbers of nodes that are told to anybody."""
        numbers = {getattr(item.stimulus, "node", -1) for item in self.items}
        return {NodeID(number) for number in numbers}


def tape_of(trace: Trace, last_step: int, core: int, makers: Makers = schedulers) -> Tape:
    """Everything up to `last_step`, that one included (-1: all). Raises TraceError.

    In the end comes a step of `core` at the same time: whoever plays only that core knows it.
    """
    header = trace.header
    directory = Directory(header, nodes_of(trace))
    items: list[Item] = []
    dates: dict[int, int] = {}
    states: dict[int, bytes] = {}
    late: set[int] = set()
    queues: dict[tuple[int, ClientID], list[TaskID]] = {}
    first_ns: int | None = None
    last_ns = 0
    for item in play(trace, makers):
        if isinstance(item, Opening):
            for fresh in item.fresh:
                directory.begin(fresh, item.cores[fresh])
                state = _state(item, fresh)
                if state and state != makers(header)[fresh].make().snapshot():
                    states[fresh] = state
                    if item.start is not None and not item.start.begins:
                        late.add(fresh)
            continue
        step = item.step
        if last_step >= 0 and step.number > last_step:
            break
        date_ns = header.date_ns(step.core, step.now_ns)
        first_ns = date_ns if first_ns is None else first_ns
        last_ns = dates[step.number] = max(last_ns, date_ns - first_ns)
        passing = iter(directory.received(step.core, item.stimuli, item.effects))
        stimuli: list[Any] = [*item.stimuli] or [None]
        for stimulus in stimuli:
            source, node = -1, NodeID(-1)
            if type(stimulus) in LINK_MESSAGES:
                link = next(passing).link
                found = directory.core_at(link, source=True)
                source, node = -1 if found is None else found, link.source
            actor = _actor(queues, step.core, stimulus)
            items.append(Item(len(items), step.number, step.core, stimulus, actor, source, node))
            _follow(queues, step.core, stimulus)
        for effect in item.effects:
            if type(effect) is ef.RunTask:
                queues.setdefault((step.core, effect.client), []).append(effect.task)
        for _ in directory.sent(step.core, item.effects):
            pass
    if not items:
        raise TraceError(f"{trace.name} holds no steps: there is nothing to shrink")
    end = items[-1].step + 1
    dates[end] = last_ns
    items.append(Item(len(items), end, core, None, NO_ACTOR, -1, NodeID(-1)))
    return Tape(header, list(header.cores), directory.nodes, items, dates, states, frozenset(late))


def _state(opening: Opening, core: int) -> bytes:
    """What a core was restored from, b"" if it was made."""
    start = opening.start
    return b"" if start is None else start.snapshots[start.cores.index(core)]


def _actor(queues: dict[tuple[int, ClientID], list[TaskID]], core: int, m: Any) -> TaskID:
    """The run that a worker has begun; of a dead one, if it had begun any. (Any: a stimulus.)"""
    queue = queues.get((core, getattr(m, "client", ClientID(0))))
    if not queue or (type(m) is st.WorkerLost and m.unclaimed >= len(queue)):
        return NO_ACTOR
    return m.task if type(m) in (st.RunFinished, st.RunFailed) else queue[0]


def _follow(queues: dict[tuple[int, ClientID], list[TaskID]], core: int, m: Any) -> None:
    kind = type(m)
    if kind is st.RunFinished or kind is st.RunFailed:
        queue = queues.get((core, m.client), [])
        if m.task in queue:
            queue.remove(m.task)
    elif kind is st.RunsRetracted:
        queue = queues.get((core, m.client), [])
        del queue[max(0, len(queue) - m.count) :]
    elif kind is st.WorkerLost:
        queues.pop((core, m.client), None)
