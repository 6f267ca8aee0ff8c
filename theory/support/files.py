"""Writing files so that a crash leaves the old one whole."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from theory.support.errors import UserError


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


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, through a temporary file that reaches the disk and a rename.

    Raises:
        UserError: the file can't be written, with the reason; the old one is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes private files; a result is for everyone whom the umask allows.
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; it is as it was before"
        ) from None


def write_text(path: Path, text: str) -> None:
    """:func:`write_atomically` for text, UTF-8."""
    write_atomically(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """:func:`write_atomically` for a dict as JSON."""
    write_text(path, json.dumps(plain(content), indent=1) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
