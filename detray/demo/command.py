"""The demo as a program: the job on detray, the job serially, the comparison, what was written."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import detray
from detray.demo import index
from detray.demo.index import Chunk, Postings

_CHUNKS_A_WORKER = 8
_TOP = 10


def main(argv: list[str]) -> int:
    """Run the demo; 0 if the parallel index equals the serial one."""
    options = _parse(argv)
    files = index.library_files(options.files)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    size = sum(path.stat().st_size for path in files)
    print(
        f"An inverted index of Python {platform.python_version()}'s standard library: "
        f"{len(files):,} files, {size / 1e6:.1f} MB, on {options.workers} workers."
    )
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"(Other programs run: load {load:.1f} before we begin. The speed-up suffers.)")
    print()
    reducers = 2 * options.workers
    chunks = index.cut(files, _CHUNKS_A_WORKER * options.workers)
    if options.address:
        detray.init(options.address)
    else:
        detray.init(num_cpus=options.workers, record=out / "run.trace")
    _warm_up(options.workers)
    began = time.perf_counter()
    parallel = run_with_detray(chunks, reducers)
    parallel_s = time.perf_counter() - began
    written = _write_pictures(out)
    detray.shutdown()

    print("The same job in this process, one function call after the other ...", flush=True)
    began = time.perf_counter()
    serial = index.run_serially(chunks, reducers)
    serial_s = time.perf_counter() - began

    same = parallel == serial
    _write_index(out / "index.txt", parallel, files)
    _print_outcome(parallel, same=same, serial_s=serial_s, parallel_s=parallel_s, options=options)
    print(f"\nWritten to {out}/:")
    print("  index.txt      every word, how often, in how many files, in which most")
    for name, what in written.items():
        print(f"  {name:<14} {what}")
    if not options.address:
        print(f"  run.trace      every decision of the run: detray replay {out / 'run.trace'}")
    return 0 if same else 1


def run_with_detray(chunks: list[Chunk], reducers: int) -> Postings:
    """The whole job as a graph of tasks: each map returns one object for each reducer."""
    map_packed = detray.remote(num_returns=reducers)(index.map_packed)
    reduce_packed = detray.remote(index.reduce_packed)
    mapped: list[Any] = [map_packed.remote(chunk, reducers) for chunk in chunks]
    reduced = [
        reduce_packed.remote(*(parts[reducer] for parts in mapped)) for reducer in range(reducers)
    ]
    _await_maps([parts[0] for parts in mapped])
    whole: Postings = {}
    for part in detray.get(reduced):
        whole |= index.unpack(part)
    return whole


def _warm_up(workers: int) -> None:
    """Have every worker import this module, so that the clock measures the job."""
    ready = detray.remote(index.map_chunk)
    detray.get([ready.remote([], 1) for _ in range(workers)])


def _await_maps(maps: list[Any]) -> None:
    """Show how many chunks are read while the graph runs."""
    total, rest = len(maps), maps
    while rest:
        _, rest = detray.wait(rest)
        _show(f"  {total - len(rest):3} of {total} chunks read")
    _show("")


def _show(text: str) -> None:
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)


def _write_pictures(out: Path) -> dict[str, str]:
    """Graph and timeline of the run; what was written, and what it shows."""
    written = {}
    try:
        detray.graph(out / "graph.svg")
        detray.graph(out / "graph.dot")
    except ImportError as error:
        print(f"no graph: {error}")
    else:
        written["graph.svg"] = "tasks (boxes) and objects (ovals), for a browser"
        written["graph.dot"] = "the same for graphviz"
    detray.timeline(out / "timeline.json")
    written["timeline.json"] = "what ran when and where, for https://ui.perfetto.dev"
    return written


def _write_index(path: Path, found: Postings, files: list[Path]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for word, count in sorted(index.word_counts(found).items()):
            postings = found[word]
            most = max(range(0, len(postings), 2), key=lambda at: (postings[at + 1], -at))
            where = files[postings[most]].name
            file.write(f"{word}\t{count}\t{len(postings) // 2} files\tmost in {where}\n")


def _print_outcome(
    found: Postings,
    *,
    same: bool,
    serial_s: float,
    parallel_s: float,
    options: argparse.Namespace,
) -> None:
    counts = index.word_counts(found)
    top = sorted(counts, key=lambda word: (-counts[word], word))[:_TOP]
    print(f"\n{len(counts):,} different words, {sum(counts.values()):,} in all. Most frequent:")
    print("  " + ", ".join(f"{word} {counts[word]:,}" for word in top))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"\ndetray: {parallel_s:.2f} s on {options.workers} workers, serially: {serial_s:.2f} s: "
        f"{serial_s / parallel_s:.2f} times as fast on {cores} cores"
    )
    verdict = "equals" if same else "DIFFERS FROM"
    print(f"The index made by detray {verdict} the one made serially.")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m detray.demo",
        description="An inverted index and word count over the sources of Python's own standard "
        "library, as a map-reduce on detray, checked against a serial run.",
    )
    parser.add_argument("--out", default="demo-out", help="folder to write to (default: demo-out)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 2, help="default: one for each core"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help='on a cluster ("auto": the one that runs here)'
    )
    parser.add_argument("--files", type=int, default=None, metavar="N", help="only the first N")
    return parser.parse_args(argv)
