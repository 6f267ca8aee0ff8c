"""The energy balance of Local SGD, term by term and iteration by iteration: T9.

For any differentiable losses, any reference point z and the plain mean (beta = 1), with
D_t = mean_i ||x_i^t - z||^2 and C_r = mean_i ||x_i - xbar||^2 just before the r-th averaging, exactly
and on every path

    D_0 - D_T = sum_r C_r + sum_t mean_i [2 eta <g_i^t, x_i^t - z> - eta^2 ||g_i^t||^2].

Proof. ||x - eta g - z||^2 = ||x - z||^2 - 2 eta <g, x - z> + eta^2 ||g||^2 for each node, and averaging
lowers the mean squared distance by the spread about the mean, C_r. Sum over t. QED

So with phi_hat = sum [<g, x - z> - (eta/2) ||g||^2] / sum l the batch losses l satisfy
(1/T) sum l = (D_0 - D_T - sum_r C_r) / (2 eta phi_hat T): T1 with every term measured. In its class
phi_hat >= phi = min(1, 2 - eta L) for z = x*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.problems.consistency import check_problem
from theory.problems.protocols import Simulated, has_samples
from theory.simulation import arguments
from theory.simulation.draws import Draws
from theory.simulation.variants import FedAvg, check_variant
from theory.support.energy import Windows
from theory.support.errors import UserError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EnergyBalance:
    """Every term of T9; means are over the nodes that take part.

    Attributes:
        step_size: eta.
        inner: mean_i <g_i^t, x_i^t - z>, (seeds, T).
        gradient: mean_i ||g_i^t||^2, (seeds, T).
        loss: mean_i of the loss l_i^t of the batch used, at x_i^t, (seeds, T).
        spread: C_r, (seeds, R).
        distance: ||xbar_r - z||^2, which is D at the start of round r + 1, (seeds, R + 1).
    """

    step_size: float
    inner: Array
    gradient: Array
    loss: Array
    spread: Array
    distance: Array

    @property
    def start(self) -> Array:
        """D_0, (seeds,)."""
        return self.distance[:, 0]

    @property
    def end(self) -> Array:
        """D_T, (seeds,)."""
        return self.distance[:, -1]

    @property
    def defect(self) -> Array:
        """Left side less right side of T9 over D_0, (seeds,): 0 but for rounding."""
        return np.array([path.whole().defect[0] for path in self._paths()])

    @property
    def phi_hat(self) -> Array:
        """What the nodes' own steps certify, (seeds,)."""
        return np.array([path.whole().phi_hat[0] for path in self._paths()])

    @property
    def phi_total(self) -> Array:
        """(D_0 - D_T) / (2 eta sum l), (seeds,): with what averaging adds, sum C_r / (2 eta sum l)."""
        return np.array([path.whole().phi_total[0] for path in self._paths()])

    def windows(self, path: int, edges: list[int] | None = None) -> Windows:
        """The balance of one path; ``edges`` are rounds, ascending from 0: all of them by default."""
        rounds = self.spread.shape[1]
        chosen = list(range(rounds + 1)) if edges is None else edges
        k = self.loss.shape[1] // rounds

        def added(values: Array, scale: int) -> Array:
            return np.add.reduceat(
                values[path, : chosen[-1] * scale], np.array(chosen[:-1]) * scale
            )

        return Windows(
            self.step_size,
            np.array(chosen) * k,
            self.distance[path, chosen],
            added(self.loss, k),
            added(self.inner, k),
            added(self.gradient, k),
            added(self.spread, 1),
        )

    def _paths(self) -> list[Windows]:
        return [self.windows(path) for path in range(len(self.spread))]


