"""The arithmetic of the energy balance, T9, over windows of a run; theory and networks share it.

For any differentiable losses, any reference point z and Local SGD with plain averaging, exactly and on
every path, with D the mean over nodes of ||x_i - z||^2,

    D_start - D_end = sum_r C_r + sum_t mean_i [2 eta <g, x - z> - eta^2 ||g||^2].

The right side's terms are what averaging took of the squared distance, what progress took and, with its
sign, what noise (the length of the steps) gave back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: A balance that closes worse than this share of D_0 is an error of the measurement.
TOLERANCE = 1e-6
#: In files: enough to see a balance close far beyond TOLERANCE.
DIGITS = 12


@dataclass(frozen=True)
class Windows:
    """The balance of W consecutive windows of a run; sums over iterations of means over nodes.

    Attributes:
        step_size: eta.
        iteration: where windows begin and end, ascending, (W + 1,).
        distance: D there, (W + 1,).
        loss: sum of the losses l of the batches used, (W,).
        inner: sum of <g, x - z>, (W,).
        square: sum of ||g||^2, (W,).
        averaging: what averaging took, sum of C_r, (W,).
    """

    step_size: float
    iteration: NDArray[np.int64]
    distance: Array
    loss: Array
    inner: Array
    square: Array
    averaging: Array

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def defect(self) -> Array:
        """Left side less right side over D_0, (W,): 0 but for rounding."""
        took = self.averaging + 2 * self.step_size * self.inner - self.step_size**2 * self.square
        return -(np.diff(self.distance) + took) / self.distance[0]

    @property
    def closing_error(self) -> float:
        """The largest of |left side - right side| over all stretches from the start, over D_0."""
        return float(np.abs(np.cumsum(self.defect)).max())

    @property
    def phi_hat(self) -> Array:
        """sum [<g, x - z> - (eta/2) ||g||^2] / sum l, (W,): what the nodes' own steps do.

        1 or more: as good as convex, T1's bound holds with it; negative: away from z.
        """
        return self.aim - self.noise

    @property
    def phi_total(self) -> Array:
        """(D_start - D_end) / (2 eta sum l), (W,): own steps and averaging."""
        return -np.diff(self.distance) / (2 * self.step_size * self.loss)

    @property
    def aim(self) -> Array:
        """sum <g, x - z> / sum l, (W,): how well gradients point away from z; 1 or more if convex."""
        return self.inner / self.loss

    @property
    def noise(self) -> Array:
        """eta sum ||g||^2 / (2 sum l), (W,): what the length of the steps costs."""
        return self.step_size * self.square / (2 * self.loss)

    @property
    def smoothness(self) -> Array:
        """Lambda = sum ||g||^2 / (2 sum l), (W,): the local smoothness along the path."""
        return self.square / (2 * self.loss)

    @property
    def turning_step_size(self) -> Array:
        """2 sum <g, x - z> / sum ||g||^2, (W,): below it phi_hat would be positive.

        It holds the gradients along the path fixed, which another step size would change.
        """
        return 2 * self.inner / self.square

    @property
    def shares(self) -> dict[str, Array]:
        """What averaging and progress took and noise gave back (negative), over D_0, (W,) each."""
        start, eta = self.distance[0], self.step_size
        return {
            "averaging": self.averaging / start,
            "progress": 2 * eta * self.inner / start,
            "noise": -(eta**2) * self.square / start,
        }

    @property
    def middle(self) -> Array:
        """Geometric middle of every window's first and last iteration, (W,): where to draw it."""
        return np.sqrt((self.iteration[:-1] + 1.0) * self.iteration[1:])

    def joined(self, edges: Sequence[int]) -> Windows:
        """Fewer windows, from ``edges``: ascending numbers of old edges, 0..W, at least two."""
        starts = list(edges[:-1])
        stop = edges[-1]

        def added(values: Array) -> Array:
            return np.add.reduceat(values[:stop], starts)

        chosen = list(edges)
        return Windows(
            self.step_size,
            self.iteration[chosen],
            self.distance[chosen],
            added(self.loss),
            added(self.inner),
            added(self.square),
            added(self.averaging),
        )

    def at_most(self, count: int) -> Windows:
        """About evenly many old windows in each of at most ``count`` new ones."""
        return self.joined(
            np.unique(np.linspace(0, len(self), count + 1).round().astype(int)).tolist()
        )

    def whole(self) -> Windows:
        """The balance of the run as one window."""
        return self.joined([0, len(self)])


def as_rows(windows: Windows) -> list[dict[str, float]]:
    """One row a window for a result file, with its end and its sums; the first row is the start.

    Numbers have `DIGITS` significant digits.
    """
    found = []
    for edge in range(len(windows) + 1):
        row: dict[str, float] = {
            "iteration": int(windows.iteration[edge]),
            "distance": _rounded(windows.distance[edge]),
        }
        if edge:
            row |= {name: _rounded(getattr(windows, name)[edge - 1]) for name in _SUMS}
        found.append(row)
    return found


def from_rows(step_size: float, rows: Sequence[Mapping[str, Any]]) -> Windows:
    """The windows that `as_rows` wrote."""
    return Windows(
        step_size,
        np.array([row["iteration"] for row in rows], dtype=np.int64),
        np.array([row["distance"] for row in rows], dtype=float),
        *(np.array([row[name] for row in rows[1:]], dtype=float) for name in _SUMS),
    )


def next_edge(edge: int) -> int:
    """The round at which the window that starts after ``edge`` rounds ends: a twentieth more.

    So the windows of any run are known beforehand, and those of a run that goes on stay as they are.
    """
    return edge + max(1, -(-edge // 20))


def edges_until(rounds: int) -> list[int]:
    """0 and the ends of the windows of a run, its last round among them."""
    edges = [0]
    while edges[-1] < rounds:
        edges.append(min(next_edge(edges[-1]), rounds))
    return edges


def medians(windows: Windows, iterations: Sequence[float], values: Sequence[float | None]) -> Array:
    """The median of what was measured within each window, its end included; NaN where nothing was."""
    places = np.searchsorted(windows.iteration, np.asarray(iterations, float)) - 1
    numbers = np.asarray(values, dtype=float)
    found = np.full(len(windows), np.nan)
    for w in range(len(windows)):
        here = numbers[places == w]
        if np.isfinite(here).any():
            found[w] = np.nanmedian(here)
    return found


_SUMS = ("loss", "inner", "square", "averaging")


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
