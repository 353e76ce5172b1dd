"""The head's page as a server: what it answers, to whom, and what strangers cannot do."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from detray.runtime.head import web as web_module
from detray.runtime.head.web import THREADS_MAX, TraceAnswer, WebPage
from detray.runtime.wakeups import Wakeups
from tests.head.clusters import S, overview
from tests.head.loop import page_of

PATHS = ("/", "/api/status", "/metrics", "/trace", "/healthz")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebPage]:
    """A page with a report of three nodes, which does not become stale, and a trace."""
    monkeypatch.setattr(web_module, "STALE_S", 600)
    with page_of(lambda answer: answer(b"TRACE")) as page:
        publish(page, 3)
        yield page


def publish(page: WebPage, nodes: int, *, age_s: float = 0) -> None:
    view, t = overview(nodes)
    page.publish(view.report(t, 100 * S), time.monotonic_ns() - int(age_s * S))


def connect(page: WebPage) -> socket.socket:
    where = urlsplit(page.url)
    assert where.hostname is not None
    return socket.create_connection((where.hostname, where.port or 0), timeout=10)


def ask(
    page: WebPage, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    where = urlsplit(page.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def say(page: WebPage, text: bytes) -> bytes:
    """Everything that comes back for raw bytes, up to the end."""
    with connect(page) as sock:
        sock.sendall(text)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer


def test_it_listens_on_loopback_only(web: WebPage) -> None:
    """The port is bound to 127.0.0.1, whatever else the machine has."""
    assert urlsplit(web.url).hostname == "127.0.0.1"


def test_the_report_is_told_with_its_age(web: WebPage) -> None:
    """As JSON; the age is counted until the answer is made."""
    publish(web, 2, age_s=2)
    answer, body = ask(web, "/api/status")
    report = json.loads(body)
    assert answer.headers["Content-Type"] == "application/json"
    assert 2 <= report["age_s"] < 10
    assert [node["number"] for node in report["nodes"]] == [0, 1]


def test_the_loop_knows_when_somebody_last_looked(web: WebPage) -> None:
    """0 until then: nobody looks at most heads, and the nodes need not be asked for them."""
    assert web.asked_ns == 0
    before = time.monotonic_ns()
    ask(web, "/api/status")
    assert before <= web.asked_ns <= time.monotonic_ns()


def test_metrics_are_those_of_the_newest_report(web: WebPage) -> None:
    """In Prometheus's text format."""
    pytest.importorskip("prometheus_client")
    answer, body = ask(web, "/metrics")
    assert answer.status == 200
    assert b"detray_nodes_alive 3.0\n" in body


def test_metrics_without_the_library_say_what_to_install(
    web: WebPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """501, and the command."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    answer, body = ask(web, "/metrics")
    assert answer.status == 501
    assert b"pip install 'detray[cluster]'" in body


@pytest.mark.parametrize("path", ["/api/status", "/metrics"])
def test_before_the_first_report_there_is_none(path: str) -> None:
    """503, not an empty cluster."""
    with page_of() as page:
        answer, body = ask(page, path)
    assert answer.status == 503
    assert body == b"the head has made no report yet\n"


def test_health_is_that_of_the_loop() -> None:
    """A server whose loop does not report any more is not healthy, though it answers."""
    with page_of() as page:
        assert ask(page, "/healthz")[0].status == 503
        publish(page, 1)
        assert ask(page, "/healthz")[1] == b"ok\n"
        publish(page, 1, age_s=web_module.STALE_S + 1)
        answer, body = ask(page, "/healthz")
        assert answer.status == 503
        found = re.search(rb"last reported (\d+)\.\d s ago", body)
        assert found is not None
        assert int(found[1]) > web_module.STALE_S


# ------------------------------------------------------------------ traces


def test_the_newest_trace_is_a_download(web: WebPage) -> None:
    """Its bytes, under a name with the time in it."""
    answer, body = ask(web, "/trace")
    assert body == b"TRACE"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="detray-')
    assert answer.headers["Content-Disposition"].endswith('.trace"')


def test_a_trace_is_fetched_in_the_loop() -> None:
    """Where the recorder lives; it may be handed over later and from anywhere."""
    asked: list[tuple[str, TraceAnswer]] = []

    def source(answer: TraceAnswer) -> None:
        asked.append((threading.current_thread().name, answer))
        threading.Timer(0.05, answer, [b"LATER"]).start()

    with page_of(source) as page:
        assert ask(page, "/trace")[1] == b"LATER"
    assert not asked[0][0].startswith("detray-web")
    assert "process_request" not in asked[0][0]


@pytest.mark.parametrize("reason", ["nothing is recorded"])
def test_a_head_without_a_trace_says_why(reason: str) -> None:
    """503 and the reason; a source that raises is a reason, too."""

    def broken(answer: TraceAnswer) -> None:
        raise OSError("the disk is gone")

    with page_of(lambda answer: answer(reason)) as page:
        assert ask(page, "/trace")[1] == b"nothing is recorded\n"
    with page_of(broken) as page:
        answer, body = ask(page, "/trace")
        assert (answer.status, body) == (503, b"the trace cannot be read: the disk is gone\n")
    with page_of() as page:
        assert ask(page, "/trace")[1] == b"this head keeps no trace\n"


def test_a_loop_that_stands_still_holds_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request gives up; and closing the page does not wait for the loop either."""
    monkeypatch.setattr(web_module, "TRACE_S", 0.05)
    with page_of(lambda answer: answer(b"x"), is_running=False) as page:
        answer, body = ask(page, "/trace")
    assert answer.status == 503
    assert b"no trace within 0.05 s" in body


# --------------------------------------------------------------- strangers


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.8.9.1:80", "[::1]:80"]
)
def test_loopback_names_are_served(web: WebPage, host: str) -> None:
    """With any port: it may be forwarded."""
    assert ask(web, "/healthz", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "", "10.0.0.1", "[::2]"]
)
@pytest.mark.parametrize("path", PATHS)
def test_other_names_are_not(web: WebPage, host: str, path: str) -> None:
    """A page of a stranger whose name points at this machine reads nothing (DNS rebinding)."""
    answer, body = ask(web, path, Host=host)
    assert answer.status == 403
    assert b"machine-" not in body


