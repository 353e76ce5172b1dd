"""`detray start`, `stop`, `status`, `list`, `logs` with real processes, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from detray import nearby
from detray.runtime.session import home, live_sessions
from tests.cluster.conftest import ROOT, begin_program, detray_command, run_program, until

PROGRAM = """
import detray as ray
with ray.init():
    refs = [ray.remote(lambda n: n * n).remote(n) for n in range(20)]
    print(sum(ray.get(refs)), ray.cluster_resources()["CPU"])
"""


@pytest.fixture
def started(free_port: int) -> Iterator[str]:
    """A cluster begun by `detray start --head`: its address."""
    status, _, err = detray_command(
        "start", "--head", "--port", str(free_port), "--host", "127.0.0.1", "--num-cpus", "1",
        "--object-store-memory", "100M", "--web-port", "-1",
    )  # fmt: skip
    assert status == 0, err
    yield f"127.0.0.1:{free_port}"
    detray_command("stop", "--force", "--address", f"127.0.0.1:{free_port}")


def without_patience(err: str) -> str:
    """What a command said on standard error, but that it waits: it says so when that takes long."""
    lines = err.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("detray: still waiting for "))


def nothing_is_left() -> bool:
    """No session of a cluster, and no log of a head."""
    names = [name for name in os.listdir(home()) if name.startswith("head-")]
    return not names and not [s for s in live_sessions() if os.path.basename(s.directory)]


def test_start_says_what_one_needs_next(free_port: int) -> None:
    """How others join, where the token is (never what it is), how to connect and how to stop."""
    address = f"127.0.0.1:{free_port}"
    status, out, err = detray_command(
        "start", "--head", "--port", str(free_port), "--host", "127.0.0.1", "--num-cpus", "2",
        "--object-store-memory", "100M",
    )  # fmt: skip
    try:
        assert (status, without_patience(err)) == (0, "")
        head, node = nearby.of_address(nearby.find_local(), address)
        token = Path(head.token_path).read_text().strip()
        assert f"detray start --address={address} --token-file" in out
        assert head.token_path in out and token not in out and len(token) >= 32
        assert stat.S_IMODE(os.stat(head.token_path).st_mode) == 0o600
        assert 'detray.init(address="auto")' in out and "detray stop" in out
        assert f"page   {head.web}" in out
        assert f"pid {head.pid}" in out and f"pid {node.pid}" in out
        assert (head.kind, node.kind, node.is_tied) == ("head", "node", False)
    finally:
        stopped = detray_command("stop")
    assert stopped[0] == 0, stopped
    assert [line.split()[-1] for line in stopped[1].splitlines()] == ["stopped", "stopped"]
    assert nothing_is_left()


def test_programs_join_what_was_started_here(started: str) -> None:
    """Without being told; a session of one's own has to be asked for then."""
    status, out, err = run_program(PROGRAM)
    assert (status, out) == (0, "2470 1.0\n"), err
    assert err.startswith(f"detray: connected to the cluster at {started}")
    alone = PROGRAM.replace("init()", "init('local', num_cpus=3)")
    assert run_program(alone) == (0, "2470 3.0\n", "")
    status, _, err = run_program(PROGRAM.replace("init()", "init(num_cpus=3)"))
    assert status == 1 and "address='local' for a session of your own" in err


def test_another_machine_joins_with_the_token(started: str, tmp_path: Path) -> None:
    """Here it has a home of its own, so that it finds nothing; a wrong token is turned away."""
    token = tmp_path / "token"
    [head, _] = nearby.of_address(nearby.find_local(), started)
    token.write_bytes(Path(head.token_path).read_bytes())
    token.chmod(0o644)
    elsewhere = str(tmp_path / "t")
    os.mkdir(elsewhere)
    join = ("start", "--address", started, "--host", "127.0.0.1", "--num-cpus", "3",
            "--resources", '{"far": 1}', "--labels", "place=far", "--object-store-memory", "100M",
            "--node-name", "the other one")  # fmt: skip
    status, _, err = detray_command(*join, TMPDIR=elsewhere)
    assert status == 1 and "no token for the cluster" in err
    status, _, err = detray_command(*join, "--token-file", str(token), TMPDIR=elsewhere)
    assert status == 1 and "chmod 600" in err
    token.chmod(0o600)
    status, _, err = detray_command(*join, DETRAY_TOKEN="x" * 40, TMPDIR=elsewhere)
    assert status == 1 and "this machine cannot join: " in err and err.count("\n") == 1
    status, out, err = detray_command(*join, "--token-file", str(token), TMPDIR=elsewhere)
    assert (status, without_patience(err)) == (0, "")
    try:
        status, out, err = run_program(
            """
            import detray as ray
            ray.init(address="auto")
            where = ray.remote(lambda: ray.get_runtime_context().get_node_id())
            far = ray.get(where.options(resources={"far": 1}).remote())
            print([n["NodeName"] for n in ray.nodes() if n["NodeID"] == far])
            """
        )
        assert (status, out) == (0, "['the other one']\n"), err
        # A tool needs the token as well.
        status, out, err = detray_command(
            "status", "--json", "--address", started, "--token-file", str(token), TMPDIR=elsewhere
        )
        assert status == 0, err
        assert [node["head"] for node in json.loads(out)["nodes"]] == [True, False]
    finally:
        status, out, err = detray_command("stop", "--force", TMPDIR=elsewhere)
    assert status == 0, err
    report = json.loads(detray_command("status", "--json")[1])
    assert [node["alive"] for node in report["nodes"]] == [True, False]
    assert os.listdir(Path(elsewhere, f"detray-{os.getuid()}")) in ([], ["flights"])


