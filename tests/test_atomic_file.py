"""Files that are written in one operation."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from backends.atomic_file import write_atomically


def test_text_and_bytes_replace_a_file_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomically(path, b"\x00\xff", mode=0o600)
    assert path.read_bytes() == b"\x00\xff"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_file_that_is_not_accepted_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    sizes = []

    def accept(status: os.stat_result) -> bool:
        sizes.append(status.st_size)
        return len(sizes) > 1

    write_atomically(path, "newer", accept=accept)
    assert path.read_text() == "old"
    write_atomically(path, "newest", accept=accept)
    assert path.read_text() == "newest"
    assert sizes == [5, 6]
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text() == "old"
