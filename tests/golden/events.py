"""Directives about the world between the nodes: links, time, death."""

from __future__ import annotations

from collections.abc import Callable

from detray.trace.transcript.script import ScriptError, Words, number
from tests.golden.cluster import HEAD, Cluster
from tests.golden.stage import Stage


def _cluster(s: Stage) -> Cluster:
    if s.cluster is None:
        raise ScriptError("there is one node only")
    return s.cluster


def _settle(s: Stage, w: Words) -> list[str]:
    """Deliver everything that is not held, in order, until all is quiet."""
    return _cluster(s).settle()


def _deliver(s: Stage, w: Words) -> list[str]:
    """`deliver a->b 2`: the next two letters of that link, held or not."""
    link, *count = w.names
    lines = []
    for _ in range(int(count[0]) if count else 1):
        letters = _cluster(s).links.get(link)
        if letters:
            lines.append(f"{link}: {type(letters[0].message).__name__}")
        lines += _cluster(s).deliver(link)
    return lines


def _hold(s: Stage, w: Words) -> list[str]:
    """`hold a->b`: what is sent there waits."""
    _cluster(s).held.update(w.names)
    return []


def _release(s: Stage, w: Words) -> list[str]:
    """`release a->b`: what waits there may move again."""
    _cluster(s).held.difference_update(w.names)
    return []


def _cut(s: Stage, w: Words) -> list[str]:
    """`cut a b`: nothing comes through between them, either way."""
    first, second = w.names
    for link in (f"{first}->{second}", f"{first}~>{second}"):
        source, arrow, target = link.partition("->" if "->" in link else "~>")
        _cluster(s).held.update((link, f"{target}{arrow}{source}"))
    return []


def _advance(s: Stage, w: Words) -> list[str]:
    """`advance 5s`: every node whose deadline has come has a step. `advance deadline`, `a: ...`."""
    cluster = _cluster(s)
    text = w.names[0]
    if text != "deadline":
        return cluster.tick(number(text))
    due = s.world.local.next_deadline_ns
    if due is None:
        raise ScriptError("there is no deadline")
    return cluster.tick(max(0, due - cluster.now_ns))


def _pause(s: Stage, w: Words) -> list[str]:
    """`pause 10s`: time passes, and nobody has a step."""
    _cluster(s).now_ns += number(w.names[0])
    return []


def _tick(s: Stage, w: Words) -> list[str]:
    """`tick`, `tick head`: a step without anything to hear."""
    return _cluster(s).step(w.names[0] if w.names else s.seat.name, advance_ns=0)


def _kill(s: Stage, w: Words) -> list[str]:
    return _cluster(s).kill(w.names[0])


def _lose(s: Stage, w: Words) -> list[str]:
    return [line for link in w.names for line in _cluster(s).lose(link)]


def _break(s: Stage, w: Words) -> list[str]:
    return _cluster(s).break_off(w.names[0])


def _bury(s: Stage, w: Words) -> list[str]:
    return _cluster(s).bury(w.names[0])


def _restart(s: Stage, w: Words) -> list[str]:
    return _cluster(s).restart(w.names[0])


def _head(s: Stage, w: Words) -> list[str]:
    """What happens to the head's process.

    `head crashes`: it dies. `head crashes saved`, `head crashes unsaved`: in its next step that
    must be persisted, after the commit or before it. `head restarts without=b`: it comes back, and
    reaches all nodes but b; `head greets b`: that one, too.
    """
    cluster = _cluster(s)
    what, *names = w.names
    match what:
        case "crashes":
            return cluster.crash_head(names[0] if names else "")
        case "restarts":
            return cluster.restart_head(w.list("without"))
        case "greets":
            return cluster.greet(names[0])
        case _:
            raise ScriptError(f"the head cannot {what}")


def _on_the_way(s: Stage, w: Words) -> list[str]:
    """What waits in the links."""
    lines = []
    for link, letters in _cluster(s).links.items():
        if letters:
            kinds = ", ".join(type(letter.message).__name__ for letter in letters)
            lines.append(f"{link}: {kinds}")
    return lines or ["nothing is on its way"]


def _then(s: Stage, w: Words) -> list[str]:
    """Nothing happens; what was said before is a step of its own."""
    return []


EVENTS: dict[str, Callable[[Stage, Words], list[str]]] = {
    "settle": _settle, "deliver": _deliver, "hold": _hold, "release": _release, "cut": _cut,
    "advance": _advance, "pause": _pause, "tick": _tick, "kill": _kill, "lose": _lose,
    "break": _break, "bury": _bury, "restart": _restart, "join": _restart,
    "head": _head, "links": _on_the_way, "then": _then,
}  # fmt: skip
__all__ = ["EVENTS", "HEAD"]
