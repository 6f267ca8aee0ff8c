"""Exact expectations of Local SGD on least squares: no sampling error, all sample paths at once.

A sample moves z = x - x* linearly, so E zz' obeys a closed recursion (shared/theory.md, exact
expectations). It runs in the r-dimensional row space, in which x - x* lives.

Cost: O(n (r^3 + m r^2)) flops an iteration, O(n r^2) memory, whatever d and T are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.simulation import arguments
from theory.support.errors import UserError

Array = NDArray[np.float64]
# A moment below it is scaled up; far enough from the end of double precision for a round to be exact.
RESCALE_BELOW = 1e-100


@dataclass(frozen=True)
class ExactMoments:
    """Exact counterparts of :class:`theory.simulation.local_sgd.LocalSGDResult`, each history of shape (grid,).

    Attributes:
        iterations: the grid.
        history: "global_loss", "local_loss", "distance", "local_distance", "gradient", "consensus", each an
            expectation.
        averages: "local_loss", "global_loss", "batch_loss" over iterations before t; "sync_loss",
            "sync_gradient" over rounds begun before t; NaN at t = 0. A batch is drawn independently of
            the model that it meets, so the expectation of its loss is that of the node's.
        best_sync_loss: min over the rounds begun before t of E f(xbar_r); NaN at t = 0.
        log_distance: logarithm of the expected "distance", with its digits where that has left the
            range of double precision (unless it does so within one round); -inf where it is 0.
    """

    iterations: NDArray[np.int64]
    history: dict[str, Array]
    averages: dict[str, Array]
    best_sync_loss: Array
    log_distance: Array


def exact_moments(
    problem: MarginProblem,
    *,
    step_size: float,
    local_steps: int = 1,
    rounds: int = 100,
    batch_size: int = 1,
    gradient: str = "stochastic",
    record: Sequence[int] | NDArray[np.int64] | None = None,
) -> ExactMoments:
    """All left-hand sides of T1-T4 and T6 on least squares, to rounding.

    Args: as in :func:`theory.simulation.local_sgd.run_local_sgd`.

    Raises:
        UserError: the loss is not squared, or an argument outside its range.
    """
    if problem.loss is not SQUARED:
        raise UserError(f"exact moments need least squares, the loss is {problem.loss.name}")
    (eta,) = arguments.step_sizes(step_size)
    local_steps, rounds, batch = arguments.schedule(local_steps, rounds, batch_size, gradient)
    last = local_steps * rounds
    grid = arguments.grid(record, last)
    chain = _Chain(problem, float(eta), float(batch) if batch else np.inf)
    rows: dict[int, dict[str, float]] = {}
    sums = dict.fromkeys(("local_loss", "sync_loss", "global_loss", "sync_gradient"), 0.0)
    averages: dict[int, dict[str, float]] = {}
    best: dict[int, float] = {}
    logs: dict[int, float] = {}
    lowest = np.inf
    wanted = set(grid.tolist())
    # Above 2/L moments grow without bound; infinities are then the answer, not an accident.
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(last + 1):
            if t and t % local_steps == 0:
                chain.average()
            now = chain.metrics()
            if t in wanted:
                rows[t] = now
                logs[t] = chain.log_distance()
                started = max(1, -(-t // local_steps))
                averages[t] = {
                    name: (total / (started if name.startswith("sync") else t) if t else np.nan)
                    for name, total in sums.items()
                }
                best[t] = lowest if t else np.nan
            sums["local_loss"] += now["local_loss"]
            sums["global_loss"] += now["global_loss"]
            if t % local_steps == 0:
                sums["sync_loss"] += now["global_loss"]
                sums["sync_gradient"] += now["gradient"]
                lowest = min(lowest, now["global_loss"])
            if t < last:
                chain.step()
    points = grid.tolist()
    for row in averages.values():
        row["batch_loss"] = row["local_loss"]
    return ExactMoments(
        grid,
        {name: np.array([rows[t][name] for t in points]) for name in rows[0]},
        {name: np.array([averages[t][name] for t in points]) for name in averages[0]},
        np.array([best[t] for t in points]),
        np.array([logs[t] for t in points]),
    )


class _Chain:
    """Second moments of all nodes' errors, and the mean's, through one round after another.

    ``own[i]`` is E z_i z_i'. Different nodes draw independently, so E z_i z_j' = P_i^k M P_j^k' with M
    the moment at the start of the round; only the products P_i^k are kept for it.
    """

    def __init__(self, problem: MarginProblem, step_size: float, batch: float) -> None:
        self.eta, self.batch = step_size, batch
        self.n, r = problem.n_nodes, problem.rank
        self.hessians = problem.hessians
        self.mean_hessian = self.hessians.mean(axis=0)
        # Ragged nodes are padded with zero rows, which add nothing.
        width = int(problem.node_sizes.max())
        self.rows = np.zeros((self.n, width, r))
        for i in range(self.n):
            self.rows[i, : problem.node_sizes[i]] = problem.coordinates[problem.node_slice(i)]
        self.sizes = problem.node_sizes[:, None, None].astype(float)
        # z_0 in row-space coordinates: C' alpha for x_0 - x* = -A' alpha.
        start = -(problem.coordinates.T @ problem.solution_coefficients)
        self.transition = np.eye(r) - step_size * self.hessians
        # The moments are those kept here times e^log_scale, so that a linear rate doesn't underflow.
        self.log_scale = 0.0
        self._restart(np.outer(start, start))

    def _restart(self, moment: Array) -> None:
        self.moment = moment
        self.own: Array = np.tile(moment, (self.n, 1, 1))
        self.powers: Array = np.tile(np.eye(len(moment)), (self.n, 1, 1))

    def step(self) -> None:
        """One local step at every node."""
        h, m, eta = self.hessians, self.own, self.eta
        drift = h @ m
        quadratic = (1.0 - 1.0 / self.batch) * drift @ h
        if np.isfinite(self.batch):
            spread = np.einsum("imr,imr->im", self.rows @ m, self.rows)
            weighted = self.rows * spread[:, :, None]
            quadratic += np.swapaxes(weighted, 1, 2) @ self.rows / (self.sizes * self.batch)
        moved = m - eta * (drift + np.swapaxes(drift, 1, 2)) + eta**2 * quadratic
        # A step would not contract an antisymmetric part, so rounding must not build one up.
        self.own = 0.5 * (moved + np.swapaxes(moved, 1, 2))
        self.powers = self.transition @ self.powers

    def mean_moment(self) -> Array:
        """E zbar zbar', (r, r)."""
        total = self.powers.sum(axis=0)
        # Two matrix products, and a sum over nodes of P M P', stand in for all pairs of nodes.
        same = (self.powers @ self.moment @ np.swapaxes(self.powers, 1, 2)).sum(axis=0)
        return (total @ self.moment @ total.T - same + self.own.sum(axis=0)) / self.n**2

    def average(self) -> None:
        """Synchronise."""
        moment = self.mean_moment()
        size = float(np.trace(moment))
        if 0 < size < RESCALE_BELOW:
            moment = moment / size
            self.log_scale += float(np.log(size))
        self._restart(moment)

    def log_distance(self) -> float:
        """log E||xbar - x*||^2."""
        size = float(np.trace(self.mean_moment()))
        return float(np.log(size)) + self.log_scale if size > 0 else -np.inf

    def metrics(self) -> dict[str, float]:
        """All five expectations now."""
        mean = self.mean_moment()
        scale = float(np.exp(self.log_scale))
        image = self.mean_hessian @ mean
        local = float(np.trace(self.own, axis1=1, axis2=2).mean())
        spread = local - np.trace(mean)
        values = {
            "global_loss": 0.5 * float(np.trace(image)),
            "local_loss": 0.5 * float(np.einsum("irs,irs->", self.hessians, self.own)) / self.n,
            "distance": float(np.trace(mean)),
            "local_distance": local,
            "gradient": float(np.trace(image @ self.mean_hessian)),
            "consensus": max(0.0, float(spread)),
        }
        return {name: scale * value for name, value in values.items()}
