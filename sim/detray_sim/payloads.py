"""What programs said in a simulated run, beside its trace: for `detray rerun`.

Theory of operation
-------------------
Each node has the recorder that a real service has, and it is told what arrives there. It keeps all
of it in memory, as the cluster keeps its steps. When the run is over the recordings are brought
together, as `detray trace collect` does it with those of a real cluster.

- A function is exported under a new id by each simulated process and for each set of options. In
  the file it has the one id that pickled code names it by, and its definition.
- Failures that only the simulator makes up have no pickled error: then the message announces none.
- A seed gives lives the same names whatever was run. With payloads they are named after what was
  kept: a file that another program left beside the trace does not belong to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from detray import __version__
from detray.core.payloads import INCOMING
from detray.core.peer_messages import FunctionShipped, RunErred, TemplateShipped, ValueFailed
from detray.core.stimuli import FunctionExported, RunFailed, TemplateDefined
from detray.ids import ClientID, FunctionID, ObjectID
from detray.trace.payloads.collecting import collect_payloads
from detray.trace.payloads.format import PayloadHeader, PayloadProcess, payloads_path
from detray.trace.payloads.reading import Payloads
from detray.trace.payloads.recorder import FindBlock, PayloadRecorder
from detray_sim.behaviour import Remote
from detray_sim.cluster import SimCluster
from detray_sim.node import SimNode
from detray_sim.traces import life_of, trace_header
from detray_sim.values import Blob, Value, real_bytes

_FUNCTIONS = (FunctionExported, FunctionShipped)
_TEMPLATES = (TemplateDefined, TemplateShipped)
_PRETENDED = (*_FUNCTIONS, RunFailed, RunErred, ValueFailed)
"""What may come with a payload that has a size and no bytes."""
_encode = msgspec.msgpack.Encoder().encode


class SimPayloads:
    """The payload recorders of a cluster's nodes; its `take` is a cluster's `tap`."""

    def __init__(self, cluster: SimCluster, process: PayloadProcess) -> None:
        """`process` is what all nodes have in common: the session, the program's surroundings."""
        self._cluster = cluster
        self._process = process
        self._recorders: dict[int, PayloadRecorder] = {}
        self._names: dict[tuple[int, FunctionID], FunctionID] = {}
        """By node and id there: the id that code has for a function."""
        self._kept = blake2b(digest_size=16)

    def take(self, node: SimNode, messages: Sequence[Any], values: Sequence[Value]) -> None:
        """Record what arrived at a node, before its core hears of it. (Any: of all kinds.)"""
        rest = iter(values)
        told: list[Any] = []
        payload: list[bytes] = []
        for message in messages:
            keys_of = INCOMING.get(type(message))
            parts = [next(rest) for _ in keys_of(message)] if keys_of is not None else []
            real, data = self._as_real(node.number, message, parts)
            told.append(real)
            payload += data
        meta, whole = _encode(told), b"".join(payload)
        self._kept.update(meta)
        self._kept.update(whole)
        self._recorder(node).take(meta, told, whole)

    def write(self, trace_path: str) -> None:
        """Write all that was kept beside a trace that is about to be written.

        Raises OSError; then the file is not there, or as it was.
        """
        cluster = self._cluster
        cluster.kept = self._kept.digest()
        files: list[Payloads] = []
        for node in [server for server in cluster.cores if isinstance(server, SimNode)]:
            recorder = self._recorder(node)
            recorder.header = self._header(life_of(cluster, node.number))
            data = b"".join(recorder.freeze("the simulation ended").pieces())
            files.append(Payloads(data, f"the payloads of {node!r}"))
            del self._recorders[node.number]  # It is in memory once only.
        collect_payloads(files, trace_header(cluster), payloads_path(trace_path))

    def _header(self, life: str) -> PayloadHeader:
        process = msgspec.structs.replace(self._process, life=life)
        return PayloadHeader(detray_version=__version__, processes=(process,))

    def _recorder(self, node: SimNode) -> PayloadRecorder:
        found = self._recorders.get(node.number)
        if found is None:
            found = self._recorders[node.number] = PayloadRecorder(
                self._header(""), _finder(node), ring_bytes=sys.maxsize
            )
        return found

    # Any: messages of all kinds.
    def _as_real(self, core: int, message: Any, values: list[Value]) -> tuple[Any, list[bytes]]:
        """A message as a real client or node would say it, and its payload."""
        kind = type(message)
        parts = [real_bytes(value) for value in values]
        if kind in _FUNCTIONS:
            name, definition = _definition(values[0])
            self._names[core, message.function] = name
            message, parts = msgspec.structs.replace(message, function=name), [definition]
        elif kind in _TEMPLATES:
            name = self._names[core, message.function]
            message = msgspec.structs.replace(message, function=name)
        if kind in _PRETENDED:
            message = msgspec.structs.replace(message, size_bytes=sum(map(len, parts)))
        return message, parts


def _definition(value: Value) -> tuple[FunctionID, bytes]:
    remote = value.token if type(value) is Blob else None
    assert type(remote) is Remote and remote.pickled, f"{value!r} is no function of a program"
    return remote.pickled


def _finder(node: SimNode) -> FindBlock:
    """As a service looks at the block that a client has just filled."""

    def find(client: ClientID, item: ObjectID) -> memoryview | None:
        writer = node.core.tables.clients.get(client)
        block = writer.blocks.get(item) if writer is not None else None
        if block is None or block.segment < 0:
            return None
        value = node.memory.read(block.segment, block.offset, item).value
        return memoryview(real_bytes(value)) or None

    return find
