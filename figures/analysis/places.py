"""Where figures read and write: a checkout keeps everything inside, an installed package nothing."""

from __future__ import annotations

import os
from pathlib import Path

#: Holds ``theory/results`` and ``deep/results``.
ROOT = Path(__file__).resolve().parents[2]


def is_checkout() -> bool:
    """Whether the code runs from a checkout, whose page, pictures and record it may write."""
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "figures").is_dir()


def output_folder() -> Path:
    """Where figures go when nobody says: ``figures/out`` of a checkout, else ``./figures``."""
    return ROOT / "figures" / "out" if is_checkout() else Path("figures")


def cache_folder() -> Path:
    """Where computed data are kept: in a checkout, else in the user's cache folder."""
    if is_checkout():
        return ROOT / "figures" / ".cache"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "local-sgd-rates" / "figures"
