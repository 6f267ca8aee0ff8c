"""Optional packages: a command that needs one says so in a line, instead of a traceback at its import."""

from __future__ import annotations

import importlib.util
import sys

from theory.support.interrupts import our_command

BAD_INPUT = 2


def need(extra: str, *modules: str, commands: tuple[str, ...]) -> None:
    """In a process that was started as one of some commands, end with status 2 where a module is missing.

    Elsewhere, as in a notebook, this does nothing, and the import itself raises.

    Args:
        extra: the extra of this distribution that brings the modules.
        modules: what will be imported.
        commands: words in the names of the commands that can't do without.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing and any(word in our_command(sys.orig_argv) for word in commands):
        names = ", ".join(missing)
        how = f"pip install 'local-sgd-rates[{extra}]', or '.[{extra}]' in a checkout"
        print(f"error: this command needs {names}, which is not installed: {how}", file=sys.stderr)
        sys.exit(BAD_INPUT)
