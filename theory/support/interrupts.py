"""Ctrl-C, SIGTERM and a closed terminal end a command cleanly: no traceback, no worker left behind.

Until a command runs, that is while its modules are imported, there is nothing to save and a signal
ends the process at once; importing this module is enough for that. While the command runs a signal is
a KeyboardInterrupt, at which it saves what it has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
#: What the console scripts of this project begin with.
SCRIPTS = "lsgd-"
_MODULES = ("theory", "deep", "figures", "benchmarks")
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


_PROCESS = os.getpid()


def _end_now(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    if os.getpid() == _PROCESS:
        raise KeyboardInterrupt
    # A forked worker inherits the handler, but has nothing to save.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def quiet_imports() -> None:
    """In a process that was started as one of our commands: a signal ends it without a traceback.

    NumPy and others turn a KeyboardInterrupt during their import into an ImportError, so an
    ``except`` or an exception hook would not do. In any other process this does nothing.
    """
    if is_our_command(sys.orig_argv) and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            # A signal that is ignored, as SIGHUP under nohup, stays ignored.
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _end_now)


def is_our_command(arguments: list[str]) -> bool:
    """Whether a process with this command line runs one of our commands."""
    return bool(our_command(arguments))


def our_command(arguments: list[str]) -> str:
    """The module or script of ours that a process with this command line runs; empty for another's."""
    rest = iter(arguments[1:])
    for argument in rest:
        if argument == "-m":
            module = next(rest, "")
            return module if module.split(".")[0] in _MODULES else ""
        if argument in ("-X", "-W"):
            next(rest, "")
        elif not argument.startswith("-"):
            path = Path(argument)
            ours = path.name.startswith(SCRIPTS) or path.parent.name == "benchmarks"
            return path.name if ours else ""
    return ""


@contextlib.contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in _SIGNALS:
        found = signal.getsignal(number)
        if found in (signal.SIG_DFL, signal.default_int_handler, _end_now):
            before[number] = found
            signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, found in before.items():
            # What was set meanwhile stays, as a command that ends may ignore signals.
            if signal.getsignal(number) is _raise:
                signal.signal(number, found)


def stop_workers() -> None:
    """End the worker processes of joblib and multiprocessing, at once."""
    # Not at the top: this module comes first, so that it covers the imports of the others.
    import multiprocessing

    if "joblib.externals.loky" in sys.modules:
        from joblib.externals.loky import reusable_executor

        executor = reusable_executor._executor
        if executor is not None:
            executor.shutdown(wait=False, kill_workers=True)
    for child in multiprocessing.active_children():
        child.terminate()


quiet_imports()
