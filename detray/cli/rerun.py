"""`detray rerun`: one recorded task again, or all of them."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from detray.cli.arguments.amounts import seconds, size
from detray.cli.terminal.plain_output import plain_output
from detray.trace.documents import document
from detray.trace.plain_text import one_line

if TYPE_CHECKING:
    from detray.rerun import ListedTask, Report, Summary
    from detray.rerun.recorded import Recorded

_ABOUT = """\
Run a recorded task again in this process, with the arguments and the answers that it had, and say
whether the result is the same. The run must have been recorded with its payloads:
detray.init(record="run.trace", record_payloads=True).

Loading payloads runs code that is in the file: --trust says that you trust who recorded it.
"""
_EXAMPLES = """\
examples:
  detray rerun run.trace --list                what there is, what failed first
  detray rerun run.trace 1.9f3a12.3 --trust    one task; exit code 0: the same, 1: not, 2: cannot
  detray rerun run.trace parse --trust --pdb   stop at its first line, and where it raises
  detray rerun run.trace --all --trust         everything: which tasks are not deterministic?
  detray rerun run.trace --all --trust --timeout 5 --memory 2G
"""
_ROWS_MAX = 40
_REPORTS_MAX = 3
"""Tasks of one function that are told apart; more are counted."""
_PROGRESS_S = 2.0
_LINES_AT_ONCE = 5


def add_rerun(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray rerun` to the parser."""
    parser = commands.add_parser(
        "rerun",
        help="run a recorded task again with the arguments it had, under pdb if you like",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace with TRACE.payloads beside it")
    parser.add_argument(
        "task",
        metavar="TASK",
        nargs="?",
        help="an id, a short name such as 1.9f3a12.3, or a function that was called once, or "
        "failed once",
    )
    parser.add_argument("--list", action="store_true", help="the tasks; loads nothing")
    parser.add_argument("--all", action="store_true", help="every task, one after the other")
    parser.add_argument("--trust", action="store_true", help="code in the payloads may run")
    parser.add_argument("--pdb", action="store_true", help="stop at the task's first line")
    parser.add_argument("--attempt", type=int, metavar="N", help="(default: its last one)")
    parser.add_argument(
        "--deep", action="store_true", help="run what the task calls, too, whatever was kept"
    )
    parser.add_argument(
        "--here", action="store_true", help="in this process, even if the task killed its own"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="with --all: kill a task that takes longer (default: 60, or 20 times what it took)",
    )
    parser.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="with --all: no task may have more, as 4G (default: what there is)",
    )
    parser.add_argument("--payloads", metavar="FILE", help="(default: TRACE.payloads)")
    parser.add_argument("--salvage", action="store_true", help="read damaged files to the damage")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_rerun, late="task")


def run_rerun(options: argparse.Namespace) -> int:
    """`detray rerun`: 0 the same, 1 not, 2 it cannot run."""
    import detray.rerun as rerun

    if options.list + options.all + (options.task is not None) != 1:
        raise ValueError("say which task (--list shows them), or --all (see: detray rerun --help)")
    if options.all and (options.pdb or options.attempt is not None):
        raise ValueError("--pdb and --attempt belong to one task, not to --all")
    if not options.all and (options.timeout is not None or options.memory is not None):
        raise ValueError("--timeout and --memory belong to --all")
    if options.pdb and options.json:
        raise ValueError("--pdb is for people, --json for programs")
    recorded = rerun.open_recorded(options.trace, options.payloads, options.salvage)
    if options.list:
        with plain_output(cut=not options.json):
            return _list(rerun.list_tasks(recorded), options)
    if options.all:
        return _run_all(recorded, options)
    with _without_waiting(), _Output(options.json):
        report = rerun.run(
            recorded,
            options.task,
            trust=options.trust,
            attempt=options.attempt,
            deep=options.deep,
            here=options.here,
            pdb=options.pdb,
            tell=_Teller(),
        )
    if options.pdb:
        report.traceback = ""  # The debugger has shown it.
    print(_as_json(options, _row(report)) if options.json else _as_text(report))
    return 1 if report.verdict == rerun.DIFFERS else 0


def _say(line: str) -> None:
    print(f"rerun: {one_line(line)}", file=sys.stderr, flush=True)


class _Teller:
    """Says what is made again: the first few lines as they come, then one a second."""

    def __init__(self) -> None:
        self._count = 0
        self._next = 0.0

    def __call__(self, line: str) -> None:
        self._count += 1
        if self._count > _LINES_AT_ONCE and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        _say(line if self._count <= _LINES_AT_ONCE else f"{line} ({self._count:,} so far)")


# ------------------------------------------------------------------ one task


def _as_text(report: Report) -> str:
    lines = [f"note: {note}" for note in report.notes]
    if report.traceback:
        lines += ["Traceback (most recent call last):"] * report.traceback.startswith("  File")
        lines.append(report.traceback)
    if report.stack:
        lines.append(report.stack)
    times = _times(report)
    lines.append(f"{_title(report)}: {times}" if times else _title(report))
    lines += [f"{report.verdict}: {report.text}"]
    lines += [f"  and {remark}" for remark in report.remarks]
    return "\n".join(lines)


def _title(report: Report) -> str:
    attempt = f", attempt {report.attempt}" if report.attempt else ""
    return f"{report.function} ({report.name}){attempt}"


