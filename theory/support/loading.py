"""Loading a user's object from ``file.py:NAME``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from theory.support.errors import UserError
from theory.support.reading import read_bytes

#: How the names of modules begin that are loaded from a path, and so can't be imported by name.
LOADED = "theory_file_"


def file_of(text: str | None) -> Path | None:
    """The Python file that ``file.py:NAME`` names; None for other texts."""
    path, colon, _ = (text or "").rpartition(":")
    return Path(path) if colon and Path(path).suffix == ".py" else None


def load_object(what: str, text: str) -> Any:
    """The object NAME of a Python file, which is run.

    Args:
        what: what the user calls it, for messages.
        text: ``file.py:NAME``.

    Raises:
        UserError: another form, no such file or name, or a file that does not run.
    """
    path, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier() or Path(path).suffix != ".py":
        raise UserError(f"{what} is {text!r}, allowed: file.py:NAME")
    module = load_module(what, path)
    if not hasattr(module, name):
        raise UserError(f"{what} is {text!r}, but {path} has nothing called {name}")
    return getattr(module, name)


def load_module(what: str, path: str) -> Any:
    """The module of a Python file; a file that changed is loaded anew. Raises as :func:`load_object`."""
    absolute = Path(path).resolve()
    try:
        content = read_bytes(absolute)
    except OSError as error:
        raise UserError(f"{what} file {path!r}: {error.strerror}") from None
    name = LOADED + hashlib.sha256(bytes(absolute) + content).hexdigest()
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, absolute)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        del sys.modules[name]
        raise UserError(f"{what} file {path!r}: {type(error).__name__}: {error}") from error
    return module


def users_line(error: BaseException) -> str:
    """Where the code of a loaded file raised an error, or "" where none of it was running."""
    where, trace = "", error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith(LOADED):
            where = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return where
