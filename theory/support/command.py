"""Running a typer command so that every mistake of the user is one line and exit status 2."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer
from rich.console import Console

#: A pipe or a log has no width of its own; wide enough for every column unwrapped.
PIPE_WIDTH = 140


def console() -> Console:
    """Standard output for tables: the terminal's width, or PIPE_WIDTH where there is none."""
    found = Console()
    return found if found.is_terminal else Console(width=PIPE_WIDTH)


def one_blas_thread() -> None:
    """Start this process again with one BLAS thread, unless the user chose a number.

    Threads gain nothing on matrices of a few hundred rows and wait for each other where the cores are
    shared: up to 100 times slower. BLAS reads the setting when it is loaded, before any of our code.
    """
    chosen = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    if os.name == "posix" and not any(name in os.environ for name in chosen):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **dict.fromkeys(chosen, "1")})


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run and exit: the command's own status, 2 for bad input, 130 when interrupted."""
    command = typer.main.get_command(app)
    try:
        status = command(standalone_mode=False, prog_name=name)
    except ValueError as error:
        sys.exit(_complain(str(error)))
    except Exception as error:
        # Click's own complaints (unknown option, not a number) carry their text in format_message;
        # asked for by name as typer may bundle its own click.
        message = getattr(error, "format_message", None)
        if message is not None:
            sys.exit(_complain(f"{message()} (see {name} --help)"))
        if type(error).__name__ == "Abort":
            sys.exit(130)
        raise
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2
