"""Where a result came from, and writing it so that a crash leaves the old file whole."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
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