def _times(report: Report) -> str:
    """What it took; nothing of a task that died then and now, as nobody is left to tell."""
    then = f"{report.then_ns / 1e6:.3f} ms then" if report.then_ns >= 0 else ""
    now = f"{report.now_ns / 1e6:.3f} ms now" if report.now_ns >= 0 else ""
    return ", ".join(filter(None, (then, now)))


def _as_json(options: argparse.Namespace, body: dict[str, Any]) -> str:  # Any: JSON
    return document("detray rerun", {"trace": options.trace, **body})


def _row(row: Report | ListedTask) -> dict[str, Any]:  # Any: JSON
    """A task with the keys that it has everywhere: `short`, and its function as `name`."""
    import msgspec

    data = msgspec.structs.asdict(row)
    named = {"id": data.pop("id"), "short": data.pop("name"), "name": data.pop("function")}
    return named | data


def _summary_data(summary: Summary) -> dict[str, Any]:  # Any: JSON
    import msgspec

    data = msgspec.structs.asdict(summary)
    return {
        key: [_row(report) for report in value] if isinstance(value, list) else value
        for key, value in data.items()
    }


# ------------------------------------------------------------------ all tasks


def _run_all(recorded: Recorded, options: argparse.Namespace) -> int:
    import detray.rerun as rerun

    progress = _Progress()
    with _Output(to_stderr=True):
        summary = rerun.run_all(
            recorded,
            trust=options.trust,
            tell=_Teller(),
            progress=progress.show,
            timeout_s=options.timeout,
            memory_bytes=options.memory or 0,
        )
    is_json = options.json
    print(_as_json(options, _summary_data(summary)) if is_json else _summary_text(summary))
    if summary.differing:
        return 1
    return 2 if summary.cannot else 0


def _summary_text(summary: Summary) -> str:
    ran = summary.same + len(summary.differing) + len(summary.unknown)
    lines = [
        f"{ran:,} of {summary.tasks:,} tasks ran again in {summary.duration_ns / 1e9:.1f} s: "
        f"{summary.same:,} the same, {len(summary.differing):,} not"
        + (f", {len(summary.unknown):,} not to be compared" if summary.unknown else "")
    ]
    if summary.skipped:
        lines.append(f"{summary.skipped:,} never ran to an end then, and did not now")
    for kind, reports in (
        ("differs", summary.differing),
        ("unknown", summary.unknown),
        ("cannot", summary.cannot),
    ):
        told: Counter[str] = Counter()
        for report in reports:
            told[report.function] += 1
            if told[report.function] <= _REPORTS_MAX:
                lines.append(f"{kind}: {_title(report)}: {report.text}")
                lines += [f"  and {remark}" for remark in report.remarks[:_REPORTS_MAX]]
        lines += [
            f"{kind}: {count - _REPORTS_MAX:,} more calls of {name}"
            for name, count in told.items()
            if count > _REPORTS_MAX
        ]
    return "\n".join(lines)


class _Progress:
    """How far it is, on standard error, now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _PROGRESS_S

    def show(self, done: int, total: int, differing: int) -> None:
        """Called after each task."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_S
        _say(f"{done:,} of {total:,} tasks, {differing:,} differ")


class _Output:
    """Standard output and error are for the answer afterwards, whatever a task does to them.

    What tasks print goes to standard error meanwhile, if asked.
    """

    def __init__(self, to_stderr: bool = False) -> None:
        self._to_stderr = to_stderr
        self._kept: list[int] = []
        self._streams = sys.stdout, sys.stderr

    def __enter__(self) -> None:
        from detray.rerun.apart import private

        self._streams = sys.stdout, sys.stderr
        sys.stdout.flush()
        self._kept = [os.dup(1), os.dup(2)]
        private.update(self._kept)
        if self._to_stderr:
            os.dup2(2, 1)

    def __exit__(self, *_: object) -> None:
        from detray.rerun.apart import private

        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or not a stream at all
                stream.flush()
        sys.stdout, sys.stderr = self._streams
        private.difference_update(self._kept)
        for number, kept in enumerate(self._kept, 1):
            os.dup2(kept, number)
            os.close(kept)
        if sys.stdout.closed:
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # until the process ends
        if sys.stderr.closed:
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Let this process end though a task left threads for which Python would wait for ever."""
    before = set(threading.enumerate())
    try:
        yield
    finally:
        left = [t for t in threading.enumerate() if not t.daemon and t not in before]
        if left:
            _say(f"a task left {len(left)} threads that run: they end with this process")
            # What Python calls to wait for them; there is no public way around it but os._exit,
            # which would drop what is not written yet.
            threading._shutdown = _nothing  # type: ignore[attr-defined]


def _nothing() -> None:
    """Wait for nobody."""


# ------------------------------------------------------------------ which there are


def _list(rows: list[ListedTask], options: argparse.Namespace) -> int:
    if options.json:
        print(_as_json(options, {"rows": [_row(row) for row in rows]}))
        return 0
    width = max([len(row.name) for row in rows[:_ROWS_MAX]], default=0)
    for row in rows[:_ROWS_MAX]:
        time_text = f"{row.duration_ns / 1e6:,.3f} ms" if row.duration_ns >= 0 else ""
        attempts = f"{row.attempts} attempts" if row.attempts > 1 else ""
        parts = [
            f"{row.name:{width}}  {row.state:9} {time_text:>14}  {row.function}",
            attempts,
            row.error,
            row.why_not and f"cannot run again: {row.why_not}",
        ]
        print(one_line("  ".join(filter(None, parts))))
    if len(rows) > _ROWS_MAX:
        print(f"... and {len(rows) - _ROWS_MAX:,} more (--json shows all)")
    return 0
