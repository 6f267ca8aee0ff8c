"""Output files: checked before the work begins, written so that a crash leaves the old one whole.

A regular file is replaced through a temporary one beside it; a symbolic link stays and its target is
replaced; a device, a FIFO or an inherited descriptor (``/dev/stdout``, ``/dev/fd/3``) is written to,
unless the program itself made the name: nobody then waits at the FIFO's other end.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from theory.support.errors import UserError

if sys.platform != "win32":
    import fcntl

#: A folder that cannot take so much has no room for a result; larger results are found out later.
_PROBE = 1 << 16
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self|\d+))/fd/(\d+)")
_DESCRIPTOR_NAMES = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def plain(value: Any) -> Any:
    """The value in JSON's terms: arrays as lists, NaN as None, infinity as a string."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def check_outputs(
    outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None] | None = None
) -> None:
    """Refuse outputs that could not be written, before any work is done.

    Makes the folders of the outputs, and writes and removes a small file in each.

    Args:
        outputs: option -> path; None is an output that nobody asked for.
        inputs: option -> path of what is read, which no output may replace.

    Raises:
        UserError: a directory, a read-only file or folder, a folder that can't be made, a full disk,
            or one path for two of them.
    """
    asked = {option: path for option, path in outputs.items() if path is not None}
    read = {option: path for option, path in (inputs or {}).items() if path is not None}
    for option, path in asked.items():
        for other, also in (*asked.items(), *read.items()):
            if other != option and _same_file(path, also):
                raise UserError(f"{option} and {other} are both {path}, allowed: one file each")
    for option, path in asked.items():
        try:
            descriptor = _descriptor(path)
            if descriptor is None:
                _check_path(path)
            else:
                _check_descriptor(descriptor)
        except OSError as error:
            raise UserError(f"{option} is {path}: {_reason(error)}") from None


def check_folder(option: str, path: Path) -> None:
    """Make a folder for outputs, and write and remove a small file in it.

    Raises:
        UserError: it is a file, can't be made, is read-only or its disk is full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        _probe(path)
    except OSError as error:
        reason = "is not a folder" if isinstance(error, FileExistsError) else _reason(error)
        raise UserError(f"{option} is {path}: {reason}") from None


def check_made(option: str, path: Path) -> None:
    """Refuse, before the work begins, a name made for an output where no file can be put.

    Raises:
        UserError: a directory, or what ``write_atomically(..., special=False)`` refuses.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a directory")
        _require_replaceable(path)
    except OSError as error:
        raise UserError(f"{option} would write {path}: {_reason(error)}") from None


def write_atomically(path: Path, content: bytes, *, special: bool = True) -> None:
    """Replace ``path`` by ``content``, through a temporary file that reaches the disk and a rename.

    What a killed process left of its own attempts is removed. Permissions of an old file are kept.

    Args:
        path: the file.
        content: all of it.
        special: whether a device, a FIFO or a descriptor is written to; a FIFO waits for its reader, so
            only where the user typed the name.

    Raises:
        UserError: the file can't be written, with the reason; the old one is as it was.
    """
    try:
        if not special:
            _require_replaceable(path)
        descriptor = _descriptor(path)
        if descriptor is not None:
            _write_descriptor(descriptor, content)
        elif _is_special(path):
            with path.open("wb", buffering=0) as file:
                _write_all(file.fileno(), content)
        else:
            _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {_reason(error)}; it is as it was before") from None


def write_text(path: Path, text: str, *, special: bool = True) -> None:
    """:func:`write_atomically` for text, UTF-8."""
    # Names of files may hold bytes that are no UTF-8; they go out as they came in.
    write_atomically(path, text.encode(errors="surrogateescape"), special=special)


def write_json(path: Path, content: dict[str, Any], *, special: bool = True) -> None:
    """:func:`write_atomically` for a dict as JSON."""
    write_text(path, json.dumps(plain(content), indent=1) + "\n", special=special)


def remove_stale_parts(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes, on this machine, are gone."""
    for part in folder.glob(f".*.{_host()}-*.part"):
        owner = re.search(r"-(\d+)-[0-9a-f]+\.part$", part.name)
        if owner and not _is_alive(int(owner[1])):
            part.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(None, "is a directory")
    remove_stale_parts(path.parent)
    part = _part_name(path)
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.chmod(part, mode)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _part_name(path: Path) -> Path:
    # The name says whose it is, so that another process knows when nobody will finish it; names
    # have at most 255 bytes, so a long one is cut.
    head = os.fsdecode(os.fsencode(path.name)[:120])
    return path.parent / f".{head}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:40]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(None, "is a directory")
    if _is_special(path):
        return
    target = Path(os.path.realpath(path))
    # By its mode, as the superuser may write anything; whoever made it read-only meant it.
    if target.exists() and not target.stat().st_mode & 0o222:
        raise PermissionError(None, "is read-only")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(None, "is read-only")
    _probe(target.parent, target.name)


def _check_descriptor(descriptor: int) -> None:
    if sys.platform != "win32":
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            raise PermissionError(None, "is open for reading only")


def _probe(folder: Path, name: str = "probe") -> None:
    """Write and remove a small file."""
    remove_stale_parts(folder)
    part = _part_name(folder / name)
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(handle, b"\0" * _PROBE)
            os.fsync(handle)
        finally:
            os.close(handle)
    finally:
        part.unlink(missing_ok=True)


def _require_replaceable(path: Path) -> None:
    if _descriptor(path) is not None or _is_special(path):
        raise OSError(None, "is not a regular file")


def _is_special(path: Path) -> bool:
    """Whether something other than a file stands there, which a rename would replace."""
    try:
        return not stat.S_ISREG(path.stat().st_mode) and not path.is_dir()
    except FileNotFoundError:
        return False


def _descriptor(path: Path) -> int | None:
    """The inherited descriptor that a path names, or None.

    The redirected file behind ``/dev/stdout`` must not be replaced: the shell holds it open.
    """
    text = os.path.abspath(path)
    for _ in range(40):
        if text in _DESCRIPTOR_NAMES:
            return _DESCRIPTOR_NAMES[text]
        named = _DESCRIPTOR.fullmatch(text)
        if named:
            return int(named[1])
        if not os.path.islink(text):
            return None
        text = os.path.normpath(os.path.join(os.path.dirname(text), os.readlink(text)))
    return None


def _write_descriptor(descriptor: int, content: bytes) -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    try:
        _write_all(descriptor, content)
    except BrokenPipeError:
        # Whoever reads standard output may stop early, as with `| head`.
        if descriptor != 1:
            raise


def _write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _same_file(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return os.path.realpath(one) != os.devnull
    try:
        return one.stat().st_mode & stat.S_IFMT(0o170000) == stat.S_IFREG and one.samefile(other)
    except OSError:
        return False


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