def test_a_cluster_speaks_tls_where_it_is_asked_to(free_port: int) -> None:
    """Processes, tools and drivers of this machine know by themselves; others name the files."""
    here = ROOT / "tests" / "net" / "certificates"
    files = {name: str(here / f"ours-{name}.pem") for name in ("node", "authority")}
    tls = ("--tls-cert", files["node"], "--tls-key", str(here / "ours-node.key"),
           "--tls-ca", files["authority"])  # fmt: skip
    address = f"[::1]:{free_port}"
    status, out, err = detray_command(
        "start", "--head", "--port", str(free_port), "--host", "::1", "--num-cpus", "1",
        "--object-store-memory", "100M", "--web-port", "-1", *tls,
    )  # fmt: skip
    assert status == 0, err
    try:
        assert f"--address='{address}' --token-file ~/.detray-token --tls-cert FILE" in out
        assert [n["alive"] for n in json.loads(detray_command("status", "--json")[1])["nodes"]]
        assert run_program(PROGRAM)[:2] == (0, "2470 1.0\n")
        for process in nearby.of_address(nearby.find_local(), address):
            info = Path(process.directory, "cluster.json")
            facts = json.loads(info.read_text())
            assert facts["tls_authority"] == files["authority"]
            info.write_text(json.dumps({**facts, "tls_certificate": ""}))
        status, _, err = detray_command("list", "nodes", "--address", address)
        assert (status, err.count("\n")) == (1, 1), "a tool without TLS is no tool"
        assert detray_command("list", "nodes", "--address", address, *tls)[0] == 0
    finally:
        assert detray_command("stop", "--force")[0] == 0


def test_status_lists_and_logs_tell_what_runs(started: str) -> None:
    """Nodes, tasks and workers as tables and as JSON; what a task printed."""
    program = begin_program(
        """
        import sys, time
        import detray as ray
        ray.init(log_to_driver=False)
        @ray.remote
        def wait_long():
            print("here I am")
            time.sleep(600)
        ref = wait_long.remote()
        queued = wait_long.remote()
        ray.wait([ref], timeout=0)
        print("begun", flush=True)
        sys.stdin.read()
        """
    )
    try:
        assert program.stdout is not None and program.stdout.readline() == "begun\n"
        until(lambda: '"running"' in detray_command("list", "tasks", "--json")[1], "it runs")
        report = json.loads(detray_command("status", "--json")[1])
        [node] = report["nodes"]
        [process] = [p for p in nearby.find_local() if p.kind == "node"]
        assert (node["pid"], node["address"]) == (process.pid, process.address)
        assert node["head"] is node["alive"] is True and len(node["id"]) == 56
        assert node["resources"]["total"]["CPU"] == 1
        assert node["resources"]["available"].get("CPU", 0) == 0
        assert report["sessions"] == [] and len(report["jobs"]) == 1
        page = detray_command("status")[1]
        assert started in page and "1 alive" in page and "1 running" in page
        tasks = json.loads(
            detray_command("list", "tasks", "--filter", "state=running", "--json")[1]
        )["rows"]
        assert [task["name"] for task in tasks] == ["wait_long"]
        assert "wait_long" in detray_command("get", "tasks", tasks[0]["id"][:30])[1]
        assert detray_command("list", "tasks", "--filter", "name=other")[:2] == (
            0, "no tasks like that\n"
        )  # fmt: skip
        workers = json.loads(detray_command("list", "workers", "--json")[1])["rows"]
        assert "wait_long" in [worker["task"] for worker in workers]
        assert detray_command("get", "nodes", node["id"][:3])[0] == 0
        until(lambda: "here I am" in detray_command("logs", "--tail", "5")[1], "it has printed")
    finally:
        program.kill()
        program.communicate()


