"""Where a process listens: `host:port`, `[::1]:6379`, or a name and a port."""

from __future__ import annotations

from typing import NamedTuple

PORT_MAX = 65_535
_HOST_CHARS_MAX = 255


class Address(NamedTuple):
    """A host (a number or a name, without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, default_port: int | None = None) -> Address:
    """Read an address; `default_port` is for a text without one. Raises ValueError."""
    rest = text.strip()
    if rest.startswith("["):
        host, bracket, rest = rest[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no address: write IPv6 ones as [::1]:6379")
        port_text = rest[1:] if rest else None
    elif rest.count(":") > 1:
        raise ValueError(f"{text!r} is ambiguous: put brackets around the host, as in [::1]:6379")
    else:
        host, colon, port_text_or_none = rest.partition(":")
        port_text = port_text_or_none if colon else None
    if not host or len(host) > _HOST_CHARS_MAX or any(c.isspace() or c in "/@" for c in host):
        raise ValueError(f"{text!r} names no host: write host:port, for example 10.0.0.1:6379")
    if port_text is None:
        if default_port is None:
            raise ValueError(f"{text!r} has no port: write {Address(host, 6379)}")
        return Address(host, default_port)
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) <= PORT_MAX):
        raise ValueError(f"{text!r}: the port must be a number from 1 to {PORT_MAX}")
    return Address(host, int(port_text))
