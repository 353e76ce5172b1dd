"""What workers of a cluster's node print, kept in files of its session directory for `detray logs`.

One file for each worker; when it is full it becomes `NAME.1`, in place of the one before. The files
go with the session directory.
"""

from __future__ import annotations

import os
from typing import Any

from detray.ids import ClientID

FILE_BYTES_MAX = 8 << 20
_SUFFIXES = (".log", ".log.1")


class LogFiles:
    """The files of one session directory. Trouble with the disk costs lines, nothing else."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._sizes: dict[str, int] = {}

    def write(self, worker: ClientID, pid: int, name: str, stream: str, lines: list[str]) -> None:
        """Append what a worker printed, a line each, with who printed it."""
        file = f"worker-{worker}.log"
        label = f"{name} pid={pid}" if name else f"pid={pid}"
        mark = " err" if stream == "stderr" else ""
        data = "".join([f"({label}{mark}) {line}\n" for line in lines])
        encoded = data.encode("utf-8", "backslashreplace")
        path = os.path.join(self._directory, file)
        try:
            size = self._sizes.get(file, 0)
            if size and size + len(encoded) > FILE_BYTES_MAX:
                os.replace(path, f"{path}.1")
                size = 0
            with open(path, "ab") as target:
                target.write(encoded)
            self._sizes[file] = size + len(encoded)
        except OSError:
            pass

    def names(self) -> list[dict[str, Any]]:
        """The logs that there are: name and size of each. (Any: plain data.)

        None if the directory cannot be read: whoever tidies up a machine may have removed it.
        """
        rows = []
        try:
            for name in sorted(os.listdir(self._directory)):
                if name.endswith(_SUFFIXES):
                    size = os.stat(os.path.join(self._directory, name)).st_size
                    rows.append({"name": name, "size_bytes": size})
        except OSError:
            pass
        return rows

    def read(self, name: str, offset: int, size_bytes: int) -> bytes:
        """A part of a log; b"" at its end. Raises FileNotFoundError for what is none."""
        if name not in [row["name"] for row in self.names()]:
            raise FileNotFoundError(f"there is no log {name!r:.80} here")
        with open(os.path.join(self._directory, name), "rb") as file:
            file.seek(min(max(0, offset), os.fstat(file.fileno()).st_size))
            return file.read(max(0, size_bytes))
