"""The main loop of a worker process.

The main thread executes. It takes runs from the queue, each with a token from the pipe (see
`core/run_queue.py`), and reads the socket only when it has nothing to run or a run waits for
something.
A second thread watches for the end of the service: user code may compute for hours.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import socket
from _thread import start_new_thread
from typing import NoReturn

from detray import object_ref
from detray.core.run_queue import QueuedRun
from detray.core.stimuli import WorkerReady
from detray.core.tickets import Ticket
from detray.ids import ClientID, JobNumber, NodeID
from detray.runtime.client import Client
from detray.runtime.execution import Execution
from detray.runtime.interrupts import Interrupts
from detray.runtime.output import Outputs
from detray.runtime.session import session_node
from detray.runtime.shield import Shield

SERVICE_GONE_STATUS = 113
_TOKEN_RETRY_MS = 1_000


def main(
    worker: int,
    sock: socket.socket,
    token_fd: int,
    interrupt_fd: int,
    crash_fd: int,
    arena_fd: int,
    arena_bytes: int,
    session_dir: str,
    job: int,
    inline_bytes_max: int,
    digests: bool,
) -> NoReturn:
    """Be worker number `worker` until the service says otherwise or goes away.

    Called in a fresh fork of the zygote: single-threaded, descriptors 1 and 2 are pipes already.
    """
    faulthandler.enable(crash_fd)
    # A fork that user code makes dies a death of its own, which is told where it prints.
    os.register_at_fork(after_in_child=lambda: faulthandler.enable(2))
    outputs = Outputs()
    outputs.install()
    shield = Shield()
    client = Client(
        sock,
        client=ClientID(worker),
        job=JobNumber(job),
        node=NodeID(-1),
        inline_bytes_max=inline_bytes_max,
        store=(arena_fd, arena_bytes, session_dir),
        shield=shield,
        on_end=_exit_at_once,
        digests=digests,
    )
    interrupts = Interrupts(interrupt_fd, client.books.queue, shield)
    object_ref.bind(client)
    start_new_thread(_watch, (sock.fileno(),))
    loop = Loop(client, token_fd)
    execution = Execution(client, interrupts, outputs)
    with client.lock:
        client.books.send(WorkerReady(client.books.client, os.getpid()))
    client.flush()
    while (run := loop.next_run()) is not None:
        if client.node < 0:
            # Only now for certain: it is written down when the node has become a member.
            client.node = NodeID(session_node(session_dir))
        execution.run(run)
        del run
    _leave(client, outputs)


class Loop:
    """Finds the next run that this worker may begin."""

    def __init__(self, client: Client, token_fd: int) -> None:
        os.set_blocking(token_fd, False)
        self._connection = client.connection
        self._queue = client.books.queue
        self._token_fd = token_fd
        self._both = select.poll()
        self._both.register(token_fd, select.POLLIN)
        self._both.register(client.connection.fileno, select.POLLIN)

    def next_run(self) -> QueuedRun | None:
        """Claim the run at the front, waiting for one if need be; None when told to leave."""
        queue = self._queue
        while not queue.leaving:
            if not queue.runs:
                self._wait_for_arrivals()
                continue
            token = self._read_token()
            if token is None:
                # Its token is not written yet, or it was taken back and the marker is on its way.
                self._both.poll(_TOKEN_RETRY_MS)
                self._connection.receive_now()
                continue
            while not queue.is_current(token) or not queue.runs:
                self._wait_for_input()
            return queue.runs.popleft()
        return None

    def _read_token(self) -> int | None:
        try:
            data = os.read(self._token_fd, 1)
        except BlockingIOError:
            return None
        # The pipe ends with the service.
        return data[0] if data else _exit_at_once("the token pipe ended")

    def _wait_for_arrivals(self) -> None:
        ticket = Ticket()
        self._connection.arrive(ticket)
        # Looked at again: another thread may have received something before we registered.
        if self._queue.runs or self._queue.leaving:
            return
        self._connection.wait(ticket)

    def _wait_for_input(self) -> None:
        """A token is taken already: the frames that explain it are on their way."""
        self._connection.receive_now(wait_ms=_TOKEN_RETRY_MS)


def _watch(fd: int) -> None:
    """End the process when the service's end of the stream is gone, whatever user code does."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    while not poll.poll():
        pass
    _exit_at_once("the service is gone")


def _exit_at_once(reason: str) -> NoReturn:
    os._exit(SERVICE_GONE_STATUS)


def _leave(client: Client, outputs: Outputs) -> NoReturn:
    """Told to leave: what was registered with atexit runs, then nothing more."""
    import atexit

    client.flush()
    try:
        atexit._run_exitfuncs()
    except BaseException:
        import traceback

        traceback.print_exc()
    outputs.written = True
    outputs.flush()
    gc.freeze()
    os._exit(0)
