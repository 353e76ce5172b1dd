"""The store that a head's boot order names."""

from __future__ import annotations

from collections.abc import Callable

from detray.runtime.boot import HeadBoot
from detray.runtime.head.file_store import FileStore
from detray.runtime.head.store import HeadStore, StoreError

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
