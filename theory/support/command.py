"""Running a typer command so that every mistake of the user is one line and exit status 2."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer
from rich.console import Console

from theory.support.errors import UserError

#: A pipe or a log has no width of its own; wide enough for every column unwrapped.
PIPE_WIDTH = 140
DONE, FAILED, BAD_INPUT, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 130
#: click's base of usage errors; newer versions of typer carry click inside them.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]


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


def run_command(
    app: typer.Typer,
    name: str,
    arguments: list[str] | None = None,
    *,
    interrupted: str = "interrupted",
    out_of_memory: str = "out of memory",
) -> int:
    """The exit status of a command.

    Args:
        app: the command.
        name: what the user types, for its messages.
        arguments: instead of the process's own.
        interrupted, out_of_memory: what to say of Ctrl-C and of a failed allocation.

    Returns:
        The command's own status, BAD_INPUT after one line on stderr, or INTERRUPTED. A bug raises.
    """
    try:
        # Typer turns Ctrl-C into the status 130, and returns what was not raised.
        status = app(arguments, standalone_mode=False, prog_name=name)
        if status == INTERRUPTED:
            raise KeyboardInterrupt
    except UserError as error:
        return _complain(str(error))
    except _UsageProblem as error:
        message = getattr(error, "format_message", error.__str__)()
        return _complain(f"{message} (see {name} --help)")
    except (KeyboardInterrupt, typer.Abort):
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        # By name, so that torch is not imported for it.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return _complain(out_of_memory)
        raise
    return status if isinstance(status, int) else DONE


def run(app: typer.Typer, name: str) -> NoReturn:
    """:func:`run_command`, then exit."""
    sys.exit(run_command(app, name))


def _complain(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT
