"""Gets and waits: registered at the objects they miss, answered once, blocking runs or not.

Rules (PROTOCOL N10, D 34)
--------------------------
- Whatever can be answered in the same step is answered at once and blocks nobody.
- A get on a run's executing thread blocks the run: it gives back CPU and process slot, and the runs
  pre-sent to its worker are taken back. When its objects are there it stands before all ready tasks
  for its CPU; the answer is sent when it has one.
- A timeout and an abandoned wait go on at once and may overcommit the CPU: a timeout is a promise
  about time.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from detray.core import objects, resources
from detray.core.effects import INLINE, FailRequest, GetAnswered, Place, RetractRuns
from detray.core.pulls import GET, WAIT
from detray.core.states import PENDING, Elsewhere, Failed, Inline
from detray.core.step import Step
from detray.core.stimuli import GetAbandoned, GetRequested
from detray.core.tables import Get, GetKey, Object, Shared, Worker
from detray.core.values import want
from detray.errors import Failure
from detray.ids import ClientID, ObjectID

READ_AHEAD_MAX = 256
"""A request may name more to come along; these are looked at."""


def on_get_requested(s: Step, m: GetRequested) -> None:
    """Answer at once, or register at every object that is missing."""
    rows = s.t.objects
    available = 0
    failed = False
    missing = []
    for item in m.objects:
        row = rows.get(item)
        if row is not None and (
            row.state is PENDING or (row.shared is not None and _is_missing(row, m.fetch))
        ):
            missing.append(row)
        else:
            available += 1
            failed = failed or row is None or type(row.state) is Failed or objects.is_orphan(row)
    needed = min(m.needed, len(m.objects))
    get = Get(
        m.client, m.request, s.next_number(), m.objects, needed, needed - available,
        m.fail_fast, m.fetch, -1, ClientID(0), failed, m.also[:READ_AHEAD_MAX],
    )  # fmt: skip
    if get.remaining <= 0 or (failed and m.fail_fast):
        _answer(s, get, timed_out=False)
        return
    if m.timeout_ns == 0:
        _answer(s, get, timed_out=True)
        return
    gets = s.t.clients[m.client].gets
    if m.request in gets or m.request < 1:
        reason = "requests are numbered from 1, each once"
        s.out.append(FailRequest(m.client, f"GetRequested {m.request}", reason))
        return
    key = (m.client, m.request)
    shared = (key,)
    for row in missing:
        row.getters = row.getters + shared if row.getters else shared
    gets[m.request] = get
    if m.fetch:
        _keep_here(s, get)
    for row in missing:
        if row.shared is not None:
            want(s, row, local=m.fetch, priority=GET if m.fetch else WAIT)
    if m.timeout_ns > 0:
        get.deadline_ns = s.t.now_ns + m.timeout_ns
        heappush(s.t.timers, (get.deadline_ns, get.number, m.client, m.request))
        _compact_timers(s)
    if m.blocks:
        _block(s, get, m)


def _keep_here(s: Step, get: Get) -> None:
    """What other nodes have as well must not be evicted while the rest is on its way."""
    rows = s.t.objects
    for item in get.objects:
        row = rows.get(item)
        if row is not None and row.shared is not None and not objects.is_absent(row, local=True):
            _count(row, row.shared, get)


def _count(row: Object, shared: Shared, get: Get) -> None:
    if row.id not in get.counted:
        shared.needed += 1
        get.counted += (row.id,)


def _is_missing(row: Object, local: bool) -> bool:
    """True if the request must wait for the object: dead owners' objects are answered at once."""
    return objects.is_absent(row, local=local) and not objects.is_orphan(row)


def _block(s: Step, get: Get, m: GetRequested) -> None:
    """The run's executing thread stands still: give back its CPU and what waits behind it."""
    worker = s.t.workers.get(m.client)
    if worker is None or not worker.runs or worker.runs[0].task != m.blocks or worker.blocked:
        return
    get.worker = worker.id
    worker.blocked = m.request
    s.t.blocked_count += 1
    resources.release_cpu(s.t.pool, s.t.shapes[worker.shape].amounts)
    if len(worker.runs) > 1:
        retract(s, worker, len(worker.runs) - 1)


