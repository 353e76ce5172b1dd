"""The files of what workers print."""

from __future__ import annotations

from pathlib import Path

import pytest

from detray.ids import ClientID
from detray.runtime import log_files
from detray.runtime.log_files import LogFiles


def test_lines_are_kept_and_a_full_file_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most two files for a worker; each line says who printed it."""
    monkeypatch.setattr(log_files, "FILE_BYTES_MAX", 40)
    files = LogFiles(str(tmp_path))
    for number in range(3):
        files.write(ClientID(7), 12, "f", "stdout", [f"line {number} of three"])
    assert [row["name"] for row in files.names()] == ["worker-7.log", "worker-7.log.1"]
    assert files.read("worker-7.log", 0, 100) == b"(f pid=12) line 2 of three\n"
    assert files.read("worker-7.log.1", 11, 6) == b"line 1"
    for beyond in (1 << 63, 1 << 80):
        assert files.read("worker-7.log", beyond, 5) == b""
    for name in ("worker-8.log", "../secret"):
        with pytest.raises(FileNotFoundError, match="there is no log"):
            files.read(name, 0, 100)


def test_a_directory_that_is_gone_costs_lines_only(tmp_path: Path) -> None:
    """Somebody tidied up; the node that is asked for its logs goes on."""
    files = LogFiles(str(tmp_path / "gone"))
    files.write(ClientID(1), 12, "", "stderr", ["lost"])
    assert files.names() == []
    with pytest.raises(FileNotFoundError, match="there is no log"):
        files.read("worker-1.log", 0, 100)
