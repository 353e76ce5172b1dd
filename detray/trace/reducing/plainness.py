"""Plainer versions of a stimulus: smaller numbers, fewer arguments, the words of transcripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.config import GlobalConfig, Policy
from detray.trace.format import CoreInfo, HeadCore

TOOK_NS = 5_000
"""How long runs of transcripts take unless they say something else."""


def plainer(m: Any) -> Iterator[Any]:  # Any: a stimulus
    """Versions of `m` that say less, the plainest first; nothing if it is plain."""
    for changes in _CHANGES.get(type(m), _nothing)(m):
        new = replace(m, **changes)
        if new != m:
            yield new


Changes = Iterator[dict[str, Any]]  # Any: values of fields


def _nothing(m: Any) -> Changes:
    return iter(())


def _each(changes: dict[str, Any]) -> Changes:
    """All of them, then each by itself."""
    yield changes
    if len(changes) > 1:
        for name, value in changes.items():
            yield {name: value}


def _finished(m: st.RunFinished) -> Changes:
    returns = tuple(st.Return(5) for _ in m.returns)
    yield from _each({"started_ns": 0, "ended_ns": TOOK_NS, "returns": returns})
    yield {"started_ns": 0, "ended_ns": TOOK_NS}
    yield {"returns": tuple(replace(part, refs=(), digest=b"") for part in m.returns)}


def _failed(m: st.RunFailed) -> Changes:
    plain = {"started_ns": 0, "ended_ns": TOOK_NS, "summary": "ValueError: no", "size_bytes": 7}
    yield {**plain, "refs": ()}
    yield {"started_ns": 0, "ended_ns": TOOK_NS}
    yield from _each({"summary": "ValueError: no", "size_bytes": 7, "refs": ()})


def _submitted(m: st.TaskSubmitted) -> Changes:
    yield {"size_bytes": 0, "args": (), "refs": (), "packed": False}
    yield {"size_bytes": 0, "refs": (), "packed": False}
    yield from _each({"size_bytes": 0, "refs": ()})
    if not m.packed:
        for place in range(len(m.args)):
            yield {"args": m.args[:place] + m.args[place + 1 :]}


def _template(m: st.TemplateDefined) -> Changes:
    plain = {
        "max_retries": 0, "retry_application_errors": False, "max_calls": 0, "size_bytes": 0,
        "strategy": None,
    }  # fmt: skip
    yield from _each({**plain, "demand": (("CPU", 10_000),)})
    yield plain
    for place, (name, amount) in enumerate(m.demand):
        before, after = m.demand[:place], m.demand[place + 1 :]
        yield {"demand": before + after}
        if amount > 10_000:
            yield {"demand": (*before, (name, 10_000), *after)}
    yield {"num_returns": 1}


def _get(m: st.GetRequested) -> Changes:
    yield {"also": (), "fail_fast": m.fetch}
    yield {"also": ()}
    if len(m.objects) > 1:
        yield {"objects": m.objects[:1], "needed": 1, "also": ()}


def _delivered(m: pm.RunDelivered) -> Changes:
    yield {
        "size_bytes": 0, "args": (), "refs": (), "packed": False, "wanted": (), "refusals": 0,
        "is_leased": False,
    }  # fmt: skip
    yield from _each({"size_bytes": 0, "refs": (), "wanted": (), "is_leased": False})


def _shipped(m: pm.TemplateShipped) -> Changes:
    yield {
        "max_retries": 0, "retry_application_errors": False, "max_calls": 0, "size_bytes": 0,
        "strategy": None,
    }  # fmt: skip
    for place in range(len(m.demand)):
        yield {"demand": m.demand[:place] + m.demand[place + 1 :]}


def plainer_core(info: CoreInfo, name: str) -> Iterator[CoreInfo]:
    """Versions of a core's configuration without what is seldom needed, the plainest first."""
    config = info.config
    if isinstance(info, HeadCore) or isinstance(config, GlobalConfig):
        yield replace(info, name=name, config=replace(config, policy=Policy()))
        return
    changes: dict[str, Any] = {
        "policy": Policy(), "node_name": name, "arena_bytes": 1 << 20, "labels": (), "address": "",
        "life": "", "prestart_workers": 0,
    }  # fmt: skip
    for change in _each(changes):
        yield replace(info, name=name, config=replace(config, **change))
    plain = Policy()
    for field in Policy.__struct_fields__:
        if getattr(config.policy, field) != getattr(plain, field):
            policy = replace(config.policy, **{field: getattr(plain, field)})
            yield replace(info, config=replace(config, policy=policy))
    if config.prestart_workers > 1:
        yield replace(info, config=replace(config, prestart_workers=1))
    for place, (resource, amount) in enumerate(config.totals):
        before, after = config.totals[:place], config.totals[place + 1 :]
        if resource != "CPU":
            yield replace(info, config=replace(config, totals=before + after))
        elif amount > 10_000:
            few = (*before, (resource, 10_000), *after)
            yield replace(info, config=replace(config, totals=few))


_CHANGES: dict[type, Any] = {
    st.RunFinished: _finished,
    st.RunFailed: _failed,
    st.TaskSubmitted: _submitted,
    st.TemplateDefined: _template,
    st.FunctionExported: lambda m: _each({"refs": ()}),
    st.ObjectPut: lambda m: _each({"size_bytes": 10, "refs": ()}),
    st.GetRequested: _get,
    st.WorkerLost: lambda m: _each({"unclaimed": 0}),
    st.RefsDropped: lambda m: iter(
        {"objects": m.objects[:n], "counts": m.counts[:n]} for n in range(1, len(m.objects))
    ),
    pm.RunDelivered: _delivered,
    pm.TemplateShipped: _shipped,
    pm.RunDone: lambda m: _each(
        {"duration_ns": TOOK_NS, "returns": tuple(replace(part, refs=()) for part in m.returns)}
    ),
    hm.NodeBuried: lambda m: _each({"reason": "it was silent"}),
    hm.NodeAnnounced: lambda m: _each(
        {"totals": (("CPU", 10_000),), "labels": (), "address": "", "name": f"n{m.node}"}
    ),
}
