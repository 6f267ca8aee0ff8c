"""Where a result came from: hardware, versions, command and commit of this process."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from theory.support.interrupts import SCRIPTS

#: The name of the distribution, under which its own version stands among the versions.
PROJECT = "local-sgd-rates"
PACKAGES = ("numpy", "scipy", "numba", "joblib")
_HERE = Path(__file__).resolve().parents[2]


def provenance(
    packages: Sequence[str] = PACKAGES, *, changed_paths: Sequence[str] = ()
) -> dict[str, Any]:
    """Hardware, versions, command and commit of this process.

    Args:
        packages: distributions whose versions decide the result; those not installed are left out.
        changed_paths: what counts as a change of the checkout, see :func:`commit`.

    Returns:
        "hardware", "versions" (Python, this project, packages), "command", "commit".
    """
    return {
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        },
        "versions": {
            "python": platform.python_version(),
            PROJECT: version(),
            **{p: found for p in packages if (found := _version_of(p))},
        },
        "command": command(),
        "commit": commit(changed_paths),
    }


def version() -> str:
    """The version of the code that runs: the checkout's, else the installed distribution's."""
    try:
        project = tomllib.loads((_HERE / "pyproject.toml").read_text())["project"]
        if project["name"] == PROJECT:
            return str(project["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        pass
    return _version_of(PROJECT) or "unknown"


def command() -> str:
    """The command line, as one would type it."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    # Under -m the spec names the module; "pkg.__main__" is typed as "pkg".
    head = (
        ["python", "-m", spec.name.removesuffix(".__main__")] if spec else ["python", sys.argv[0]]
    )
    if Path(sys.argv[0]).name.startswith(SCRIPTS):
        head = [Path(sys.argv[0]).name]
    return shlex.join([*head, *sys.argv[1:]])


def commit(changed_paths: Sequence[str] = ()) -> str:
    """Short commit of the checkout that this code is the root of, "unknown" where there is none.

    A package installed into the environment of another repository lies inside that one's checkout,
    but its commit says nothing about this code.

    Args:
        changed_paths: git pathspecs; "+changes" follows the commit when any tracked file among them,
            or among all files if there are none, is not what was committed.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != _HERE:
            return "unknown"
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *changed_paths)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def processor() -> str:
    """The name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(_HERE), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
