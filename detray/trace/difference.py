"""A difference between a trace and its replay, for people and for programs.

Shown are what the core was told, what it ordered then and now, the state that led to it (the rows
of the ids in it, as they were before the step, in each core that has some), and their story.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any

from detray.core.effects import Effect
from detray.core.outbox import Outbox
from detray.ids import TASK_ID_BYTES, ClientID
from detray.trace.format import TraceError
from detray.trace.links import nodes_of
from detray.trace.names import core_names, describe, ids_in
from detray.trace.play import Core, Makers, Opening, play, schedulers
from detray.trace.reading import Trace
from detray.trace.replaying import Difference
from detray.trace.telling.story import StoryLine, StorySubject, story
from detray.trace.travel.shown import ShownRow, rows_about

SUBJECTS_MAX = 3
STORY_LINES = 12
LIST_LINES = 12
ROWS_MAX = 12
"""Of each core."""
ROW_TEXT_MAX = 400


def expected_effects(difference: Difference) -> Sequence[Effect] | None:
    """What was recorded, None if only its digest was kept."""
    return difference.played.step.effects()


def came_effects(difference: Difference) -> Sequence[Effect]:
    """What replay gave, in the order in which a trace keeps effects: by destination."""
    messages, orders = Outbox().group(difference.played.effects)
    return [effect for queue in messages.values() for effect in queue] + list(orders)


def first_differing(difference: Difference) -> int | None:
    """Where the two lists part; None if the recorded one was not kept, or they are equal."""
    expected = expected_effects(difference)
    if expected is None:
        return None
    pairs = zip_longest(expected, came_effects(difference))
    return next((index for index, (was, now) in enumerate(pairs) if was != now), None)


def render(difference: Difference, trace: Trace, makers: Makers = schedulers) -> str:
    """The whole difference as text."""
    step = difference.played.step
    seconds = (step.now_ns - trace.header.process_of(step.core).monotonic_ns) / 1e9
    lines = [
        f"step {step.number} of the {_core(step.core, trace)}, {seconds:.6f} s after the start: "
        f"{difference.what}",
        "it was told:",
        *_listed(difference.played.stimuli, None),
    ]
    at = first_differing(difference)
    expected = expected_effects(difference)
    lines.append("expected, as recorded:")
    if step.error:
        lines += [f"      {line}" for line in step.error.splitlines()]
    elif expected is None:
        lines.append(f"      (only the digest {step.digest.hex()} was kept)")
    else:
        lines += _listed(expected, at)
    lines += ["came:", *_listed(came_effects(difference), at)]
    lines += [f"      {line}" for line in difference.detail.splitlines()]
    for core, rows in state_before(difference, trace, makers):
        lines.append(f"what the {_core(core, trace)} knew of it before:")
        lines += [f"      {_cut(str(row))}" for row in rows]
    for subject, told in stories(difference, trace, makers):
        lines += [f"the story of {subject} up to here:", *(f"  {line}" for line in told)]
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= ROW_TEXT_MAX else text[:ROW_TEXT_MAX] + " ..."


def state_before(
    difference: Difference, trace: Trace, makers: Makers = schedulers
) -> list[tuple[int, list[ShownRow]]]:
    """The rows of what the difference is about, before its step, by core; its own core first."""
    step = difference.played.step
    subjects = [StorySubject(item, ClientID(0)) for item in _concerned(difference)[:SUBJECTS_MAX]]
    subjects += [StorySubject(b"", client) for client in _clients(difference)]
    cores = _cores_before(step.number, trace, makers)
    found = []
    for number in sorted(cores, key=lambda number: (number != step.core, number)):
        tables = getattr(cores[number], "tables", None)
        if tables is None:
            continue
        # Clients are numbered by node: those of another core are others.
        about = subjects if number == step.core else [item for item in subjects if item.item]
        rows = {row.name: row for item in about for row in rows_about(tables, item)}
        if rows:
            found.append((number, list(rows.values())[:ROWS_MAX]))
    return found


def _cores_before(step: int, trace: Trace, makers: Makers) -> Mapping[int, Core]:
    """The cores as that step finds them; without one that begins with it."""
    cores: Mapping[int, Core] = {}
    if step == trace.first_step:
        return cores
    for item in play(trace, makers):
        if isinstance(item, Opening):
            cores = item.cores
        elif item.step.number == step - 1:
            break
    return cores


def _clients(difference: Difference) -> list[ClientID]:
    """The workers and drivers in the first effects that differ."""
    clients = [getattr(message, "client", None) for message in _first_messages(difference)]
    return list(dict.fromkeys(client for client in clients if client))


def stories(
    difference: Difference, trace: Trace, makers: Makers = schedulers
) -> Iterator[tuple[StorySubject, list[StoryLine]]]:
    """The last lines of the stories of the ids in the first effect that differs."""
    for item in _concerned(difference)[:SUBJECTS_MAX]:
        subject = StorySubject(item, ClientID(0))
        try:
            upto = [
                line
                for line in story(trace, subject, makers)
                if line.step <= difference.played.step.number
            ]
        except TraceError:
            continue
        if upto:
            yield subject, upto[-STORY_LINES:]


def _core(core: int, trace: Trace) -> str:
    return core_names(trace.header, nodes_of(trace))[core]


def as_data(
    difference: Difference, trace: Trace, makers: Makers = schedulers
) -> dict[str, Any]:  # Any: JSON
    """The difference for programs."""
    step = difference.played.step
    expected = expected_effects(difference)
    return {
        "what": difference.what,
        "step": step.number,
        "core": _core(step.core, trace),
        "now_ns": step.now_ns,
        "stimuli": [describe(item) for item in difference.played.stimuli],
        "expected": None if expected is None else [describe(item) for item in expected],
        "came": [describe(item) for item in came_effects(difference)],
        "first_differing_effect": first_differing(difference),
        "detail": difference.detail or step.error,
        "state": [
            {"core": _core(core, trace), "rows": [str(row) for row in rows]}
            for core, rows in state_before(difference, trace, makers)
        ],
        "stories": [
            {"subject": str(subject), "lines": [line._asdict() for line in told]}
            for subject, told in stories(difference, trace, makers)
        ],
    }


def _first_messages(difference: Difference) -> list[Any]:  # Any: effects, or stimuli
    """The first effects that differ; all that it was told, if none do."""
    at = first_differing(difference)
    if at is None:
        return list(difference.played.stimuli)
    expected = expected_effects(difference) or ()
    return [*expected[at : at + 1], *came_effects(difference)[at : at + 1]]


def _concerned(difference: Difference) -> list[bytes]:
    items = {item for message in _first_messages(difference) for item in ids_in(message)}
    if not items:
        items = {item for message in difference.played.stimuli for item in ids_in(message)}
    return sorted(items, key=lambda item: (len(item) != TASK_ID_BYTES, item))


def _listed(messages: Sequence[Any], marked: int | None) -> list[str]:  # Any: as above
    """The messages one a line; a long list is cut around the marked one."""
    first = max(0, (marked or 0) - LIST_LINES // 2)
    lines = [f"      ... {first} more"] if first else []
    for index, message in islice(enumerate(messages), first, first + LIST_LINES):
        mark = "   >  " if index == marked else "      "
        lines.append(mark + describe(message))
    rest = len(messages) - first - LIST_LINES
    if rest > 0:
        lines.append(f"      ... {rest} more")
    if not messages or (marked is not None and marked >= len(messages)):
        lines.append("   >  (nothing)" if marked is not None else "      (nothing)")
    return lines
