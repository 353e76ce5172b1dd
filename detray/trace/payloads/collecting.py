"""Bringing together the payload files of the processes of one cluster, beside a collected trace."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from detray.trace.format import FrameWriter, Header, TraceError
from detray.trace.payloads.format import (
    BLOCK_FRAME,
    BLOCK_HEAD,
    CHUNK_HEAD,
    END_FRAME,
    PROCESSES_MAX,
    SAID_FRAME,
    PayloadEnd,
    PayloadHeader,
    PayloadProcess,
)
from detray.trace.payloads.reading import Payloads
from detray.trace.payloads.recorder import opening
from detray.trace.replacing import write_whole


def collect_payloads(
    files: Sequence[Payloads], trace: Header, path: str | os.PathLike[str]
) -> list[str]:
    """Write what `files` hold of the processes of `trace` to `path`, all of it or nothing.

    The notes say what was left out, and what is missing of the rest. Nothing is written if nothing
    is left. Raises OSError, TraceError.
    """
    chosen, notes = _choose(files, trace)
    if not chosen:
        return notes
    processes = [process for file in chosen for process in _with_notes(file)]
    if len(processes) > PROCESSES_MAX:
        raise TraceError(f"a payload file holds at most {PROCESSES_MAX:,} processes")
    header = PayloadHeader(
        detray_version=chosen[0].header.detray_version, processes=tuple(processes)
    )
    write_whole(path, _pieces(header, chosen))
    return notes + [f"{file.name}: {file.note or file.lacks}" for file in chosen if _lacks(file)]


def _choose(files: Sequence[Payloads], trace: Header) -> tuple[list[Payloads], list[str]]:
    """Those of the trace's processes, each once: of two, the one that holds more."""
    wanted = {process.life for process in trace.processes if process.life}
    chosen: list[Payloads] = []
    notes: list[str] = []
    for file in sorted(files, key=_size, reverse=True):
        lives = {process.life for process in file.header.processes}
        if not lives <= wanted:
            notes.append(f"{file.name} is left out: it belongs to none of these recordings")
        else:
            wanted -= lives
            chosen.append(file)
    chosen.sort(key=lambda file: (file.header.processes[0].wall_ns, file.header.processes[0].life))
    return chosen, sorted(notes)


def _size(file: Payloads) -> tuple[int, str]:
    return sum(len(chunk.data) for chunk in file.chunks), file.name


def _lacks(file: Payloads) -> bool:
    return bool(file.note or file.lacks)


def _with_notes(file: Payloads) -> list[PayloadProcess]:
    lacks = [text for text in (file.note, file.lacks) if text]
    return [
        msgspec.structs.replace(process, note="; ".join(filter(None, [process.note, *lacks])))
        for process in file.header.processes
    ]


def _pieces(header: PayloadHeader, files: Sequence[Payloads]) -> Iterator[bytes]:
    writer = FrameWriter()
    yield opening(writer, header)
    first = 0
    for file in files:
        for chunk in file.chunks:
            head = CHUNK_HEAD.pack(first + chunk.process, chunk.entries)
            yield writer.head(SAID_FRAME, head, chunk.data)
            yield head
            yield bytes(chunk.data)
        for piece in file.pieces():
            head = BLOCK_HEAD.pack(first, piece.object, piece.attempt, piece.size, piece.start)
            yield writer.head(BLOCK_FRAME, head, piece.data)
            yield head
            yield bytes(piece.data)
        first += len(file.header.processes)
    end = PayloadEnd(reason=f"collected from {len(files)} recordings", note=_in_short(header))
    yield writer.frame(END_FRAME, msgspec.msgpack.encode(end))


def _in_short(header: PayloadHeader) -> str:
    """What the recordings lack, once for all that lack the same."""
    lacks = Counter(process.note for process in header.processes if process.note)
    many = len(header.processes)
    return "; ".join(f"{count} of its {many} recordings: {note}" for note, count in lacks.items())
