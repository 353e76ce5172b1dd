"""WfFormat 1.5 (WfCommons): recorded executions of real workflows, read and written.

- A task's outputs are its output files. Its inputs are the files that other tasks produce; the
  bytes of those that nobody produces are its `files_bytes`.
- A parent of which a task takes no file is waited for by a zero-size output, the parent's last.
- `runtimeInSeconds` is the duration, `coreCount` the demand (1 CPU where it is not said).
- The makespan and the cores of the machines are what was recorded. That makespan contains the
  workflow system's own overhead, often more than the tasks: no simulation of the tasks alone
  comes near it.

**Source**: wfcommons.org/format, schema 1.5.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from detray_sim.workload import UNIT, TaskSpec, Workload, WorkloadError
from detray_sim.workloads.assembly import (
    SIZE_LIMIT_BYTES,
    Draft,
    assemble,
    cpu_demand,
    ns_to_seconds,
    seconds_to_ns,
)

VERSION = "1.5"
_Path = str | os.PathLike[str]
_Least = Annotated[float, msgspec.Meta(ge=0)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=SIZE_LIMIT_BYTES)]


class _File(msgspec.Struct, rename="camel"):
    id: str
    size_in_bytes: _Bytes | Annotated[float, msgspec.Meta(ge=0, le=SIZE_LIMIT_BYTES)]


class _Specified(msgspec.Struct, rename="camel", omit_defaults=True):
    id: str
    name: str = ""
    parents: list[str] = []
    children: list[str] = []
    input_files: list[str] = []
    output_files: list[str] = []


class _Specification(msgspec.Struct):
    tasks: list[_Specified]
    files: list[_File] = []


class _Executed(msgspec.Struct, rename="camel", omit_defaults=True):
    id: str
    runtime_in_seconds: _Least | None = None
    core_count: _Least | None = None


class _Cpu(msgspec.Struct, rename="camel"):
    core_count: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Machine(msgspec.Struct, rename="camel"):
    node_name: str = ""
    cpu: _Cpu | None = None


class _Execution(msgspec.Struct, rename="camel"):
    makespan_in_seconds: _Least | None = None
    executed_at: str = ""
    tasks: list[_Executed] = []
    machines: list[_Machine] = []


class _Workflow(msgspec.Struct):
    specification: _Specification
    execution: _Execution | None = None


class _Instance(msgspec.Struct, rename="camel"):
    workflow: _Workflow
    schema_version: str
    name: str = ""


class _Version(msgspec.Struct, rename="camel"):
    schema_version: str | None = None


def load_wfformat(path: _Path) -> Workload:
    """The workload of a file. Raises OSError, WorkloadError with the place in the JSON."""
    return parse_wfformat(Path(path).read_bytes(), str(path))


def parse_wfformat(content: bytes, source: str = "workflow") -> Workload:
    """The workload of a WfFormat document; `source` names it. Raises WorkloadError."""
    instance = _decoded(content, source)
    workflow = instance.workflow
    if workflow.execution is None:
        raise WorkloadError(f"{source}: $.workflow.execution is missing: no runtimes were recorded")
    drafts = _Reading(source, workflow.specification, workflow.execution).drafts()
    makespan_s = workflow.execution.makespan_in_seconds
    where = f"{source}: $.workflow.execution.makespanInSeconds"
    cores = [m.cpu.core_count if m.cpu else None for m in workflow.execution.machines]
    return assemble(
        Path(source).stem,
        drafts,
        source=source,
        recorded_makespan_ns=-1 if makespan_s is None else seconds_to_ns(makespan_s, where),
        recorded_nodes=tuple(count for count in cores if count) if all(cores) else (),
    )


def _decoded(content: bytes, source: str) -> _Instance:
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if version != VERSION:
            said = f"is {version!r}" if version is not None else "is missing"
            raise WorkloadError(f"{source}: $.schemaVersion {said}; this reads WfFormat {VERSION}")
        return msgspec.json.decode(content, type=_Instance)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WorkloadError(f"{source}: {error}") from None


class _Reading:
    """A specification and an execution, put together."""

    def __init__(self, source: str, specification: _Specification, execution: _Execution) -> None:
        self._source = source
        self._tasks = specification.tasks
        self._places = self._index((task.id for task in specification.tasks), "tasks")
        files = self._index((file.id for file in specification.files), "files")
        self._sizes = [round(file.size_in_bytes) for file in specification.files]
        self._files = files
        self._executed: dict[str, tuple[int, _Executed]] = {}
        for place, executed in enumerate(execution.tasks):
            self._executed[executed.id] = place, executed
        self._producers: dict[str, list[tuple[int, int]]] = {}
        """Who makes a file: places and numbers of outputs."""
        for place, task in enumerate(self._tasks):
            for output, file in enumerate(dict.fromkeys(task.output_files)):
                self._producers.setdefault(file, []).append((place, output))

    def drafts(self) -> list[Draft]:
        """The tasks in the order of the file."""
        drafts = [self._draft(place, task) for place, task in enumerate(self._tasks)]
        parents = self._parents()
        for place, task in enumerate(self._tasks):
            self._take_files(drafts[place], place, task, parents[place])
        for place, above in enumerate(parents):
            met = {producer for producer, _ in drafts[place].inputs}
            for parent in above:
                if parent not in met:
                    drafts[place].inputs.append((parent, len(self._outputs(parent))))
                    # All who wait for this parent without taking a file share one signal.
                    if len(drafts[parent].outputs) == len(self._outputs(parent)):
                        drafts[parent].outputs.append(0)
        return drafts

    def _draft(self, place: int, task: _Specified) -> Draft:
        where = f"{self._source}: $.workflow.specification.tasks[{place}]"
        if task.id not in self._executed:
            raise WorkloadError(
                f"{where}: {task.id!r} has no runtime: $.workflow.execution.tasks does not list it"
            )
        at, executed = self._executed[task.id]
        run = f"{self._source}: $.workflow.execution.tasks[{at}]"
        if executed.runtime_in_seconds is None:
            raise WorkloadError(f"{run}: {task.id!r} has no runtimeInSeconds")
        return Draft(
            id=task.id,
            name=_kind(task),
            duration_ns=seconds_to_ns(executed.runtime_in_seconds, run),
            # Recorders write 0 for what they do not know.
            demand=cpu_demand(executed.core_count or 1.0, run),
            outputs=[self._size(f"{where}.outputFiles", file) for file in self._outputs(place)],
        )

    def _outputs(self, place: int) -> Mapping[str, None]:
        return dict.fromkeys(self._tasks[place].output_files)

    def _size(self, where: str, file: str) -> int:
        if file not in self._files:
            raise WorkloadError(
                f"{where}: {file!r} has no size: $.workflow.specification.files does not list it"
            )
        return self._sizes[self._files[file]]

    def _parents(self) -> list[dict[int, None]]:
        """For each task the places that its `parents`, or their `children`, name."""
        parents: list[dict[int, None]] = [{} for _ in self._tasks]
        for place, task in enumerate(self._tasks):
            for parent in task.parents:
                parents[place][self._place(place, "parents", parent)] = None
            for child in task.children:
                parents[self._place(place, "children", child)][place] = None
        return parents

    def _place(self, place: int, field: str, name: str) -> int:
        if name not in self._places:
            where = f"{self._source}: $.workflow.specification.tasks[{place}].{field}"
            raise WorkloadError(f"{where}: no task has the id {name!r}")
        return self._places[name]

    def _take_files(
        self, draft: Draft, place: int, task: _Specified, parents: Mapping[int, None]
    ) -> None:
        where = f"{self._source}: $.workflow.specification.tasks[{place}].inputFiles"
        for file in dict.fromkeys(task.input_files):
            makers = [maker for maker in self._producers.get(file, ()) if maker[0] != place]
            if makers:
                # A file that several write is taken from a parent if one of them is, the last.
                near = [maker for maker in makers if maker[0] in parents]
                draft.inputs.append(near[-1] if near else makers[0])
            else:
                draft.files_bytes += self._size(where, file)

    def _index(self, ids: Iterable[str], what: str) -> dict[str, int]:
        places: dict[str, int] = {}
        for place, name in enumerate(ids):
            if name in places:
                where = f"{self._source}: $.workflow.specification.{what}[{place}]"
                raise WorkloadError(f"{where}: {name!r} is there twice")
            places[name] = place
        return places


def _kind(task: _Specified) -> str:
    """The name without a number at its end, which recorders that name tasks by id add."""
    if task.name and task.name != task.id:
        return task.name
    return re.sub(r"_(ID)?[0-9]+$", "", task.id) or task.id


# ------------------------------------------------------------------------------ writing


def to_wfformat(workload: Workload) -> bytes:
    """The workload as a WfFormat 1.5 document (JSON, UTF-8).

    An output becomes a file; what is read from outside, one file for each task. Demands other than
    CPU, submission times and expected durations have no place there.
    """
    outputs = [[f"{task.id}.out{i}" for i in range(len(task.outputs))] for task in workload.tasks]
    children: list[dict[str, None]] = [{} for _ in workload.tasks]
    for task in workload.tasks:
        for producer, _ in task.inputs:
            children[producer][task.id] = None
    specified = [
        {
            "name": task.name,
            "id": task.id,
            "parents": list(dict.fromkeys(workload.tasks[p].id for p, _ in task.inputs)),
            "children": list(children[number]),
            "inputFiles": [outputs[p][i] for p, i in task.inputs] + _outside(task),
            "outputFiles": outputs[number],
        }
        for number, task in enumerate(workload.tasks)
    ]
    document = {
        "name": workload.name,
        "description": workload.source,
        "createdAt": "1970-01-01T00:00:00+00:00",
        "schemaVersion": VERSION,
        "workflow": {
            "specification": {"tasks": specified, "files": _files(workload, outputs)},
            "execution": _execution(workload),
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _outside(task: TaskSpec) -> list[str]:
    return [f"{task.id}.in"] if task.files_bytes else []


def _files(workload: Workload, outputs: list[list[str]]) -> list[dict[str, object]]:
    files: list[dict[str, object]] = []
    for task, names in zip(workload.tasks, outputs, strict=True):
        for name, size in zip(names, task.outputs, strict=True):
            files.append({"id": name, "sizeInBytes": size})
        for name in _outside(task):
            files.append({"id": name, "sizeInBytes": task.files_bytes})
    return files


def _execution(workload: Workload) -> dict[str, object]:
    makespan_ns = workload.recorded_makespan_ns
    return {
        **({"makespanInSeconds": ns_to_seconds(makespan_ns)} if makespan_ns >= 0 else {}),
        "executedAt": "1970-01-01T00:00:00+00:00",
        "tasks": [
            {
                "id": task.id,
                "runtimeInSeconds": ns_to_seconds(task.duration_ns),
                "coreCount": dict(task.demand).get("CPU", 0) / UNIT,
            }
            for task in workload.tasks
        ],
        "machines": [
            {"nodeName": f"node-{number}", "cpu": {"coreCount": cores}}
            for number, cores in enumerate(workload.recorded_nodes)
        ],
    }
