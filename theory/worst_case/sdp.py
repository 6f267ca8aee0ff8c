"""A primal-dual interior-point solver for the semidefinite programs of performance estimation.

It assembles the Schur complement from look-ups in the products of a few dictionary vectors, which a
general solver can't. It stays because, and as long as, it is three times faster than CLARABEL over the
standard grid: ``benchmarks/worst_case_solvers.py`` measures it, ``theory/worst_case/findings.md`` says what
came out. :mod:`theory.worst_case.clarabel_route` is the second route and the fallback.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, eigvalsh, solve_triangular

from theory.worst_case.constraints import (
    Array,
    Constraints,
    Solution,
    SolverError,
    TimeLimitError,
)


@dataclass
class _Point:
    """Primal (blocks X, scalars F, slacks s) and dual (multipliers y, slack matrices Z)."""

    primal: list[Array]
    dual: list[Array]
    scalars: Array
    slacks: Array
    multipliers: Array
    primal_roots: list[Array]
    dual_roots: list[Array]

    def complementarity(self) -> float:
        inner = sum(float(np.sum(x * z)) for x, z in zip(self.primal, self.dual, strict=True))
        return inner + float(self.slacks @ self.multipliers)


_Step = tuple[list[Array], list[Array], Array, Array, Array]


def maximise(
    constraints: Constraints,
    objective_scalars: Array,
    objective_blocks: list[Array],
    tolerance: float = 1e-9,
    acceptable: float = 1e-7,
    max_iterations: int = 120,
    deadline: float = math.inf,
) -> Solution:
    """Maximise objective_scalars . F + sum_b <C_b, X_b> over X_b psd and the constraints.

    Args:
        constraints: the inequalities.
        objective_scalars: (s,).
        objective_blocks: C_b, one symmetric matrix a block.
        tolerance: absolute duality gap and infeasibility aimed at (data are of order one).
        acceptable: what is still returned where rounding stops progress earlier.
        max_iterations: more than this is not converged.
        deadline: value of ``time.perf_counter()``; no iteration begins that is likely to pass it.

    Returns:
        The optimal pair.

    Raises:
        SolverError: neither tolerance was reached.
        TimeLimitError: the deadline passed.

    References:
        C. Helmberg, F. Rendl, R. J. Vanderbei, H. Wolkowicz, "An interior-point method for
        semidefinite programming" (SIAM J. Optim. 1996); S. Mehrotra, "On the implementation of a
        primal-dual interior point method" (SIAM J. Optim. 1992).
    """
    sizes, count = constraints.dimensions, len(constraints)
    # An iteration can't be broken off, so none begins that is likely to pass the deadline.
    expected = iteration_seconds(count)
    if time.perf_counter() + expected > deadline:
        raise TimeLimitError("the time limit would pass in the first iteration")
    point = _Point(
        primal=[np.eye(d) for d in sizes],
        dual=[np.eye(d) for d in sizes],
        scalars=np.zeros(len(objective_scalars)),
        slacks=np.ones(count),
        multipliers=np.ones(count),
        primal_roots=[np.eye(d) for d in sizes],
        dual_roots=[np.eye(d) for d in sizes],
    )
    best: tuple[float, Solution] | None = None
    reason = f"{max_iterations} iterations were not enough"
    for iteration in range(max_iterations):
        solution, residuals = _assess(
            constraints, objective_scalars, objective_blocks, point, iteration
        )
        error = max(point.complementarity(), solution.infeasibility)
        if best is None or error < best[0]:
            best = (error, solution)
        if error < tolerance:
            return solution
        begin = time.perf_counter()
        if begin + expected > deadline:
            raise TimeLimitError("the time limit passed")
        try:
            system = _NewtonSystem(constraints, point, residuals)
            predictor = system.step(0.0, None)
            primal, dual = _step_lengths(point, predictor)
            reach = (min(1.0, primal), min(1.0, dual))
            centring = _centring(point, predictor, reach)
            step = system.step(centring, predictor)
            longest = _advance(point, step)
        except (LinAlgError, ValueError):  # also for what is no number any more
            reason = "a factorisation failed"
            break
        if longest < 1e-6:
            reason = "the steps became too short"
            break
        expected = time.perf_counter() - begin
    assert best is not None
    if best[0] < acceptable:
        return best[1]
    raise SolverError(f"not converged: {reason}; gap and infeasibility {best[0]:.1e}")


def iteration_seconds(count: int) -> float:
    """The least that an iteration with so many inequalities takes on a core of today."""
    return 2e-8 * count**2 + 1.5e-11 * count**3


@dataclass(frozen=True)
class _Residuals:
    constraints: Array
    blocks: list[Array]
    scalars: Array


def _assess(
    constraints: Constraints, goal: Array, blocks: list[Array], point: _Point, iteration: int
) -> tuple[Solution, _Residuals]:
    fitted = constraints.values(point.primal) + constraints.scalars @ point.scalars
    combined = constraints.combine(point.multipliers)
    residuals = _Residuals(
        constraints=constraints.limits - fitted - point.slacks,
        blocks=[a - c - z for a, c, z in zip(combined, blocks, point.dual, strict=True)],
        scalars=goal - constraints.scalars.T @ point.multipliers,
    )
    primal = float(goal @ point.scalars) + sum(
        float(np.sum(c * x)) for c, x in zip(blocks, point.primal, strict=True)
    )
    worst = max(
        float(np.abs(residuals.constraints).max()),
        float(np.abs(residuals.scalars).max(initial=0)),
        *(float(np.abs(block).max(initial=0)) for block in residuals.blocks),
    )
    solution = Solution(
        primal,
        float(constraints.limits @ point.multipliers),
        list(point.primal),
        point.scalars,
        point.multipliers,
        worst,
        iteration,
    )
    return solution, residuals


class _NewtonSystem:
    """The HKM equations at one point, factored once and solved for predictor and corrector."""

    def __init__(self, constraints: Constraints, point: _Point, residuals: _Residuals) -> None:
        self.constraints, self.point, self.residuals = constraints, point, residuals
        self.inverse = []
        for root in point.dual_roots:
            inner = solve_triangular(root, np.eye(len(root)), lower=True)
            self.inverse.append(inner.T @ inner)
        self.total = sum(constraints.dimensions) + len(constraints)
        self.mu = point.complementarity() / self.total
        self.matrix = schur(constraints, point.primal, self.inverse)
        self.matrix.flat[:: len(constraints) + 1] += point.slacks / point.multipliers
        self.scale = 1 / np.sqrt(np.diag(self.matrix))
        scaled = self.matrix * self.scale[:, None] * self.scale[None, :]
        self.factor = _factor(scaled)
        self.columns = constraints.scalars * self.scale[:, None]
        self.solved = cho_solve(self.factor, self.columns, check_finite=False)
        self.small = _factor(self.columns.T @ self.solved)

    def step(self, centring: float, predictor: _Step | None) -> _Step:
        """The direction towards complementarity centring * mu; ``predictor`` adds second order."""
        point, target = self.point, centring * self.mu
        base = [target * z - x for x, z in zip(point.primal, self.inverse, strict=True)]
        slack_base = target / point.multipliers - point.slacks
        if predictor is not None:
            base = [
                w - dx @ dz @ z
                for w, dx, dz, z in zip(base, predictor[0], predictor[1], self.inverse, strict=True)
            ]
            slack_base = slack_base - predictor[4] * predictor[3] / point.multipliers
        known = [
            _symmetric(w - x @ residual @ z)
            for w, x, residual, z in zip(
                base, point.primal, self.residuals.blocks, self.inverse, strict=True
            )
        ]
        right = self.residuals.constraints - self.constraints.values(known) - slack_base
        multipliers, scalars = self._solve(right, self.residuals.scalars)
        dual = [
            a + residual
            for a, residual in zip(
                self.constraints.combine(multipliers), self.residuals.blocks, strict=True
            )
        ]
        primal = [
            _symmetric(w - x @ dz @ z)
            for w, x, dz, z in zip(base, point.primal, dual, self.inverse, strict=True)
        ]
        slacks = slack_base - point.slacks / point.multipliers * multipliers
        return primal, dual, scalars, multipliers, slacks

    def _solve(self, right: Array, scalar_right: Array) -> tuple[Array, Array]:
        """dy, dF with -H dy + B dF = right and B' dy = scalar_right; two refinements."""
        columns = self.constraints.scalars
        multipliers, scalars = np.zeros(len(right)), np.zeros(columns.shape[1])
        for _ in range(3):
            first = right + self.matrix @ multipliers - columns @ scalars
            second = scalar_right - columns.T @ multipliers
            inner = cho_solve(self.factor, first * self.scale, check_finite=False)
            change = cho_solve(self.small, second + self.columns.T @ inner, check_finite=False)
            scalars = scalars + change
            multipliers = multipliers + self.scale * (self.solved @ change - inner)
        return multipliers, scalars


