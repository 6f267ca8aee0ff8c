"""Compiling the kernels, and when a compiled kernel on disk is still good."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba

#: Sums may be reordered and products fused, so engines agree to rounding; NaN and infinity stay.
FAST = {"reassoc", "contract", "nsz"}
#: Files of compiled code.
COMPILED_FILES = (
    *("streams", "compiled_losses", "outer_steps", "course"),
    *("model_kernels", "margin_rounds", "margin_kernels"),
)
#: Hash of all compiled code: a function holds its callees' machine code, but Numba's cache knows only the
#: file that the function itself is in.
SOURCES = hashlib.sha256(
    b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in COMPILED_FILES)
).hexdigest()


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(cache=True, **options)``, cached until any file of compiled code changes."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(cache=True, **options)(function)
        cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if cache_file is not None:
            cache_file._source_stamp = SOURCES
        return dispatcher

    return decorate


@contextmanager
def one_thread() -> Iterator[None]:
    """Compiled code on one thread, also as a decorator: for runs that report every round.

    A round is microseconds of work, and on a busy machine threads would wait for each other far longer.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)
