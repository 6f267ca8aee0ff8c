"""Running a command of this package so that every mistake of the user is one line and status 2."""

from __future__ import annotations

import sys

import torch
import typer

from deep.errors import UserError

#: click's base of usage errors; newer versions of typer carry click inside them.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
_INTERRUPTED = 130


def run_command(app: typer.Typer, name: str, arguments: list[str] | None = None) -> int:
    """The exit status: the command's own, 2 after a line on stderr, or 130 when interrupted."""
    try:
        # Typer turns Ctrl-C into the status 130, and returns what was not raised.
        status = app(arguments, standalone_mode=False, prog_name=name)
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _UsageProblem as error:
        message = getattr(error, "format_message", error.__str__)()
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except (MemoryError, torch.cuda.OutOfMemoryError):
        print(
            "error: out of memory: use a smaller --width, --nodes or --batch-size", file=sys.stderr
        )
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; the same command continues this run", file=sys.stderr)
        return _INTERRUPTED
    return status if isinstance(status, int) else 0
