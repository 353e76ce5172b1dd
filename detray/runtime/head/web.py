"""The head's page for people, and /metrics for Prometheus: read-only, on loopback.

Theory of operation
-------------------
The loop of the head publishes a report about once a second (`publish`): a finished dict that nobody
changes any more. Requests are answered from the newest one by daemon threads of their own, so no
request, however slow its sender, makes the loop wait. The one thing that has to come from the loop,
the newest trace, is asked for through an eventfd (`_Traces`) and handed over when it is there.

What a stranger can do
----------------------
Whoever may connect to this machine's loopback may read; nobody can change anything: GET and HEAD
only, and no handler has an effect. A page elsewhere in the reader's browser gets nothing: only
loopback names are served (DNS rebinding), nothing is framed, and no header lets other origins read.
A request has `HEAD_S` seconds and `HEAD_BYTES` for its head and no body; `THREADS_MAX` are served
at a time, others are closed at once.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from detray.runtime.head import metrics
from detray.runtime.head.overview import Page
from detray.runtime.wakeups import Wakeups

LOOPBACK = "127.0.0.1"
THREADS_MAX = 16
HEAD_BYTES = 16 << 10
HEAD_S = 5.0
SEND_S = 60.0
"""A whole answer must be taken within this: a trace may have many megabytes."""
TRACE_S = 20.0
"""The loop has so long to come up with a trace."""
TRACES_WAITING_MAX = 4
STALE_S = 5.0
"""A report older than this means that the head's loop does not run: /healthz says so."""
_CLOSE_S = 2.0
_ACCEPT_AGAIN_S = 0.2
_LAST_S, _LAST_READS = 0.5, 8

TraceAnswer = Callable[[bytes | str], None]
"""Takes the bytes of a trace, or the reason why there is none; from any thread, once."""
TraceSource = Callable[[TraceAnswer], None]
"""Called in the loop: begin to fetch the newest trace, and give it to the answer at the end."""

_HOST = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
_PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


class Published(NamedTuple):
    """A report, and when it was made (monotonic)."""

    report: Page
    at_ns: int

    @property
    def age_s(self) -> float:
        """Seconds since it was made."""
        return max(0, time.monotonic_ns() - self.at_ns) / 1e9


class WebPage:
    """The server. All methods are the loop's; `url` is where people find it."""

    def __init__(self, wakeups: Wakeups, trace: TraceSource | None = None, port: int = 0) -> None:
        """Listen on loopback; port 0 takes any. Raises OSError, saying which port."""
        self._traces = _Traces(wakeups, trace)
        try:
            self._server = _Server((LOOPBACK, port), self._traces)
        except OSError as error:
            self._traces.close()
            raise OSError(
                error.errno, f"the page cannot listen on {LOOPBACK}:{port}: {error.strerror}"
            ) from None
        self._is_closing = False
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._serve, name="detray-web", daemon=True)
        self._thread.start()

    def publish(self, report: Page, now_ns: int) -> None:
        """Show this from now on. Nobody may change it any more. `now_ns` is of `monotonic_ns`."""
        self._server.published = Published(report, now_ns)

    @property
    def asked_ns(self) -> int:
        """When somebody last asked for the report (monotonic_ns), 0: never."""
        return self._server.asked_ns

    def close(self) -> None:
        """Stop listening. Answers under way are cut when the process ends."""
        self._is_closing = True
        try:
            self._server.socket.shutdown(socket.SHUT_RDWR)  # Wakes the accept.
        except OSError:
            pass
        self._thread.join(_CLOSE_S)
        self._server.server_close()
        self._traces.close()

    def _serve(self) -> None:
        """Accept until closed. (The base's loop looks for its end several times a second.)"""
        while not self._is_closing:
            try:
                request, address = self._server.get_request()
            except OSError:
                time.sleep(0 if self._is_closing else _ACCEPT_AGAIN_S)  # No descriptor is left.
                continue
            self._server.process_request(request, address)


class _Traces:
    """Questions of request threads to the loop."""

    def __init__(self, wakeups: Wakeups, source: TraceSource | None) -> None:
        self._wakeups = wakeups
        self._source = source
        self._waiting: deque[TraceAnswer] = deque()
        self._room = threading.BoundedSemaphore(TRACES_WAITING_MAX)
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_open = True
        wakeups.watch(self._fd, self._on_asked)

    def fetch(self) -> bytes | str:
        """In a request's thread: the newest trace, or why there is none."""
        if self._source is None:
            return "this head keeps no trace"
        if not self._room.acquire(blocking=False):
            return "several others are fetching a trace just now: try again"
        try:
            got: list[bytes | str] = []
            done = threading.Event()

            def answer(what: bytes | str) -> None:
                got.append(what)
                done.set()

            self._waiting.append(answer)
            with self._lock:
                if not self._is_open:
                    return "the head is ending"
                os.eventfd_write(self._fd, 1)
            if not done.wait(TRACE_S):
                return f"the head came up with no trace within {TRACE_S:g} s"
            return got[0]
        finally:
            self._room.release()

    def close(self) -> None:
        with self._lock:
            self._is_open = False
            self._wakeups.forget(self._fd)
            os.close(self._fd)

    def _on_asked(self, mask: int) -> None:
        os.eventfd_read(self._fd)
        while self._waiting and self._source is not None:
            answer = self._waiting.popleft()
            try:
                self._source(answer)
            except Exception as error:  # A trace that cannot be made is no reason to end the head.
                answer(f"the trace cannot be read: {error}")


