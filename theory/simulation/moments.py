"""Exact expectations of Local SGD on least squares: no sampling error, all sample paths at once.

A sample moves z = x - x* linearly, so E zz' obeys a closed recursion. It runs in the r-dimensional row
space, in which x - x* lives. Given M = E zz' at the start of a round and k steps, with P_i = I - eta H_i:
a node's own moment is S_i^k(M), S_i(M) = E_j (I - eta a_j a_j') M (I - eta a_j a_j'), and for i != j the
nodes draw independently, so E z_i z_j' = P_i^k M P_j^k'. For the mean over m of the n nodes, drawn
uniformly without replacement,

    E zbar zbar' = (1/(m n)) sum_i S_i^k(M) + ((m - 1)/(m n (n - 1))) sum_{i != j} P_i^k M P_j^k',

and with A = (1/n) sum_i P_i^K the outer step beta ends the round at

    (1 - beta)^2 M + beta (1 - beta) (A M + M A') + beta^2 E zbar zbar'.

Cost: O(n (r^3 + m_i r^2)) flops an iteration, O(n r^2) memory, whatever d and T are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.simulation import arguments
from theory.simulation.outer_steps import NUMBER, checked_rule
from theory.simulation.quadratic import Quadratic
from theory.support.errors import UserError

Array = NDArray[np.float64]
Cells = NDArray[np.intp]
# A moment below it is scaled up; far enough from the end of double precision for a round to be exact.
RESCALE_BELOW = 1e-100
AVERAGES = ("local_loss", "batch_loss", "sync_loss", "sync_gradient", "global_loss")
METRICS = ("global_loss", "local_loss", "distance", "local_distance", "gradient", "consensus")
# Numbers in the moments of all nodes of the settings that are advanced together: more leave the cache.
CHUNK_NUMBERS = 1 << 15


@dataclass(frozen=True)
class ExactMoments:
    """Exact counterparts of :class:`theory.simulation.local_sgd.LocalSGDResult`, each history of shape (grid,).

    Attributes:
        iterations: the grid.
        history: "global_loss", "local_loss", "distance", "local_distance", "gradient", "consensus", each an
            expectation. With m < n participants means over nodes are over those of the round.
        averages: "local_loss", "global_loss", "batch_loss" over iterations before t; "sync_loss",
            "sync_gradient" over rounds begun before t; NaN at t = 0. A batch is drawn independently of
            the model that it meets, so the expectation of its loss is that of the node's.
        best_sync_loss: min over the rounds begun before t of E f(xbar_r); NaN at t = 0.
        log_distance: logarithm of the expected "distance", with its digits where that has left the
            range of double precision; -inf where it is 0.
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
    participants: int | None = None,
    outer_step: float = 1.0,
    record: Sequence[int] | NDArray[Any] | None = None,
    averages: Sequence[str] = AVERAGES,
) -> ExactMoments:
    """All left-hand sides of T1-T4, T6, T7 and T8a on least squares, to rounding.

    Args:
        outer_step: a fixed beta above 0.
        averages: which running means to keep; without "global_loss" an iteration takes about a third of
            the time, as the mean model is then needed once a round only.
        The others: as in :func:`theory.simulation.local_sgd.run_local_sgd`.

    Raises:
        UserError: the loss is not squared, or an argument outside its range.
    """
    return exact_grid(
        problem,
        step_sizes=[step_size],
        local_steps=[local_steps],
        rounds=rounds,
        batch_size=batch_size,
        gradient=gradient,
        participants=participants,
        outer_step=outer_step,
        record=record,
        averages=averages,
    )[0][0]


