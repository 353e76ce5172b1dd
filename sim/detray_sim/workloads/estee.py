"""The graphs and results of the study by Beránek, Böhm and Cima, as their project Estee ships them.

**Source**: "Analysis of workflow schedulers in simulated distributed environments" (2022). A zip
holds one JSON table of graphs by name. A graph is a list of tasks: duration `d` and what a user
would expect `e_d` in seconds (null: no idea), `cpus`, `outputs` with sizes `s` in MiB and `inputs`
as (task, output). The size that a user would expect (`e_s`) is not kept: policies here know sizes
only once they are there.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from detray_sim.workload import Workload, WorkloadError
from detray_sim.workloads.assembly import (
    SIZE_LIMIT_BYTES,
    Draft,
    assemble,
    cpu_demand,
    seconds_to_ns,
)

MIB = 1 << 20
UNZIPPED_MAX_BYTES = 1 << 30
BANDWIDTHS_MIB_S = (32, 128, 512, 2048, 8192)
"""The bandwidths of the study's networks, in MiB/s: a published series has one value for each."""

T = TypeVar("T")
_Path = str | os.PathLike[str]
_Least = Annotated[float, msgspec.Meta(ge=0)]
_Index = Annotated[int, msgspec.Meta(ge=0)]


class _Output(msgspec.Struct):
    s: _Least


class _Task(msgspec.Struct):
    d: _Least
    cpus: _Least
    outputs: list[_Output]
    inputs: list[tuple[_Index, _Index]]
    e_d: _Least | None = None


class _Table(msgspec.Struct):
    graph_name: dict[str, str]
    graph: dict[str, str]


def graph_names(path: _Path) -> tuple[str, ...]:
    """The names of the graphs in a file, in its order. Raises OSError, WorkloadError."""
    return tuple(_graphs(path))


def load_estee(path: _Path, graph: str) -> Workload:
    """One graph of a file. Raises OSError, WorkloadError."""
    graphs = _graphs(path)
    if graph not in graphs:
        close = get_close_matches(graph, graphs, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(graphs)}"
        raise WorkloadError(f"{path}: no graph is called {graph!r}; {hint}")
    return _workload(f"{path}: {graph}", graph, graphs[graph], str(path))


def load_all(path: _Path) -> dict[str, Workload]:
    """All graphs of a file by name, in its order. Raises OSError, WorkloadError."""
    return {
        name: _workload(f"{path}: {name}", name, text, str(path))
        for name, text in _graphs(path).items()
    }


def _graphs(path: _Path) -> dict[str, str]:
    content = _unzipped(str(path), Path(path).read_bytes())
    try:
        table = msgspec.json.decode(content, type=_Table)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: no table of graphs: {error}") from None
    missing = [name for key, name in table.graph_name.items() if key not in table.graph]
    if missing:
        raise WorkloadError(f"{path}: graph {missing[0]!r} has a name and no content")
    return {name: table.graph[key] for key, name in table.graph_name.items()}


def _unzipped(path: str, archived: bytes) -> bytes:
    """The one file of an archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(archived)) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise WorkloadError(f"{path}: {len(members)} files in the archive instead of one")
            if members[0].file_size > UNZIPPED_MAX_BYTES:
                raise WorkloadError(f"{path}: unpacked it would be {members[0].file_size} bytes")
            return archive.read(members[0])
    except WorkloadError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds for damaged archives
        raise WorkloadError(f"{path}: no readable zip archive: {error}") from None


def _workload(where: str, name: str, text: str, path: str) -> Workload:
    try:
        tasks = msgspec.json.decode(text, type=list[_Task])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{where}: {error}") from None
    drafts = [_draft(f"{where}[{number}]", number, task) for number, task in enumerate(tasks)]
    return assemble(name, drafts, source=f"{path}#{name}")


def _draft(where: str, number: int, task: _Task) -> Draft:
    if any(output.s * MIB > SIZE_LIMIT_BYTES for output in task.outputs):
        raise WorkloadError(f"{where}: an output is too large")
    return Draft(
        id=f"t{number}",
        name="task",
        duration_ns=seconds_to_ns(task.d, where),
        demand=cpu_demand(task.cpus, where),
        inputs=list(task.inputs),
        outputs=[round(output.s * MIB) for output in task.outputs],
        expected_ns=-1 if task.e_d is None else seconds_to_ns(task.e_d, where),
    )


# ------------------------------------------------------------------ what was published


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A published mean makespan in seconds on `nodes` nodes of `cpus` cores."""

    graph: str
    nodes: int
    cpus: int
    scheduler: str
    bandwidth_mib_s: int
    makespan_s: float


def load_published(path: _Path) -> tuple[Published, ...]:
    """The makespans of the study (max-min network, exact durations). Raises OSError, WorkloadError.

    The file maps "graph|NxC|scheduler" to one value for each of `BANDWIDTHS_MIB_S`.
    """
    found = []
    for key, series in _series(path, dict[str, list[float]]).items():
        parts = key.split("|")
        nodes, cross, cpus = parts[1].partition("x") if len(parts) == 3 else ("", "", "")
        if not (cross and nodes.isdigit() and cpus.isdigit()):
            raise WorkloadError(f"{path}: {key!r} is not like 'gridcat|8x4|ws'")
        if len(series) != len(BANDWIDTHS_MIB_S):
            raise WorkloadError(f"{path}: {key!r} has {len(series)} values instead of 5")
        for bandwidth, makespan in zip(BANDWIDTHS_MIB_S, series, strict=True):
            found.append(
                Published(
                    graph=parts[0],
                    nodes=int(nodes),
                    cpus=int(cpus),
                    scheduler=parts[2],
                    bandwidth_mib_s=bandwidth,
                    makespan_s=makespan,
                )
            )
    return tuple(found)


def load_published_networks(path: _Path) -> Mapping[tuple[str, str], tuple[float, ...]]:
    """By (graph, scheduler): makespan under max-min over that under the simple network, 32x4.

    One value for each of `BANDWIDTHS_MIB_S`. Raises OSError, WorkloadError.
    """
    found = {}
    for key, ratios in _series(path, dict[str, dict[str, list[float]]]).items():
        graph, bar, scheduler = key.partition("|")
        if not bar or "maxmin" not in ratios:
            raise WorkloadError(f"{path}: {key!r} is not 'graph|scheduler' with a series 'maxmin'")
        found[graph, scheduler] = tuple(ratios["maxmin"])
    return found


class PublishedScaling(msgspec.Struct, frozen=True):
    """Makespans in seconds by "graph|server", one for each number of workers (some lack the first).

    **Source**: Böhm and Beránek, "Runtime vs Scheduler: Analyzing Dask's Overheads" (2020).
    """

    workers: tuple[int, ...]
    makespan_s: dict[str, tuple[float, ...]]


def load_published_scaling(path: _Path) -> PublishedScaling:
    """The strong scaling of Dask's server and of its replacement. Raises OSError, WorkloadError."""
    return _series(path, PublishedScaling)


def _series(path: _Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: {error}") from None
