"""`detray start` and `detray stop`: heads and nodes of a cluster on this machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detray import launch
from detray.cli.arguments.amounts import size
from detray.cli.asking.heads import add_security, ask_head, find_security, tls_files
from detray.errors import EngineError
from detray.launch import ClusterKey, Launched, LaunchError, Listen
from detray.nearby import LocalProcess, find_local, of_address
from detray.runtime.net.address import parse_address
from detray.runtime.session import TOKEN_NAME
from detray.runtime.spawn import SpawnedService
from detray.settings import Settings, read_settings
from detray.trace.quantities import size_text

_STOP_S = 15.0
_BLOCK_POLL_S = 0.2

START = """\
the first machine:
  detray start --head                          a head and a node, on port 6379
  detray start --head --port 7000 --num-cpus 8
every other machine (the token file is named by `start --head`; copy it, it is a secret):
  detray start --address=192.168.1.5:6379 --token-file ~/.detray-token
the program, on any of them:
  detray.init(address="auto")
a head that was killed, with everything it knew:
  detray start --head --port 6379              the same port, or the same --store
"""
STOP = """\
examples:
  detray stop                the cluster of this machine, in order
  detray stop --force        and what does not end within 15 seconds, by kill -9
  detray stop --address=192.168.1.5:6379
