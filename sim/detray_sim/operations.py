"""Operations: what each that a body yields does with its process's books.

Each function performs one kind and returns what is sent into the body, or SUSPENDED if that comes
later (then it has seen to it that `SimProcess.advance` is called). It may raise a BodyError, which
is raised in the body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from detray.core import stimuli as st
from detray.core.effects import ConfirmPin, GrantBlock, RefuseBlock
from detray.core.tickets import Ticket
from detray.ids import NodeID, ObjectID, TemplateID
from detray_sim import behaviour as do
from detray_sim.values import Blob, Cell, Value

if TYPE_CHECKING:
    from detray_sim.process import Play, SimProcess

SUSPENDED = object()
"""What an operation returns whose result comes later."""


def _on_compute(process: SimProcess, play: Play, op: do.Compute) -> object:
    if process.books.has_something:
        process.flush_later()
    return process.wait_ns(play, process.host.cpu_ns(op.ns) + process.take_debt(), None)


def _on_sleep(process: SimProcess, play: Play, op: do.Sleep) -> object:
    if process.books.has_something:
        process.flush_later()
    return process.wait_ns(play, op.ns + process.take_debt(), None)


def _on_submit(process: SimProcess, play: Play, op: do.Submit) -> Any:
    remote = op.remote
    entry = process.remotes.get(id(remote))
    template = entry[1] if entry is not None else _export(process, play, remote)
    size = op.size_bytes
    if size > process.inline_bytes_max:
        return _submit_packed(process, play, op, template)
    stream = play.stream or play.naming()
    blob: Value = Blob(size, op.token) if size else b""
    items = process.books.submit(
        stream,
        template,
        remote.num_returns,
        blob,  # type: ignore[arg-type]  # the books keep a Blob as they keep bytes
        op.args,
        op.refs,
        digest=process.mark(blob),
    )
    process.books.references.created.extend(items)
    uses = play.uses
    for item in items:
        uses[item] = 1
    return process.spend(play, items)


def _submit_packed(process: SimProcess, play: Play, op: do.Submit, template: TemplateID) -> object:
    """Arguments too large to travel inline: put them, submit, let go of them."""

    def submit(item: ObjectID) -> list[ObjectID]:
        args = (item, *op.args)
        items = process.books.submit(
            play.naming(), template, op.remote.num_returns, b"", args, op.refs, packed=True
        )
        process.books.references.created.extend(items)
        for each in items:
            play.uses[each] = 1
        _let(process, play, (item,))
        return items

    return _store(process, play, Blob(op.size_bytes, op.token), op.refs, submit)


def _export(process: SimProcess, play: Play, remote: do.Remote) -> TemplateID:
    """Define a function and its template, as a process does before it first submits it."""
    client, books = process.client, process.books
    function = play.naming().next_export()
    definition = Blob(remote.definition_bytes, remote)
    books.send(
        st.FunctionExported(
            client, function, remote.name, len(definition), remote.refs, remote.digest
        ),
        definition,  # type: ignore[arg-type]  # the books keep a Blob as they keep bytes
    )
    template = books.next_template()
    books.send(
        st.TemplateDefined(
            client,
            template,
            function,
            remote.name,
            remote.num_returns,
            remote.demand,
            remote.max_retries,
            remote.retry_exceptions,
            remote.max_calls,
            len(remote.classes),
            remote.strategy,
        ),
        *filter(None, (remote.classes,)),
    )
    process.remotes[id(remote)] = (remote, template)
    return template


def _on_put(process: SimProcess, play: Play, op: do.PutValue) -> Any:
    if len(op.value) > process.inline_bytes_max:
        return _store(process, play, op.value, op.refs, lambda item: item)
    item = process.books.put(
        play.naming(),
        op.value,  # type: ignore[arg-type]  # the books keep a Blob as they keep bytes
        op.refs,
        process.mark(op.value),
    )
    process.books.references.created.append(item)
    play.uses[item] = 1
    return process.spend(play, item)


def _store(
    process: SimProcess,
    play: Play,
    value: Value,
    refs: tuple[ObjectID, ...],
    done: Callable[[ObjectID], Any],
) -> object:
    """Put a large value; goes on with what `done` makes of its id."""
    item = play.naming().next_put()
    books = process.books

    def granted(play: Play, ticket: Ticket) -> None:
        answer = ticket.answer
        if type(answer) is RefuseBlock:
            process.advance(play, None, do.StoreRefused(answer.failure, answer.text))
            return
        assert type(answer) is GrantBlock
        cell, ns = process.write(answer, value)

        def abandon() -> None:
            process.look_away(cell)
            books.abandon_block(item)

        play.undo = abandon
        play.serial += 1
        process.clock.after(ns, written, play, play.serial, cell)

    def written(play: Play, serial: int, cell: Cell) -> None:
        if process.is_over(play, serial, written, cell):
            return
        play.undo = None
        process.host.memory.write(cell, value)
        process.look_away(cell)
        books.seal_put(item, refs, process.mark(value))
        books.references.created.append(item)
        play.uses[item] = 1
        process.advance(play, done(item))

    play.undo = lambda: books.abandon_block(item)
    return process.wait_for(play, books.request_block(item, len(value)), granted)


def _on_get(process: SimProcess, play: Play, op: do.GetValues) -> Any:
    values = process.books.values
    missing = tuple([item for item in op.objects if values.get(item) is None])
    if not missing:
        return [do.Got(item, values[item] or b"") for item in op.objects]
    here = {
        item: do.Got(item, data) for item in op.objects if (data := values.get(item)) is not None
    }
    ticket = process.books.request(
        missing,
        len(missing),
        fail_fast=op.raises,
        fetch=True,
        timeout_ns=op.timeout_ns,
        blocks=process.blocks(),
        also=process.books.read_ahead(missing[0]) if len(missing) == 1 else (),
    )

    def read(play: Play, ticket: Ticket) -> None:
        _read_all(process, play, ticket, op, here)

    return process.wait_for(play, ticket, read)


def _read_all(
    process: SimProcess, play: Play, ticket: Ticket, op: do.GetValues, here: dict[ObjectID, do.Got]
) -> None:
    """An answer came: the values in order, or what has to be raised."""
    found = ticket.found
    failed: do.Got | None = None
    missing: list[ObjectID] = []
    for item in op.objects:
        entry = found.pop(item, None)
        if entry is None:
            if item not in here:
                missing.append(item)
        elif type(entry) is tuple:
            got = here[item] = process.read_place(play, *entry, keeps=op.keeps)
            if got.failure and failed is None:
                failed = got
        else:
            here[item] = do.Got(item, entry)  # type: ignore[arg-type]  # bytes or a Blob
    if missing and failed is not None and not ticket.timed_out and not op.raises:
        # The get as a whole was refused (a deadlock, no room): the answer names one object only.
        for item in missing:
            here[item] = do.Got(item, failed.value, (), failed.failure, failed.text)
        missing = []
    process.host.saw(here.values())
    if missing or (failed is not None and op.raises):
        # What came along with it is not handed over: its references are nobody's.
        for got in here.values():
            if got is not failed and got.refs:
                _let(process, play, got.refs)
    if failed is not None and op.raises:
        process.advance(play, None, do.ReadFailed(failed))
    elif missing:
        process.advance(play, None, do.ReadTimedOut(tuple(missing)))
    else:
        process.advance(play, [here[item] for item in op.objects])


def _on_wait(process: SimProcess, play: Play, op: do.WaitFor) -> Any:
    ready = {item for item in op.objects if item in process.books.values}
    if len(ready) >= op.needed:
        return ready
    missing = tuple([item for item in op.objects if item not in ready])
    ticket = process.books.request(
        missing,
        op.needed - len(ready),
        fail_fast=False,
        fetch=False,
        timeout_ns=op.timeout_ns,
        blocks=process.blocks(),
    )

    def look(play: Play, ticket: Ticket) -> None:
        ready.update(ticket.found)
        process.books.discard(ticket)
        process.advance(play, ready)

    return process.wait_for(play, ticket, look)


def _on_drop_refs(process: SimProcess, play: Play, op: do.DropRefs) -> Any:
    _let(process, play, op.objects)
    return process.spend(play, None)


def _let(process: SimProcess, play: Play, items: Sequence[ObjectID]) -> None:
    uses = play.uses
    for item in items:
        left = uses.pop(item) - 1
        if left:
            uses[item] = left
    process.books.references.dropped.extend(items)


def _on_drop_views(process: SimProcess, play: Play, op: do.DropViews) -> None:
    process.drop((), [(item, cell) for item in op.objects for cell in play.views.pop(item, ())])
    process.flush_later()


def _on_cancel(process: SimProcess, play: Play, op: do.CancelTask) -> None:
    process.books.send(st.CancelRequested(process.client, op.object, op.force, op.recursive))
    process.flush()


def _on_pin(process: SimProcess, play: Play, op: do.PinRef) -> object:
    def confirmed(play: Play, ticket: Ticket) -> None:
        assert type(ticket.answer) is ConfirmPin
        process.advance(play, ticket.answer.owner)

    return process.wait_for(play, process.books.pin(op.object), confirmed)


def _on_claim(process: SimProcess, play: Play, op: do.ClaimRef) -> None:
    books = process.books
    books.claim(op.object, NodeID(op.owner))
    books.references.created.append(op.object)
    play.uses[op.object] = play.uses.get(op.object, 0) + 1


def _on_end(process: SimProcess, play: Play, op: do.EndProcess) -> object:
    process.host.kill(process, op.reason, delay_ns=0)
    return SUSPENDED


# Any: each entry takes the operation type that is its key.
PERFORM: dict[type, Callable[[SimProcess, Play, Any], Any]] = {
    do.Compute: _on_compute,
    do.Sleep: _on_sleep,
    do.Submit: _on_submit,
    do.PutValue: _on_put,
    do.GetValues: _on_get,
    do.WaitFor: _on_wait,
    do.DropRefs: _on_drop_refs,
    do.DropViews: _on_drop_views,
    do.CancelTask: _on_cancel,
    do.PinRef: _on_pin,
    do.ClaimRef: _on_claim,
    do.EndProcess: _on_end,
}
PAID_FIRST = frozenset((do.GetValues, do.WaitFor, do.CancelTask, do.PinRef, do.EndProcess))
"""Before these the world catches up with a program that ran ahead."""