def exact_grid(
    problem: MarginProblem,
    *,
    step_sizes: Sequence[float] | Array,
    local_steps: Sequence[int],
    rounds: int = 100,
    batch_size: int = 1,
    gradient: str = "stochastic",
    participants: int | None = None,
    outer_step: float = 1.0,
    record: Sequence[int] | NDArray[Any] | None = None,
    averages: Sequence[str] = AVERAGES,
) -> list[list[ExactMoments]]:
    """:func:`exact_moments` for several step sizes and several K, advanced together.

    Args:
        step_sizes, local_steps: the values of eta and of K; every pair is computed.
        record: iterations to record, none above the shortest T = K R; empty for 0 and T only.
        The others: as in :func:`exact_moments`.

    Returns:
        ``result[i][j]`` for ``step_sizes[i]`` and ``local_steps[j]``.

    Raises:
        UserError: the loss is not squared, or an argument outside its range.
    """
    if problem.loss is not SQUARED:
        raise UserError(f"exact moments need least squares, the loss is {problem.loss.name}")
    rule, beta = checked_rule(outer_step)
    if rule != NUMBER:
        raise UserError(
            f"outer_step is {outer_step!r}, allowed for exact moments: a number above 0"
        )
    unknown = [name for name in averages if name not in AVERAGES]
    if unknown:
        raise UserError(f"averages has {unknown[0]!r}, allowed: {', '.join(AVERAGES)}")
    n = problem.n_nodes
    m = n if participants is None else arguments.whole_number("participants", participants, 1, n)
    if not len(local_steps):
        raise UserError("local_steps is empty, allowed: at least one K")
    etas = arguments.step_sizes(step_sizes)
    schedules = [arguments.schedule(k, rounds, batch_size, gradient) for k in local_steps]
    found: dict[tuple[int, int], ExactMoments] = {}
    cells = [(i, j) for j in range(len(schedules)) for i in range(len(etas))]
    # Settings that end together are advanced together.
    cells.sort(key=lambda cell: schedules[cell[1]][0])
    size = max(1, CHUNK_NUMBERS // max(1, n * problem.rank**2))
    basis = Quadratic(problem)
    for begin in range(0, len(cells), size):
        chunk = cells[begin : begin + size]
        settings = [
            _Setting(
                step_size=float(etas[i]),
                local_steps=schedules[j][0],
                last=schedules[j][0] * schedules[j][1],
                grid=arguments.grid(record, schedules[j][0] * schedules[j][1]),
            )
            for i, j in chunk
        ]
        batch = float(schedules[0][2]) or np.inf
        walk = _Walk(basis, settings, batch, m, beta, "global_loss" in averages)
        found |= dict(zip(chunk, walk.run(averages), strict=True))
    return [[found[i, j] for j in range(len(schedules))] for i in range(len(etas))]


@dataclass(frozen=True)
class _Setting:
    step_size: float
    local_steps: int
    last: int
    grid: NDArray[np.int64]


class _Walk:
    """Several settings in step, each with the moments of all nodes' errors through round after round.

    ``moment[c]`` is E zz' at the start of setting c's round divided by e^log_scale[c], and ``own[c, i]``
    E z_i z_i' now divided by e^own_scale[c], so that a linear rate does not underflow.
    """

    def __init__(
        self,
        basis: Quadratic,
        settings: list[_Setting],
        batch: float,
        participants: int,
        beta: float,
        every_mean: bool,
    ) -> None:
        self.basis, self.settings, self.batch, self.beta = basis, settings, batch, beta
        self.every_mean = every_mean
        n, m = basis.n, participants
        self.same = 1.0 / (m * n)
        self.pairs = (m - 1.0) / (m * n * (n - 1.0)) if n > 1 else 0.0
        self.etas = np.array([s.step_size for s in settings])
        self.local_steps = np.array([s.local_steps for s in settings])
        self.lasts = np.array([s.last for s in settings])
        count = len(settings)
        self.log_scale, self.own_scale = np.zeros(count), np.zeros(count)
        self.moment: Array = np.tile(np.outer(basis.start, basis.start), (count, 1, 1))
        self.own: Array = np.tile(self.moment[:, None], (1, basis.n, 1, 1))
        self.round_powers, self.round_scale = basis.powers(self.etas, self.local_steps)

    def run(self, averages: Sequence[str]) -> list[ExactMoments]:
        """All iterations of all settings."""
        count = len(self.settings)
        rows: list[dict[int, dict[str, float]]] = [{} for _ in range(count)]
        sums = {name: np.zeros(count) for name in AVERAGES if name != "batch_loss"}
        lowest = np.full(count, np.inf)
        marked: dict[int, list[int]] = {}
        for c, setting in enumerate(self.settings):
            for t in setting.grid.tolist():
                marked.setdefault(t, []).append(c)
        # Above 2/L moments grow without bound; infinities are then the answer, not an accident.
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(int(self.lasts.max()) + 1):
                # Settings are sorted by their end.
                alive = np.arange(np.searchsorted(self.lasts, t), count)
                at_round = alive[t % self.local_steps[alive] == 0]
                if t:
                    self._average(at_round)
                wanted = marked.get(t, [])
                needed = alive if self.every_mean else np.union1d(at_round, wanted).astype(int)
                means, scales = self._mean_moments(needed, t)
                losses = self._global_loss(means, scales)
                for c in wanted:
                    at = np.searchsorted(needed, c)
                    row = self._metrics(c, means[at], float(scales[at]))
                    rows[c][t] = row | self._means(sums, lowest, c, t)
                sums["local_loss"][alive] += self._local_loss(alive)
                sums["global_loss"][needed] += losses
                if len(at_round):
                    inside = np.searchsorted(needed, at_round)
                    sums["sync_loss"][at_round] += losses[inside]
                    sums["sync_gradient"][at_round] += self._gradient(means[inside], scales[inside])
                    lowest[at_round] = np.fmin(lowest[at_round], losses[inside])
                self._step(int(np.searchsorted(self.lasts, t + 1)))
        return [self._result(rows[c], averages) for c in range(count)]

    def _means(self, sums: dict[str, Array], lowest: Array, c: int, t: int) -> dict[str, float]:
        rounds = -(-t // int(self.local_steps[c]))
        out = {"best": float(lowest[c]) if t else np.nan}
        for name in AVERAGES:
            total = sums["local_loss" if name == "batch_loss" else name]
            count = rounds if name.startswith("sync") else t
            out["average " + name] = float(total[c]) / count if t else np.nan
        return out

    @staticmethod
    def _result(rows: dict[int, dict[str, float]], averages: Sequence[str]) -> ExactMoments:
        points = sorted(rows)

        def column(name: str) -> Array:
            return np.array([rows[t][name] for t in points])

        return ExactMoments(
            iterations=np.array(points, dtype=np.int64),
            history={name: column(name) for name in METRICS},
            averages={name: column("average " + name) for name in averages},
            best_sync_loss=column("best"),
            log_distance=column("log_distance"),
        )

    def _step(self, first: int) -> None:
        """One local step at every node of the settings from ``first`` on."""
        if first == len(self.settings):
            return
        b, m = self.basis, self.own[first:]
        eta = self.etas[first:, None, None, None]
        drift = b.hessians @ m
        # Half of the new moment and its transpose; a step would not contract an antisymmetric part, so
        # rounding must not build one up.
        half = 0.5 * m - eta * drift
        if self.batch > 1:
            half += (0.5 * (1.0 - 1.0 / self.batch)) * eta**2 * (drift @ b.hessians)
        if np.isfinite(self.batch):
            spread = ((b.rows @ m) * b.rows).sum(axis=-1)
            weighted = b.rows * (spread[..., None] * (0.5 * eta**2 / (b.sizes * self.batch)))
            half += np.swapaxes(weighted, 2, 3) @ b.rows
        np.add(half, np.swapaxes(half, 2, 3), out=m)

    def _mean_moment(self, cells: Cells, powers: Array, logs: Array) -> tuple[Array, Array]:
        """(E zbar zbar' over the participants, log of its scale); ``powers`` are the P_i^k, and theirs."""
        moment = self.moment[cells]
        total = powers.sum(axis=1)
        # Two matrix products, and a sum over nodes of P M P', stand in for all pairs of nodes.
        each = (powers @ moment[:, None] @ np.swapaxes(powers, 2, 3)).sum(axis=1)
        across = total @ moment @ np.swapaxes(total, 1, 2) - each
        scale = np.maximum(self.own_scale[cells], self.log_scale[cells] + 2 * logs)
        same = self.same * np.exp(self.own_scale[cells] - scale)
        pairs = self.pairs * np.exp(self.log_scale[cells] + 2 * logs - scale)
        own = self.own[cells].sum(axis=1)
        return same[:, None, None] * own + pairs[:, None, None] * across, scale

    def _average(self, cells: Cells) -> None:
        """End a round of these settings."""
        if not len(cells):
            return
        powers, logs = self.round_powers[cells], self.round_scale[cells]
        mean, scale = self._mean_moment(cells, powers, logs)
        if self.beta != 1.0:
            before = self.log_scale[cells]
            cross = powers.mean(axis=1) @ self.moment[cells]
            cross = (cross + np.swapaxes(cross, 1, 2)) * np.exp(logs)[:, None, None]
            mean *= np.exp(scale - before)[:, None, None]
            stay = 1.0 - self.beta
            mean = stay**2 * self.moment[cells] + self.beta * stay * cross + self.beta**2 * mean
            scale = before
        sizes = np.trace(mean, axis1=1, axis2=2)
        small = (sizes > 0) & (sizes < RESCALE_BELOW)
        divisor = np.where(small, sizes, 1.0)
        self.log_scale[cells] = self.own_scale[cells] = scale + np.log(divisor)
        self.moment[cells] = mean / divisor[:, None, None]
        self.own[cells] = self.moment[cells][:, None]

    def _mean_moments(self, cells: Cells, t: int) -> tuple[Array, Array]:
        """(E zbar zbar' at t, log of its scale), (C, r, r) and (C,)."""
        k = t % self.local_steps[cells]
        means, scales = self.moment[cells], self.log_scale[cells]
        inside = np.flatnonzero(k)
        if len(inside):
            among = cells[inside]
            powers = self.basis.powers(self.etas[among], k[inside])
            means[inside], scales[inside] = self._mean_moment(among, *powers)
        return means, scales

    def _local_loss(self, cells: Cells) -> Array:
        """E of the mean over nodes of f_i(x_i), (C,); tiny moments are scaled up on the way."""
        flat = self.own.reshape(len(self.own), -1)
        products = (flat if len(cells) == len(flat) else flat[cells]) @ self.basis.hessians.ravel()
        losses = np.asarray(0.5 / self.basis.n * products * np.exp(self.own_scale[cells]))
        for c in cells[(products > 0) & (products < RESCALE_BELOW)]:
            size = float(np.trace(self.own[c], axis1=1, axis2=2).sum())
            self.own[c] /= size
            self.own_scale[c] += np.log(size)
        return losses

    def _global_loss(self, means: Array, scales: Array) -> Array:
        """E f(xbar), (C,)."""
        products = means.reshape(len(means), self.basis.r**2) @ self.basis.mean_hessian.ravel()
        return np.asarray(0.5 * products * np.exp(scales))

    def _gradient(self, means: Array, scales: Array) -> Array:
        """E||grad f(xbar)||^2, (C,)."""
        square = self.basis.mean_hessian @ self.basis.mean_hessian
        products = means.reshape(len(means), self.basis.r**2) @ square.ravel()
        return np.asarray(products * np.exp(scales))

    def _metrics(self, c: int, mean: Array, log_scale: float) -> dict[str, float]:
        """All metrics of setting c now, whose mean's moment is ``mean`` times e^log_scale."""
        means, scales = mean[None], np.array([log_scale])
        trace = float(np.trace(mean))
        distance = float(np.exp(log_scale)) * trace
        own = float(np.trace(self.own[c], axis1=1, axis2=2).mean() * np.exp(self.own_scale[c]))
        return {
            "global_loss": float(self._global_loss(means, scales)[0]),
            "local_loss": float(self._local_loss(np.array([c]))[0]),
            "distance": distance,
            "local_distance": own,
            "gradient": float(self._gradient(means, scales)[0]),
            "consensus": max(own - distance, 0.0),
            "log_distance": float(np.log(trace) + log_scale) if trace > 0 else -np.inf,
        }
