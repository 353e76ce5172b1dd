"""The driver's end of the log channel: prints what workers print, and fetches the trace.

A thread of its own reads the channel, so that lines appear while the program computes. Frames (see
`runtime/frames.py`) bring `["log", worker, pid, name, stream, lines, ip]` with stream "stdout" or
"stderr", `["notify", level, kind, text]`, and `["trace", request]` with the trace as payload.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any, TextIO

import msgspec

from detray.errors import EngineError
from detray.runtime.frames import FrameError, FrameReader, frame

_CYAN, _YELLOW, _RED, _PLAIN = "\x1b[36m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
_TRACE_S = 30.0
ASK_S = 10.0
"""How long a question about the cluster may take, unless the asker says otherwise."""


class DriverLogs:
    """Reads the log channel until it ends."""

    def __init__(self, channel: socket.socket, *, show: bool = True) -> None:
        """`show`: print what workers print; notices are printed in any case."""
        self._channel = channel
        self._show = show
        self._reader = FrameReader()
        self._thread = threading.Thread(target=self._run, name="detray-logs", daemon=True)
        self._traces: dict[int, bytes] = {}
        self._answers: dict[int, tuple[Any, str]] = {}
        self._arrived = threading.Condition()
        self._ended = False
        self._requests = 0

    def start(self) -> None:
        """Begin to read."""
        self._channel.setblocking(True)
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Wait until the last line is printed (the service has ended, so the channel does)."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._channel.close()

    def leave(self, timeout_s: float) -> None:
        """Print what has been printed by now, then close: the service goes on without us."""
        try:
            # Lines come on this channel before the answer does, whatever that is.
            self.ask("ping", timeout_s=timeout_s)
        except (EngineError, OSError):
            pass
        try:
            self._channel.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # It has gone already.
        self.finish(timeout_s)

    def request_trace(self) -> bytes:
        """The trace of the session up to now, as the bytes of a trace file.

        Raises TimeoutError, or ConnectionError if the service ends first.
        """
        number = self._request("trace")
        if self._wait_for(self._traces, number, _TRACE_S):
            return self._traces.pop(number)
        raise TimeoutError(f"the service did not send the trace within {_TRACE_S:.0f} s")

    def ask(self, topic: str, *arguments: Any, timeout_s: float = ASK_S) -> Any:  # Any: plain data
        """Ask the cluster's head about a topic; its answer.

        Raises EngineError if it has none, or none came in time; ConnectionError if the service
        ends first.
        """
        number = self._request("ask", topic, *arguments)
        if not self._wait_for(self._answers, number, timeout_s):
            raise EngineError(
                f"the head of the cluster did not answer ({topic}) within {timeout_s:g} s. It may "
                "be starting again: `detray status` tells"
            )
        body, problem = self._answers.pop(number)
        if problem:
            raise EngineError(f"the cluster cannot say ({topic}): {problem}")
        return body

    def _request(self, kind: str, *facts: Any) -> int:
        with self._arrived:
            self._requests += 1
            number = self._requests
            if not self._ended:
                request = [kind, number, *facts]
                self._channel.sendall(frame(msgspec.msgpack.encode([request])))
        return number

    def _wait_for(self, answers: dict[int, Any], number: int, timeout_s: float) -> bool:
        """True when the answer is there, False if time is up. Raises ConnectionError."""
        with self._arrived:
            self._arrived.wait_for(lambda: number in answers or self._ended, timeout_s)
            if number in answers:
                return True
            if self._ended:
                raise ConnectionError("the service ended before it had answered")
            return False

    def _run(self) -> None:
        try:
            while self._reader.receive(self._channel):
                while (piece := self._reader.next()) is not None:
                    self._enter(*piece)
        except (OSError, FrameError):
            pass  # The end of the service, however it came; whoever calls it next hears of it.
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def _enter(self, meta: memoryview, payload: memoryview) -> None:
        for kind, *facts in msgspec.msgpack.decode(meta):
            if kind == "log":
                if self._show:
                    self._print_lines(*facts)
            elif kind == "notify":
                self._print_notice(*facts)
            elif kind == "trace":
                self._keep(self._traces, facts[0], bytes(payload))
            elif kind == "answer":
                self._keep(self._answers, facts[0], (facts[1], ""))
            elif kind == "no":
                self._keep(self._answers, facts[0], (None, str(facts[1]) or "no reason given"))

    def _keep(self, answers: dict[int, Any], number: int, answer: Any) -> None:
        with self._arrived:
            answers[number] = answer
            self._arrived.notify_all()

    def _print_lines(
        self, worker: int, pid: int, name: str, stream: str, lines: list[Any], ip: str = ""
    ) -> None:  # Any: str or bytes
        out = sys.stderr if stream == "stderr" else sys.stdout
        where = f"pid={pid}, ip={ip}" if ip else f"pid={pid}"
        label = f"({name} {where})" if name else f"({where})"
        prefix = _coloured(out, _CYAN, label) + " "
        _write(out, "".join([f"{prefix}{_text(line)}\n" for line in lines]))

    def _print_notice(self, level: str, kind: str, text: str) -> None:
        colour = _RED if level == "error" else _YELLOW
        label = _coloured(sys.stderr, colour, f"(detray {level}: {kind})")
        _write(sys.stderr, f"{label} {text}\n")


def _text(line: str | bytes) -> str:
    return line if isinstance(line, str) else line.decode("utf-8", "backslashreplace")


def _coloured(out: TextIO, colour: str, label: str) -> str:
    wanted = os.environ.get("RAY_COLOR_PREFIX")
    if wanted == "1" or (wanted is None and _is_terminal(out)):
        return f"{colour}{label}{_PLAIN}"
    return label


def _is_terminal(out: TextIO) -> bool:
    try:
        return out.isatty()
    except (AttributeError, ValueError):
        return False


def _write(out: TextIO | None, text: str) -> None:
    """Print in one piece. The program may have closed or replaced its streams: then it is lost."""
    try:
        if out is not None:
            out.write(text)
            out.flush()
    except (OSError, ValueError, UnicodeError):
        pass
