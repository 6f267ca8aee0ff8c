"""Ctrl-C, SIGTERM and a closed terminal end a run after its round, so that a checkpoint can be written first."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and has saved what is needed to go on."""


class StopRequest:
    """Whether somebody wants the run to stop."""

    wanted = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within, the first such signal sets ``wanted``; a second one interrupts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.wanted:
            raise KeyboardInterrupt
        request.wanted = True
        print("stopping after this round; again to stop at once", file=sys.stderr, flush=True)

    # A signal that is ignored, as SIGHUP under nohup, stays ignored.
    former = {n: signal.getsignal(n) for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN}
    for number in former:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
