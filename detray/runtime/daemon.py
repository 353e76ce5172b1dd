"""A process of a cluster that outlives who started it: readiness, signals, what it leaves to find.

The starter hears one frame: `DidStart`, or `DidNotStart` with the reason. Others find the process
by `cluster.json` in its session directory. SIGTERM asks for an orderly end; so does, if the boot
order says so, the end of the starter (its end of the lifeline closes, however it died).
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Any

import msgspec

from detray import __version__
from detray.runtime.boot import ClusterBoot, DidNotStart, DidStart
from detray.runtime.frames import frame
from detray.runtime.session import INFO_NAME, TOKEN_NAME
from detray.runtime.wakeups import Wakeups
from detray.trace.replacing import write_whole

Info = dict[str, str | int]


class Daemon:
    """What a head and a node of a cluster have in common as processes."""

    def __init__(
        self,
        boot: ClusterBoot,
        session_dir: str,
        *,
        starter: socket.socket,
        lifeline: socket.socket,
        wakeups: Wakeups,
    ) -> None:
        self.stop_asked = ""
        """Why this process should end, once it should."""
        self.lifeline = lifeline
        self._boot = boot
        self._session_dir = session_dir
        self._starter: socket.socket | None = starter
        self._wakeups = wakeups
        starter.setblocking(False)
        self._signals, handed = socket.socketpair()
        self._signals.setblocking(False)
        handed.setblocking(False)
        signal.set_wakeup_fd(handed.detach(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        wakeups.watch(self._signals.fileno(), self._on_signal)
        if boot.ends_with_starter:
            wakeups.watch(lifeline.fileno(), self._on_lifeline)

    @property
    def is_told(self) -> bool:
        """True once the starter knows whether we came up."""
        return self._starter is None

    def tell_ready(self, info: Info) -> None:
        """The process is what it was started to be: let it be found, tell the starter. Once."""
        if self._starter is None:
            return
        write_whole(os.path.join(self._session_dir, TOKEN_NAME), [self._boot.token])
        facts: dict[str, Any] = {
            **info,
            "pid": os.getpid(),
            "cluster": self._boot.cluster,
            "started_ns": time.time_ns(),
            "version": __version__,
            "tied": int(self._boot.ends_with_starter),
            "with_head": int(self._boot.is_with_head),
        }
        if self._boot.tls is not None:
            files = msgspec.structs.asdict(self._boot.tls)
            facts |= {f"tls_{name}": os.path.abspath(path) for name, path in files.items()}
        write_whole(os.path.join(self._session_dir, INFO_NAME), [msgspec.json.encode(facts)])
        self._tell(DidStart(facts))

    def tell_not_ready(self, reason: str) -> None:
        """It never will be. Nothing if it was."""
        self._tell(DidNotStart(reason))

    def _tell(self, message: DidStart | DidNotStart) -> None:
        starter, self._starter = self._starter, None
        if starter is None:
            return
        try:
            starter.sendall(frame(msgspec.msgpack.encode([message])))
        except OSError:
            pass  # Whoever started us has gone.
        starter.close()
        if not self._boot.ends_with_starter:
            self.lifeline.close()

    def _on_sigterm(self, number: int, _frame: object) -> None:
        self.stop_asked = self.stop_asked or "it was told to stop"

    def _on_signal(self, _mask: int) -> None:
        self._signals.recv(64)

    def _on_lifeline(self, _mask: int) -> None:
        try:
            if self.lifeline.recv(64):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._wakeups.forget(self.lifeline.fileno())
        self.stop_asked = self.stop_asked or "whoever started it has gone"
