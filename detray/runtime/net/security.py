"""What keeps strangers out: the cluster's token, and TLS for those who want it.

The token is a secret that every process of a cluster has. Who connects proves it, and has it
proved, before anything else that was sent is looked at (`handshake.py`). Without TLS what follows
is neither encrypted nor signed: the network itself must be trusted not to change it.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from detray.runtime.boot import ClusterBoot, TlsFiles

TOKEN_VARIABLE = "DETRAY_TOKEN"
TOKEN_FILE_VARIABLE = "DETRAY_TOKEN_FILE"
TOKEN_BYTES_MIN = 16
_TOKEN_BYTES_MAX = 4096


class TlsContexts(NamedTuple):
    """stdlib TLS for both roles; each end shows a certificate of the cluster's authority."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class Security(NamedTuple):
    """What a process must have to talk to a cluster."""

    token: bytes
    tls: TlsContexts | None = None


def make_token() -> bytes:
    """A new token: 64 hexadecimal digits."""
    return secrets.token_hex(32).encode()


def make_security(boot: ClusterBoot) -> Security:
    """What a boot order says. Raises OSError or ValueError for files that cannot be used."""
    return Security(boot.token, make_tls(boot.tls) if boot.tls is not None else None)


def check_token(token: bytes, source: str) -> bytes:
    """The token without white space around it. Raises ValueError if it is no secret."""
    token = token.strip()
    if not TOKEN_BYTES_MIN <= len(token) <= _TOKEN_BYTES_MAX:
        raise ValueError(
            f"the token in {source} has {len(token)} bytes; it needs at least {TOKEN_BYTES_MIN}: "
            "copy the one that `detray start --head` made"
        )
    return token


def read_token(path: str) -> bytes:
    """The token in a file. Raises OSError; PermissionError if others may read or change it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if stat.S_IMODE(facts.st_mode) & 0o077 or facts.st_uid not in (os.getuid(), 0):
            raise PermissionError(
                f"{path} is readable or writable by others, or not yours, so it is no secret: "
                f"chmod 600 {path}, or make a new token"
            )
        return check_token(file.read(_TOKEN_BYTES_MAX + 2), path)


def write_token(path: str, token: bytes) -> None:
    """Write a token that only its user can read. Raises FileExistsError, OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(token + b"\n")


def find_token(environ: Mapping[str, str] | None = None) -> bytes | None:
    """The token of the environment, given there or in a file that it names; None if neither.

    Raises ValueError or OSError if what is given cannot be used.
    """
    variables = os.environ if environ is None else environ
    token, path = variables.get(TOKEN_VARIABLE), variables.get(TOKEN_FILE_VARIABLE)
    if token and path:
        raise ValueError(f"{TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} are both set: unset one")
    if token:
        return check_token(token.encode(), TOKEN_VARIABLE)
    return read_token(path) if path else None


def make_tls(files: TlsFiles) -> TlsContexts:
    """Contexts that show our certificate and demand one of the same authority from the peer.

    Names in certificates are not compared: nodes are known by addresses that change, and who has a
    certificate of the authority and the token belongs to the cluster. Raises OSError (also
    `ssl.SSLError`) if the files cannot be used.
    """
    import ssl

    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authority)
        contexts.append(context)
    return TlsContexts(*contexts)
