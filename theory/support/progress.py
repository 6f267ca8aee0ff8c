"""Progress of long work: a bar on a terminal, a line now and then where there is none."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

#: Seconds between lines where there is no terminal, and before the first.
EVERY = 30.0
FIRST = 10.0
#: The least share of the work, and the least seconds, that a time left is estimated from.
_SHARE, _SECONDS = 0.01, 2.0


class Progress:
    """Progress of one piece of work, on standard error; use as a context manager.

    The time left is the time spent times work left over work done, where work is in the caller's
    units: weigh what takes longer. Work that was there already (a resumed run) is not counted as done.
    """

    def __init__(self, what: str, *, quiet: bool = False, every: float = EVERY) -> None:
        """
        Args:
            what: what is being done, as "checking".
            quiet: show nothing.
            every: seconds between lines where standard error is no terminal.
        """
        self._what, self._every = what, every
        self._terminal = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._lines = not quiet and not self._terminal
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._began = time.monotonic()
        self._due = self._began + min(FIRST, every)
        self._start: float | None = None
        self._state = "begun"
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._say_that_it_goes_on, daemon=True)

    def __enter__(self) -> Progress:
        if self._terminal:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[state]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self._what, total=None, state="")
            self._bar.start()
        elif self._lines:
            self._beat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._beat.is_alive():
            self._over.set()
            self._beat.join()

    def update(
        self,
        done: float,
        total: float,
        state: str | None = None,
        *,
        seconds_left: float | None = None,
        what: str | None = None,
    ) -> None:
        """Say how far it is; cheap, so call it as often as there is news.

        Args:
            done, total: work, in the caller's units; the first call says what was there already.
            state: what else to show; "3 of 20" if None.
            seconds_left: the caller's own estimate.
            what: what is being done, if that has changed; the estimate begins again.
        """
        now = time.monotonic()
        if what is not None and what != self._what:
            self._what, self._start, self._began = what, None, now
        if self._start is None:
            self._start = done
        state = f"{done:,g} of {total:,g}" if state is None else state
        if seconds_left is None:
            seconds_left = self.seconds_left(done, total)
        if seconds_left is not None and done < total:
            state += f", {duration(seconds_left)} left"
        self._state = state
        if self._bar is not None:
            self._bar.update(
                self._task, description=self._what, completed=done, total=total, state=state
            )
        elif self._lines and now >= self._due:
            self._due = now + self._every
            print(f"{self._what}: {state}", file=sys.stderr, flush=True)

    def _say_that_it_goes_on(self) -> None:
        """A line where the work has had no news for so long that it seems to hang."""
        while not self._over.wait(max(0.01, self._due - time.monotonic())):
            now = time.monotonic()
            if now < self._due:
                continue
            self._due = now + self._every
            spent = duration(now - self._began)
            print(f"{self._what}: {self._state}, at work for {spent}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, soft_wrap=True, markup=False)
        elif self._lines:
            print(text, file=sys.stderr, flush=True)

    def seconds_left(self, done: float, total: float) -> float | None:
        """Estimated from the work done since the first call; None while that is too little."""
        worked, spent = done - (self._start or 0.0), time.monotonic() - self._began
        if worked <= 0 or worked < _SHARE * (total - done) or spent < _SECONDS:
            return None
        return spent * (total - done) / worked


def duration(seconds: float) -> str:
    """Seconds for people: "0:07", "3:20", "1:02:03"; "more than 99 hours" beyond that."""
    if not seconds < 99 * 3600:
        return "more than 99 hours"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
