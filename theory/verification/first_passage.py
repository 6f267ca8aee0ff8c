"""The first round at which paths of the loss come to an accuracy, and how far to look for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def looks(first: int, most: int) -> Iterator[int]:
    """Rounds to try one after another: ``first``, four times as many each time, at last ``most``."""
    rounds = min(first, most)
    while True:
        yield rounds
        if rounds == most:
            return
        rounds = min(4 * rounds, most)


def band(paths: Array, eps: float) -> tuple[float, float]:
    """5% and 95% of the first r at which each path, (paths, R + 1), is at most eps; infinite for never."""
    below = paths <= eps
    first = np.where(below.any(axis=1), below.argmax(axis=1), np.inf)
    low, high = np.quantile(first, [0.05, 0.95], method="closest_observation")
    return float(low), float(high)
