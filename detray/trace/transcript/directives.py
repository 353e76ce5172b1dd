"""The directives of transcripts: each makes the stimuli that the world would bring.

Whoever acts stands in `by=`: d1 unless said otherwise. A worker acts for the run it has begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from detray.core import stimuli as st
from detray.core.payloads import template_number
from detray.core.streams import Stream
from detray.core.tables import HERE
from detray.errors import Failure
from detray.ids import (
    NO_TASK,
    ClientID,
    FunctionID,
    JobNumber,
    NodeID,
    ObjectID,
    TaskID,
    TemplateID,
    return_object,
    root_task,
)
from detray.trace.transcript.fields import untold
from detray.trace.transcript.scene import Scene
from detray.trace.transcript.script import ScriptError, Words
from detray.trace.transcript.strategies import strategy_of

Stimuli = list[st.Stimulus]
_KNOWN = {
    "by", "also", "name", "args", "refs", "size", "returns", "retries", "retry_exceptions",
    "max_calls", "cpus", "template", "strategy", "hard", "soft", "home",
}  # fmt: skip


def _actor(s: Scene, w: Words) -> tuple[ClientID, Stream]:
    """Who acts, and the stream that names what it creates."""
    client = s.cast.client(w.text("by", "d1"))
    return client, _stream(s, client)


def _stream(s: Scene, client: ClientID) -> Stream:
    if client > 0:
        task, attempt, depth = s.front(client)
        return s.cast.stream(task, attempt, depth + 1)
    return s.cast.stream(root_task(s.tables.clients[client].job), 0, 1)


def _one(w: Words) -> str:
    if len(w.names) != 1:
        raise ScriptError(f"{w.verb} takes one name")
    return w.names[0]


# ------------------------------------------------------------------ what programs do


def _export(s: Scene, w: Words) -> Stimuli:
    client, stream = _actor(s, w)
    function = s.cast.new_function(_one(w), stream)
    refs = s.cast.all_objects(w.list("refs"))
    return [st.FunctionExported(client, function, w.names[0], w.number("size", 10), refs)]


def _submit(s: Scene, w: Words) -> Stimuli:
    client, stream = _actor(s, w)
    packed = w.flag("packed")
    out: Stimuli = []
    name = w.text("name", "f")
    if name not in s.cast.functions:
        function = s.cast.new_function(name, stream)
        out.append(st.FunctionExported(client, function, name, 10))
    returns = w.number("returns", 1)
    template = TemplateID(w.number("template"))
    if not template:
        template = _template(s, w, client, s.cast.functions[name], out)
    args, refs = s.cast.all_objects(w.list("args")), s.cast.all_objects(w.list("refs"))
    task = s.cast.new_task(_one(w), stream, returns)
    size = w.number("size")
    items = [s.cast.objects[f"{w.names[0]}.{i}" if i else w.names[0]] for i in range(returns)]
    s.received(client, tuple(items))
    parent, depth = stream.parent, stream.depth
    out.append(st.TaskSubmitted(client, task, template, parent, depth, size, args, refs, packed))
    return out


def _template(
    s: Scene, w: Words, client: ClientID, function: FunctionID, out: Stimuli
) -> TemplateID:
    """The client's template of these options, defined at its first use."""
    demand = {"CPU": float(w.text("cpus", "1"))}
    demand |= {key: float(w.text(key)) for key in w.options if key not in _KNOWN}
    amounts = tuple(sorted((key, int(n * 10_000)) for key, n in demand.items() if n))
    name, returns = w.text("name", "f"), w.number("returns", 1)
    retries, retry_app = w.number("retries"), bool(w.text("retry_exceptions"))
    max_calls = w.number("max_calls")
    strategy = strategy_of(s.cast, w)
    key = (client, function, returns, amounts, retries, retry_app, max_calls, strategy)
    if key not in s.seat.templates:
        s.seat.templates[key] = sum(known[0] == client for known in s.seat.templates)
        template = TemplateID(s.seat.templates[key])
        s.cast.note_template(template_number(client, template), name)
        exceptions = 3 if w.text("retry_exceptions") == "some" else 0
        out.append(
            st.TemplateDefined(
                client, template, function, name, returns, amounts, retries, retry_app, max_calls,
                exceptions, strategy, s.node_number(w.text("home")) if w.text("home") else HERE,
            )
        )  # fmt: skip
    return TemplateID(s.seat.templates[key])


