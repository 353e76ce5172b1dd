"""What cores that are not played say to one that is: each message as far as it answers something.

A part of a tape is played with one core, or several. A message of another core is told as it stands
on the tape, numbered anew so that its link has no gaps, if it still makes sense: an answer only if
the question was asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core.stimuli import HeadRestarted
from detray.ids import NodeID, ObjectID, TaskID
from detray.trace.reducing.desk import NOTHING, Desk, Said
from detray.trace.reducing.naming import Naming
from detray.trace.reducing.tape import Item

HEAD = NodeID(-1)


class Outside:
    """Says to a node what its head and other nodes said."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._naming = desk.naming
        self._seqs: Counter[NodeID] = Counter()
        self._shipped: set[tuple[NodeID, int]] = set()

    def say(self, item: Item) -> Said:
        """The message, as it can be told here; nothing if it cannot."""
        m = item.stimulus
        node = getattr(m, "node", HEAD) if type(m) in _FROM_PEER else HEAD
        new = _FROM_PEER[type(m)](self, m) if node != HEAD else _FROM_HEAD[type(m)](self, m)
        if new is None or (node != HEAD and node not in self._desk.tables.peers):
            return NOTHING
        self._seqs[node] += 1
        return (replace(new, link_seq=self._seqs[node]),)

    def restart(self, m: HeadRestarted) -> None:
        """The link to the head begins anew."""
        self._seqs[HEAD] = 0

    def _asked(self, kind: type, subject: bytes, node: int, *, once: bool = True) -> bool:
        key = kind.__name__, subject, node
        if self._desk.sent[key] <= 0:
            return False
        self._desk.sent[key] -= once
        return True

    # -------------------------------------------------------------- the head

    def _as_it_is(self, m: Any) -> Any:
        return m

    def _admitted(self, m: hm.NodeAdmitted) -> Any:
        return m if self._asked(hm.NodeJoined, b"", HEAD) else None

    def _job(self, m: hm.JobAdmitted) -> Any:
        client = self._desk.clients.get(m.client)
        if client is None or not self._asked(hm.JobRequested, b"%d" % client, HEAD):
            return None
        return replace(m, client=client, job=self._naming.job(m.job))

    def _placement(self, m: hm.Placed | hm.DemandInfeasible | hm.PlacementRefused) -> Any:
        task = self._naming.known(m.task)
        once = type(m) is not hm.DemandInfeasible
        if task is None or not self._asked(hm.PlacementRequested, task, HEAD, once=once):
            return None
        if isinstance(m, hm.Placed) and m.node not in (
            self._desk.tables.node,
            *self._desk.tables.peers,
        ):
            return None
        return replace(m, task=task, attempt=self._desk.attempts[TaskID(task)])

    def _opened(self, m: hm.JobOpened) -> Any:
        return replace(m, job=self._naming.job(m.job))

    def _closed(self, m: hm.JobClosed) -> Any:
        return replace(m, job=self._naming.job(m.job)) if m.job in self._naming.jobs else None

    def _buried(self, m: hm.NodeBuried) -> Any:
        return m if m.node in self._desk.tables.peers else None

    def _doomed(self, m: hm.GetDoomed) -> Any:
        client = self._desk.clients.get(m.client)
        request = self._desk.open.get((m.client, m.request))
        if client is None or request is None:
            return None
        return replace(m, client=client, request=request)

    # -------------------------------------------------------------- other nodes

    def _noticed(self, m: pm.NoticeSent) -> Any:
        """A notice for a job whose driver is here."""
        return replace(m, job=self._naming.job(m.job)) if m.job in self._naming.jobs else None

    def _brings(self, m: Any) -> Any:
        """What comes unasked and names what nobody here has heard of."""
        if isinstance(m, pm.TemplateShipped):
            self._shipped.add((m.node, m.template))
        if isinstance(m, pm.RunDelivered) and (m.node, m.template) not in self._shipped:
            return None
        return self._naming.all_foreign(m)

    def _reports(self, m: Any) -> Any:
        """The end of a run that was delivered there."""
        task = self._naming.known(m.task)
        if task is None or not self._asked(pm.RunDelivered, task, m.node):
            return None
        return replace(self._naming.all_foreign(m), attempt=self._desk.attempts[TaskID(task)])

    def _cancels(self, m: pm.RunCancelled) -> Any:
        task = self._naming.known(m.task)
        return None if task not in self._desk.tables.tasks else replace(m, task=task)

    def _answers(self, m: Any) -> Any:
        item = self._naming.known(getattr(m, "object", b"") or m.function)
        kinds = _QUESTIONS[type(m)]
        if item is None or not any(self._asked(kind, item, m.node) for kind in kinds):
            return None
        return self._naming.all_foreign(m)

    def _names(self, m: Any) -> Any:
        """About an object that the core knows."""
        item = self._naming.known(getattr(m, "object", b"") or m.function)
        if item is None or (len(item) > 16 and item not in self._desk.tables.objects):
            return None
        return self._naming.all_foreign(m)

    def _counts(self, m: pm.RefsSettled | pm.BorrowDropped | pm.CopiesFreed) -> Any:
        """About several: those that the core knows."""
        counts = getattr(m, "counts", (1,) * len(m.objects))
        pairs = []
        for old, count in zip(m.objects, counts, strict=True):
            new = self._naming.known(old)
            if new is not None and new in self._desk.tables.objects:
                pairs.append((ObjectID(new), count))
        if not pairs:
            return None
        objects = tuple(item for item, _ in pairs)
        if isinstance(m, pm.CopiesFreed):
            return replace(m, objects=objects)
        return replace(m, objects=objects, counts=tuple(count for _, count in pairs))