def schur(constraints: Constraints, primal: list[Array], inverse: list[Array]) -> Array:
    """The m x m matrix tr(A_k X A_j Z^-1), summed over blocks and symmetrised."""
    total = np.zeros((len(constraints), len(constraints)))
    factors = (constraints.left, constraints.right, constraints.square)
    for vectors, x, z in zip(constraints.dictionary, primal, inverse, strict=True):
        _add_schur(
            vectors @ x @ vectors.T,
            vectors @ z @ vectors.T,
            np.stack([f.plus for f in factors]),
            np.stack([f.minus for f in factors]),
            np.stack([f.scale for f in factors]),
            total,
        )
    return total + np.tril(total, -1).T


@njit(cache=True)
def _add_schur(
    table_x: Array,
    table_z: Array,
    plus: NDArray[np.int64],
    minus: NDArray[np.int64],
    scale: Array,
    total: Array,
) -> None:
    """Add one block's lower triangle, by look-ups of the (D, D) products of dictionary vectors."""
    count, size = total.shape[0], table_x.shape[0]
    along_x, along_z = np.empty((3, size)), np.empty((3, size))
    for i in range(count):
        for kind in range(3):
            a, b, c = plus[kind, i], minus[kind, i], scale[kind, i]
            for v in range(size):
                along_x[kind, v] = c * (table_x[a, v] - table_x[b, v])
                along_z[kind, v] = c * (table_z[a, v] - table_z[b, v])
        for j in range(i + 1):
            a, b, c = plus[0, j], minus[0, j], scale[0, j]
            xpp, zpp = c * (along_x[0, a] - along_x[0, b]), c * (along_z[0, a] - along_z[0, b])
            xqp, zqp = c * (along_x[1, a] - along_x[1, b]), c * (along_z[1, a] - along_z[1, b])
            xrp, zrp = c * (along_x[2, a] - along_x[2, b]), c * (along_z[2, a] - along_z[2, b])
            a, b, c = plus[1, j], minus[1, j], scale[1, j]
            xpq, zpq = c * (along_x[0, a] - along_x[0, b]), c * (along_z[0, a] - along_z[0, b])
            xqq, zqq = c * (along_x[1, a] - along_x[1, b]), c * (along_z[1, a] - along_z[1, b])
            xrq, zrq = c * (along_x[2, a] - along_x[2, b]), c * (along_z[2, a] - along_z[2, b])
            a, b, c = plus[2, j], minus[2, j], scale[2, j]
            xpr, zpr = c * (along_x[0, a] - along_x[0, b]), c * (along_z[0, a] - along_z[0, b])
            xqr, zqr = c * (along_x[1, a] - along_x[1, b]), c * (along_z[1, a] - along_z[1, b])
            xrr, zrr = c * (along_x[2, a] - along_x[2, b]), c * (along_z[2, a] - along_z[2, b])
            # tr(u w' X s t' Z^-1) = (w'X s)(t' Z^-1 u), over the terms of A_i and A_j, symmetrised.
            total[i, j] += 0.25 * (
                xqp * zpq
                + xpq * zqp
                + xqq * zpp
                + xpp * zqq
                + xqr * zpr
                + xpr * zqr
                + xrq * zrp
                + xrp * zrq
                + xrr * zrr
            )


