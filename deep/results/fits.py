"""Fits of a training curve against O(1/T).

``inverse_loss_vs_iterations``: 1/loss = a + b T by least squares over all rows. Were the loss
C/(T + T0) exactly, r2 would be 1. ``loglog_slope``: log loss = a + s log T over the late phase, the
last three quarters of the iterations; O(1/T) is s = -1. Neighbouring rows of a curve are
correlated, so the 95% intervals come from a jackknife over contiguous blocks, not from the
residuals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

#: The late phase starts at this share of the run's iterations.
LATE = 0.25
BLOCKS = 10


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and r2 of the least-squares line."""
    dx, dy = x - x.mean(), y - y.mean()
    spread, total = float(dx @ dx), float(dy @ dy)
    slope = float(dx @ dy) / spread
    return slope, slope * float(dx @ dy) / total if total > 0 else 1.0


def slope_with_interval(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Slope, its 95% interval by a delete-one-block jackknife, and r2; None with too few rows."""
    if len(x) < 2 * BLOCKS or np.ptp(x) == 0:
        return {"slope": None, "interval": None, "r2": None}
    slope, r2 = _line(x, y)
    blocks = np.array_split(np.arange(len(x)), BLOCKS)
    left_out = np.array([_line(np.delete(x, b), np.delete(y, b))[0] for b in blocks])
    error = math.sqrt((BLOCKS - 1) / BLOCKS * float(((left_out - left_out.mean()) ** 2).sum()))
    reach = float(stats.t.ppf(0.975, BLOCKS - 1)) * error
    return {"slope": slope, "interval": [slope - reach, slope + reach], "r2": r2}


def fit_curve(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Both fits of a run's rows; rows with a loss that is not finite and positive are left out."""
    usable = [
        row
        for row in metrics
        if row["iteration"] > 0
        and row["train_loss"] is not None
        and math.isfinite(row["train_loss"])
        and row["train_loss"] > 0
    ]
    iterations = np.array([row["iteration"] for row in usable], float)
    loss = np.array([row["train_loss"] for row in usable], float)
    late = iterations >= LATE * (iterations[-1] if len(usable) else 0.0)
    log_fit = slope_with_interval(np.log(iterations[late]), np.log(loss[late]))
    return {
        "inverse_loss_vs_iterations": slope_with_interval(iterations, 1.0 / loss),
        "loglog_slope": {
            "slope": log_fit["slope"],
            "interval": log_fit["interval"],
            "r2": log_fit["r2"],
            "from_iteration": int(iterations[late][0]) if late.any() else None,
        },
    }