def retract(s: Step, worker: Worker, count: int) -> None:
    """Ask the kernel's arbiter for up to `count` runs back."""
    if not worker.retracting and not s.t.config.policy.retraction_off:
        worker.retracting = True
        s.out.append(RetractRuns(worker.id, count))


def wake_getters(s: Step, row: Object) -> None:
    """An object became available: tell the gets that wait for it."""
    getters = row.getters
    row.getters = ()
    failed = type(row.state) is Failed or objects.is_orphan(row)
    elsewhere = type(row.state) is Elsewhere
    clients = s.t.clients
    for client, request in getters:
        get = clients[client].gets.get(request)
        if get is None:
            continue
        if elsewhere and get.fetch and not failed:
            row.getters += ((client, request),)
            want(s, row, local=True, priority=GET)
            continue
        get.remaining = remaining = get.remaining - 1
        if row.shared is not None and get.fetch:
            _count(row, row.shared, get)
        if failed:
            get.failed = True
        if remaining <= 0 or (failed and get.fail_fast):
            complete(s, get)


def complete(s: Step, get: Get) -> None:
    """The get can be answered: now, or when its blocked run has its CPU back."""
    if s.t.peers and not _is_still_there(s, get):
        return
    if get.worker:
        key = (get.client, get.request)
        if key not in s.t.resuming:
            s.t.resuming.append(key)
        return
    _finish(s, get, timed_out=False)


def _is_still_there(s: Step, get: Get) -> bool:
    """Look again: a value that came early may be lost since. If so the get waits for it anew."""
    missing = []
    failed = False
    for item in get.objects:
        row = s.t.objects.get(item)
        if row is None:
            failed = True
        elif _is_missing(row, get.fetch):
            missing.append(row)
        else:
            failed = failed or type(row.state) is Failed or objects.is_orphan(row)
    get.failed = failed
    get.remaining = get.needed - (len(get.objects) - len(missing))
    if is_satisfied(get):
        return True
    key = (get.client, get.request)
    for row in missing:
        if key not in row.getters:
            row.getters += (key,)
            want(s, row, local=get.fetch, priority=GET if get.fetch else WAIT)
    return False


def resume_blocked(s: Step) -> None:
    """Let answered runs go on, oldest first, while there is CPU for them."""
    t = s.t
    while t.resuming:
        client, request = t.resuming[0]
        if t.peers and not _is_still_there(s, t.clients[client].gets[request]):
            del t.resuming[0]
            continue
        worker = t.workers[client]
        amounts = t.shapes[worker.shape].amounts
        if not resources.has_cpu(t.pool, amounts):
            return
        del t.resuming[0]
        unblock(s, worker)
        _finish(s, t.clients[client].gets[request], timed_out=False)


def unblock(s: Step, worker: Worker) -> None:
    """The worker's run goes on with its CPU, overcommitted if need be."""
    worker.blocked = 0
    worker.progress_ns = s.t.now_ns
    s.t.blocked_count -= 1
    resources.retake_cpu(s.t.pool, s.t.shapes[worker.shape].amounts)


def on_get_abandoned(s: Step, m: GetAbandoned) -> None:
    """The client goes on without an answer."""
    get = s.t.clients[m.client].gets.get(m.request)
    if get is None:
        s.count("stale")
        return
    leave(s, get)
    _unblock_at_once(s, get)


def expire_gets(s: Step) -> None:
    """Answer the gets whose time has run out."""
    timers = s.t.timers
    while timers and timers[0][0] <= s.t.now_ns:
        _, number, client, request = heappop(timers)
        row = s.t.clients.get(client)
        get = row.gets.get(request) if row else None
        if get is None or get.number != number:
            continue
        _unblock_at_once(s, get)
        _finish(s, get, timed_out=not is_satisfied(get))


def _unblock_at_once(s: Step, get: Get) -> None:
    if get.worker:
        key = (get.client, get.request)
        if key in s.t.resuming:
            s.t.resuming.remove(key)
        unblock(s, s.t.workers[get.worker])


