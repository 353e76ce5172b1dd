"""The story of a failing world: what its cores were told and ordered, as text that runs again.

A story file is a golden transcript of several cores. Its head says what failed and holds the tape;
the rest is for the reader: the steps in the past of the failure that touch what it is about, in
order, with names instead of ids. `tell` writes it, `read` takes the tape out of it, and a test
plays the tape: a bug that is fixed stays fixed.

    # B1 a borrow without a grant: ...
    # seed 7, small: 3 nodes ...
    tape {"choices":{...},"seed":7}

    0.200ms n1
    < RunDelivered(...)
    ----
    RunTask(...)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from detray.core.head_messages import LoadReported
from detray.trace.names import describe
from detray_sim.tape import Recording, Tape
from detray_sim.trial import Verdict, Watch, run_trial
from detray_sim.world import PROFILES, SMALL, Profile, draw_world

STEPS_MAX = 120
LAST_STEPS = 3
"""Before the end that are told in any case: in one of them it broke."""

Record = tuple[int, int, str, tuple[Any, ...], tuple[Any, ...]]
"""As `Watch.records` has it. (Any: messages of all kinds.)"""


def tell(
    choices: dict[str, int],
    profile: Profile = SMALL,
    *,
    seed: int = 0,
    ablate: tuple[str, ...] = (),
    steps_max: int = STEPS_MAX,
) -> str:
    """The story of a failing tape."""
    closely = msgspec.structs.replace(profile, checks_every=1, looks_every=1)
    watch = Watch(closely, records=True)
    verdict = run_trial(Tape(seed, choices), profile, ablate=ablate, watch=watch)
    world = draw_world(Tape(seed, choices), profile, ablate=ablate)
    kept = {label: value for label, value in verdict.choices.items() if value}
    tape = msgspec.json.encode(Recording(seed, kept)).decode()
    head = [
        f"# {verdict.signature or 'all is well'}",
        *[f"# {line}" for line in verdict.text.splitlines()[-12:]],
        *[f"# {line}" for line in world.describe()],
        *[
            f"# script {number} {script.name}: {_script(script)}"
            for number, script in enumerate(world.program.scripts)
        ],
        f"profile {profile.name}{' ablate ' + ' '.join(ablate) if ablate else ''}",
        f"tape {tape}",
    ]
    records = watch.records or []
    chosen = causal_slice(records, names_in(verdict.text))
    if chosen:
        chosen += [record for record in records[-LAST_STEPS:] if record not in chosen]
    else:
        chosen = [record for record in records if _is_telling(record)]
    if len(chosen) > steps_max:
        head.append(f"# the last {steps_max} of {len(chosen)} steps")
    lines = [line for record in chosen[-steps_max:] for line in ("", *_step(record))]
    return "\n".join([*head, *lines]) + "\n"


def read(text: str) -> tuple[Tape, Profile, tuple[str, ...]]:
    """The tape of a story, its profile, and which safeguards were off."""
    profile = SMALL
    ablate: tuple[str, ...] = ()
    for line in text.splitlines():
        if line.startswith("profile "):
            words = line.split()
            profile, ablate = PROFILES[words[1]], tuple(words[3:])
        elif line.startswith("tape "):
            return Tape.from_json(line.removeprefix("tape ")), profile, ablate
    raise ValueError("the story has no line that begins with 'tape '")


def play_again(text: str) -> Verdict:
    """Play the tape of a story."""
    tape, profile, ablate = read(text)
    return run_trial(tape, profile, ablate=ablate)


def _script(script: Any) -> str:  # Any: a Script
    asks = " ".join(f"{name}={amount / 10_000:g}" for name, amount in script.demand)
    steps = ", ".join(map(repr, script.steps))
    return (
        f"asks for {asks or 'nothing'}, returns {script.returns}, carries {script.carries},"
        f" retries {script.retries}, fails {script.fails}: {steps}"
    )


# ---------------------------------------------------------------------------------- slicing


def names_in(text: str) -> list[bytes]:
    """The ids that a failure names: as hex, or as bytes literals of Python."""
    found: dict[bytes, None] = {}
    for word in re.findall(r"\b[0-9a-f]{32,48}\b", text):
        found[bytes.fromhex(word)[:16]] = None
    for literal in re.findall(r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\"", text):
        name = bytes_of(literal)
        if len(name) in (16, 20):
            found[name[:16]] = None
    return list(found)


def bytes_of(text: str) -> bytes:
    """The bytes that a literal means; b"" if it means none."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return b""
    return value if isinstance(value, bytes) else b""


def causal_slice(records: Sequence[Record], names: Iterable[bytes]) -> list[Record]:
    """The steps that touch these ids, or what was made from or for them, in the past of the last.

    Backwards: a step that touches a wanted id is taken, and the ids of tasks that take part in it
    by being submitted, run or read with it are wanted from there on.
    """
    wanted = set(names)
    chosen: list[Record] = []
    for record in reversed(records):
        touching = [message for message in (*record[3], *record[4]) if ids_of(message) & wanted]
        if touching:
            chosen.append(record)
            for message in touching:
                if type(message).__name__ in _JOINING:
                    wanted |= ids_of(message)
    chosen.reverse()
    return chosen


_JOINING = ("TaskSubmitted", "ObjectPut", "BlockSealed", "RunDelivered")
"""Messages by which one id depends on others."""


def ids_of(message: Any) -> set[bytes]:  # Any: messages of all kinds
    """The ids of tasks that a message names, of its objects too."""
    found: set[bytes] = set()
    _collect(message, found)
    return found


def _collect(value: Any, found: set[bytes]) -> None:
    if isinstance(value, bytes):
        if len(value) in (16, 20):
            found.add(value[:16])
    elif isinstance(value, tuple):
        for part in value:
            _collect(part, found)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _collect(getattr(value, name), found)


def _is_telling(record: Record) -> bool:
    """False for steps that only say how a node is."""
    messages = (*record[3], *record[4])
    return any(not isinstance(getattr(m, "message", m), LoadReported) for m in messages)


def _step(record: Record) -> list[str]:
    now_ns, _, name, stimuli, effects = record
    return [
        f"{now_ns / 1e6:.3f}ms {name}",
        *[f"< {describe(message)}" for message in stimuli],
        "----",
        *[describe(effect) for effect in effects],
    ]