def test_a_head_that_was_killed_is_started_again(started: str) -> None:
    """The same port is the same cluster: its node stays, only the head is new."""
    port = started.split(":")[1]
    head, node = nearby.of_address(nearby.find_local(), started)
    os.kill(head.pid, signal.SIGKILL)
    again = ("start", "--head", "--port", port, "--host", "127.0.0.1", "--web-port", "-1")
    until(lambda: [p.kind for p in nearby.find_local()] == ["node"], "the head is gone")
    assert detray_command("status")[0] == 1
    status, out, err = detray_command(*again)
    assert status == 0, err
    assert "it goes on with the cluster" in out and "the one that was here stays" in out
    new, kept = sorted(nearby.of_address(nearby.find_local(), started), key=lambda p: p.kind)
    assert (kept.pid, kept.node) == (node.pid, node.node)
    assert (new.cluster, new.pid != head.pid) == (head.cluster, True)
    until(
        lambda: (
            [n["number"] for n in json.loads(detray_command("status", "--json")[1])["nodes"]]
            == [node.node]
        ),
        "the node has come back to the new head",
    )
    assert run_program(PROGRAM)[:2] == (0, "2470 1.0\n")
    status, _, err = detray_command(*again)
    assert status == 1 and f"pid {new.pid}" in err and "--port names another" in err


def test_a_port_that_is_taken_is_said(free_port: int, tmp_path: Path) -> None:
    """In one line, and nothing is left; nor is anything gone that was there before."""
    (tmp_path / "precious").touch()
    start = ("start", "--head", "--port", str(free_port), "--host", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        for more in ((), ("--store", f"file:{tmp_path}/new"), ("--store", f"file:{tmp_path}")):
            status, out, err = detray_command(*start, *more)
            assert (status, out, without_patience(err).count("\n")) == (1, "", 1)
            assert f"(port {free_port}; --port names another)" in err
    assert nothing_is_left()
    assert (tmp_path / "precious").exists() and not (tmp_path / "new").exists()


def test_a_port_that_is_taken_is_said_to_who_joins(started: str) -> None:
    """In one line, too: the head's own port will not do for a node."""
    port = started.split(":")[1]
    where = ("--host", "127.0.0.1", "--port", port)
    status, out, err = detray_command("start", f"--address={started}", "--num-cpus", "1", *where)
    assert (status, out, without_patience(err).count("\n")) == (1, "", 1)
    assert f"Address already in use (port {port}; --port names another)" in err
    kinds = [process.kind for process in nearby.of_address(nearby.find_local(), started)]
    assert sorted(kinds) == ["head", "node"]


def begin_blocking(port: int, **environment: str) -> subprocess.Popen[str]:
    """`detray start --head --block`."""
    command = (
        "import sys; from detray.cli import main; sys.exit(main(['start', '--head', '--block', "
        f"'--host', '127.0.0.1', '--port', '{port}', '--num-cpus', '1']))"
    )
    return begin_program(command, PYTHONPATH=str(ROOT), **environment)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("word", ["head ", "node ", "detray stop"])
def test_a_start_that_is_interrupted_leaves_nothing(
    free_port: int, word: str, stop: signal.Signals
) -> None:
    """Whatever has come up by then."""
    process = begin_blocking(free_port, PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    assert any(word in line for line in process.stdout), "it has ended"
    process.send_signal(stop)
    process.communicate(timeout=30)
    until(nothing_is_left, "nothing is left")


def test_block_stays_until_it_is_told_to_end(free_port: int) -> None:
    """SIGTERM ends head and node; the death of one of them ends it with a message."""
    for kill_node in (False, True):
        process = begin_blocking(free_port)
        assert process.stdout is not None
        assert any("detray stop" in line for line in process.stdout), "it has ended"
        head, node = nearby.find_local()
        assert (head.kind, node.kind) == ("head", "node")
        if kill_node:
            os.kill(node.pid, signal.SIGKILL)
        else:
            process.terminate()
        _, err = process.communicate(timeout=30)
        assert process.returncode == (1 if kill_node else 0), err
        assert ("the node (pid" in err) is kill_node
        until(lambda: not nearby.find_local(), "both have ended")
        detray_command("stop")
    from detray import launch

    launch.remove_store(launch.default_store(free_port))
    until(nothing_is_left, "nothing is left")
