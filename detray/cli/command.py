"""`detray`: the parser, and which function does what.

Exit codes: 0 all is well; 1 the answer is no (a difference, no session), or what was asked for
cannot be done; 2 the question made no sense (bad arguments, a file that cannot be read), said in
one line on stderr; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from detray import __version__
from detray.cli import diff, listing, logs, starting, status, why
from detray.cli.debug import add_debug
from detray.cli.graph import add_graph
from detray.cli.heads import add_cluster
from detray.cli.observer import NoAnswer
from detray.cli.opening import add_trace
from detray.cli.plain_output import open_closed, plain_output
from detray.cli.replay import add_replay
from detray.cli.report import add_report
from detray.cli.rerun import add_rerun
from detray.cli.shrink import add_shrink
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


_STATUS = """\
examples:
  detray status                                the cluster here, or the sessions
  detray status --watch
  detray status --address=192.168.1.5:6379     from a machine that has the token
  detray status --json | python -m json.tool   "nodes" is a list of dicts
"""


_STORY = """\
examples:
  detray story run.trace 1.9f3a12.3            a task, from its submission to its end
  detray story run.trace 1.9f3a12.3/0          what it returned
  detray story run.trace "worker 3"
  detray story cluster.trace "node 2"          how it joined, its workers, its end; or "head"
"""


_TIMELINE = """\
examples:
  detray timeline run.trace                    writes run.timeline.json
  detray timeline run.trace -o - | gzip > run.json.gz

`detray report run.trace` is a page that shows a timeline, too, and needs no other program.
"""


_COLLECT = """\
examples:
  detray trace collect -o night.trace          of the cluster that runs: what it recorded so far
  detray trace collect node0.trace node0.trace.head node1.trace
                                               files that were copied together; writes cluster.trace
  detray trace collect --payloads              arguments and values, too: beside cluster.trace
  detray rerun cluster.trace TASK --trust      for this: a task of any node, here
  detray why cluster.trace                     all that reads traces reads it

Nodes record if they were started so: detray start --head --record node0.trace --record-payloads
"""


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
    open_closed()
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
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ModuleNotFoundError as error:
        return _refuse(f"{error.name} is not installed: pip install 'detray[graph,cli]'")
    except KeyboardInterrupt:
        return 130


def _with_traces(name: str) -> Callable[[argparse.Namespace], int]:
    """A function of `cli/traces.py`, loaded when it is called: it costs a quarter of a second."""

    def run(options: argparse.Namespace) -> int:
        return int(getattr(import_module("detray.cli.traces"), name)(options))

    return run


def _refuse(text: str, status: int = 2) -> int:
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
    starting.add_start(commands)
    starting.add_stop(commands)
    _add_status(commands)
    listing.add_list(commands)
    listing.add_get(commands)
    logs.add_logs(commands)
    add_replay(commands)
    add_debug(commands)
    add_report(commands)
    add_graph(commands)
    _add_timeline(commands)
    _add_story(commands)
    why.add_why(commands)
    diff.add_diff(commands)
    _add_trace_commands(commands)
    add_rerun(commands)
    add_shrink(commands)
    commands.add_parser("bench", help="measure detray and its peers (detray bench --help)")
    return parser


_Commands = argparse._SubParsersAction  # the only name argparse has for it


def _add_status(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "status",
        help="what the cluster and the sessions of this user are doing",
        description="Show nodes, resources, tasks, objects, transfers and failures of the cluster "
        "of this machine, and the sessions that belong to none. Exit code 1 if there is neither.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("session", nargs="?", help="pid of a driver: only its session")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    _add_json(parser)
    add_cluster(parser)
    parser.set_defaults(run=status.run)


def _add_timeline(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "timeline",
        help="who ran what when, for Perfetto",
        description="Write Chrome trace events; open them at https://ui.perfetto.dev.",
        epilog=_TIMELINE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help='"-" for stdout (default: TRACE\'s name with .timeline.json)',
    )
    parser.set_defaults(run=_with_traces("run_timeline"))


def _add_story(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "story",
        help="the life of one task, object, worker or node",
        description="Tell all that a trace knows about one thing, in order.",
        epilog=_STORY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument(
        "about",
        metavar="ID",
        help="an id in hexadecimal or its beginning, a short name such as 1.9f3a12.3, "
        '"worker 3", "driver 1", "node 2", "head", or a function that was called once, '
        "or failed once",
    )
    _add_json(parser)
    parser.set_defaults(run=_with_traces("run_story"))


def _add_trace_commands(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "trace", help="bring the recordings of a cluster together (detray trace collect --help)"
    )
    inner = parser.add_subparsers(dest="what", metavar="WHAT", parser_class=_Parser, required=True)
    parser = inner.add_parser(
        "collect",
        help="the recordings of all processes of a cluster as one trace",
        description="Bring the recordings of the processes of one cluster together into one trace "
        "that replays as a whole, and check that what one says it sent is what the other received. "
        "Exit code 1 if some message is not.",
        epilog=_COLLECT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="recordings (default: those of a running cluster)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="cluster.trace", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--payloads",
        action="store_true",
        help="of a running cluster: bring what its nodes keep of arguments and values, too "
        "(beside files that are named they are found by themselves)",
    )
    parser.add_argument(
        "--payloads-limit",
        metavar="SIZE",
        type=starting.size,
        default="1G",
        help="more payloads than this are not fetched (default: %(default)s)",
    )
    add_cluster(parser)
    _add_json(parser)
    parser.set_defaults(run=_with_traces("run_collect"))


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
