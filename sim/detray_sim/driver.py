"""Simulated driver programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detray.core.effects import ClientMessage, Welcome
from detray.ids import ClientID, root_task
from detray_sim import behaviour as do
from detray_sim.process import Play, SimProcess
from detray_sim.values import Value

if TYPE_CHECKING:
    from detray_sim.node import SimNode


class SimDriver(SimProcess):
    """A driver program: connects, plays its body, leaves (unless it `stays`)."""

    def __init__(
        self,
        host: SimNode,
        client: ClientID,
        body: do.Body,
        *,
        entrypoint: str = "driver.py",
        token: Any = None,  # Any: the program's own
        stays: bool = False,
    ) -> None:
        super().__init__(host, client)
        self.entrypoint = entrypoint
        self.is_done = False
        self.results: Sequence[do.Result] = ()
        self.failed: do.BodyFailed | None = None
        self.done_ns = -1
        self._body = body
        self._token = token
        self._stays = stays

    def receive(self, messages: Sequence[ClientMessage], values: Sequence[Value]) -> None:
        """As of any client; the welcome begins the program."""
        super().receive(messages, values)
        if self.play is None and self.is_alive and not self.is_done:
            self._welcomed(messages)

    def _welcomed(self, messages: Sequence[ClientMessage]) -> None:
        for message in messages:
            if type(message) is Welcome:
                self.inline_bytes_max = message.inline_bytes_max
                play = self.play = Play(root_task(message.job), 0, 0)
                machine = self.host.machine
                run = do.Run(play.task, 0, 0, machine, self._token, (), (), (), self._time_ns)
                self.start(play, self._body(run))

    def _time_ns(self) -> int:
        return self.clock.now_ns

    def die(self) -> None:
        """Killed, or over."""
        super().die()
        if not self.is_done:
            self.is_done = True
            self.host.cluster.driver_ended()

    def _returned(self, play: Play, results: Sequence[do.Result]) -> None:
        self.results = results
        self._end(play)

    def _failed(self, play: Play, failed: do.BodyFailed) -> None:
        self.failed = failed
        self._end(play)

    def _end(self, play: Play) -> None:
        play.is_exposed = False
        self.is_done = True
        self.done_ns = self.clock.now_ns
        self.let_go(play)
        self.flush()
        if not self._stays:
            self.host.kill(self, "it ended", delay_ns=0)
        self.host.cluster.driver_ended()
