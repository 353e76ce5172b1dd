"""`detray-sim`: the parser, and which function does what.

Exit codes: 0 all is well; 1 the answer is no (tasks failed, a seed failed); 2 the question made no
sense (bad arguments, a file that cannot be read), said in one line on stderr; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from detray import __version__
from detray_sim.cli import compare, listing, run, seeds, whatif
from detray_sim.cli.refusal import Refused
from detray_sim.report.text import ReportError
from detray_sim.toml_tables import ScenarioError
from detray_sim.workload import WorkloadError

_ABOUT = """\
detray-sim: the real schedulers of detray on simulated clusters, in virtual time.

Every decision is taken by the state machines that run in production; only processes, disks and
networks are simulated. Equal scenarios and seeds give equal results, to the last bit."""
_LEARN = """\
a first look:
  detray-sim run cholesky.toml                      one run, its numbers on the terminal
  detray-sim run cholesky.toml --out out            and charts, tables, a trace for Perfetto
  detray-sim run cholesky.toml --policy heft --set cluster.nodes=16
  detray-sim compare cholesky.toml --policies hybrid,blevel,heft --nodes 1,2,4,8 --seeds 5

would another cluster have helped?
  detray-sim whatif run.trace --nodes 1,2,4,8 --out answer

what may go wrong:
  detray-sim swarm --seeds 1000                     made-up worlds with faults, every step checked
  detray-sim seed 4711 --shrink                     one of them; if it fails, the smallest alike

what a scenario may say:
  detray-sim list                                   generators, policies, networks, faults

`detray-sim COMMAND --help` says more, with examples."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]  # it does not return
        raise Refused(f"{message} (see: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(arguments)
        if options.command is None:
            _parser().print_help()
            return 0
        call: Callable[[argparse.Namespace], int] = options.run
        return call(options)
    except (Refused, ScenarioError, WorkloadError, ReportError) as error:
        return _refuse(str(error))
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refuse(
            f"{error.filename}: {error.strerror}"
            if error.filename
            else error.strerror or str(error)
        )
    except KeyboardInterrupt:
        return 130


def _refuse(text: str) -> int:
    with suppress(OSError):  # Nobody listens.
        print(f"detray-sim: {' '.join(text.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="detray-sim",
        description=_ABOUT,
        epilog=_LEARN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"detray {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run.add_parser(commands)
    compare.add_parser(commands)
    seeds.add_parsers(commands)
    listing.add_parser(commands)
    whatif.add_parser(commands)
    return parser
