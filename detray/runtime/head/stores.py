"""The store that a head's boot order names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from detray.runtime.boot import HeadBoot
from detray.runtime.head.file_store import FileStore
from detray.runtime.head.store import HeadStore, StoreError

if TYPE_CHECKING:
    from detray.runtime.head.overview import StoreState
    from detray.runtime.head.redis_view import RedisView

FILE = "file:"
REDIS = ("redis://", "rediss://", "unix://")


def open_store(boot: HeadBoot, note: Callable[[str, str], None]) -> HeadStore:
    """Take the head's store. Raises StoreError."""
    store = make_store(boot, note)
    store.open()
    return store


def make_store(boot: HeadBoot, note: Callable[[str, str], None]) -> HeadStore:
    """The store, not opened yet: a directory here, or that and its copy on a Redis server."""
    if boot.store.startswith(FILE):
        return FileStore(boot.store.removeprefix(FILE))
    if boot.store.startswith(REDIS):
        from detray.runtime.head.redis_store import RedisStore

        return RedisStore(FileStore(boot.store_dir), boot.store, boot.cluster.cluster, note)
    raise StoreError(
        f"there is no kind of store {boot.store.split(':')[0]!r}: use file:DIRECTORY or redis://..."
    )


@runtime_checkable
class HasCopy(Protocol):
    """A store that feeds a second copy of itself."""

    @property
    def state(self) -> StoreState:
        """How far the copy is behind."""

    def check(self) -> None:
        """Raises StoreError if a head of a later epoch has taken the copy."""


def make_view(boot: HeadBoot, note: Callable[[str, str], None]) -> RedisView | None:
    """The plain keys for people, if the store is a Redis server. Raises StoreError."""
    if not boot.store.startswith(REDIS):
        return None
    from detray.runtime.head.redis_view import RedisView

    return RedisView(boot.store, boot.cluster.cluster, note)