Sessions of programs (`detray.init()` without a cluster) end with their programs.
"""


def add_start(commands: Any) -> None:  # Any: argparse's class for it is private
    """Describe `detray start` to the parser."""
    parser = commands.add_parser(
        "start",
        help="start a cluster, or let this machine join one",
        description="Start the head of a cluster and this machine's node, or a node that joins a "
        "cluster. They run until `detray stop`, whatever ends meanwhile.",
        epilog=START,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", action="store_true", help="begin a cluster here")
    which.add_argument("--address", metavar="HOST:PORT", help="the head of the cluster to join")
    parser.add_argument("--port", type=int, help="of the head (6379), or of a joining node (any)")
    parser.add_argument(
        "--host", "--listen", metavar="HOST", help="address to listen on (default: all of them)"
    )
    parser.add_argument("--advertise", metavar="HOST", help="what others are told to connect to")
    node = parser.add_argument_group("what the node has (default: what the machine has)")
    node.add_argument("--num-cpus", type=int)
    node.add_argument("--num-gpus", type=int)
    node.add_argument("--resources", type=_object, metavar="JSON", help="""such as '{"disk": 2}'""")
    node.add_argument("--labels", type=_labels, metavar="JSON", help="""or key=value,key=value""")
    node.add_argument("--memory", type=size, metavar="BYTES", help="or 500M, 8G")
    node.add_argument("--object-store-memory", type=size, metavar="BYTES", help="or 500M, 8G")
    node.add_argument("--node-name", metavar="NAME", help="for people (default: its address)")
    head = parser.add_argument_group("the head")
    head.add_argument("--head-only", action="store_true", help="no node beside it")
    head.add_argument("--store", metavar="WHERE", help="its log: file:PATH, or redis://HOST:PORT/0")
    head.add_argument(
        "--cluster",
        metavar="ID",
        help="go on with this cluster from a Redis store whose head's machine is lost (its token "
        "is needed, too)",
    )
    head.add_argument("--web-port", type=int, default=0, help="of its page (-1: none; 0: any)")
    parser.add_argument("--record", metavar="FILE", help="keep all decisions (the head: FILE.head)")
    parser.add_argument(
        "--record-payloads",
        action="store_true",
        help="keep arguments and values, too (FILE.payloads), for detray rerun",
    )
    parser.add_argument("--block", action="store_true", help="stay, and stop them on Ctrl-C")
    add_security(parser)
    parser.set_defaults(run=run_start)


def add_stop(commands: Any) -> None:  # Any: as above
    """Describe `detray stop` to the parser."""
    parser = commands.add_parser(
        "stop",
        help="stop the cluster's processes on this machine",
        description="Ask the nodes of this machine to leave in order, then the head. Exit code 1 "
        "if there is none, or one does not end.",
        epilog=STOP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--force", action="store_true", help="kill what does not end by itself")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every cluster, if there are several")
    which.add_argument("--address", metavar="HOST:PORT", help="the cluster with that head")
    parser.set_defaults(run=run_stop)


# ------------------------------------------------------------------ start


def run_start(options: argparse.Namespace) -> int:
    """`detray start`. Raises LaunchError, ValueError, OSError, as `command.main` expects."""
    if options.address is not None:
        for name in ("head_only", "store", "cluster"):
            if getattr(options, name):
                raise ValueError(f"--{name.replace('_', '-')} belongs to --head")
    settings = _settings(options)
    started: list[Launched] = []
    # Before anything is begun that must end.
    kept = signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        if options.head:
            _start_head(options, settings, started)
        else:
            _join(options, settings, started)
        sys.stdout.flush()
        return _wait_for_death(started) if options.block else 0
    except KeyboardInterrupt:
        if not (options.block and started):
            raise
        return _end(started)
    finally:
        signal.signal(signal.SIGTERM, kept)


def _start_head(options: argparse.Namespace, settings: Settings, started: list[Launched]) -> None:
    """Fill in who was started; if this is interrupted, or fails, nobody."""
    port = launch.DEFAULT_PORT if options.port is None else options.port
    local = find_local()
    _check_port(port, local)
    store, store_dir = launch.place_store(options.store or "", launch.default_store(port))
    known = launch.load_key(store_dir)
    given = launch.given_token(options.token_file or "")
    if known is not None and given and given != known.token:
        raise LaunchError(
            f"the log in {store_dir} is of a cluster with another token. Name no token to go on "
            "with that cluster, or another --store to begin a new one"
        )
    key = known or _named_key(options.cluster, given) or launch.new_key(given)
    if options.cluster and options.cluster != key.cluster:
        raise LaunchError(f"the log in {store_dir} is of the cluster {key.cluster}")
    tls = tls_files(options)
    has_node = any(p.kind == "node" and p.cluster == key.cluster for p in local)
    is_new = not os.path.exists(store_dir)
    begun: SpawnedService | None = None
    try:
        if not (has_node or options.head_only):
            with _undisturbed():
                begun = launch.begin_node()
        launch.save_key(store_dir, key, keep=bool(options.store))
        with _undisturbed():
            head = launch.start_head(
                key=key,
                listen=Listen(options.host or "", port, options.advertise or ""),
                store=store,
                store_dir=store_dir,
                tls=tls,
                web_port=options.web_port,
                record=f"{options.record}.head" if options.record else "",
            )
            started.append(head)
        _wait_ready(head, port)
        print(f"head   {head.address}  pid {head.pid}, log {store}")
        if known is not None:
            print("       it goes on with the cluster whose log that is")
        if begun is not None:
            listen = Listen(options.host or "", 0, options.advertise or "")
            _start_node(options, settings, key, listen, head.address, started, begun)
    except BaseException:
        with _undisturbed():
            _stop_all(started)
            started.clear()
            if begun is not None:
                begun.kill()
                begun.wait(_STOP_S)
            if is_new:
                launch.remove_store(store_dir)
        raise
    if has_node:
        print("node   the one that was here stays")
    _teach(head, has_tls=tls is not None)


def _check_port(port: int, local: Sequence[LocalProcess]) -> None:
    """Raises LaunchError if a head of this machine is there."""
    for process in local:
        if process.kind == "head" and parse_address(process.address).port == port:
            raise LaunchError(
                f"a head is at port {port} already ({process.address}, pid {process.pid}). "
                f"`detray start --address={process.address}` starts a node here, "
                "`detray stop` ends the head, --port names another"
            )


def _wait_ready(process: Launched, port: int) -> None:
    """Wait until it is up. Raises LaunchError, which names the port if that is what is wrong."""
    try:
        process.wait_ready(note=_note)
    except LaunchError as problem:
        if "in use" in str(problem):
            raise LaunchError(f"{problem} (port {port}; --port names another)") from None
        raise


def _named_key(cluster: str | None, token: bytes) -> ClusterKey | None:
    """A cluster that the user names, whose head was on a machine that is lost."""
    if not cluster:
        return None
    if len(cluster) != 32 or not set(cluster) <= set("0123456789abcdef"):
        raise ValueError(f"--cluster {cluster!r} is no cluster's id: 32 digits as status shows it")
    if not token:
        raise LaunchError("--cluster needs that cluster's token: name it with --token-file")
    return ClusterKey(cluster, token)


def _join(options: argparse.Namespace, settings: Settings, started: list[Launched]) -> None:
    head = str(parse_address(options.address, launch.DEFAULT_PORT))
    security = find_security(options, head)
    try:
        about = ask_head(head, security, "", "status")["head"]
    except (EngineError, OSError) as problem:
        raise LaunchError(f"this machine cannot join: {problem}") from None
    key = ClusterKey(str(about["cluster"]), security.token)
    listen = Listen(options.host or "", options.port or 0, options.advertise or "")
    try:
        _start_node(options, settings, key, listen, head, started)
    except BaseException:
        with _undisturbed():
            _stop_all(started)
            started.clear()
        raise
    print(
        '\nprograms on this machine:  detray.init(address="auto")\n'
        "to look, and to stop:      detray status; detray stop"
    )


def _start_node(
    options: argparse.Namespace,
    settings: Settings,
    key: ClusterKey,
    listen: Listen,
    head: str,
    started: list[Launched],
    process: SpawnedService | None = None,
) -> None:
    """A node, begun already if it is the one beside a new head."""
    tls = tls_files(options)
    with _undisturbed():
        node = launch.start_node(
            settings,
            key=key,
            listen=listen,
            head=head,
            tls=tls,
            is_beside_head=process is not None,
            process=process,
        )
        started.append(node)
    _wait_ready(node, listen.port)
    amounts = dict(settings.totals())
    has = [f"{amounts[name] / 10_000:g} {name}" for name in ("CPU", "GPU") if name in amounts]
    has.append(f"{size_text(settings.store_bytes())} store")
    print(f"node   {node.address}  pid {node.pid}, node {node.info['node']}: {', '.join(has)}")


def _teach(head: Launched, *, has_tls: bool) -> None:
    """What one needs to know next. The token itself is never shown."""
    if head.info.get("web"):
        print(f"page   {head.info['web']}")
    token = os.path.join(head.session_dir, TOKEN_NAME)
    address = f"'{head.address}'" if "[" in head.address else head.address  # shells glob
    files = " --tls-cert FILE --tls-key FILE --tls-ca FILE" if has_tls else ""
    print(
        f"""