def _factor(matrix: Array) -> tuple[Array, bool]:
    """Cholesky with the smallest shift that lets it pass (refinement removes its effect)."""
    shift = 1e-14 * float(np.trace(matrix)) / len(matrix)
    while True:
        try:
            factor: tuple[Array, bool] = cho_factor(
                matrix + shift * np.eye(len(matrix)), lower=True, check_finite=False
            )
            return factor
        except LinAlgError:
            shift *= 100
            if shift > 1e-5:
                raise


def _symmetric(matrix: Array) -> Array:
    half: Array = 0.5 * (matrix + matrix.T)
    return half


def _longest(roots: list[Array], directions: list[Array], values: Array, change: Array) -> float:
    """The largest a that keeps every block + a direction psd and values + a change >= 0."""
    longest = 1e10
    for root, direction in zip(roots, directions, strict=True):
        inner = solve_triangular(root, direction, lower=True)
        inner = solve_triangular(root, inner.T, lower=True)
        smallest = float(eigvalsh(_symmetric(inner), subset_by_index=[0, 0])[0])
        if smallest < 0:
            longest = min(longest, -1 / smallest)
    ratio = float((change / values).min())
    return min(longest, -1 / ratio) if ratio < 0 else longest


def _step_lengths(point: _Point, step: _Step) -> tuple[float, float]:
    primal = _longest(point.primal_roots, step[0], point.slacks, step[4])
    dual = _longest(point.dual_roots, step[1], point.multipliers, step[3])
    return primal, dual


