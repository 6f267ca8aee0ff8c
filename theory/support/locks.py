"""One process at a time: locks that the system takes back when their holder dies, also by kill -9."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theory.support.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no fcntl; there nothing is locked.
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock(path: Path, refusal: str) -> Iterator[None]:
    """Hold the file ``path``, which stays; `UserError` with ``refusal`` when another process does.

    File systems that cannot lock are used without.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(refusal) from error
            except OSError:
                pass
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the file ``path``."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
