"""The job: an inverted index with word counts, as map, shuffle and reduce.

    files --chunks--> map --one part for each reducer--> reduce --> index

*map* reads a chunk of files and finds the words; *shuffle* gives each word to one reducer, chosen
by a checksum of the word; *reduce* joins the postings of its words. The serial run calls the very
same functions one after the other.

What travels between processes is packed in columns (`pack`): a hundred thousand small lists cost
more to pickle than to fill, three flat columns cost next to nothing.
"""

from __future__ import annotations

import re
import sysconfig
import zlib
from array import array
from itertools import accumulate
from pathlib import Path

Chunk = list[tuple[int, str]]
"""(number of the file, its path)."""
Postings = dict[str, list[int]]
"""For each word: file number, count in it, next file number, its count, ..., files ascending."""

Columns = tuple[str, "array[int]", "array[int]"]
"""The words, one a line; how long each one's postings are; all postings in a row."""

_WORD = re.compile(r"[A-Za-z_]{3,}")


def library_files(limit: int | None = None) -> list[Path]:
    """The Python sources of the standard library, without what was installed later."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return files[:limit]


def cut(files: list[Path], pieces: int) -> list[Chunk]:
    """Chunks of neighbouring files with about the same number of bytes each."""
    sizes = [path.stat().st_size for path in files]
    share = sum(sizes) / pieces
    chunks: list[Chunk] = [[]]
    filled = 0
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if filled + size / 2 > share * len(chunks) and len(chunks) < pieces and chunks[-1]:
            chunks.append([])
        chunks[-1].append((number, str(path)))
        filled += size
    return chunks


def map_chunk(chunk: Chunk, reducers: int) -> list[Postings]:
    """Find the words of a chunk; one part of the postings for each reducer."""
    parts: list[Postings] = [{} for _ in range(reducers)]
    home: dict[str, Postings] = {}
    for number, path in chunk:
        counts: dict[str, int] = {}
        for word in _WORD.findall(Path(path).read_text(encoding="utf-8", errors="replace")):
            counts[word] = counts.get(word, 0) + 1
        for word, count in counts.items():
            part = home.get(word)
            if part is None:
                part = home[word] = parts[zlib.crc32(word.encode()) % reducers]
                part[word] = []
            part[word] += (number, count)
    return parts


def reduce_parts(*parts: Postings) -> Postings:
    """Join the parts that the maps made for one reducer, in the order of the chunks."""
    index: Postings = {}
    for part in parts:
        for word, postings in part.items():
            known = index.get(word)
            if known is None:
                index[word] = list(postings)
            else:
                known += postings
    return index


def pack(postings: Postings) -> Columns:
    """The same in three columns."""
    column = array("I")
    for numbers in postings.values():
        column.extend(numbers)
    return "\n".join(postings), array("I", map(len, postings.values())), column


def unpack(columns: Columns) -> Postings:
    """What `pack` was given."""
    words, lengths, column = columns
    numbers = column.tolist()
    stops = list(accumulate(lengths))
    starts = [0, *stops]
    return {
        word: numbers[start:stop]
        for word, start, stop in zip(words.split("\n"), starts, stops, strict=False)
    }


def map_packed(chunk: Chunk, reducers: int) -> list[Columns]:
    """`map_chunk` with its parts packed: the task."""
    return [pack(part) for part in map_chunk(chunk, reducers)]


def reduce_packed(*parts: Columns) -> Columns:
    """`reduce_parts` of packed parts, its outcome packed: the task."""
    return pack(reduce_parts(*map(unpack, parts)))


def run_serially(chunks: list[Chunk], reducers: int) -> Postings:
    """The whole job in this process."""
    mapped = [map_chunk(chunk, reducers) for chunk in chunks]
    index: Postings = {}
    for reducer in range(reducers):
        index |= reduce_parts(*(parts[reducer] for parts in mapped))
    return index


def word_counts(index: Postings) -> dict[str, int]:
    """How often each word occurs in all files."""
    return {word: sum(postings[1::2]) for word, postings in index.items()}