def _centring(point: _Point, predictor: _Step, reach: tuple[float, float]) -> float:
    """Mehrotra's rule: little centring where the predictor alone would get far."""
    after = float(
        (point.slacks + reach[0] * predictor[4]) @ (point.multipliers + reach[1] * predictor[3])
    )
    for x, z, dx, dz in zip(point.primal, point.dual, predictor[0], predictor[1], strict=True):
        after += float(np.sum((x + reach[0] * dx) * (z + reach[1] * dz)))
    ratio = max(after, 0.0) / point.complementarity()
    centring = min(1.0, max(ratio**3, 1e-4))
    return max(centring, 0.3) if min(reach) < 0.1 else centring


def _advance(point: _Point, step: _Step) -> float:
    """Move the point, shortening until the blocks can be factored; returns the longer step."""
    primal_step, dual_step = _step_lengths(point, step)
    keep = 0.98 if min(primal_step, dual_step) > 0.9 else 0.95
    primal_step, dual_step = min(1.0, keep * primal_step), min(1.0, keep * dual_step)
    for _ in range(30):
        try:
            primal = [x + primal_step * dx for x, dx in zip(point.primal, step[0], strict=True)]
            roots = [cholesky(x, lower=True) for x in primal]
            break
        except LinAlgError:
            primal_step *= 0.7
    else:
        raise LinAlgError("primal blocks")
    for _ in range(30):
        try:
            dual = [z + dual_step * dz for z, dz in zip(point.dual, step[1], strict=True)]
            dual_roots = [cholesky(z, lower=True) for z in dual]
            break
        except LinAlgError:
            dual_step *= 0.7
    else:
        raise LinAlgError("dual blocks")
    point.primal, point.primal_roots, point.dual, point.dual_roots = primal, roots, dual, dual_roots
    point.scalars = point.scalars + primal_step * step[2]
    point.slacks = point.slacks + primal_step * step[4]
    point.multipliers = point.multipliers + dual_step * step[3]
    return max(primal_step, dual_step)
