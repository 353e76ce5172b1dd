"""`detray`: the parser, and which function does what.

Exit codes: 0 all is well; 1 the answer is no (a difference, no session), or what was asked for
cannot be done; 2 the question made no sense (bad arguments, a file that cannot be read), said in
one line on stderr; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from detray import __version__
from detray.cli.asking.observer import NoAnswer
from detray.cli.collect import add_collect
from detray.cli.debug import add_debug
from detray.cli.diff import add_diff
from detray.cli.graph import add_graph
from detray.cli.listing import add_get, add_list
from detray.cli.logs import add_logs
from detray.cli.replay import add_replay
from detray.cli.report import add_report
from detray.cli.rerun import add_rerun
from detray.cli.shrink import add_shrink
from detray.cli.starting import add_start, add_stop
from detray.cli.status import add_status
from detray.cli.story import add_story
from detray.cli.terminal.plain_output import plain_output
from detray.cli.timeline import add_timeline
from detray.cli.why import add_why
from detray.errors import DetrayError
from detray.trace.format import TraceError
from detray.trace.plain_text import plain

_ABOUT = "detray: distributed execution for Python, recorded and replayable."
_LEARN = """\
several machines:
  detray start --head               a cluster begins here; it says how others join
  detray start --address=HOST:PORT  this machine joins
  detray status, list, logs, stop   what runs there, and its end

a first look:
  python program.py                 a program that says  import detray
  detray status                     meanwhile, in a second terminal: what runs, what waits
  detray.init(record="run.trace")   in the program: keep every decision in a file

what the file is good for:
  detray replay run.trace           take all decisions again and compare them
  detray debug run.trace            walk through them, forwards and backwards
  detray report run.trace           a page to look at: timeline, critical path, failures
  detray graph run.trace            tasks and objects: numbers, critical path, a picture
  detray timeline run.trace         who ran what when, for https://ui.perfetto.dev
  detray story run.trace ID         the life of a task, an object, "worker 3" or a function
  detray why run.trace ID           why it was slow, failed, never ended, or is not there
  detray diff good.trace bad.trace  two runs: what differs, where it began, what took longer
  detray rerun run.trace --list     run a task again, under pdb if you like (record_payloads=True)
  detray shrink run.trace           the few stimuli that violate an expectation, as a transcript
  detray trace collect *.trace      the recordings of a cluster as one, checked against each other

`detray COMMAND --help` says more. After a crash the last moments of a run are kept in a trace of
their own (the flight recorder); the message that reports the crash says where.
"""


_ADD = (
    add_start, add_stop, add_status, add_list, add_get, add_logs, add_replay, add_debug, add_report,
    add_graph, add_timeline, add_story, add_why, add_diff, add_collect, add_rerun, add_shrink,
)  # fmt: skip
"""The commands, in the order of the help."""
_TELL_OF_TRACES = frozenset(
    ("replay", "debug", "report", "graph", "timeline", "story", "why", "diff", "trace", "shrink")
)
"""Commands that print what a file says. (`rerun` lets the user's code print.)"""


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options. The last word of a command that may do without it may stand behind options.

    argparse takes such a word as missing when an option stands before it: `why TRACE --depth 2 ID`.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    late = getattr(options, "late", "")
    if late and len(rest) == 1 and not rest[0].startswith("-") and not getattr(options, late):
        setattr(options, late, rest[0])
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


class _Refused(Exception):
    """Arguments that make no sense."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]  # it does not return
        raise _Refused(f"{message} (see: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["bench"]:
            # Not a floor below this one but a neighbour: found by name.
            return int(import_module("detray.bench").main(arguments[1:]))
        options = _parse(arguments)
        if options.command is None:
            _parser().print_help()
            return 0
        if options.command not in _TELL_OF_TRACES:
            return int(options.run(options))
        is_for_people = not getattr(options, "json", False)
        with plain_output(cut=is_for_people and getattr(options, "output", None) != "-"):
            return int(options.run(options))
    except (TraceError, _Refused, ValueError) as error:
        return _refuse(str(error))
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (DetrayError, NoAnswer, ConnectionError) as error:
        return _refuse(str(error), 1)
    except OSError as error:
        why = error.strerror or str(error)
        return _refuse(f"{error.filename}: {why}" if error.filename else why)
    except ModuleNotFoundError as error:
        return _refuse(f"{error.name} is not installed: pip install 'detray[graph,cli]'")
    except KeyboardInterrupt:
        return 130


def _refuse(text: str, status: int = 2) -> int:
    with suppress(OSError):  # Nobody listens.
        print(f"detray: {plain(text)}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="detray",
        description=_ABOUT,
        epilog=_LEARN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"detray {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for add in _ADD:
        add(commands)
    commands.add_parser("bench", help="measure detray and its peers (detray bench --help)")
    return parser
