"""Seats: where user code sits in the simulation, and how it gets what it asks for.

A seat joins a thread with user code to the generator that plays for it in a simulated process. The
code asks for an operation; the generator yields it; what the simulation sends back is the answer.

What an operation brought (`Play.uses`) is let go of with the next one: by then the surface has made
references of it, which count for themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detray.core.streams import RunContext, Stream
from detray.ids import ObjectID
from detray_sim import behaviour as do
from detray_sim.engine.baton import Carrier
from detray_sim.operations import PERFORM, SUSPENDED
from detray_sim.process import Play, SimProcess

if TYPE_CHECKING:
    from detray_sim.engine.client import SimClient


class Park:
    """An operation without an end: what the body waits for is under way, or its code runs."""

    __slots__ = ()


PARK = Park()
PERFORM[Park] = lambda process, play, operation: SUSPENDED


class Ask:
    """Sent into a driver's generator: yield this operation."""

    __slots__ = ("operation",)

    def __init__(self, operation: Any) -> None:  # Any: an operation of any kind
        self.operation = operation


class Seat:
    """One process's user code. `answer` is what came last: a value, or an error to raise."""

    def __init__(self, client: SimClient, process: SimProcess, play: Play, context: RunContext):
        self.client = client
        self.process = process
        self.play = play
        self.context = context
        self.is_worker = False
        self.asks = 0
        self.exports = Stream(play.task, play.attempt, 0, play.depth + 1)
        """Names the functions that the code defines."""
        self.random: Any = None  # Any: what random.getstate returned
        self.created, self.dropped = process.created, process.dropped
        self.answer: tuple[Any, BaseException | None] = (None, None)

    @property
    def ident(self) -> int:
        """The thread that may speak for this seat."""
        raise NotImplementedError

    def ask(self, operation: Any) -> Any:  # Any: an operation and what it sends
        """Have an operation performed, however long it takes. Raises BodyError, Killed."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise if the process is dead."""

    def perform(self, operation: Any) -> Any:  # Any: as in `ask`
        """Perform an operation that waits for nothing as a rule: without giving up the baton."""
        value = PERFORM[type(operation)](self.process, self.play, operation)
        return self.ask(PARK) if value is SUSPENDED else value

    def hold(self, items: tuple[ObjectID, ...]) -> None:
        """Keep using references until the play ends, whatever becomes of the code's own."""
        uses = self.play.uses
        for item in items:
            self.created(item)
            uses[item] = uses.get(item, 0) + 1

    def let_go(self) -> None:
        """Release what the last operation brought."""
        uses = self.play.uses
        if uses:
            self.play.uses = {}
            for item, count in uses.items():
                for _ in range(count):
                    self.dropped(item)


class DriverSeat(Seat):
    """The program that called `init`: its thread turns the simulation while it waits."""

    def __init__(
        self,
        client: SimClient,
        process: SimProcess,
        play: Play,
        context: RunContext,
        turn: Callable[[DriverSeat], None],
    ) -> None:
        """`turn` lets time pass until `is_answered`."""
        super().__init__(client, process, play, context)
        self.is_answered = False
        self._turn = turn
        self._ident = threading.get_ident()

    @property
    def ident(self) -> int:
        """The thread that called `init`."""
        return self._ident

    def ask(self, operation: Any) -> Any:  # Any: as in `Seat`
        """As of any seat."""
        self.is_answered = False
        if operation is not PARK:
            self.process.advance(self.play, Ask(operation))
        if not self.is_answered:
            self._turn(self)
        value, error = self.answer
        self.answer = (None, None)
        if error is not None:
            raise error
        return value

    def give_up(self) -> None:
        """Stop waiting for what was asked for."""
        self.process.interrupt(self.play)

    def steps(self) -> do.Steps:
        """What the simulated driver plays: parked, or what the program asked for."""
        operation: Any = PARK  # Any: as in `ask`
        while True:
            error: BaseException | None = None
            said: Any = None  # what the operation sends
            try:
                said = yield operation
            except do.BodyError as raised:
                error = raised
            if type(said) is Ask:
                operation = said.operation
                continue
            operation = PARK
            self.answer = (said, error)
            self.is_answered = True
            self.process.clock.halts = True


class WorkerSeat(Seat):
    """A task, on the thread of its simulated worker."""

    def __init__(
        self,
        client: SimClient,
        process: SimProcess,
        play: Play,
        context: RunContext,
        carrier: Carrier,
    ) -> None:
        super().__init__(client, process, play, context)
        self.is_worker = True
        self.carrier = carrier
        self._asked: Any = None  # Any: an operation

    @property
    def ident(self) -> int:
        """The worker's thread."""
        return self.carrier.ident

    def check(self) -> None:
        """Raise Killed if the worker is dead."""
        self.carrier.check()

    def ask(self, operation: Any) -> Any:  # Any: as in `Seat`
        """As of any seat. Raises KeyboardInterrupt if the task is cancelled meanwhile."""
        self._asked = operation
        self.carrier.hand_back()
        value, error = self.answer
        self.answer = (None, None)
        if error is None:
            return value
        if type(error) is do.Interrupted:
            raise KeyboardInterrupt
        raise error

    def steps(self, call: Callable[[], None]) -> do.Steps:
        """Run `call` on the worker's thread, and yield what it asks for, until it is over."""
        carrier, client = self.carrier, self.client
        carrier.begin(call)
        try:
            while True:
                client.sit(self)
                carrier.go()
                if carrier.is_over:
                    return ()
                try:
                    self.answer = ((yield self._asked), None)
                    delay_ns = client.delay_ns(self)
                    if delay_ns:
                        yield do.Sleep(delay_ns)
                except do.BodyError as error:
                    self.answer = (None, error)
        finally:
            if not carrier.is_over:
                client.end_carrier(self)
