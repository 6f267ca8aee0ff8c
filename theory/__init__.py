"""Local SGD under interpolation: problems, simulators, theorems and their checks.

The few names a notebook needs are those of :mod:`theory.public`; everything else is one module deeper.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# First, so that Ctrl-C during later imports is no traceback.
import theory.support.interrupts  # noqa: F401

if TYPE_CHECKING:
    from theory.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    # Not before a name is asked for: the deep commands and every --help need none of them.
    if name.startswith("__") and name != "__all__":
        raise AttributeError(name)
    public = importlib.import_module("theory.public")
    if name != "__all__" and name not in public.__all__:
        raise AttributeError(f"module 'theory' has no attribute {name!r}")
    return getattr(public, name)


def __dir__() -> list[str]:
    names: list[str] = __getattr__("__all__")
    return sorted([*globals(), *names])
