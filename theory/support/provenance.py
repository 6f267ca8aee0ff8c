"""Where a result came from, and writing it so that a crash leaves the old file whole."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "scipy", "numba", "joblib")


def provenance() -> dict[str, Any]:
    """Hardware, versions, command and commit of this process."""
    return {
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        },
        "versions": {
            "python": platform.python_version(),
            **{p: metadata.version(p) for p in PACKAGES},
        },
        "command": command(),
        "commit": commit(),
    }


def command() -> str:
    """The command line, as one would type it."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    # Under -m the spec names the module; "pkg.__main__" is typed as "pkg".
    head = (
        ["python", "-m", spec.name.removesuffix(".__main__")] if spec else ["python", sys.argv[0]]
    )
    return shlex.join([*head, *sys.argv[1:]])


def commit() -> str:
    """Short commit of the checkout, with "+changes" if it has any; "unknown" outside git."""
    here = Path(__file__).resolve().parents[2]
    try:
        git = ["git", "-C", str(here)]
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changed.strip() else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


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


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file and a rename.

    Raises:
        ValueError: the file can't be written, with the reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            # mkstemp makes private files; a result is for everyone whom the umask allows.
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ValueError(f"can't write {path}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as JSON; see :func:`write_text`."""
    write_text(path, json.dumps(plain(content), indent=1) + "\n")
