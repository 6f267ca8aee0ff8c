"""How the simd engine compiles: for this processor, cached, and never stale."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

_FOLDER = Path(__file__).parent
#: Hash of all compiled code and of the constants it takes from the network's definition: a function
#: holds its callees' machine code, but Numba's cache knows only the file that it itself is in.
SOURCES = hashlib.sha256(
    b"".join(
        file.read_bytes()
        for file in (*sorted(_FOLDER.glob("*.py")), _FOLDER.parents[1] / "resnet.py")
    )
).hexdigest()


def compiled(function: Callable[..., Any]) -> Any:
    """A Numba dispatcher for this processor, cached until any file of this package changes.

    The stamp by which Numba's cache tells a changed source is an attribute of its own; a test
    fails if a version of Numba no longer reads it. Without it, a cache could be stale.
    """
    dispatcher: Any = njit(nogil=True, cache=True, error_model="numpy")(function)
    dispatcher._cache._cache_file._source_stamp = SOURCES
    return dispatcher
