"""Input files: only regular ones are read, as a FIFO may never answer and a device never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def require_regular(path: Path) -> None:
    """Refuse what a reader could wait for or read without end, as a FIFO or a link to /dev/zero.

    Raises:
        OSError: nothing is there, or something other than a regular file, with the reason.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises as :func:`require_regular`, or what reading raises."""
    require_regular(path)
    return path.read_bytes()


def read_text(path: Path) -> str:
    """:func:`read_bytes` as text, UTF-8; raises UnicodeDecodeError where it is none."""
    require_regular(path)
    return path.read_text(encoding="utf-8")
