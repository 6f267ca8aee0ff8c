"""What the simulators accept: whole numbers, seeds, grids and names, each refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.support import numbers
from theory.support.errors import UserError

Array = NDArray[np.float64]
# More samples a step, or seeds, than this would only fill memory.
MOST_SAMPLES = MOST_SEEDS = 1_000_000


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """An integer in [least, most]; a float such as 2.0, which NumPy and JSON make of one, will do.

    Raises:
        UserError: as :func:`theory.support.numbers.whole`; NaN, 2.5 and True are no integers.
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return numbers.whole(name, value, least, most)


def seed_list(seeds: int | Sequence[int] | NDArray[Any]) -> NDArray[np.uint64]:
    """A count c as the seeds 0 to c - 1, or the seeds given, (n_seeds,) unsigned 64-bit.

    Raises:
        UserError: no seed, or one that is not a whole number in [0, 2**64).
    """
    if np.ndim(seeds) == 0:
        return np.arange(whole_number("seeds", seeds, 1, MOST_SEEDS), dtype=np.uint64)
    listed = list(seeds)  # type: ignore[arg-type]
    if not listed or np.ndim(listed) != 1:
        raise UserError(f"seeds is {seeds!r}, allowed: a count of at least 1, or a list of seeds")
    # One by one: an array of large and small integers would pass through floating point.
    return np.array(
        [whole_number("seed", s, 0, numbers.MOST_SEED) for s in listed], dtype=np.uint64
    )


def step_sizes(step_size: float | Sequence[float] | Array) -> Array:
    """eta as an array, (step sizes,).

    Raises:
        UserError: not finite numbers above 0.
    """
    try:
        etas = np.atleast_1d(np.asarray(step_size, dtype=np.float64))
    except (TypeError, ValueError):
        etas = np.array([np.nan])
    if etas.ndim != 1 or not len(etas) or not (np.isfinite(etas).all() and (etas > 0).all()):
        raise UserError(f"step_size is {step_size!r}, allowed: finite numbers above 0")
    return etas


def schedule(local_steps: Any, rounds: Any, batch_size: Any, gradient: str) -> tuple[int, int, int]:
    """(K, R, batch), with batch 0 for the node's whole gradient.

    Raises:
        UserError: an argument outside its range.
    """
    whole = (
        whole_number("local_steps", local_steps),
        whole_number("rounds", rounds),
        whole_number("batch_size", batch_size, 1, MOST_SAMPLES),
    )
    if gradient not in ("stochastic", "full"):
        raise UserError(f"gradient is {gradient!r}, allowed: stochastic, full")
    return (*whole[:2], 0 if gradient == "full" else whole[2])


def grid(record: Sequence[int] | NDArray[Any] | None, last: int) -> NDArray[np.int64]:
    """The iterations to record, with 0 and ``last``, sorted, (grid,).

    Raises:
        UserError: one that is not a whole number in [0, last].
    """
    if record is None:
        return log_grid(last)
    wanted = {whole_number("record", t, 0, last) for t in np.ravel(np.asarray(record)).tolist()}
    return np.array(sorted({0, last} | wanted), dtype=np.int64)


def log_grid(last: int, points: int = 60) -> NDArray[np.int64]:
    """0, then at most ``points`` log-spaced iterations up to and with ``last``."""
    if last < 1:
        return np.array([0], dtype=np.int64)
    spaced = np.unique(np.round(np.geomspace(1, last, points)).astype(np.int64))
    return np.concatenate([[0], spaced])
