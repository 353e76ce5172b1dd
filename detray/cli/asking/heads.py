"""Which cluster a command is about, and asking its head."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from detray import launch
from detray.errors import EngineError
from detray.launch import LaunchError
from detray.nearby import LocalProcess, find_local, of_address
from detray.runtime.asking import ask, security_of
from detray.runtime.boot import TlsFiles
from detray.runtime.net.address import parse_address
from detray.runtime.net.security import Security, make_tls
from detray.settings import AUTO, LOCAL

if TYPE_CHECKING:
    # Loaded where somebody asks.
    from detray.runtime.net.tool import ToolConnection

ASK_S = 5.0
_TLS = ("cert", "key", "ca")


class HeadAt(NamedTuple):
    """A cluster's head, and what one needs to ask it."""

    address: str
    security: Security
    cluster: str
    """"" if nobody told."""

    def ask(self, topic: str, *arguments: Any) -> Any:  # Any: plain data
        """Its answer. Raises EngineError, naming the head, if there is none."""
        return ask_head(self.address, self.security, self.cluster, topic, *arguments)


def connect_head(head: HeadAt) -> ToolConnection:
    """A connection for many questions. Raises EngineError, naming the head, if there is none."""
    from detray.runtime.net.tool import connect_tool

    try:
        return connect_tool(parse_address(head.address), head.security, head.cluster)
    except OSError as problem:
        raise EngineError(f"the head at {head.address} cannot be asked: {problem}") from None


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """The options that say which cluster a command is about."""
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the cluster's head (default: DETRAY_ADDRESS, or the cluster of this machine)",
    )
    add_security(parser)


def add_security(parser: argparse.ArgumentParser) -> None:
    """The options that say how to prove that one belongs to it."""
    group = parser.add_argument_group("who may join and ask")
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="the cluster's secret (default: DETRAY_TOKEN, DETRAY_TOKEN_FILE, or the file of a "
        "process of the cluster on this machine)",
    )
    for name in _TLS:
        variable = f"DETRAY_TLS_{name.upper()}"
        group.add_argument(
            f"--tls-{name}",
            metavar="FILE",
            default=os.environ.get(variable),
            help=f"PEM file; all three or none (default: {variable})",
        )


def tls_files(options: argparse.Namespace) -> TlsFiles | None:
    """What the options say about TLS. Raises ValueError if that is not all of it."""
    paths = [getattr(options, f"tls_{name}") for name in _TLS]
    if not any(paths):
        return None
    if not all(paths):
        missing = [f"--tls-{name}" for name, path in zip(_TLS, paths, strict=True) if not path]
        raise ValueError(f"TLS needs three files: {' and '.join(missing)} is missing")
    for path in paths:
        with open(path, "rb"):
            pass  # An error now names the file; later it would be a process's last words.
    return TlsFiles(*map(os.path.abspath, paths))


def find_security(options: argparse.Namespace, head: str) -> Security:
    """Token and TLS for the cluster at `head`. Raises LaunchError if no token is to be found."""
    token = launch.given_token(options.token_file or "")
    local = of_address(find_local(), head)
    if not token and not local:
        raise LaunchError(
            f"no token for the cluster at {head}: copy the file that `detray start --head` named "
            "there, and name it with --token-file or DETRAY_TOKEN_FILE"
        )
    tls = tls_files(options)
    if local and not token and tls is None:
        return _of_process(local[0])
    return Security(token or _of_process(local[0]).token, make_tls(tls) if tls else None)


def find_head(options: argparse.Namespace) -> HeadAt | None:
    """The head that a command is about: named, or of the newest cluster here; None without one.

    Raises LaunchError if there is no token for it, ValueError if the address makes no sense.
    """
    address = options.address or os.environ.get("DETRAY_ADDRESS") or AUTO
    if address == LOCAL:
        return None
    processes = find_local()
    if address != AUTO:
        head = str(parse_address(address, launch.DEFAULT_PORT))
        local = of_address(processes, head)
        return HeadAt(head, find_security(options, head), local[0].cluster if local else "")
    if not processes:
        return None
    newest = ([p for p in processes if not p.is_tied] or processes)[-1]
    return HeadAt(newest.head, _of_process(newest), newest.cluster)


def ask_head(
    address: str, security: Security, cluster: str, topic: str, *arguments: Any
) -> Any:  # Any: plain data
    """The answer of the head at an address. Raises EngineError, naming it, if there is none."""
    try:
        return ask(address, security, cluster, topic, *arguments, timeout_s=ASK_S)
    except OSError as problem:
        raise EngineError(f"the head at {address} cannot be asked: {problem}") from None


def _of_process(process: LocalProcess) -> Security:
    try:
        found: Security = security_of(process.directory)
    except (OSError, ValueError) as problem:
        raise LaunchError(f"the token of {process.address} cannot be read: {problem}") from None
    return found