def test_a_request_without_a_host_is_not_served(web: WebPage) -> None:
    """Nor one with two."""
    assert b" 403 " in say(web, b"GET /healthz HTTP/1.0\r\n\r\n")
    twice = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n"
    assert b" 403 " in say(web, twice)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_nothing_can_be_changed(web: WebPage, method: str) -> None:
    """GET and HEAD only, even if a body comes along."""
    where = urlsplit(web.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    connection.request(method, "/api/status", body=b"x" * 100_000)
    answer = connection.getresponse()
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    connection.close()


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_the_body(web: WebPage, path: str) -> None:
    """The same status and type."""
    full, body = ask(web, path)
    short, nothing = ask(web, path, "HEAD")
    assert (short.status, short.headers["Content-Type"]) == (200, full.headers["Content-Type"])
    assert (bool(body), nothing) == (True, b"")


@pytest.mark.parametrize("path", ["/x", "/../etc/passwd", "/api", "/%2e%2e/", "*", "/trace/x"])
def test_other_paths_lead_nowhere(web: WebPage, path: str) -> None:
    """404, and what there is."""
    answer, body = ask(web, path)
    assert answer.status == 404
    assert b"/api/status" in body


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_answers_forbid_what_they_do_not_need(web: WebPage, path: str) -> None:
    """No frames, no sniffing, no referrer, no cache, no other origin, no foreign scripts."""
    headers = ask(web, path)[0].headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


def test_the_page_names_nothing_elsewhere(web: WebPage) -> None:
    """Self-contained: no address of another server, no handler or style in an attribute."""
    page = ask(web, "/")[1].decode()
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "innerHTML" not in page
    assert " style=" not in page and " onclick=" not in page


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
        b"\r\n\r\n",
    ],
    ids=["TLS", "one word", "version", "many headers", "no colon", "empty"],
)
def test_garbage_is_answered_or_cut(web: WebPage, garbage: bytes) -> None:
    """And the next request is served."""
    assert b" 200 " not in say(web, garbage)
    assert ask(web, "/healthz")[0].status == 200


def test_a_head_without_an_end_is_cut(web: WebPage) -> None:
    """Beyond HEAD_BYTES, without an answer."""
    with connect(web) as sock:
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"y" * (1 << 20))
            assert sock.recv(1) == b""
        except ConnectionError:
            pass
    assert ask(web, "/healthz")[0].status == 200


def test_slow_senders_are_cut(web: WebPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not keep a thread: the whole head has one deadline."""
    monkeypatch.setattr(web_module, "HEAD_S", 0.3)
    with connect(web) as sock:
        until = time.monotonic() + 20
        with pytest.raises(OSError):
            while time.monotonic() < until:
                sock.sendall(b"X")
                time.sleep(0.02)
    assert time.monotonic() < until


def test_threads_are_bounded(web: WebPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes when all are busy is closed at once, and served when one is free again."""
    monkeypatch.setattr(web_module, "HEAD_S", 60)  # none is cut before the last one has its seat
    idle = [connect(web) for _ in range(THREADS_MAX)]
    try:
        deadline = time.monotonic() + 10
        while True:  # The idle ones take their seats one by one.
            try:
                ask(web, "/healthz")
            except (http.client.HTTPException, OSError):
                break
            assert time.monotonic() < deadline
        assert sum("process_request" in t.name for t in threading.enumerate()) <= THREADS_MAX
    finally:
        for sock in idle:
            sock.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert ask(web, "/healthz")[0].status == 200
            break
        except (http.client.HTTPException, OSError):
            assert time.monotonic() < deadline


def test_a_port_in_use_is_named() -> None:
    """Which port, and why."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            WebPage(Wakeups(), port=port)


def test_closing_leaves_nothing() -> None:
    """No listener, no thread."""
    before = threading.enumerate()
    with page_of() as page:
        publish(page, 1)
        ask(page, "/")
        [added] = [t for t in threading.enumerate() if t.name == "detray-web" and t not in before]
    with pytest.raises(OSError):
        connect(page)
    added.join(10)  # closing waits for it, but not for ever
    assert not added.is_alive()
