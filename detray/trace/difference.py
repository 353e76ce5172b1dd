"""A difference between a trace and its replay, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any

from detray.core.effects import Effect
from detray.core.outbox import Outbox
from detray.ids import TASK_ID_BYTES, ClientID
from detray.trace.format import TraceError
from detray.trace.links import nodes_of
from detray.trace.names import core_names, describe, ids_in
from detray.trace.play import Makers, schedulers
from detray.trace.reading import Trace
from detray.trace.replaying import Difference
from detray.trace.story import StoryLine, StorySubject, story

SUBJECTS_MAX = 3
STORY_LINES = 12
LIST_LINES = 12


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
    for subject, told in stories(difference, trace, makers):
        lines += [f"the story of {subject} up to here:", *(f"  {line}" for line in told)]
    return "\n".join(lines)


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


def as_data(difference: Difference, trace: Trace) -> dict[str, Any]:  # Any: JSON
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
    }


def _concerned(difference: Difference) -> list[bytes]:
    at = first_differing(difference)
    came = came_effects(difference)
    expected = expected_effects(difference) or ()
    messages: list[Any] = []  # Any: stimuli or effects
    if at is not None:
        messages += [*expected[at : at + 1], *came[at : at + 1]]
    items = {item for message in messages for item in ids_in(message)}
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
