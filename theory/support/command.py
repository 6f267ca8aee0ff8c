"""Running a typer command so that every mistake of the user is one line and exit status 2."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Collection
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from theory.support import interrupts
from theory.support.errors import UserError
from theory.support.loading import users_line
from theory.support.provenance import version
from theory.support.streams import forgiving_streams

#: A pipe or a log has no width of its own; wide enough for every column unwrapped.
PIPE_WIDTH = 140
DONE, FAILED, BAD_INPUT, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, interrupts.INTERRUPTED
#: click's base of usage errors; newer versions of typer carry click inside them.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
#: How libraries say that an allocation failed without raising a MemoryError.
_OUT_OF_MEMORY = ("OutOfMemoryError", "DefaultCPUAllocator", "bad_alloc", "Unable to allocate")
#: Characters of a message that are shown; a name that is typed may have thousands.
_LONGEST = 600
_LOST_WORKER = ("TerminatedWorkerError", "BrokenProcessPool")


def make_app(*, markup: bool = False) -> typer.Typer:
    """An empty command: -h as --help, no completion; its main takes a :data:`Version`."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode="rich" if markup else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _show_version(asked: bool) -> None:
    if asked:
        print(f"local-sgd-rates {version()}")
        raise typer.Exit(DONE)


#: The parameter ``version: cli.Version = False`` of every main.
Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Print the version and stop."
    ),
]


class TableConsole(Console):
    """A console on which no column of a table gets the width zero: a narrow one wraps its lines."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As :meth:`rich.console.Console.print`."""
        unlimited = self.options.update(width=1_000_000)
        tables = [thing for thing in objects if isinstance(thing, Table)]
        for column in (column for table in tables for column in table.columns):
            if column.no_wrap:
                # Rich's least width of a table is that of its longest words, also where none may break.
                parts = [
                    Measurement.get(self, unlimited, c) for c in (column.header, *column.cells)
                ]
                column.min_width = max(column.min_width or 0, *(part.maximum for part in parts))
        needed = max((Measurement.get(self, unlimited, t).minimum for t in tables), default=0)
        before = self.width
        # Rich never renders wider than the console, so for this table it is wider.
        if needed > before:
            self.width = needed
        try:
            super().print(*objects, crop=False, **options)
        finally:
            if needed > before:
                self.width = before


def console() -> Console:
    """Standard output for tables: the terminal's width, or PIPE_WIDTH where there is none.

    COLUMNS decides where it is set, and FORCE_COLOR and NO_COLOR about colours only.
    """
    terminal = sys.stdout is not None and sys.stdout.isatty()
    columns = os.environ.get("COLUMNS", "")
    # Names of files and of one's own theorems may look like rich's markup: nothing is read as such.
    if columns.isdigit() and int(columns[:6]) > 0:
        return TableConsole(markup=False)
    if terminal:
        return TableConsole(markup=False, width=shutil.get_terminal_size().columns)
    return TableConsole(markup=False, width=PIPE_WIDTH)


def one_blas_thread() -> None:
    """Start this process again with one BLAS thread, unless the user chose a number.

    Threads gain nothing on matrices of a few hundred rows and wait for each other where the cores are
    shared: up to 100 times slower. BLAS reads the setting when it is loaded, before any of our code.
    """
    chosen = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    if os.name == "posix" and not any(name in os.environ for name in chosen):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **dict.fromkeys(chosen, "1")})


def to_stderr(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)


def refuse_unused(
    context: typer.Context,
    chosen: str,
    used: set[str] | None = None,
    *,
    unused: Collection[str] = (),
) -> None:
    """Refuse options that were typed beside one that makes them say nothing.

    Args:
        context: of the command, the parameter ``context: typer.Context`` of its main.
        chosen: the option that decides, as "--book".
        used: names of the main's parameters that still count, that option's own included; all but ``unused``
            if not given.
        unused: names of those that don't.

    Raises:
        UserError: names the first option that would be ignored, and those that would not.
    """
    options = {p.name: p.opts[0] for p in context.command.params if p.opts and p.name}
    used = set(options) - set(unused) if used is None else used
    for name, option in options.items():
        source = context.get_parameter_source(name)
        if name not in used and source is not None and source.name == "COMMANDLINE":
            counts = [options[n] for n in options if n in used and options[n] != chosen]
            few = ", ".join(counts) if len(counts) < 9 else "the other options"
            raise UserError(
                f"{option} is given with {chosen}, which does not use it; allowed: {few or 'nothing else'}"
            )


def run_command(
    app: typer.Typer,
    name: str,
    arguments: list[str] | None = None,
    *,
    interrupted: str = "interrupted",
    out_of_memory: str = "out of memory",
    say: Callable[[str], None] = to_stderr,
) -> int:
    """The exit status of a command.

    SIGTERM and a closed terminal reach the command as Ctrl-C does, as a KeyboardInterrupt, and the
    workers of joblib end with it. A reader of standard output that leaves changes nothing.

    Args:
        app: the command.
        name: what the user types, for its messages.
        arguments: instead of the process's own.
        interrupted, out_of_memory: what to say of Ctrl-C and of a failed allocation.
        say: how the line about bad input is printed.

    Returns:
        The command's own status, BAD_INPUT after one line on stderr (which names the line, where the code
        of a user's file raised), or INTERRUPTED. A bug raises.
    """
    name = typed(name)
    with forgiving_streams() as (out, _), interrupts.as_keyboard_interrupt():
        try:
            found = _outcome(app, name, arguments, out_of_memory)
            status = found if isinstance(found, int) else _complain(found, say)
            out.flush()
        except (KeyboardInterrupt, typer.Abort):
            interrupts.stop_workers()
            print(interrupted, file=sys.stderr)
            return INTERRUPTED
        if out.failure and status == DONE:
            return _complain(f"cannot write standard output: {out.failure}", say)
    return status


def _outcome(
    app: typer.Typer, name: str, arguments: list[str] | None, out_of_memory: str
) -> int | str:
    """The exit status, or what was wrong with the input."""
    try:
        # Typer turns Ctrl-C into the status 130, and returns what was not raised.
        status = app(arguments, standalone_mode=False, prog_name=name)
    except UserError as error:
        return str(error)
    except _UsageProblem as error:
        message = getattr(error, "format_message", error.__str__)()
        return f"{message} (see {name} --help)"
    except Exception as error:
        # By name, so that torch and joblib are not imported for it.
        kind = type(error).__name__
        said = f"{kind} {error}" if isinstance(error, RuntimeError) else kind
        if isinstance(error, MemoryError) or any(word in said for word in _OUT_OF_MEMORY):
            return out_of_memory
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            # Wherever the path is first looked at: pathlib answers for other paths that can't be.
            part = os.path.basename(str(error.filename))
            return f"a path is too long, at {part[:40]}...: allowed are 255 bytes a name and 4,095 in all"
        if kind in _LOST_WORKER:
            interrupts.stop_workers()
            return "a worker process was killed, as when memory runs out; fewer workers?"
        if where := users_line(error):
            return f"{where}: {kind}: {error}"
        raise
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status if isinstance(status, int) else DONE


def run(app: typer.Typer, name: str) -> NoReturn:
    """:func:`run_command`, then exit."""
    sys.exit(run_command(app, name))


def typed(name: str) -> str:
    """What the user typed to start this process: a console script, or ``name``."""
    script = os.path.basename(sys.argv[0]) if sys.argv else ""
    return script if script.startswith(interrupts.SCRIPTS) else name


def _complain(message: str, say: Callable[[str], None]) -> int:
    line = " ".join(message.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    say(f"error: {line}")
    return BAD_INPUT
