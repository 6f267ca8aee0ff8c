"""The exact worst case of deterministic Local SGD, by a performance-estimation problem of few points.

The class: f_1..f_n convex, L-smooth, minimised with value 0 at a common x*, in any dimension. All
functions here take L = 1 and ||x_0 - x*|| = 1; the value for L and D is L D times theirs (D times, for
a distance), at the step size eta L.

Reduction (ours). Permuting the nodes of a problem gives a problem with the same metric, and Gram
matrices and values of feasible problems form a convex set; so some worst case has a permutation-
invariant Gram matrix. Write g_i = m + v_i for the gradients, m their mean. By invariance <v_i, m> = 0,
and <v_i^s, v_i^t> = V_st for every i. The iterates are x_i = xbar + (a combination of v_i), hence every
interpolation condition of f_i, and every metric, involves only M = Gram(x_0, m) and V, both psd. Any
such pair (M, V) comes from n nodes for every n >= 2: put v_i = v (x) u_i with u_1..u_n the vertices of
a regular simplex. Two consequences: the worst case is the same for all n >= 2; and it is the worst
case of ONE smooth convex function, whose gradient descent is projected every K steps onto a subspace
that holds x_0 and x*.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from theory.support.errors import UserError
from theory.worst_case.sdp import (
    Array,
    Constraints,
    Factor,
    Solution,
    SolverError,
    TimeLimitError,
    certified_bound,
    maximise,
    stack,
)

METRICS = ("last", "best", "average_sync", "average_local", "distance")
STAR = -1
# Up to this many points all conditions are imposed at once.
ALL_PAIRS_POINTS = 16
# Tolerance while the conditions that matter are being collected.
COARSE = 1e-4
# Solves after which no condition is dropped any more.
DROPPING_SOLVES = 16
# Up to this many points a failed solve is tried again with all conditions; beyond, memory forbids it.
RETRY_POINTS = 60


@dataclass(frozen=True)
class Schedule:
    """K local steps, R rounds at step size eta L, observed by ``metric``.

    Attributes:
        local_steps, rounds: K, R >= 1.
        step_size: eta L in (0, 2).
        metric: "last" f(xbar_R); "best" min over r <= R of f(xbar_r); "average_sync" the mean of
            f(xbar_r) over r < R (T2); "average_local" the mean of (1/n) sum_i f_i(x_i^t) over
            t < T (T1); "distance" ||xbar_R - x*||^2 (T4).
        one_node: n = 1, or all f_i equal (c = 1): plain gradient descent.
        growth: mu / L in [0, 1); 0 imposes nothing.
        growth_of: "nodes", f_i >= (mu/2) ||x - x*||^2 for all i (A4); or "mean", f only (A4').
    """

    local_steps: int
    rounds: int
    step_size: float
    metric: str = "last"
    one_node: bool = False
    growth: float = 0.0
    growth_of: str = "nodes"

    def __post_init__(self) -> None:
        if self.local_steps < 1 or self.rounds < 1:
            raise UserError("local_steps and rounds must be at least 1")
        if not 0 < self.step_size < 2:
            raise UserError(f"step_size is {self.step_size} / L, allowed: above 0 and below 2 / L")
        if self.metric not in METRICS:
            raise UserError(f"metric is {self.metric!r}, allowed: {', '.join(METRICS)}")
        if not 0 <= self.growth < 1:
            raise UserError(f"growth is {self.growth} L, allowed: at least 0 and below L")
        if self.growth_of not in ("nodes", "mean"):
            raise UserError(f"growth_of is {self.growth_of!r}, allowed: nodes, mean")

    @property
    def points(self) -> int:
        """Gradient evaluations of one node that matter: all local iterates, and xbar_R."""
        last = self.metric in ("last", "best", "distance")
        return self.local_steps * self.rounds + (1 if last else 0)

    @property
    def starts(self) -> list[int]:
        """Indices of xbar_0, xbar_1, ... among the points."""
        return list(range(0, self.points, self.local_steps))


@dataclass(frozen=True)
class Trajectory:
    """Coordinates of one node's points x_0..x_{N-1}, x* and of the gradients there.

    Attributes:
        points: N; x_a is row a, its gradient row N + 1 + a; a = N is x*, all zero.
        mean: (2N + 2, 1 + N), the part shared by the nodes, on the basis x_0, m_0, m_1, ...
        deviation: (2N + 2, N), the node's own part, on the basis v_0, v_1, ...
    """

    points: int
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, schedule: Schedule) -> Trajectory:
        n = schedule.points
        mean, deviation = np.zeros((2 * n + 2, n + 1)), np.zeros((2 * n + 2, n))
        point, spread = np.zeros(n + 1), np.zeros(n)
        point[0] = 1.0
        for t in range(n):
            if t % schedule.local_steps == 0:
                spread[:] = 0.0
            mean[t], deviation[t] = point, spread
            mean[n + 1 + t, 1 + t] = deviation[n + 1 + t, t] = 1.0
            point[1 + t] -= schedule.step_size
            spread[t] -= schedule.step_size
        return cls(n, mean, deviation)

    def blocks(self, one_node: bool) -> tuple[Array, ...]:
        """The vectors block by block; one node has no deviation."""
        return (self.mean,) if one_node else (self.mean, self.deviation)


@dataclass(frozen=True)
class WorstCase:
    """The worst case at L = 1, ||x_0 - x*|| = 1, with what certifies it.

    Attributes:
        schedule: what was solved.
        value: the solver's primal value, attained up to rounding.
        certified: an upper bound on the worst case from the dual multipliers alone, whatever the
            solver's tolerances: negative multipliers removed, and the residuals charged at the largest
            size that a problem of the class can have.
        mean_gram, deviation_gram: M (1+N, 1+N) and V (N, N) (zero for one node).
        losses: f at the points, (N,).
        multipliers: the dual multiplier of each interpolation condition that entered, by (a, b):
            f_a >= f_b + <g_b, x_a - x_b> + ||g_a - g_b||^2 / 2, STAR for x*.
        conditions: how many entered.
        seconds: wall time.
    """

    schedule: Schedule
    value: float
    certified: float
    mean_gram: Array
    deviation_gram: Array
    losses: Array
    multipliers: dict[tuple[int, int], float] = field(repr=False)
    conditions: int
    seconds: float

    @property
    def gap(self) -> float:
        """certified - value."""
        return self.certified - self.value


def worst_case(
    schedule: Schedule, tolerance: float = 1e-9, time_limit: float | None = None
) -> WorstCase:
    """Solve the reduced problem, adding violated interpolation conditions until none is left.

    Args:
        schedule: what to solve.
        tolerance: duality gap and largest violated condition, absolute.
        time_limit: seconds after which to give up, within an iteration of the solver.

    Returns:
        A :class:`WorstCase`.

    Raises:
        SolverError: not converged; TimeLimitError where the time limit passed first.

    References:
        Y. Drori, M. Teboulle, "Performance of first-order methods for smooth convex minimization"
        (Math. Program. 2014); A. Taylor, J. Hendrickx, F. Glineur, "Smooth strongly convex
        interpolation and exact worst-case performance of first-order methods" (Math. Program. 2017).
    """
    begin = time.perf_counter()
    deadline = math.inf if time_limit is None else begin + time_limit
    trajectory = Trajectory.of(schedule)
    goal, goal_blocks = _objective(schedule, trajectory)
    fixed = stack(_fixed_constraints(schedule, trajectory))
    pairs = _first_pairs(schedule)
    coarse = schedule.points > ALL_PAIRS_POINTS
    complete = len(pairs) == schedule.points * (schedule.points + 1)
    solves = 0
    while True:
        solves += 1
        aim = COARSE if coarse else tolerance
        order = sorted(pairs)
        chosen = np.array(order, dtype=np.int64)
        constraints = stack([fixed, _interpolation(schedule, trajectory, chosen)])
        try:
            solution = maximise(
                constraints,
                goal,
                goal_blocks,
                tolerance=aim,
                acceptable=max(100 * tolerance, aim),
                deadline=deadline,
            )
        except TimeLimitError:
            raise
        except SolverError:
            # Without the conditions that don't bind, the optimum may be unbounded in directions that
            # rounding follows; all of them cost time but keep it bounded.
            if complete or schedule.points > RETRY_POINTS:
                raise
            pairs, complete, coarse = _all_pairs(schedule), True, False
            continue
        gaps = _violations(schedule, trajectory, solution)
        new = _worst_pairs(gaps, aim, limit=max(250, 5 * schedule.points)) - pairs
        if coarse:
            # Only the binding conditions are worth their cost; a dropped one can return.
            weights = solution.multipliers[len(fixed) :]
            # Later none is dropped, as the same few could go and return for ever.
            least = COARSE if solves < DROPPING_SOLVES else -math.inf
            pairs = {pair for pair, w in zip(order, weights, strict=True) if w > least} | new
            coarse = bool(new)
        elif new:
            pairs |= new
        else:
            break
    # Every ||x|| <= 1 (a step with eta < 2/L and averaging do not increase the distance to x*), so
    # |F| <= 1/2, and the traces sum to at most 1 + N because ||g|| <= ||x||.
    certified = certified_bound(
        constraints, goal, goal_blocks, solution.multipliers, 0.5, 1 + schedule.points
    )
    weights = solution.multipliers[len(fixed) :]
    blocks = solution.blocks
    n = schedule.points
    return WorstCase(
        schedule=schedule,
        value=solution.primal,
        certified=certified,
        mean_gram=blocks[0],
        deviation_gram=np.zeros((n, n)) if schedule.one_node else blocks[1],
        losses=solution.scalars[:n],
        multipliers={pair: float(w) for pair, w in zip(order, weights, strict=True)},
        conditions=len(order),
        seconds=time.perf_counter() - begin,
    )


def _objective(schedule: Schedule, trajectory: Trajectory) -> tuple[Array, list[Array]]:
    """Weights of the scalars (f at the points; then the minimum for "best") and of the Grams."""
    n = schedule.points
    goal = np.zeros(n + (schedule.metric == "best"))
    blocks = [np.zeros((rows.shape[1],) * 2) for rows in trajectory.blocks(schedule.one_node)]
    if schedule.metric in ("last", "best"):
        goal[-1] = 1.0
    elif schedule.metric == "average_sync":
        goal[schedule.starts] = 1.0 / schedule.rounds
    elif schedule.metric == "average_local":
        goal[:] = 1.0 / n
    else:
        blocks[0] = np.outer(trajectory.mean[n - 1], trajectory.mean[n - 1])
    return goal, blocks


def _fixed_constraints(schedule: Schedule, trajectory: Trajectory) -> list[Constraints]:
    """||x_0||^2 <= 1, the definition of the best iterate, growth of the mean at the xbar_r."""
    n, starts = schedule.points, np.array(schedule.starts)
    scalars, count = n + (schedule.metric == "best"), len(starts)

    def rows(
        at: NDArray[np.int64], weight: float, coefficients: Array, limit: float
    ) -> Constraints:
        """weight ||x_at||^2 + coefficients . F <= limit."""
        zero = np.full(len(at), n)
        nothing = Factor(zero, zero, np.zeros(len(at)))
        square = Factor(at, zero, np.full(len(at), np.sqrt(2 * weight)))
        return Constraints(
            trajectory.blocks(schedule.one_node),
            nothing,
            nothing,
            square,
            coefficients,
            np.full(len(at), limit),
        )

    parts = [rows(np.zeros(1, dtype=np.int64), 1.0, np.zeros((1, scalars)), 1.0)]
    at_starts = np.zeros((count, scalars))
    at_starts[np.arange(count), starts] = -1.0
    if schedule.metric == "best":
        below = at_starts.copy()
        below[:, n] = 1.0
        parts.append(rows(starts, 0.0, below, 0.0))
    if schedule.growth and schedule.growth_of == "mean":
        parts.append(rows(starts, schedule.growth / 2, at_starts, 0.0))
    return parts


def _interpolation(
    schedule: Schedule, trajectory: Trajectory, pairs: NDArray[np.int64]
) -> Constraints:
    """The conditions f_b - f_a + <g_b, x_a - x_b> + ||g_a - g_b||^2 / 2 <= 0, (a, b) = pairs.

    With growth of the nodes the condition of (a, x*) is h_a >= (m/2) ||z_a||^2 instead, where
    z_a = x_a - g_a, h_a = f_a - ||g_a||^2/2, m = mu / (1 - mu). It is necessary, as f lies under
    the parabola h_a + ||y - z_a||^2/2, which must stay above (mu/2) ||y||^2. It is sufficient: the
    largest interpolant is the Moreau envelope of the hull of the points (z_a, h_a), which then lies
    above (m/2) ||.||^2, and the envelope of (m/2) ||.||^2 is (mu/2) ||.||^2.
    """
    n = schedule.points
    a, b = (np.where(column == STAR, n, column) for column in pairs.T)
    ones = np.ones(len(pairs))
    gradient_a, gradient_b = n + 1 + a, n + 1 + b
    left = Factor(gradient_b, np.full(len(pairs), n), ones)
    right = Factor(a, b, ones)
    square = Factor(gradient_a, gradient_b, ones)
    if schedule.growth and schedule.growth_of == "nodes":
        to_star = b == n
        weight = np.sqrt(schedule.growth / (1 - schedule.growth) / 2)
        shifted = Factor(a, gradient_a, np.full(len(pairs), weight))
        left, right = (
            Factor(
                np.where(to_star, shifted.plus, f.plus),
                np.where(to_star, shifted.minus, f.minus),
                np.where(to_star, shifted.scale, f.scale),
            )
            for f in (left, right)
        )
    scalars = np.zeros((len(pairs), n + 1))
    scalars[np.arange(len(pairs)), a] -= 1.0
    scalars[np.arange(len(pairs)), b] += 1.0
    scalars = scalars if schedule.metric == "best" else scalars[:, :n]
    if schedule.metric == "best":
        scalars[:, n] = 0.0
    return Constraints(
        trajectory.blocks(schedule.one_node), left, right, square, scalars, np.zeros(len(pairs))
    )


def _first_pairs(schedule: Schedule) -> set[tuple[int, int]]:
    """All pairs for few points; else the kinds that were active in small problems."""
    n, k = schedule.points, schedule.local_steps
    if n <= ALL_PAIRS_POINTS:
        return _all_pairs(schedule)
    pairs = {(a, STAR) for a in range(n)} | {(STAR, a) for a in range(n)}
    for a in range(n):
        for b in (a + 1, a - 1, a + k, a - k, a - a % k, a - a % k + k, n - 1):
            if 0 <= b < n and a != b:
                pairs.add((a, b))
    pairs |= {(a, b) for a in schedule.starts for b in schedule.starts if a != b}
    return pairs


def _all_pairs(schedule: Schedule) -> set[tuple[int, int]]:
    everything = [*range(schedule.points), STAR]
    return {(a, b) for a in everything for b in everything if a != b}


def _violations(schedule: Schedule, trajectory: Trajectory, solution: Solution) -> Array:
    """By how much each condition (a, b) fails, (N+1, N+1), row and column N for x*."""
    n = schedule.points
    losses = np.append(solution.scalars[:n], 0.0)
    cross, gram = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1))
    for rows, block in zip(trajectory.blocks(schedule.one_node), solution.blocks, strict=True):
        x, g = rows[: n + 1], rows[n + 1 :]
        cross += x @ block @ g.T
        gram += g @ block @ g.T
    norms = np.diag(gram)
    gaps: Array = losses[None, :] - losses[:, None] + cross - np.diag(cross)[None, :]
    gaps = gaps + 0.5 * (norms[:, None] + norms[None, :] - 2 * gram)
    if schedule.growth and schedule.growth_of == "nodes":
        gaps[:, n] = -np.inf  # all of these are imposed from the start
    np.fill_diagonal(gaps, -np.inf)
    return gaps


def _worst_pairs(gaps: Array, threshold: float, limit: int) -> set[tuple[int, int]]:
    n = len(gaps) - 1
    candidates = np.argwhere(gaps > threshold)
    order = np.argsort(-gaps[candidates[:, 0], candidates[:, 1]])[:limit]
    return {(int(a) if a < n else STAR, int(b) if b < n else STAR) for a, b in candidates[order]}
