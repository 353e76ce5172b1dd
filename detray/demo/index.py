"""The job: an inverted index with word counts, as map, shuffle and reduce.

    files --chunks--> map --one part for each reducer--> reduce --> index

*map* reads a chunk of files and finds the words; *shuffle* gives each word to one reducer, chosen
by a checksum of the word; *reduce* joins the postings of its words. The serial run calls the very
same functions one after the other.
"""

from __future__ import annotations

import re
import sysconfig
import zlib
from pathlib import Path

Chunk = list[tuple[int, str]]
"""(number of the file, its path)."""
Postings = dict[str, list[int]]
"""For each word: file number, count in it, next file number, its count, ..., files ascending."""

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
