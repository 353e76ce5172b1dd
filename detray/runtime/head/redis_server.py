"""A Redis server: how to connect to it, and how to speak of it without its password."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from detray.runtime.head.store import StoreError

CONNECT_S = 3.0
ANSWER_S = 5.0
SCHEMES = ("redis", "rediss", "unix")
INSTALL = (
    "a store on a Redis server needs the package redis, which is not installed where the head "
    "runs: pip install 'detray[redis]'"
)

Redis = Any
"""A `redis.Redis`. (Any: the package is optional.)"""


def safe_url(url: str) -> str:
    """The URL without password and query, for messages."""
    try:
        parts = urlsplit(url)
        user = parts.username
    except ValueError:
        parts = None
    if parts is None or not parts.scheme or "://" not in url:
        return "an unreadable URL"  # Any part of it might be the password.
    where = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{user + '@' if user else ''}{where}{parts.path}"


def connect(url: str) -> Redis:
    """A client of the server at `url`; nothing is sent yet.

    `redis://[[user]:password@]host[:port][/database]`, the same with TLS as `rediss://` (options
    such as `?ssl_ca_certs=FILE` as redis-py has them), or `unix://[:password@]/path?db=0`.
    It does not try again by itself: whoever uses it knows better when. Raises StoreError for a URL
    that is none, or without the package.
    """
    if url.split("://", 1)[0] not in SCHEMES:
        raise StoreError(
            f"{safe_url(url)} is not the address of a Redis server: redis://HOST:PORT/DATABASE, "
            "rediss:// for TLS, unix:///PATH; a password goes before the host, as in "
            "redis://:PASSWORD@HOST"
        )
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ModuleNotFoundError:
        raise StoreError(INSTALL) from None
    options: dict[str, Any] = {
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": CONNECT_S,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "detray-head",
        "decode_responses": False,
    }
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError as error:
        raise StoreError(f"{safe_url(url)} is not the address of a Redis server: {error}") from None


def errors() -> tuple[type[Exception], ...]:
    """What calls of a client raise when the server is away, refuses or says no."""
    import redis

    return (redis.RedisError, OSError)


def describe(url: str, error: Exception) -> str:
    """One line about what went wrong with the server."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the Redis server at {safe_url(url)}: {text}"