def energy_balance(
    problem: Simulated,
    *,
    step_size: float,
    local_steps: int = 1,
    rounds: int = 100,
    seeds: int | list[int] = 1,
    batch_size: int = 1,
    gradient: str = "stochastic",
    order: str = "uniform",
    participants: int | None = None,
    reference: str | Array = "solution",
) -> EnergyBalance:
    """Run Local SGD from x_0 and record every term of T9.

    Args:
        problem: as for the NumPy engine of :func:`theory.simulation.local_sgd.run_local_sgd`, with
            ``sample_losses`` for stochastic gradients; its draws are the same as there.
        reference: z: "solution" for x*, "end" for each path's own last model (a second run finds it),
            or a point, (d,).
        The others: as in ``run_local_sgd``.

    Raises:
        UserError: an argument outside its range, or "solution" where there is no x*.
    """
    (eta,) = arguments.step_sizes(step_size)
    k, r, batch = arguments.schedule(local_steps, rounds, batch_size, gradient)
    chosen = arguments.seed_list(seeds)
    variant = FedAvg(participants, 1.0, None, order)
    check_problem(problem)
    check_variant(variant, problem.n_nodes)
    if batch and not (has_samples(problem) and hasattr(problem, "sample_losses")):
        raise UserError(
            "gradient is 'stochastic', which needs a problem with sample_gradients, sample_losses and "
            "node_sizes; allowed here: full"
        )
    walk = _Walk(problem, float(eta), k, r, chosen, variant, batch)
    if isinstance(reference, str) and reference == "end":
        ends, _ = walk.run(np.zeros((len(chosen), problem.start.size)))
        return walk.run(ends)[1]
    if isinstance(reference, str):
        point = problem.solution if reference == "solution" else None
        if point is None:
            raise UserError(f"reference is {reference!r}, allowed: solution (if any), end, a point")
    else:
        point = np.asarray(reference, dtype=float)
        if point.shape != problem.start.shape or not np.isfinite(point).all():
            raise UserError(f"reference has shape {point.shape}, allowed: {problem.start.shape}")
    return walk.run(np.tile(point, (len(chosen), 1)))[1]


class _Walk:
    def __init__(
        self,
        problem: Simulated,
        eta: float,
        local_steps: int,
        rounds: int,
        seeds: NDArray[np.uint64],
        variant: FedAvg,
        batch: int,
    ) -> None:
        self.problem, self.eta, self.seeds, self.variant = problem, eta, seeds, variant
        self.local_steps, self.rounds, self.batch = local_steps, rounds, batch

    def run(self, points: Array) -> tuple[Array, EnergyBalance]:
        """(last models, balance), one row a seed; ``points`` are the z, (seeds, d)."""
        problem, k, last = self.problem, self.local_steps, self.local_steps * self.rounds
        n = problem.n_nodes
        samples = problem if self.batch and has_samples(problem) else None
        sizes = np.ones(n, np.int64) if samples is None else np.asarray(samples.node_sizes)
        steps = np.full(n, k, dtype=np.int64)
        draws = Draws(n, sizes, self.seeds, self.variant, k, steps, self.batch)
        centers = np.tile(problem.start, (len(self.seeds), 1))
        models = np.repeat(centers[:, None], n, axis=1)
        inner, square, loss = (np.empty((len(self.seeds), last)) for _ in range(3))
        spread = np.empty((len(self.seeds), self.rounds))
        distance = np.empty((len(self.seeds), self.rounds + 1))
        distance[:, 0] = ((centers - points) ** 2).sum(axis=1)
        shares = np.full((len(self.seeds), n), 1.0 / n)
        for t in range(last):
            window = draws.take(t, 1, last - t)
            indices = window.indices[:, :, 0]
            if t % k == 0 and window.nodes.shape[1]:
                shares = np.zeros_like(shares)
                np.put_along_axis(shares, window.nodes[:, 0], 1.0 / window.nodes.shape[2], axis=1)
            if samples is not None:
                gradients = samples.sample_gradients(models, indices)
                losses = samples.sample_losses(models, indices)
            else:
                gradients, losses = problem.node_gradients(models), problem.node_losses(models)
            products = (gradients * (models - points[:, None])).sum(axis=-1)
            inner[:, t] = (shares * products).sum(axis=1)
            square[:, t] = (shares * (gradients**2).sum(axis=-1)).sum(axis=1)
            loss[:, t] = (shares * losses).sum(axis=1)
            models = models - self.eta * gradients
            if (t + 1) % k == 0:
                centers = (shares[..., None] * models).sum(axis=1)
                apart = ((models - centers[:, None]) ** 2).sum(axis=-1)
                spread[:, t // k] = (shares * apart).sum(axis=1)
                distance[:, t // k + 1] = ((centers - points) ** 2).sum(axis=1)
                models = np.repeat(centers[:, None], n, axis=1)
        return centers, EnergyBalance(self.eta, inner, square, loss, spread, distance)
