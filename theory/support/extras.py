"""Optional packages: a command that needs one says so in a line, instead of a traceback at its import."""

from __future__ import annotations

import importlib.util
import sys

from theory.support.interrupts import is_our_command

BAD_INPUT = 2


def need(extra: str, *modules: str) -> None:
    """In a process that was started as one of our commands, end with status 2 where a module is missing.

    Elsewhere, as in a notebook, this does nothing, and the import itself raises.

    Args:
        extra: the extra of this distribution that brings the modules.
        modules: what will be imported.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing and is_our_command(sys.orig_argv):
        names = ", ".join(missing)
        how = f"pip install 'local-sgd-rates[{extra}]', or '.[{extra}]' in a checkout"
        print(f"error: this command needs {names}, which is not installed: {how}", file=sys.stderr)
        sys.exit(BAD_INPUT)