class _Server(ThreadingHTTPServer):
    """Bounded threads, and what they answer from."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], traces: _Traces) -> None:
        self.published = Published({}, 0)
        self.asked_ns = 0
        self.traces = traces
        self._seats = threading.BoundedSemaphore(THREADS_MAX)
        super().__init__(address, _Request)

    def process_request(self, request: Any, client_address: Any) -> None:  # Any: as in the base
        """Serve it in a thread, if one is left."""
        if not self._seats.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # No thread can be started.
            self._seats.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # Any: as above
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._seats.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # Any: as above
        """Whoever goes away in the middle of an answer is no news."""

    def server_bind(self) -> None:
        """Without the look-up of a host name that the base makes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]


class _Request(BaseHTTPRequestHandler):
    """One request, one answer, and the connection is closed."""

    server: _Server
    server_version = "detray"
    sys_version = ""
    routes: ClassVar[dict[str, Callable[[_Request], None]]] = {}

    def setup(self) -> None:
        """Read the head of the request, bounded in bytes and time, before anything else."""
        self.connection = self.request
        self.rfile = io.BytesIO(self._read_head())
        self.wfile = self._head = io.BytesIO()
        self._body = b""
        self.is_head = False

    def _read_head(self) -> bytes:
        """Up to the empty line; nothing if it does not come in time."""
        until = time.monotonic() + HEAD_S
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = until - time.monotonic()
            if left <= 0 or len(head) > HEAD_BYTES:
                return b""
            self.connection.settimeout(left)
            try:
                data = self.connection.recv(4096)
            except OSError:
                return b""
            if not data:
                return b""
            head += data
        return head

    def finish(self) -> None:
        """Send the answer; each `sendall` counts its timeout from its beginning."""
        self.connection.settimeout(SEND_S)
        try:
            self.connection.sendall(self._head.getbuffer())
            self.connection.sendall(self._body)
            self.connection.shutdown(socket.SHUT_WR)
            # A body that we did not ask for, left unread, would reset the connection before the
            # other end has seen our answer.
            self.connection.settimeout(_LAST_S)
            for _ in range(_LAST_READS):
                if not self.connection.recv(HEAD_BYTES):
                    break
        except OSError:
            pass

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a page that is polled once a second would fill the log."""

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.is_head = True
        self.do_GET()

    def do_GET(self) -> None:
        """Answer, or say why not."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0].strip()):
            self._refuse(
                HTTPStatus.FORBIDDEN,
                "this page answers to localhost, 127.0.0.1 and [::1] only; "
                "from another machine: ssh -L 8080:127.0.0.1:PORT HEAD",
            )
            return
        route = self.routes.get(self.path.split("?", 1)[0])
        if route is None:
            paths = ", ".join(self.routes)
            self._refuse(HTTPStatus.NOT_FOUND, f"there is nothing here; there are {paths}")
            return
        route(self)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request, without its page of HTML."""
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._refuse(status, message or status.phrase)

    # ------------------------------------------------------------ answers

    def _page(self) -> None:
        self._answer(_PAGE.encode(), "text/html; charset=utf-8", policy=_POLICY)

    def _status(self) -> None:
        published = self._newest()
        if published is not None:
            body = {"age_s": round(published.age_s, 3), **published.report}
            self._answer(json.dumps(body, separators=(",", ":")).encode(), "application/json")

    def _metrics(self) -> None:
        published = self._newest()
        if published is None:
            return
        try:
            accept = self.headers.get("Accept", "")
            body, kind = metrics.render(published.report, published.age_s, accept)
        except ModuleNotFoundError:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, metrics.INSTALL)
            return
        self._answer(body, kind)

    def _trace(self) -> None:
        got = self.server.traces.fetch() if not self.is_head else b""
        if isinstance(got, str):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, got)
            return
        name = time.strftime("detray-%Y%m%d-%H%M%S.trace")
        self._answer(got, "application/octet-stream", file_name=name)

    def _health(self) -> None:
        published = self.server.published
        if not published.at_ns or published.age_s > STALE_S:
            age = f"{published.age_s:.1f} s ago" if published.at_ns else "never"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"the head's loop last reported {age}")
            return
        self._answer(b"ok\n", "text/plain; charset=utf-8")

    def _newest(self) -> Published | None:
        self.server.asked_ns = time.monotonic_ns()
        published = self.server.published
        if published.at_ns:
            return published
        self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the head has made no report yet")
        return None

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._answer(f"{text}\n".encode(), "text/plain; charset=utf-8", status=status)

    def _answer(
        self,
        body: bytes,
        kind: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        policy: str = "default-src 'none'; frame-ancestors 'none'",
        file_name: str = "",
    ) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if file_name:
            self.send_header("Content-Disposition", f'attachment; filename="{file_name}"')
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if not self.is_head:
            self._body = body


_Request.routes.update(
    {
        "/": _Request._page,
        "/api/status": _Request._status,
        "/metrics": _Request._metrics,
        "/trace": _Request._trace,
        "/healthz": _Request._health,
    }
)


def _digests(tag: str) -> str:
    """Sources of the page's own scripts or styles, as a content policy names them."""
    inside = re.findall(f"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in inside)
    return " ".join(f"'sha256-{digest.decode()}'" for digest in hashes)


_POLICY = (
    f"default-src 'none'; script-src {_digests('script')}; style-src {_digests('style')}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