def is_satisfied(get: Get) -> bool:
    """True if nothing but CPU is missing."""
    return get.remaining <= 0 or (get.failed and get.fail_fast)


def fail_get(s: Step, get: Get, failure: Failure, text: str) -> None:
    """Answer a blocked get with a failure of its own (a deadlock)."""
    _unblock_at_once(s, get)
    leave(s, get)
    place = Place(get.objects[0], failure, 0, text=text)
    s.out.append(GetAnswered(get.client, get.request, False, False, (place,)))


def _finish(s: Step, get: Get, *, timed_out: bool) -> None:
    leave(s, get)
    _answer(s, get, timed_out=timed_out)


def leave(s: Step, get: Get) -> None:
    """Take the get out of all tables."""
    key: GetKey = (get.client, get.request)
    for item in get.objects if get.remaining > 0 or get.failed or not get.fail_fast else ():
        row = s.t.objects.get(item)
        if row is not None and row.getters:
            row.getters = tuple(other for other in row.getters if other != key)
            if row.shared is not None:
                s.suspects.append(item)
    for item in get.counted:
        row = s.t.objects.get(item)
        if row is not None and row.shared is not None:
            row.shared.needed -= 1
    get.counted = ()
    s.t.clients[get.client].gets.pop(get.request, None)


def _answer(s: Step, get: Get, *, timed_out: bool) -> None:
    """Tell the client what is there; a get that failed hears of its first failure only."""
    places = []
    payload = 0
    limit = s.t.config.policy.answer_bytes_max
    rows, client, fetch = s.t.objects, get.client, get.fetch
    for item in _worth_telling(s, get, timed_out=timed_out):
        row = rows.get(item)
        if fetch and row is not None and type(row.state) is Inline and not (row.refs or row.shared):
            place = Place(item, 0, row.state.size_bytes)  # what place_of says; most are so
        else:
            place = objects.place_of(s, item, client, fetch=fetch)
        places.append(place)
        if place.segment == INLINE:
            payload += place.size_bytes
            if payload > limit:
                s.out.append(GetAnswered(get.client, get.request, timed_out, True, tuple(places)))
                places, payload = [], 0
    also = _read_ahead(s, get, limit - payload) if get.also else ()
    s.out.append(GetAnswered(get.client, get.request, timed_out, False, tuple(places), also))


def _read_ahead(s: Step, get: Get, room_bytes: int) -> tuple[Place, ...]:
    """Small values that the client will probably ask for next, as far as they are there."""
    places = []
    for item in get.also:
        row = s.t.objects.get(item)
        if row is not None and type(row.state) is Inline and not row.refs:
            size_bytes = row.state.size_bytes
            room_bytes -= size_bytes
            if room_bytes < 0:
                break
            places.append(Place(item, 0, size_bytes))
    return tuple(places)


def _worth_telling(s: Step, get: Get, *, timed_out: bool) -> list[ObjectID] | tuple[ObjectID, ...]:
    rows = s.t.objects
    if get.fail_fast:
        if get.failed:
            return [_first_failed(s, get)]
        if timed_out:
            return ()
        if get.needed == len(get.objects):
            return get.objects
    ready = []
    for item in get.objects:
        row = rows.get(item)
        if row is None or not _is_missing(row, get.fetch):
            ready.append(item)
            if get.fetch and len(ready) == get.needed:
                break
    return ready


def _first_failed(s: Step, get: Get) -> ObjectID:
    for item in get.objects:
        row = s.t.objects.get(item)
        if row is None or type(row.state) is Failed or objects.is_orphan(row):
            return item
    raise AssertionError("a get failed without a failed object")


def _compact_timers(s: Step) -> None:
    """Forget timers of gets that were answered, when they are most of the heap."""
    timers = s.t.timers
    if len(timers) < 1024 or len(timers) & 1023:
        return
    clients = s.t.clients

    def is_live(timer: tuple[int, int, ClientID, int]) -> bool:
        row = clients.get(timer[2])
        get = row.gets.get(timer[3]) if row else None
        return get is not None and get.number == timer[1]

    timers[:] = [timer for timer in timers if is_live(timer)]
    heapify(timers)