another machine (copy the token file there, it is a secret; mode 0600):
  scp {os.uname().nodename}:{token} ~/.detray-token
  detray start --address={address} --token-file ~/.detray-token{files}
a program, on this machine or on one that joined:
  detray.init(address="auto")
to look, and to stop:
  detray status
  detray stop"""
    )


def _settings(options: argparse.Namespace) -> Settings:
    return read_settings(
        "local",
        {
            "num_cpus": options.num_cpus,
            "num_gpus": options.num_gpus,
            "resources": options.resources,
            "labels": options.labels,
            "memory": options.memory,
            "object_store_memory": options.object_store_memory,
            "record": options.record,
            "record_payloads": options.record_payloads,
            "_node_name": options.node_name,
        },
    )


def _wait_for_death(started: Sequence[Launched]) -> int:
    """Stay until one of them ends, which is told; then the others end, too. The status, 1."""
    while all(process.is_alive() for process in started):
        time.sleep(_BLOCK_POLL_S)
    [dead, *_] = [process for process in started if not process.is_alive()]
    print(
        f"detray: the {dead.kind} (pid {dead.pid}) has ended:\n{dead.last_lines()}",
        file=sys.stderr,
    )
    _stop_all(started)
    return 1


def _end(started: Sequence[Launched]) -> int:
    """End all of them, as somebody ends us. The status, 0."""
    with _undisturbed():
        _stop_all(started)
        for process in started:
            if process.kind == "head":
                launch.remove_default_stores(str(process.info["cluster"]))
    return 0


def _stop_all(started: Sequence[Launched]) -> None:
    for process in reversed(started):
        if not process.stop(_STOP_S):
            process.kill()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let who ends us wait: what has begun is to be noted, what ends to be waited for."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _note(text: str) -> None:
    print(f"detray: {text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ stop


def run_stop(options: argparse.Namespace) -> int:
    """`detray stop`: 0 if all that was there has ended."""
    processes = _to_stop(options)
    if not processes:
        print("no cluster of yours runs on this machine")
        return 1
    status = 0
    kept = set()
    # Nodes first: what they alone have can still go elsewhere while the head is there.
    for process in sorted(processes, key=lambda p: (p.kind == "head", -p.started_ns)):
        how = launch.stop_process(process, timeout_s=_STOP_S, force=options.force)
        name = f"node {process.node}" if process.kind == "node" else "head"
        if how == "stuck":
            status = 1
            kept.add(process.cluster)
            hint = "" if options.force else "; detray stop --force kills it"
            print(f"{name:8} {process.address}  pid {process.pid} has not ended yet{hint}")
            continue
        print(f"{name:8} {process.address}  pid {process.pid} {how}")
    # Who stops a cluster does not mean to go on with it; a store that a user named stays.
    for cluster in sorted({process.cluster for process in processes} - kept):
        launch.remove_default_stores(cluster)
    return status


def _to_stop(options: argparse.Namespace) -> list[LocalProcess]:
    processes = find_local()
    if options.address is not None:
        address = str(parse_address(options.address, launch.DEFAULT_PORT))
        found = of_address(processes, address)
        if not found:
            raise LaunchError(f"no process of the cluster at {address} runs on this machine")
        return found
    # Clusters of `cluster_utils` belong to the programs that made them.
    processes = [process for process in processes if not process.is_tied]
    heads = {process.cluster: process.head for process in processes}
    if len(heads) > 1 and not options.all:
        raise ValueError(
            f"several clusters run on this machine ({', '.join(sorted(heads.values()))}): name "
            "one with --address, or say --all"
        )
    return processes


# ------------------------------------------------------------------ values of options


def _object(text: str) -> dict[str, Any]:  # Any: JSON
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"""{text!r} is no JSON object such as '{{"disk": 2}}'""")
    return found


def _labels(text: str) -> dict[str, Any]:  # Any: as above
    if text.lstrip().startswith("{"):
        return _object(text)
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not pairs or not all(key and equals for key, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is neither JSON nor key=value,key=value")
    return {key: value for key, _, value in pairs}
