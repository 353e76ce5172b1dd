"""Making a report: one file that needs nothing else, whatever is in the trace.

The page may do nothing but run its own script and use its own style (Content-Security-Policy, by
their digests): it loads nothing, sends nothing, and text from a trace is never read as markup, for
all of it is in the packed data, and the script makes text nodes of it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES, ObjectID, TaskID
from detray.trace.play import Makers, schedulers
from detray.trace.reporting.analysis import Analysis
from detray.trace.reporting.choosing import TASKS_MAX, RunBlock, blocks, choose
from detray.trace.reporting.contents import ReportContents
from detray.trace.reporting.gathering import Gathered, Incident, Progress, gather
from detray.trace.reporting.numbers import code
from detray.trace.usage import QUANTITIES

if TYPE_CHECKING:
    from detray.trace.reading import Trace

Json = dict[str, Any]  # Any: what JSON can say
SCRIPTS = (
    "data.js", "words.js", "view.js", "timeline.js", "hands.js", "charts.js", "tables.js",
    "picture.js", "story.js", "main.js",
)  # fmt: skip
"""The script of the page, in the order in which its parts are put together."""
INCIDENTS_MAX = 500


def report(
    trace: Trace,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    makers: Makers = schedulers,
    progress: Progress | None = None,
    tasks_max: int = TASKS_MAX,
) -> Path:
    """Write a page that shows a run; its path. `title` is what it is headed with.

    Of more than `tasks_max` tasks, some are told together; the page says which. Raises TraceError,
    OSError, ImportError without networkx.
    """
    target = Path(path)
    target.write_text(
        report_text(trace, title=title, makers=makers, progress=progress, tasks_max=tasks_max),
        encoding="utf-8",
    )
    return target


def report_text(
    trace: Trace,
    *,
    title: str = "",
    makers: Makers = schedulers,
    progress: Progress | None = None,
    tasks_max: int = TASKS_MAX,
) -> str:
    """The page as text; the same for the same trace."""
    tell = progress or _say_nothing
    gathered = gather(trace, makers, tell)
    return page_of(gathered, title=title, progress=tell, tasks_max=tasks_max)


def page_of(
    gathered: Gathered,
    *,
    title: str = "",
    progress: Progress | None = None,
    tasks_max: int = TASKS_MAX,
) -> str:
    """The page for what was gathered."""
    tell = progress or _say_nothing
    header = gathered.trace.header
    analysis = Analysis(gathered, tell)
    kept = choose(gathered.history, analysis.on_path, tasks_max)
    tell("writing", 2, 3)
    contents = ReportContents(gathered, kept)
    words = header.entrypoint.split()
    program = os.path.basename(words[0] if words else gathered.trace.name)
    head: Json = {
        "title": title or program,
        "trace": os.path.basename(gathered.trace.name),
        "about": _about(gathered),
        "summary": analysis.summary(),
        "functionRows": analysis.functions(),
        "path": analysis.write_path(contents),
        "leftOut": len(gathered.history.tasks) - len(kept),
        "usage": _usage(gathered, contents),
        "usageNote": gathered.usage_note,
        "incidents": _incidents(gathered, contents),
    }
    head["graph"], members = analysis.drawing()
    _write_members(contents, members)
    if head["leftOut"]:
        _write_blocks(contents, gathered, {life.id for life in kept})
    head |= contents.write()
    return assembled(head["title"], contents.columns.pack(head))


def assembled(title: str, data: str) -> str:
    """The template with everything in its place."""
    title = title.encode(errors="replace").decode()
    folder = files("detray.trace.reporting")
    style = (folder / "page.css").read_text(encoding="utf-8")
    parts = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts_of_page = {
        "policy": policy,
        "title": html.escape(title),
        "style": style,
        "script": script,
        "data": data,
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    # In one go: what a title says is not looked through for further places.
    return re.sub("@@([a-z]+)@@", lambda place: parts_of_page[place[1]], page)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _say_nothing(what: str, done: int, total: int) -> None:
    pass


def _about(gathered: Gathered) -> Json:
    trace, header = gathered.trace, gathered.trace.header
    process = header.processes[0]
    return {
        "entrypoint": header.entrypoint,
        "dateMs": gathered.began_ns // 1_000_000,
        "span": round((gathered.ended_ns - gathered.began_ns) / 1000),
        "steps": trace.step_count,
        "firstStep": trace.first_step,
        "version": header.detray_version,
        "revision": header.core_revision,
        "python": process.python_version,
        "cluster": header.cluster,
        "processes": len(header.processes),
        "complete": trace.complete,
        "note": trace.note,
        "reason": trace.reason,
        "notes": [
            *header.notes,
            *(f"{core.name}: {core.unplayable}" for core in header.cores if core.unplayable),
        ],
    }


def _usage(gathered: Gathered, contents: ReportContents) -> list[Json]:
    header = gathered.trace.header
    rows = []
    for core, usage in sorted(gathered.usage.items()):
        dates = [contents.since(header.date_ns(core, ns)) or 0 for ns in usage.starts_ns]
        contents.columns.add(f"u{core}.at", dates, delta=True)
        for name, values in zip(QUANTITIES, usage.values, strict=True):
            contents.columns.add(f"u{core}.{name}", values, delta=True)
        rows.append({"core": core, "until": contents.since(header.date_ns(core, usage.ended_ns))})
    return rows


def _incidents(gathered: Gathered, contents: ReportContents) -> list[Json]:
    told = gathered.incidents[:INCIDENTS_MAX]
    rest = len(gathered.incidents) - len(told)
    if rest:
        text = f"{rest} more warnings and incidents are left out here; the trace has them"
        told.append(Incident("left out", told[-1].core, told[-1].date_ns, text))
    return [
        {
            "kind": one.kind,
            "core": one.core,
            "at": contents.since(one.date_ns),
            "text": one.text,
            "node": one.node,
        }
        for one in told
    ]


def _write_members(contents: ReportContents, members: Sequence[Sequence[str]]) -> None:
    """What each box of the drawing stands for: tasks by place, objects by minus place minus one."""
    numbers = contents.numbers
    lists = []
    for inside in members:
        places = []
        for name in inside:
            item = bytes.fromhex(name)
            if len(item) == TASK_ID_BYTES:
                if item in numbers.tasks or len(inside) == 1:
                    places.append(numbers.task(TaskID(item)))
            elif len(item) == OBJECT_ID_BYTES and (item in numbers.objects or len(inside) == 1):
                places.append(-1 - numbers.object(ObjectID(item)))
        lists.append(places)
    contents.columns.add_lists("g.members", lists, delta=True)


def _write_blocks(contents: ReportContents, gathered: Gathered, kept: set[TaskID]) -> None:
    rows: list[RunBlock] = blocks(gathered.history, kept, gathered.ended_ns - gathered.began_ns)
    add, numbers = contents.columns.add, contents.numbers
    add("b.seat", [numbers.seat(*row.seat) for row in rows])
    add("b.function", [numbers.function(row.name) + 1 if row.name else 0 for row in rows])
    add("b.started", [code(contents.since(row.started_ns)) for row in rows], delta=True)
    add("b.took", [round((row.ended_ns - row.started_ns) / 1000) for row in rows])
    add("b.busy", [round(row.busy_ns / 1000) for row in rows])
    add("b.count", [row.runs for row in rows])
    add("b.failed", [row.failed for row in rows])