def _put(s: Scene, w: Words) -> Stimuli:
    client, stream = _actor(s, w)
    again = w.flag("again")
    item = s.cast.object(_one(w)) if again else s.cast.new_put(_one(w), stream)
    if not again:
        s.received(client, (item,))
    return [st.ObjectPut(client, item, w.number("size", 10), s.cast.all_objects(w.list("refs")))]


def _block(s: Scene, w: Words) -> Stimuli:
    client, stream = _actor(s, w)
    name = _one(w)
    is_known = name in s.cast.objects or s.cast.is_return(name)
    item = s.cast.object(name) if is_known else s.cast.new_put(name, stream)
    return [st.BlockRequested(client, item, w.number("size"))]


def _seal(s: Scene, w: Words) -> Stimuli:
    client, item = s.cast.client(w.text("by", "d1")), s.cast.object(_one(w))
    s.received(client, (item,))
    return [st.BlockSealed(client, item, s.cast.all_objects(w.list("refs")))]


def _abandon(s: Scene, w: Words) -> Stimuli:
    return [st.BlockAbandoned(s.cast.client(w.text("by", "d1")), s.cast.object(_one(w)))]


def _get(s: Scene, w: Words) -> Stimuli:
    """`get x y` fetches all; `wait x y num=1` asks which are ready; `also=z` reads ahead."""
    client = s.cast.client(w.text("by", "d1"))
    aside = w.flag("aside")  # on another thread than the executing one: blocks nobody
    is_get = w.verb == "get"
    items = s.cast.all_objects(w.names)
    blocks = NO_TASK if client < 0 or aside else s.front(client)[0]
    needed = w.number("num", len(items) if is_get else 1)
    timeout = w.number("timeout", -1)
    s.requests[client] += 1
    request = s.requests[client]
    also = s.cast.all_objects(w.list("also"))
    return [st.GetRequested(client, request, items, needed, is_get, is_get, timeout, blocks, also)]


def _forget(s: Scene, w: Words) -> Stimuli:
    return [st.GetAbandoned(s.cast.client(w.text("by", "d1")), int(_one(w).removeprefix("r")))]


def _drop(s: Scene, w: Words) -> Stimuli:
    client, items = s.cast.client(w.text("by", "d1")), s.cast.all_objects(w.names)
    return [st.RefsDropped(client, items, s.count(w, s.grants, client, items))]


def _views(s: Scene, w: Words) -> Stimuli:
    client, items = s.cast.client(w.text("by", "d1")), s.cast.all_objects(w.names)
    return [st.ViewsDropped(client, items, s.count(w, s.pins, client, items))]


def _cancel(s: Scene, w: Words) -> Stimuli:
    force, recursive = w.flag("force"), w.flag("recursive")
    client = s.cast.client(w.text("by", "d1"))
    return [st.CancelRequested(client, s.cast.object(_one(w)), force, recursive)]


def _pin(s: Scene, w: Words) -> Stimuli:
    client = s.cast.client(w.text("by", "d1"))
    s.requests[client] += 1
    return [st.RefPinned(client, s.cast.object(_one(w)), s.requests[client])]


def _claim(s: Scene, w: Words) -> Stimuli:
    client, item = s.cast.client(w.text("by", "d1")), s.cast.object(_one(w))
    s.received(client, (item,))
    owner = w.text("owner")
    return [st.RefClaimed(client, item, s.node_number(owner) if owner else NodeID(-1))]


def _status(s: Scene, w: Words) -> Stimuli:
    client = s.cast.client(w.text("by", "d1"))
    s.requests[client] += 1
    limit = w.number("limit", 1000)
    return [st.StatusRequested(client, s.requests[client], _one(w), limit)]


# ------------------------------------------------------------------ what workers report


def _run_of(s: Scene, w: Words) -> tuple[ClientID, TaskID, int]:
    """The run that was sent last, or the one that `on=` and `attempt=` name."""
    task = s.cast.task(_one(w))
    sent = s.seat.sent[task]
    client = s.cast.client(w.text("on", f"w{sent.client}"))
    return client, task, w.number("attempt", sent.attempt)


