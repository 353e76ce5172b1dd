"""What a trace says does nothing to the terminal on which it is shown."""

from __future__ import annotations

import io
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detray.cli import main
from detray.cli.terminal.plain_output import LINE_MAX, plain_output
from detray.core.stimuli import TaskSubmitted
from detray.trace.format import CHUNK_HEAD, PREAMBLE, STEP_HEAD, STEPS_FRAME, FrameWriter
from detray.trace.plain_text import one_line, plain
from detray.trace.reading import Trace
from tests.trace.programs import dots, recorded, troubles
from tests.trace.test_fuzz import split

RED = "\x1b[31mred\x1b[0m\x07\x9b2J\x00\u202e"
LINES = "a\r\nlocal scheduler  99 identical"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_what_a_terminal_would_obey_is_shown_as_python_writes_it():
    """And nothing else is changed."""
    assert plain("\x1b[1mbold\r\n\tsüß \u202e") == "\\x1b[1mbold\\r\n\tsüß \\u202e"
    assert one_line("two\nlines\t\U0001d518") == "two\\nlines\\t\U0001d518"


def test_lines_for_people_have_an_end_and_what_cannot_be_encoded_is_escaped(monkeypatch):
    """Of ten megabytes in a name the first part is enough."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    with plain_output():
        print("Z" * 10_000_000)
        print("süß")
        sys.stdout.flush()
    long, encoded = raw.getvalue().decode().splitlines()
    assert len(long) < LINE_MAX + 100 and "9,980,000 more characters" in long
    assert encoded == "s\\xfc\\xdf"


@pytest.fixture(scope="module", params=[RED, LINES], ids=["escapes", "line ends"])
def lying(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace whose functions, errors and reasons are called so."""
    folder = tmp_path_factory.mktemp("lying")
    recorded(folder / "run.trace", dots, troubles)
    data = (folder / "run.trace").read_bytes()
    frames = split(data[PREAMBLE.size :], 0)
    writer = FrameWriter()
    changed = [writer.frame(f[0], _changed(f[0], f[17:], request.param)) for f in frames]
    path = folder / "lying.trace"
    path.write_bytes(data[: PREAMBLE.size] + b"".join(changed))
    return path


def _changed(kind: int, payload: bytes, text: str) -> bytes:
    if kind != STEPS_FRAME:
        return payload
    (_, count), at, out = CHUNK_HEAD.unpack_from(payload), CHUNK_HEAD.size, [payload[:12]]
    for _ in range(count):
        head = list(STEP_HEAD.unpack_from(payload, at))
        at += STEP_HEAD.size
        sizes = struct.unpack_from(f"<{head[2] + head[3]}I", payload, at)
        at += 4 * len(sizes)
        blobs = []
        for size in sizes:
            blobs.append(_retold(payload[at : at + size], text))
            at += size
        lengths = struct.pack(f"<{len(blobs)}I", *map(len, blobs))
        out += (STEP_HEAD.pack(*head), lengths, *blobs)
    return b"".join(out)


def _retold(blob: bytes, text: str) -> bytes:
    messages: list[list[Any]] = msgspec.msgpack.decode(blob)
    for message in messages:
        for at, value in enumerate(message):
            if isinstance(value, str):
                message[at] = text
    return msgspec.msgpack.encode(messages)


def test_no_command_prints_what_a_terminal_would_obey(lying, capsys, monkeypatch, tmp_path):
    """None of those that tell of a trace; and a line end in a name is no line of the answer."""
    steps = Trace(lying.read_bytes()).steps()
    tasks = [m.task.hex() for s in steps for m in s.stimuli() if isinstance(m, TaskSubmitted)]
    run = str(lying)
    whole = str(lying.with_name("run.trace"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("until failure\nstimuli\nstate\nstory worker 1"))
    for arguments in (
        ["replay", run], ["debug", run], ["why", run], ["diff", run, whole], ["diff", whole, run],
        ["graph", run, "--functions"], ["graph", run, "--critical", "-o", f"{tmp_path}/run.svg"],
        ["story", run, "worker 1"], ["story", run, "head"], ["story", run, run + LINES + RED],
        *(["story", run, task] for task in tasks[:6]), *(["why", run, task] for task in tasks),
    ):  # fmt: skip
        main(arguments)
        out, err = capsys.readouterr()
        assert OBEYED.search(out + err) is None, arguments
        assert not any(line.startswith("local scheduler  99") for line in out.splitlines())


def test_programs_are_told_what_was_said(lying, capsys):
    """JSON holds the very characters, escaped as JSON escapes them."""
    assert main(["graph", str(lying), "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)["functions"]}
    assert names & {RED, LINES}
