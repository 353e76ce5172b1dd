"""`detray debug`: walk through a trace in a terminal, forwards and backwards.

The session is a `cmd.Cmd` over a `Replay`: each command is a method `do_...`, whose docstring is
its help. An error is one line and never ends the session; Ctrl-C stops a command that takes long,
and leaves the position as it was.
"""

from __future__ import annotations

import argparse
import cmd
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from detray.cli.arguments.trace import add_trace, open_named
from detray.cli.terminal.progress import SOON_S, ProgressLine

if TYPE_CHECKING:
    import msgspec

    from detray.trace.play import Played
    from detray.trace.telling.story import StorySubject
    from detray.trace.travel.seeking import Replay

_EXAMPLES = """\
examples:
  detray debug run.trace
  detray debug run.trace -c "until task train failed; show train; back; state"
  echo "until failure; stimuli; effects" | detray debug run.trace

Type help in the session for the commands, help until for what can be waited for.
"""
PROMPT = "(detray) "
LIST_LINES = 20
LINE_WIDTH = 400
SHOWN_MAX = 3
"""Things that are shown when nothing was named."""


def add_debug(commands: Any) -> None:  # Any: argparse has no public name for it
    """Add `detray debug` to the commands."""
    parser = commands.add_parser(
        "debug",
        help="walk through a trace step by step, forwards and backwards",
        description="A terminal session at any step of a trace, with the state of every core "
        "there. Reads commands from the terminal, from stdin, or from -c; of a script the exit "
        "code is 1 if a command failed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trace(parser)
    parser.add_argument(
        "-c", dest="script", metavar="COMMANDS", help="do this, separated by ;, and end"
    )
    parser.set_defaults(run=run_debug)


def run_debug(options: argparse.Namespace) -> int:
    """`detray debug`: 0; of a script 1 if a command failed."""
    trace = open_named(options)
    with ProgressLine(after_s=SOON_S) as line:
        replay = trace.replay(progress=partial(line.show, "playing steps"))
    session = Debugger(replay)
    session.greet()
    if options.script is not None:
        for line in options.script.split(";"):
            print(f"{PROMPT}{line.strip()}")
            if session.onecmd(line.strip()):
                break
        return 1 if session.failures else 0
    is_terminal = sys.stdin.isatty()
    session.use_rawinput = is_terminal
    session.prompt = PROMPT if is_terminal else ""
    session.run()
    return 1 if session.failures and not is_terminal else 0


class _Unclear(Exception):
    """A command with arguments that make no sense."""


class Debugger(cmd.Cmd):
    """A session at a replay. `failures` counts commands that could not be done."""

    doc_header = (
        "commands (help NAME says more; a beginning is enough: u for until; several on a line with "
        "; between; an empty line does the last one again):"
    )

    def __init__(self, replay: Replay, stdin: IO[str] | None = None) -> None:
        super().__init__(stdin=stdin)
        self.replay = replay
        self.failures = 0
        self._core = -1
        """The core that was chosen; -1: that of the last step."""

    def greet(self) -> None:
        """What trace this is, and what is to be known of it before anything else."""
        replay, trace = self.replay, self.replay.trace
        cores = ", ".join(replay.names[:6])
        more = f" and {len(replay.names) - 6} more" if len(replay.names) > 6 else ""
        self._say(f"{trace.name}: steps {replay.first} to {replay.end} of {cores}{more}")
        if replay.note:
            self._say(f"it can be played up to step {replay.end} only: {replay.note}")
        if replay.unplayed:
            self._say(f"{replay.unplayed:,} steps are of cores whose state is not known")
        if replay.differing:
            self._say(
                f"{len(replay.differing):,} steps decide otherwise than was recorded, the first is "
                f"{replay.differing[0]}: what is shown after it is not what was (see: diff)"
            )

    def run(self) -> None:
        """Read commands until there are no more."""
        while True:
            try:
                self.cmdloop()
                return
            except KeyboardInterrupt:  # at the prompt
                self._say("")

    # ---------------------------------------------------------------- how commands are done

    def onecmd(self, line: str) -> bool:
        """Do a command, or several with ; between; True if one ends the session.

        Errors are told, not raised.
        """
        if ";" in line:
            return any(self.onecmd(part.strip()) for part in line.split(";") if part.strip())
        from detray.errors import DetrayError

        try:
            return bool(super().onecmd(line))
        except KeyboardInterrupt:
            self._fail(f"interrupted; still at step {self.replay.at}")
        except (DetrayError, _Unclear, ValueError) as error:
            self._fail(str(error))
        except BrokenPipeError:
            raise
        except Exception as error:  # a bug of ours; the session is worth more
            self._fail(f"{type(error).__name__}: {error}")
        return False

    def parseline(self, line: str) -> tuple[str | None, str | None, str]:
        """A command and what it is about, which may stand in quotes as in a shell."""
        command, about, line = super().parseline(line)
        words = (about or "").strip()
        if len(words) > 1 and words[0] == words[-1] and words[0] in "\"'":
            about = words[1:-1]
        return command, about, line

    def default(self, line: str) -> bool:  # type: ignore[override]  # its answer counts
        """What is no command: the beginning of one, or nothing that is known."""
        if line == "EOF":
            return False
        word, _, rest = line.partition(" ")
        if word == "exit":
            return self.onecmd("quit")
        found = [name for name in self._names() if name.startswith(word)]
        if len(found) == 1:
            return self.onecmd(f"{found[0]} {rest}")
        which = f"it may be {', '.join(found)}" if found else "help lists them"
        raise _Unclear(f"no command {word!r}: {which}")

    def postcmd(self, stop: bool, line: str) -> bool:
        """The end of the input ends the session."""
        return stop or line == "EOF"

    def completenames(self, text: str, *ignored: Any) -> list[str]:  # Any: as cmd has it
        """Commands that begin so."""
        return [name for name in super().completenames(text, *ignored) if name != "EOF"]

    def do_help(self, arg: str) -> None:
        """help [COMMAND]: what there is, or what one does."""
        if not arg:
            self._say(self.doc_header)
            for name in self._names():
                self._say(f"  {self._doc(name).splitlines()[0]}")
            return
        if arg not in self._names():
            raise _Unclear(f"no command {arg!r}: help lists them")
        self._say(self._doc(arg))
        if arg in ("until", "rewind"):
            from detray.trace.travel import conditions

            self._say((conditions.__doc__ or "").strip())

    def _names(self) -> list[str]:
        return [name[3:] for name in vars(Debugger) if name.startswith("do_")]

    def _doc(self, name: str) -> str:
        text = getattr(self, f"do_{name}").__doc__ or ""
        return re.sub(r"\n +", "\n", text).strip()

    def _say(self, text: str) -> None:
        print(text, file=self.stdout)

    def _fail(self, text: str) -> None:
        self.failures += 1
        self._say(f"error: {text}")

    # ---------------------------------------------------------------- moving

    def do_goto(self, arg: str) -> None:
        """goto N | +N | -N | start | end | TIME s: stand before step N, or at that time"""
        replay, word = self.replay, arg.strip().lower()
        if word in ("start", "end"):
            replay.goto(replay.first if word == "start" else replay.end)
        elif re.fullmatch(r"[+-]\d+", word):
            replay.goto(min(replay.end, max(replay.first, replay.at + int(word))))
        elif re.fullmatch(r"\d+", word):
            replay.goto(int(word))
        elif re.fullmatch(r"[\d.]+ ?[a-z]+", word):
            replay.goto(replay.first)
            if not replay.until(f"time {word}"):
                replay.goto(replay.end)
        else:
            raise _Unclear("goto where? a step (goto 100), +10, -10, start, end, or a time (1.5 s)")
        self._where()

    def do_step(self, arg: str) -> None:
        """step [N]: take the next step, or N steps"""
        self.replay.step(_count(arg))
        self._where()

    def do_back(self, arg: str) -> None:
        """back [N]: stand one step earlier, or N steps"""
        self.replay.back(_count(arg))
        self._where()

    def do_until(self, arg: str) -> None:
        """until CONDITION: go on to where it holds for the first time, after here"""
        self._until(arg, backwards=False)

    def do_rewind(self, arg: str) -> None:
        """rewind CONDITION: go back to where it held for the last time, before here"""
        self._until(arg, backwards=True)

    def _until(self, arg: str, *, backwards: bool) -> None:
        if not arg.strip():
            raise _Unclear("until what? help until lists what can be said")
        if not self.replay.until(arg, backwards=backwards):
            where = "before" if backwards else "after"
            raise _Unclear(f"{arg.strip()!r} never holds {where} step {self.replay.at}")
        self._where()

    def do_watch(self, arg: str) -> None:
        """watch ID: go on to the next step that changes what a core knows of it, and show that"""
        from detray.trace.travel.watching import RowWatch

        watch = RowWatch(self.replay, self._subject(arg))
        if not self.replay.until(watch):
            raise _Unclear(f"nothing changes of {arg.strip()} after step {self.replay.at}")
        self._where()
        for change in watch.changes:
            self._line(change)

    def do_where(self, arg: str) -> None:
        """where: at which step, at what time, after what"""
        self._where()

    def _where(self) -> None:
        replay = self.replay
        last = replay.last
        seconds = f"{replay.since_ns / 1e9:.6f} s"
        if last is None:
            self._say(f"at step {replay.at}, before all others")
        else:
            effects = len(last.effects) if last.is_played else len(last.step.effects() or ())
            self._say(
                f"at step {replay.at}, {seconds}: step {last.step.number} of "
                f"{replay.names[last.step.core]} was told {len(last.stimuli)}, ordered {effects}"
            )
            for stimulus in last.stimuli[:3]:
                self._line(f"  {_brief(stimulus)}")
            if len(last.stimuli) > 3:
                self._say(f"  ... {len(last.stimuli) - 3:,} more (see: stimuli)")
            if last.raised:
                self._say(f"  it raised: {last.raised.strip().splitlines()[-1]}")
        if not replay.is_true:
            self._say(f"not what was: step {replay.differing[0]} decided otherwise (see: diff)")
        if replay.at == replay.end:
            self._say(f"this is the end{': ' + replay.note if replay.note else ''}")

    # ---------------------------------------------------------------- looking

    def do_stimuli(self, arg: str) -> None:
        """stimuli [N]: what the core of the last step was told, N lines of it"""
        self._messages(self._last().stimuli, arg)

    def do_effects(self, arg: str) -> None:
        """effects [N]: what it ordered"""
        last = self._last()
        self._messages(last.effects if last.is_played else last.step.effects() or (), arg)

    def _last(self) -> Played:
        if self.replay.last is None:
            raise _Unclear("no step was taken yet: step takes the first")
        return self.replay.last

    def _messages(self, messages: Sequence[Any], arg: str) -> None:  # Any: stimuli or effects
        limit = _count(arg, LIST_LINES)
        self._list([f"  {_brief(message)}" for message in messages[:limit]], len(messages))

    def do_core(self, arg: str) -> None:
        """core [NAME | last]: whose state is shown; without a name, which cores there are"""
        replay, word = self.replay, arg.strip().lower()
        if not word:
            for number, name in enumerate(replay.names):
                mark = ">" if number == self._chosen() else " "
                lives = "" if number in replay.cores else "  (no state here)"
                self._say(f"{mark} {name}{lives}")
            return
        names = [name.lower() for name in replay.names]
        found = [number for number, name in enumerate(names) if word in (name, str(number))]
        found = found or [number for number, name in enumerate(names) if name.startswith(word)]
        if word == "last":
            self._core = -1
        elif len(found) == 1:
            self._core = found[0]
        else:
            raise _Unclear(f"{arg.strip()!r} may be any of: {', '.join(replay.names)}, last")
        self._say(f"state is that of {replay.names[self._chosen()]}")

    def _chosen(self) -> int:
        if self._core >= 0:
            return self._core
        return self.replay.last.step.core if self.replay.last is not None else 0

    def do_state(self, arg: str) -> None:
        """state [TABLE [N] | ID]: the core's tables in short, N rows of one, or an id's rows"""
        from detray.trace.travel.shown import rows_in, summary

        name = self.replay.names[self._chosen()]
        tables: msgspec.Struct = self.replay.state(self._chosen())
        words = arg.split()
        if not words:
            self._say(f"{name}, before step {self.replay.at}:")
            fields = summary(tables)
            width = max([len(field) for field, _ in fields], default=0)
            for field, value in fields:
                self._line(f"  {field:{width}}  {value}")
        elif words[0] in tables.__struct_fields__:
            limit = _count(words[1] if len(words) > 1 else "", LIST_LINES)
            rows, count = rows_in(tables, words[0], limit)
            self._list([f"  {row}" for row in rows], count)
        else:
            self._show(arg, [self._chosen()])

    def do_show(self, arg: str) -> None:
        """show [ID]: its rows in every core; without one, of what the last step was told of"""
        if arg.strip():
            self._show(arg, list(self.replay.cores))
            return
        from detray.trace.names import ids_in, short

        found = {item for stimulus in self._last().stimuli for item in ids_in(stimulus)}
        known = [name for name in map(short, sorted(found)) if self._is_known(name)]
        if not known:
            raise _Unclear("the last step was told of no task or object that a core knows of here")
        for name in known[:SHOWN_MAX]:
            self._show(name, list(self.replay.cores))

    def _is_known(self, name: str) -> bool:
        from detray.trace.format import TraceError

        try:
            return bool(self.replay.rows_about(name))
        except TraceError:
            return False

    def _show(self, arg: str, cores: Iterable[int]) -> None:
        found = self.replay.rows_about(self._subject(arg))
        rows = [(core, row) for core in cores for row in found.get(core, ())]
        for core, row in rows:
            first, *rest = row.lines()
            self._line(f"{self.replay.names[core]}: {first}")
            for line in rest:
                self._line(line)
        if not rows:
            raise _Unclear(f"no core knows anything of {arg.strip()} before step {self.replay.at}")

    def do_story(self, arg: str) -> None:
        """story ID: its life; > marks what the last step did, the future is shown as well"""
        from detray.trace.telling.story import story

        lines = list(story(self.replay.trace, self._subject(arg)))
        if not lines:
            raise _Unclear(f"the trace tells nothing of {arg.strip()}")
        for line in lines:
            self._line(f"{'>' if line.step == self.replay.at - 1 else ' '} {line}")

    def do_why(self, arg: str) -> None:
        """why [ID]: why it took so long, failed, or never ended; without ID, the first failure"""
        from detray.cli.terminal.causes import why_text
        from detray.trace.explaining.answering import why

        about = self._subject(arg) if arg.strip() else ""
        self._say(why_text(why(self.replay.trace, about)))

    def do_diff(self, arg: str) -> None:
        """diff: how the last step differs from what was recorded, and which steps do"""
        from detray.trace.difference import render
        from detray.trace.replaying import Difference

        last = self.replay.last
        if last is not None and last.is_played and not last.is_same:
            what = "it decides otherwise than was recorded"
            self._say(render(Difference(what=what, played=last), self.replay.trace))
        elif last is not None:
            self._say(f"step {last.step.number} decides as was recorded")
        if self.replay.differing:
            shown = ", ".join(map(str, self.replay.differing[:LIST_LINES]))
            self._say(f"{len(self.replay.differing):,} steps differ: {shown}")
        else:
            self._say("no step differs")

    def do_find(self, arg: str) -> None:
        """find ID | CLASS: the steps that mention an id, or have such a stimulus or effect"""
        replay, word = self.replay, arg.strip()
        contents = replay.contents
        kinds = [k for k in {*contents.stimuli, *contents.effects} if k.__name__ == word]
        if kinds:
            numbers = sorted({*contents.told(*kinds), *contents.ordered(*kinds)})
            steps = [f"  step {number:<8} {self._time(number)}" for number in numbers[:LIST_LINES]]
            self._list(steps, len(numbers))
            return
        subject = self._subject(arg)
        if not subject.item:
            raise _Unclear(f"find takes an id or a class of messages; story {word} tells of it")
        found = list(replay.trace.mentions(subject.item, replay.first, replay.end))
        lines = [
            f"  step {step.number:<8} {self._time(step.number)}  {replay.names[step.core]}"
            for step in islice(found, LIST_LINES)
        ]
        self._list(lines, len(found))

    def _time(self, step: int) -> str:
        return f"{self.replay.time_of(step) / 1e9:12.6f} s"

    def do_quit(self, arg: str) -> bool:
        """quit: end the session (so does the end of the input)"""
        return True

    # ---------------------------------------------------------------- names and lines

    def _subject(self, text: str) -> StorySubject:
        if not text.strip():
            raise _Unclear('of what? an id, a short name, a function, "worker 3" or "node 2"')
        return self.replay.contents.find(text)

    def _line(self, text: str) -> None:
        self._say(text if len(text) <= LINE_WIDTH else text[:LINE_WIDTH] + " ...")

    def _list(self, lines: Sequence[str], count: int) -> None:
        for line in lines:
            self._line(line)
        if count > len(lines):
            self._say(f"  ... {count - len(lines):,} more")
        if not count:
            self._say("  (nothing)")


def _brief(value: Any) -> str:  # Any: a message or an id
    from detray.trace.travel.shown import brief

    return brief(value)


def _count(arg: str, default: int = 1) -> int:
    word = arg.strip()
    if not word:
        return default
    if not word.isdecimal():
        raise _Unclear(f"a number of steps or lines, please, not {word!r}")
    return int(word)