def _finish(s: Scene, w: Words) -> Stimuli:
    """`finish a sizes=5,block:600000 refs=x took=5us`"""
    client, task, attempt = _run_of(s, w)
    refs = s.cast.all_objects(w.list("refs"))
    returns = []
    for size in w.list("sizes") or ["5"]:
        in_block = size.startswith("block:")
        returns.append(st.Return(int(size.removeprefix("block:")), in_block, refs))
    if w.text("sizes") == "none":
        returns = []
    took = w.number("took", 5_000)
    return [st.RunFinished(client, task, attempt, 0, took, tuple(returns))]


def _fail(s: Scene, w: Words) -> Stimuli:
    """`fail a retryable kind=APPLICATION text=... size=7`"""
    retryable = w.flag("retryable")
    client, task, attempt = _run_of(s, w)
    kind = Failure[w.text("kind", "APPLICATION")]
    refs = s.cast.all_objects(w.list("refs"))
    text, size, took = (
        w.text("text", "ValueError: no"),
        w.number("size", 7),
        w.number("took", 5_000),
    )
    return [st.RunFailed(client, task, attempt, 0, took, kind, retryable, text, size, refs)]


# ------------------------------------------------------------------ what a driver of cores sees


def _driver(s: Scene, w: Words) -> Stimuli:
    client = s.cast.name_client(_one(w))
    return [st.DriverConnected(client, 100 - client, "", f"{w.names[0]}.py")]


def _observer(s: Scene, w: Words) -> Stimuli:
    client = s.cast.name_client(_one(w))
    return [st.ObserverConnected(client, 100 - client)]


def _ready(s: Scene, w: Words) -> Stimuli:
    clients = [s.cast.client(name) for name in w.names]
    return [st.WorkerReady(client, 1_000 + client) for client in clients]


def _lost(s: Scene, w: Words) -> Stimuli:
    expected = w.flag("expected")
    reason = w.text("reason", "left as told" if expected else "was killed by signal 9 (SIGKILL)")
    return [st.WorkerLost(s.cast.client(_one(w)), w.number("unclaimed"), expected, reason)]


def _retracted(s: Scene, w: Words) -> Stimuli:
    name, count = w.names
    return [st.RunsRetracted(s.cast.client(name), int(count))]


def _start_failed(s: Scene, w: Words) -> Stimuli:
    reason = w.text("reason", "Resource temporarily unavailable")
    return [st.WorkerStartFailed(s.cast.client(_one(w)), reason)]


def _client_lost(s: Scene, w: Words) -> Stimuli:
    return [st.ClientLost(s.cast.client(_one(w)), w.text("reason", "end of file"))]


def _process_gone(s: Scene, w: Words) -> Stimuli:
    return [st.ProcessGone(s.cast.client(name)) for name in w.names]


def _moved(s: Scene, w: Words) -> Stimuli:
    move = s.seat.moves[s.cast.object(_one(w))]
    return [st.ObjectMoved(move.object, move.to_segment, move.to_offset)]


def _move_failed(s: Scene, w: Words) -> Stimuli:
    move = s.seat.moves[s.cast.object(_one(w))]
    reason = w.text("reason", "Input/output error")
    return [st.ObjectMoveFailed(move.object, move.to_segment, move.to_offset, reason)]


def _segment_opened(s: Scene, w: Words) -> Stimuli:
    return [st.SegmentOpened(int(_one(w)))]


def _segment_failed(s: Scene, w: Words) -> Stimuli:
    reason = w.text("reason", "No space left on device")
    return [st.SegmentFailed(int(_one(w)), reason, w.number("free", 123))]


# ------------------------------------------------------------------ other nodes


def _started(s: Scene, w: Words) -> Stimuli:
    return [st.NodeStarted()]


def _stopping(s: Scene, w: Words) -> Stimuli:
    return [st.NodeStopping(w.text("reason", "it was told to end"))]


def _fenced(s: Scene, w: Words) -> Stimuli:
    return [st.Fenced(w.text("reason", "it was buried"))]


def _head_restarted(s: Scene, w: Words) -> Stimuli:
    """`a: head-restarted 1`: whoever is at the end of a's link to the head says this epoch."""
    return [st.HeadRestarted(int(_one(w)))]


