"""Asking a cluster's head, from a process that finds all it needs in a session directory.

A node's directory names the head and, if the links use TLS, the files for it (`cluster.json`), and
holds the secret (`token`). Workers ask this way; drivers have a channel (`log_channel.py`).
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from detray.core.resources import UNIT
from detray.errors import EngineError
from detray.runtime.session import INFO_NAME, TOKEN_NAME

ASK_S = 10.0
TLS_NAMES = ("tls_certificate", "tls_key", "tls_authority")
"""What `cluster.json` calls the files of `boot.TlsFiles`; missing or "" without TLS."""


def ask_from(directory: str, topic: str, *arguments: Any, timeout_s: float = ASK_S) -> Any:
    """The answer of the head of the cluster whose process has that session directory.

    Raises FileNotFoundError if it is no cluster's, EngineError if the head does not answer. (Any:
    plain data.)
    """
    facts = _read(os.path.join(directory, INFO_NAME))
    return ask(facts["head"], security_of(directory), facts["cluster"], topic, *arguments,
               timeout_s=timeout_s)  # fmt: skip


def ask(
    head: str, security: Any, cluster: str, topic: str, *arguments: Any, timeout_s: float = ASK_S
) -> Any:  # Any: plain data, and net/security.py's class, which few processes need to load
    """The answer of the head at an address. Raises EngineError if there is none."""
    from detray.runtime.net.address import parse_address
    from detray.runtime.net.tool import connect_tool

    tool = connect_tool(parse_address(head), security, cluster)
    try:
        return tool.ask(topic, *arguments, timeout=timeout_s)
    finally:
        tool.close()


def security_of(directory: str) -> Any:  # Any: as above
    """What the process with that session directory needs to talk to its cluster."""
    from detray.runtime.boot import TlsFiles
    from detray.runtime.net.security import Security, make_tls, read_token

    token = read_token(os.path.join(directory, TOKEN_NAME))
    facts = _read(os.path.join(directory, INFO_NAME))
    tls = TlsFiles(*(str(facts.get(name, "")) for name in TLS_NAMES))
    return Security(token, make_tls(tls) if tls.certificate else None)


def reports_from(directory: str) -> list[dict[str, Any]] | None:
    """A summary of each node of the cluster; None if the directory is a private session's.

    Raises EngineError if the head does not answer.
    """
    if not os.path.exists(os.path.join(directory, INFO_NAME)):
        return None
    try:
        return [summary_of(page) for page in ask_from(directory, "status")["nodes"]]
    except OSError as problem:
        raise EngineError(f"the head of the cluster cannot be asked: {problem}") from None


def summary_of(page: dict[str, Any]) -> dict[str, Any]:
    """A node of the head's report in the shape of a node's own summary (`core/status.py`)."""
    resources = page.get("resources", {})
    return {
        **page,
        "node": page["number"],
        "total": _units(resources.get("total", {})),
        "available": _units(resources.get("available", {})),
    }


def _units(amounts: dict[str, float]) -> dict[str, int]:
    return {name: round(amount * UNIT) for name, amount in amounts.items()}


def _read(path: str) -> dict[str, Any]:  # Any: JSON
    with open(path, "rb") as file:
        return dict(msgspec.json.decode(file.read()))