class OutsideHead:
    """Says to a head what nodes said that are not played."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._seqs: Counter[NodeID] = Counter()

    def say(self, item: Item) -> Said:
        """The message, as it can be told here; nothing if it cannot."""
        m = item.stimulus
        if isinstance(m, hm.NodeJoined):
            return (replace(m, link_seq=1),)
        node = self._naming.nodes.get(m.node)
        if node is None:
            return NOTHING
        new = replace(self._naming.all_foreign(m), node=node)
        if isinstance(m, hm.PeerUnreachable | hm.PeerReachable):
            peer = self._naming.nodes.get(m.peer)
            if peer is None:
                return NOTHING
            new = replace(new, peer=peer)
        self._seqs[node] += 1
        return (replace(new, link_seq=self._seqs[node]),)

    def admit(self, node: NodeID) -> None:
        """The head gave a number to one of them, whose first message has been."""
        self._seqs[node] = 1


Handler = Callable[[Outside, Any], Any]  # Any: the message type that is its key, and the new one
_FROM_HEAD: dict[type, Handler] = {
    hm.NodeAdmitted: Outside._admitted,
    hm.NodeReadmitted: Outside._as_it_is,
    hm.JobAdmitted: Outside._job,
    hm.Placed: Outside._placement,
    hm.DemandInfeasible: Outside._placement,
    hm.PlacementRefused: Outside._placement,
    hm.NodeAnnounced: Outside._as_it_is,
    hm.NodeBuried: Outside._buried,
    hm.JobOpened: Outside._opened,
    hm.JobClosed: Outside._closed,
    hm.RunsRecalled: Outside._as_it_is,
    hm.WaitsAsked: Outside._as_it_is,
    hm.GetDoomed: Outside._doomed,
}
_FROM_PEER: dict[type, Handler] = {
    pm.FunctionShipped: Outside._brings,
    pm.TemplateShipped: Outside._brings,
    pm.RunDelivered: Outside._brings,
    pm.RunCancelled: Outside._cancels,
    pm.RunDone: Outside._reports,
    pm.RunErred: Outside._reports,
    pm.RunLost: Outside._reports,
    pm.RunReturned: Outside._reports,
    pm.BorrowClaimed: Outside._names,
    pm.BorrowConfirmed: Outside._answers,
    pm.BorrowRefused: Outside._answers,
    pm.RefsSettled: Outside._counts,
    pm.BorrowDropped: Outside._counts,
    pm.ValueWanted: Outside._names,
    pm.ValueSent: Outside._answers,
    pm.ValueFound: Outside._answers,
    pm.ValueFailed: Outside._answers,
    pm.CopyMissing: Outside._names,
    pm.CopyEvicted: Outside._names,
    pm.CopyPromoted: Outside._names,
    pm.CopiesFreed: Outside._counts,
    pm.PullRequested: Outside._names,
    pm.PullRefused: Outside._answers,
    pm.FunctionWanted: Outside._names,
    pm.FunctionRefused: Outside._answers,
    pm.NoticeSent: Outside._noticed,
}
_QUESTIONS: dict[type, tuple[type, ...]] = {
    pm.BorrowConfirmed: (pm.BorrowClaimed,),
    pm.BorrowRefused: (pm.BorrowClaimed,),
    pm.ValueSent: (pm.ValueWanted, pm.CopyMissing),
    pm.ValueFound: (pm.ValueWanted, pm.CopyMissing),
    pm.ValueFailed: (pm.ValueWanted, pm.CopyMissing),
    pm.PullRefused: (pm.PullRequested,),
    pm.FunctionRefused: (pm.FunctionWanted,),
}