def _silence(s: Scene, w: Words) -> Stimuli:
    """`a: silent b`, `a: heard b`: nothing comes through, or again."""
    kind = st.PeerSilent if w.verb == "silent" else st.PeerHeard
    return [kind(s.node_number(_one(w)))]


def _corrupted(s: Scene, w: Words) -> Stimuli:
    return [st.ObjectCorrupted(s.cast.object(_one(w)))]


# ------------------------------------------------------------------ anything


class _Meanings:
    """What the names of a `told` directive mean; new ones are minted by who says it."""

    def __init__(self, s: Scene, w: Words) -> None:
        self._scene = s
        self._kind = w.names[0] if w.names else ""
        self._client = w.text("client")

    def task(self, name: str) -> TaskID:
        """A task; one that is submitted is new."""
        cast = self._scene.cast
        if name == "none":
            return NO_TASK
        if name.partition("@")[0] == "root":
            return root_task(JobNumber(int(name.partition("@")[2] or "1")))
        if name in cast.tasks:
            return cast.tasks[name]
        if self._kind == "TaskSubmitted":
            return cast.new_task(name, self._stream(), 1)
        return cast.foreign_task(name)

    def object(self, name: str) -> ObjectID:
        """An object; one that is put is new."""
        cast = self._scene.cast
        if name in cast.objects or name == "unknown":
            return cast.object(name)
        if self._kind in ("ObjectPut", "BlockRequested") and not cast.is_return(name):
            return cast.new_put(name, self._stream())
        return cast.foreign_object(name)

    def function(self, name: str) -> FunctionID:
        """A function; one that is exported is new."""
        cast = self._scene.cast
        if name in cast.functions:
            return cast.functions[name]
        if self._kind == "FunctionExported":
            return cast.new_function(name, self._stream())
        return cast.foreign_function(name)

    def client(self, name: str) -> ClientID:
        """w1, d1, o2."""
        return self._scene.cast.client(name)

    def node(self, name: str) -> NodeID:
        """A node by name or number."""
        try:
            return NodeID(int(name))
        except ValueError:
            return self._scene.node_number(name)

    def _stream(self) -> Stream:
        return _stream(self._scene, self.client(self._client))


def _told(s: Scene, w: Words) -> Stimuli:
    """`told Placed task=a node=1`: any stimulus, by its fields (`fields.py`)."""
    stimulus = untold(w, _Meanings(s, w), s.link_seq)
    match stimulus:
        case st.TaskSubmitted():
            returns = (return_object(stimulus.task, index) for index in range(_RETURNS_MAX))
            known = tuple(item for item in returns if s.cast.knows(item))
            s.received(stimulus.client, known)
        case st.ObjectPut() | st.BlockSealed() | st.RefClaimed():
            s.received(stimulus.client, (stimulus.object,))
        case st.GetRequested() | st.StatusRequested() | st.RefPinned():
            s.requests[stimulus.client] = max(s.requests[stimulus.client], stimulus.request)
        case st.RefsDropped() | st.ViewsDropped():
            books = s.grants if isinstance(stimulus, st.RefsDropped) else s.pins
            given = dict(zip(stimulus.objects, stimulus.counts, strict=True))
            books.setdefault(stimulus.client, Counter()).subtract(given)
        case _:
            pass
    return [stimulus]


_RETURNS_MAX = 8

DIRECTIVES: dict[str, Callable[[Scene, Words], Stimuli]] = {
    "export": _export, "submit": _submit, "put": _put, "block": _block, "seal": _seal,
    "abandon": _abandon, "get": _get, "wait": _get, "forget": _forget, "drop": _drop,
    "views": _views, "cancel": _cancel, "pin": _pin, "claim": _claim, "status": _status,
    "finish": _finish, "fail": _fail, "driver": _driver, "observer": _observer, "ready": _ready,
    "lost": _lost, "retracted": _retracted, "start-failed": _start_failed,
    "client-lost": _client_lost, "process-gone": _process_gone, "moved": _moved,
    "move-failed": _move_failed, "segment-opened": _segment_opened,
    "segment-failed": _segment_failed, "started": _started, "stopping": _stopping,
    "fenced": _fenced, "head-restarted": _head_restarted, "silent": _silence,
    "heard": _silence, "corrupted": _corrupted, "told": _told,
}  # fmt: skip
