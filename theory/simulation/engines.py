"""Three engines for one algorithm: NumPy reference, compiled in R^d, compiled in margin space.

An engine holds the state of P runs, advances it by a number of iterations, keeps the exact running
sums (columns as in :mod:`theory.simulation.kernels`) and can report the current metrics. It knows nothing of
theorems, grids or seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem
from theory.simulation import kernels

Array = NDArray[np.float64]
METRICS = ("global_loss", "local_loss", "distance", "local_distance", "gradient", "consensus")


@dataclass(frozen=True)
class Plan:
    """What every engine needs to know of a run.

    Attributes:
        step_sizes: eta of each run, (P,).
        local_steps: K.
        node_steps: local steps that each node takes in a round, (n,), at most K.
        averaging: False leaves the averaging out (a deliberate violation).
        track: (5,) bool, which running sums to keep.
    """

    step_sizes: Array
    local_steps: int
    node_steps: NDArray[np.int64]
    averaging: bool
    track: NDArray[np.bool_]


@contextmanager
def _threads(tasks: int) -> Iterator[None]:
    """No more threads than tasks: waking one for nothing costs more than a short advance."""
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(tasks, before)))
    try:
        yield
    finally:
        numba.set_num_threads(before)


class Engine(Protocol):
    """State of P runs of Local SGD."""

    sums: Array
    best: Array

    def advance(self, indices: NDArray[np.int32], first: int, steps: int) -> None:
        """Iterations [first, first + steps); indices (seeds, n, steps, batch), batch 0 = full."""

    def snapshot(self) -> dict[str, Array]:
        """Each of METRICS now, (P,)."""

    def mean_models(self) -> Array:
        """xbar, (P, d)."""


class NumpyEngine:
    """The readable reference, vectorised over runs and nodes; takes any problem.

    Cost of an iteration: O(P n batch d) flops and as much memory traffic.
    """

    def __init__(self, problem: Any, plan: Plan) -> None:
        self.problem, self.plan = problem, plan
        runs = len(plan.step_sizes)
        self.models: Array = np.tile(problem.start, (runs, problem.n_nodes, 1))
        self.sums: Array = np.zeros((runs, 5))
        self.best: Array = np.full(runs, np.inf)

    def advance(self, indices: NDArray[np.int32], first: int, steps: int) -> None:
        """See :class:`Engine`."""
        plan = self.plan
        repeat = len(plan.step_sizes) // indices.shape[0]
        eta = plan.step_sizes[:, None, None]
        for done in range(steps):
            t = first + done
            self._record(t)
            active = t % plan.local_steps < plan.node_steps
            full = indices.shape[3] == 0
            drawn = np.tile(indices[:, :, done], (repeat, 1, 1))
            if plan.track[kernels.BATCH]:
                losses = (
                    self.problem.node_losses(self.models)
                    if full
                    else self.problem.sample_losses(self.models, drawn)
                )
                self.sums[:, kernels.BATCH] += (losses * active).mean(axis=-1)
            gradients = (
                self.problem.node_gradients(self.models)
                if full
                else self.problem.sample_gradients(self.models, drawn)
            )
            self.models -= eta * gradients * active[:, None]
            if plan.averaging and (t + 1) % plan.local_steps == 0:
                self.models[:] = self.models.mean(axis=1, keepdims=True)

    def _record(self, t: int) -> None:
        track = self.plan.track
        at_round = t % self.plan.local_steps == 0
        mean = self.mean_models()
        if track[kernels.LOCAL]:
            self.sums[:, kernels.LOCAL] += self.problem.node_losses(self.models).mean(axis=-1)
        if track[kernels.GLOBAL]:
            self.sums[:, kernels.GLOBAL] += self._global_loss(mean)
        if track[kernels.SYNC] and at_round:
            value = self._global_loss(mean)
            self.sums[:, kernels.SYNC] += value
            self.best = np.minimum(self.best, value)
        if track[kernels.GRADIENT] and at_round:
            self.sums[:, kernels.GRADIENT] += (self._global_gradient(mean) ** 2).sum(axis=-1)

    def _everywhere(self, mean: Array) -> Array:
        return np.broadcast_to(mean[:, None, :], self.models.shape)

    def _global_loss(self, mean: Array) -> Array:
        return np.asarray(self.problem.node_losses(self._everywhere(mean)).mean(axis=-1))

    def _global_gradient(self, mean: Array) -> Array:
        return np.asarray(self.problem.node_gradients(self._everywhere(mean)).mean(axis=1))

    def mean_models(self) -> Array:
        """See :class:`Engine`."""
        return np.asarray(self.models.mean(axis=1))

    def snapshot(self) -> dict[str, Array]:
        """See :class:`Engine`."""
        mean = self.mean_models()
        solution = getattr(self.problem, "solution", None)
        to_solution = np.nan if solution is None else solution
        return {
            "global_loss": self._global_loss(mean),
            "local_loss": self.problem.node_losses(self.models).mean(axis=-1),
            "distance": ((mean - to_solution) ** 2).sum(axis=-1),
            "local_distance": ((self.models - to_solution) ** 2).sum(axis=-1).mean(axis=-1),
            "gradient": (self._global_gradient(mean) ** 2).sum(axis=-1),
            "consensus": ((self.models - mean[:, None]) ** 2).sum(axis=-1).mean(axis=-1),
        }


class NumbaEngine(NumpyEngine):
    """Compiled steps in R^d; a node's model stays in cache through its K steps.

    Runs are spread over threads; when there are fewer runs than threads and no running sums are
    wanted, nodes are. Cost of an iteration: O(P n batch d) flops.
    """

    problem: MarginProblem

    def advance(self, indices: NDArray[np.int32], first: int, steps: int) -> None:
        """See :class:`Engine`."""
        p, plan = self.problem, self.plan
        data = (p.features, p.targets, p.offsets, p.loss.code, plan.step_sizes, self.models)
        when = (indices, first, steps, plan.local_steps, plan.node_steps, plan.averaging)
        if len(plan.step_sizes) < numba.get_num_threads() and not plan.track.any():
            kernels.advance_nodes(*data, *when)
        else:
            with _threads(len(plan.step_sizes)):
                kernels.advance_models(*data, *when, plan.track, self.sums, self.best)


class MarginEngine:
    """Compiled steps on margins: the cost does not grow with d.

    A node's model is x_0 + A'(alpha + its own delta). Cost of an iteration: O(P n batch m_i), of a
    round O(P N min(N, n K batch)); N^2 numbers of memory for the Gram matrix.
    """

    def __init__(self, problem: MarginProblem, plan: Plan) -> None:
        self.problem, self.plan = problem, plan
        shape = (len(plan.step_sizes), problem.n_samples)
        self.gram = np.ascontiguousarray(problem.gram)
        self.start_margins = problem.features @ problem.start
        self.base: Array = np.tile(self.start_margins, (shape[0], 1))
        self.margins: Array = self.base.copy()
        self.delta: Array = np.zeros(shape)
        self.alpha: Array = np.zeros(shape)
        self.sums: Array = np.zeros((shape[0], 5))
        self.best: Array = np.full(shape[0], np.inf)

    def advance(self, indices: NDArray[np.int32], first: int, steps: int) -> None:
        """See :class:`Engine`."""
        p, plan = self.problem, self.plan
        with _threads(len(plan.step_sizes)):
            kernels.advance_margins(
                self.gram,
                p.targets,
                p.offsets,
                p.loss.code,
                plan.step_sizes,
                self.base,
                self.margins,
                self.delta,
                self.alpha,
                indices,
                first,
                steps,
                plan.local_steps,
                plan.node_steps,
                plan.averaging,
                plan.track,
                self.sums,
                self.best,
            )

    def mean_models(self) -> Array:
        """See :class:`Engine`."""
        coefficients = self.alpha + self.delta / self.problem.n_nodes
        return self.problem.start + coefficients @ self.problem.features

    def _square(self, coefficients: Array) -> Array:
        return np.maximum(((coefficients @ self.gram) * coefficients).sum(axis=1), 0.0)

    def snapshot(self) -> dict[str, Array]:
        """See :class:`Engine`."""
        p = self.problem
        n = p.n_nodes
        mean_delta = self.delta / n
        margins = self.base + mean_delta @ self.gram
        slopes = p.loss.derivative(margins, p.targets) * p.sample_weights
        to_solution = self.alpha + mean_delta - p.solution_coefficients
        own = np.zeros(len(self.delta))
        for i in range(n):
            s = p.node_slice(i)
            own += ((self.delta[:, s] @ self.gram[s, s]) * self.delta[:, s]).sum(axis=1)
        consensus = np.maximum(own / n - self._square(mean_delta), 0.0)
        distance = self._square(to_solution) if p.loss.attained else np.full(len(own), np.nan)
        return {
            "global_loss": p.loss_of_margins(margins),
            "local_loss": p.loss_of_margins(self.margins),
            "distance": distance,
            # About a mean, the mean square splits into the mean's own and the spread.
            "local_distance": distance + consensus,
            "gradient": self._square(slopes),
            "consensus": consensus,
        }


def cheapest_engine(problem: Any, plan: Plan, batch_size: int) -> str:
    """Name of the engine with the least work an iteration, by counting multiplications.

    Margin space pays N min(N, n K batch) a round, R^d pays d at every step of every node; sums that
    need the losses of all samples cost N d there, N here.
    """
    if not isinstance(problem, MarginProblem) or problem.loss.code < 0:
        return "numpy"
    n, total, d = problem.n_nodes, problem.n_samples, problem.dimension
    batch = batch_size or int(problem.node_sizes.max())
    k = plan.local_steps
    touched = min(total, n * k * batch)
    every_step = plan.track[kernels.LOCAL] or plan.track[kernels.GLOBAL]
    margin = total * touched + k * batch * total
    if plan.track[kernels.GLOBAL]:
        margin += k * total * min(total, n * k * batch)
    direct = 2 * n * k * batch * d + (k if every_step else int(plan.track.any())) * total * d
    # Beyond this many samples the Gram matrix itself is the cost.
    fits = total <= 20_000
    return "margin" if fits and margin <= direct else "numba"


ENGINES: dict[str, type[NumpyEngine] | type[MarginEngine]] = {
    "numpy": NumpyEngine,
    "numba": NumbaEngine,
    "margin": MarginEngine,
}
