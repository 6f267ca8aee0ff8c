"""Progress of loading and training, one after another, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Self

from deep.local_sgd import Snapshot
from theory.support.progress import Progress, duration

#: Seconds between two lines where there is no terminal.
LINE_EVERY = 60.0


class Display:
    """Progress of what is going on; silent when ``quiet``; a context manager."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._now = Progress("", quiet=quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._now.__exit__(None, None, None)

    def _begin(self, what: str) -> Progress:
        self._now.__exit__(None, None, None)
        self._now = Progress(what, quiet=self.quiet, every=LINE_EVERY).__enter__()
        return self._now

    def loading(self, label: str) -> Callable[[int, int], None]:
        """What to tell of (bytes or images so far, total)."""
        progress = self._begin(label)
        return lambda done, total: progress.update(done, total)

    def training(self, label: str) -> Callable[[Snapshot], None]:
        """What to tell of every round of the run ``label``."""
        progress = self._begin(label)

        def advance(now: Snapshot) -> None:
            progress.update(
                now.round,
                now.round + max(now.rounds_left, 0.0),
                f"round {now.round:,}, loss {now.loss:.2e}, {now.images_per_second:,.0f} images/s",
                seconds_left=now.seconds_left,
            )

        return advance

    def say(self, text: str) -> None:
        """A line that stays."""
        self._now.say(text)

    def warn(self, text: str) -> None:
        """A line that is never left out."""
        if self.quiet:
            print(text, file=sys.stderr, flush=True)
        else:
            self._now.say(text)


def outcome(label: str, summary: dict[str, Any]) -> str:
    """What became of a run, on one line."""
    accuracy = summary.get("final_test_accuracy")
    tested = "" if accuracy is None else f"test accuracy {accuracy:.1%}, "
    return (
        f"{label}: {summary['status']} after {summary['rounds']:,} rounds = "
        f"{summary['iterations']:,} iterations, loss {summary['final_train_loss']:.3e}, {tested}"
        f"{summary['images_per_second']:,.0f} images/s, {duration(summary['wall_seconds'])}, "
        f"evaluation {summary['evaluation_share']:.0%}"
    )
