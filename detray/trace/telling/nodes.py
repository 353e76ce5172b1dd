"""Which messages belong to the life of a node, or of the head.

Not what its tasks and objects do: they have stories of their own. A node's life is how it joined,
its workers and programs, whom it cannot reach, which heads it knew, and its end.
"""

from __future__ import annotations

from typing import Any

from detray.core import effects as ef
from detray.core import head_messages as hm
from detray.core import stimuli as st
from detray.core.durable import Admitted, Buried
from detray.ids import NodeID

OF_NODE: frozenset[type] = frozenset(
    (
        st.NodeStarted, st.NodeStopping, st.HeadRestarted, st.Fenced, st.PeerSilent, st.PeerHeard,
        st.DriverConnected, st.ClientLost, st.WorkerReady, st.WorkerStartFailed, st.WorkerLost,
        st.SegmentFailed, st.ObjectMoveFailed, st.ObjectCorrupted, st.ObjectArrivalFailed,
        hm.NodeAdmitted, hm.NodeReadmitted, hm.NodeAnnounced, hm.NodeBuried, hm.JobAdmitted,
        hm.GetDoomed, hm.RunsRecalled,
        ef.StartWorker, ef.KillWorker, ef.ExitWorker, ef.Notify, ef.DumpRecorder, ef.StopNode,
        ef.LeaveCluster,
    )
)  # fmt: skip
"""Told of the node whose core is told, or says, such a thing."""
TO_HEAD: frozenset[type] = frozenset(
    (
        hm.NodeJoined, hm.NodeReturned, hm.NodeLeft, hm.JobRequested, hm.JobEnded,
        hm.PeerUnreachable, hm.PeerReachable, hm.StallNoticed,
    )
)  # fmt: skip
"""Told of a node that sends such a thing, and of the head that gets it."""
FROM_HEAD: frozenset[type] = frozenset(
    (
        hm.NodeAdmitted, hm.NodeReadmitted, hm.NodeBuried, hm.JobAdmitted, hm.JobClosed,
        hm.GetDoomed, hm.RunsRecalled,
    )
)  # fmt: skip
"""Told of the head that sends such a thing; that it announces each to each goes without saying."""
_BY_OTHERS: frozenset[type] = frozenset((st.PeerSilent, st.PeerHeard, hm.NodeBuried))
"""Told of the node that it names, whoever is told."""


def is_of_node(message: Any, node: NodeID, is_own: bool) -> bool:  # Any: a stimulus or an effect
    """True if it belongs to the life of that node (-1: of the head).

    `is_own`: the step is one of its own core.
    """
    kind = type(message)
    if is_own and node < 0:
        return _is_of_head(message)
    if is_own:
        return kind in OF_NODE or (kind is ef.SendToHead and type(message.message) in TO_HEAD)
    if node < 0:
        return False
    if kind is ef.Persist:
        return any(
            isinstance(event, Admitted | Buried) and event.node == node for event in message.events
        )
    return kind in _BY_OTHERS and message.node == node


def _is_of_head(message: Any) -> bool:  # Any: a stimulus or an effect of a head
    kind = type(message)
    if kind is ef.SendToNode:
        return type(message.message) in FROM_HEAD
    return kind in TO_HEAD or kind is ef.Persist
