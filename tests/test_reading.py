"""Input files: what is no regular file is not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from figures.analysis.sources import Sources
from theory.support import reading
from theory.support.errors import UserError
from theory.worst_case import certify


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A FIFO that nobody writes to would be waited for; a device may never end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "file").write_text("\u03c3")
    (tmp_path / "link").symlink_to("file")
    for name in ("fifo", "endless"):
        for read in (reading.read_bytes, reading.read_text):
            with pytest.raises(OSError, match="is not a regular file"):
                read(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        reading.read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        reading.read_text(tmp_path / "nothing")
    assert reading.read_text(tmp_path / "link") == "\u03c3"
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    os.mkfifo(certificates / "last.jsonl")
    with pytest.raises(UserError, match=r"holds no certificates .*is not a regular file"):
        certify.read(certificates / "last.jsonl")
    with pytest.raises(UserError, match="can't read fifo: is not a regular file"):
        Sources(tmp_path).read("fifo", "a command")
