"""The exact worst case of deterministic Local SGD, by a performance-estimation problem of few points.

The class: f_1..f_n convex, L-smooth, minimised with value 0 at a common x*, in any dimension. All
functions here take L = 1 and ||x_0 - x*|| = 1; the value for L and D is L D times theirs (D times, for
a distance), at the step size eta L.

Reduction (ours), for any fixed outer step beta > 0: a round goes from xbar_r to
xbar_{r+1} = xbar_r + beta (mean_i x_i - xbar_r), x_i the models after K local steps; beta = 1 is the
plain mean. Permuting the nodes of a problem gives a problem with the same metric, and Gram matrices and
values of feasible problems form a convex set; so some worst case has a permutation-invariant Gram
matrix. Write g_i = m + v_i for the gradients, m their mean. By invariance <v_i, m> = 0, and
<v_i^s, v_i^t> = V_st for every i. The nodes start a round at one point, and the outer step uses the mean
of the models alone, in which the v_i cancel: so every xbar_r is x_0 less a combination of the m, whose
weights depend on eta and beta only, and a local iterate is x_i = xbar_r - eta (sum of m + v_i). Hence
every interpolation condition of f_i, and every metric, involves only M = Gram(x_0, m) and V, both psd.
Any such pair (M, V) comes from n nodes for every n >= 2: put v_i = v (x) u_i with u_1..u_n the vertices
of a regular simplex. QED

Two consequences. The worst case is the same for all n >= 2. And it is the worst case of ONE smooth
convex function W(y, w), whose gradient descent is projected every K steps onto the subspace w = 0, which
holds x_0 and x*, and there prolonged by beta. For K = 1 the projected step is a step of the gradient of
W(., 0), of length beta eta: only the product counts.

Nothing above asks that the method should converge: where beta is large the worst case grows with R.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from theory.worst_case import clarabel_route
from theory.worst_case.cells import Cell
from theory.worst_case.conditions import (
    Label,
    Pair,
    Trajectory,
    all_pairs,
    fixed_conditions,
    interpolation,
    likely_pairs,
    objective,
    violations,
    worst_pairs,
)
from theory.worst_case.constraints import (
    Array,
    Constraints,
    Solution,
    SolverError,
    TimeLimitError,
    certified_bound,
)
from theory.worst_case.sdp import maximise

INTERIOR_POINT, CLARABEL = "interior point", "CLARABEL"
#: Up to this many points all conditions are imposed at once.
ALL_PAIRS_POINTS = 16
#: Tolerance while the conditions that matter are being collected.
COARSE = 1e-4
#: Solves after which no condition is dropped any more.
DROPPING_SOLVES = 16
#: Up to this many points a failed solve is tried again with all conditions; beyond, memory forbids it.
RETRY_POINTS = 60


@dataclass(frozen=True)
class Dual:
    """What certifies a value: the program that was solved last, and a multiplier for each inequality.

    sum_k multipliers_k (inequality k) is a proof that goal . F + sum_b <blocks_b, X_b> is at most
    multipliers . limits, up to rounding; :func:`theory.worst_case.constraints.certified_bound` charges
    the rounding.

    Attributes:
        constraints: the inequalities over F (f at the points) and the Gram matrices X_b.
        goal, blocks: the metric's weights on F and on the Gram matrices.
        labels: what each inequality is, see :mod:`theory.worst_case.conditions`.
        multipliers: (m,), in the order of ``labels``; some may be below 0 by rounding.
        largest_scalar, largest_trace: bounds on |F| and on the sum of traces over the class.
    """

    constraints: Constraints = field(repr=False)
    goal: Array = field(repr=False)
    blocks: list[Array] = field(repr=False)
    labels: list[Label] = field(repr=False)
    multipliers: Array = field(repr=False)
    largest_scalar: float
    largest_trace: float

    def certified(self) -> float:
        """The bound on the worst case that the multipliers alone prove."""
        return certified_bound(
            self.constraints,
            self.goal,
            self.blocks,
            self.multipliers,
            self.largest_scalar,
            self.largest_trace,
        )


@dataclass(frozen=True)
class WorstCase:
    """The worst case at L = 1, ||x_0 - x*|| = 1, with what certifies it.

    Attributes:
        cell: what was solved.
        value: the solver's primal value, attained up to rounding.
        certified: an upper bound on the worst case from the dual multipliers alone, whatever the
            solver's tolerances: negative multipliers removed, and the residuals charged at the largest
            size that a problem of the class can have.
        mean_gram, deviation_gram: M (1+N, 1+N) and V (N, N) (zero for one node).
        losses: f at the points, (N,).
        dual: the inequalities with their multipliers.
        solver: which one converged, INTERIOR_POINT or CLARABEL.
        seconds: wall time.
    """

    cell: Cell
    value: float
    certified: float
    mean_gram: Array
    deviation_gram: Array
    losses: Array
    dual: Dual = field(repr=False)
    solver: str
    seconds: float

    @property
    def gap(self) -> float:
        """certified - value."""
        return self.certified - self.value

    @property
    def multipliers(self) -> dict[Pair, float]:
        """The dual multiplier of each interpolation condition that entered, by (a, b), STAR for x*."""
        pairs = zip(self.dual.labels, self.dual.multipliers, strict=True)
        return {(label.a, label.b): float(w) for label, w in pairs if label.kind == "pair"}

    @property
    def conditions(self) -> int:
        """How many interpolation conditions entered."""
        return sum(label.kind == "pair" for label in self.dual.labels)


def worst_case(
    cell: Cell,
    tolerance: float = 1e-9,
    time_limit: float | None = None,
    solver: str = INTERIOR_POINT,
) -> WorstCase:
    """Solve the reduced problem, adding violated interpolation conditions until none is left.

    Beyond ALL_PAIRS_POINTS points the solver starts from the pairs that are likely to matter, and
    those that don't bind are dropped while it is coarse. All conditions, with x* too, are checked
    after every solve, and the last solve has none that fails by more than ``tolerance``.

    Args:
        cell: what to solve.
        tolerance: duality gap and largest violated condition, absolute.
        time_limit: seconds after which to give up; the solver begins no iteration that is likely to
            pass it.
        solver: INTERIOR_POINT, ours, with CLARABEL where it does not converge; or CLARABEL alone.

    Returns:
        A :class:`WorstCase`.

    Raises:
        SolverError: neither solver converged; TimeLimitError where the time limit passed first.

    References:
        Y. Drori, M. Teboulle, "Performance of first-order methods for smooth convex minimization"
        (Math. Program. 2014); A. Taylor, J. Hendrickx, F. Glineur, "Smooth strongly convex
        interpolation and exact worst-case performance of first-order methods" (Math. Program. 2017).
    """
    begin = time.perf_counter()
    deadline = math.inf if time_limit is None else begin + time_limit
    trajectory = Trajectory.of(cell)
    goal, goal_blocks = objective(cell, trajectory)
    fixed, labels = fixed_conditions(cell, trajectory)
    coarse = cell.points > ALL_PAIRS_POINTS
    pairs = likely_pairs(cell) if coarse else all_pairs(cell)
    complete = not coarse
    solves = 0
    while True:
        solves += 1
        aim = COARSE if coarse else tolerance
        order = sorted(pairs)
        chosen = np.array(order, dtype=np.int64)
        constraints = Constraints.stack([fixed, interpolation(cell, trajectory, chosen)])
        program = constraints, goal, goal_blocks
        acceptable = max(100 * tolerance, aim)
        solve = clarabel_route.maximise if solver == CLARABEL else maximise
        try:
            solution = solve(*program, tolerance=aim, acceptable=acceptable, deadline=deadline)
        except TimeLimitError:
            raise
        except SolverError:
            # Without the conditions that don't bind, the optimum may be unbounded in directions that
            # rounding follows; all of them cost time but keep it bounded.
            if not complete and cell.points <= RETRY_POINTS:
                pairs, complete, coarse = all_pairs(cell), True, False
                continue
            if solver == CLARABEL or not clarabel_route.available():
                raise
            solver = CLARABEL
            continue
        gaps = violations(cell, trajectory, solution)
        new = worst_pairs(gaps, aim, limit=max(250, 5 * cell.points)) - pairs
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
    largest_scalar, largest_trace = _sizes(cell)
    dual = Dual(
        constraints,
        goal,
        goal_blocks,
        [*labels, *(Label("pair", a, b) for a, b in order)],
        solution.multipliers,
        largest_scalar,
        largest_trace,
    )
    return _finished(cell, solution, dual, solver, time.perf_counter() - begin)


def _sizes(cell: Cell) -> tuple[float, float]:
    """Bounds on |F| and on the sum of the traces of the Gram matrices over the class.

    A local step with eta < 2 and averaging don't increase the distance to x*, and the outer step
    multiplies it by at most ``cell.round_growth()``; f <= ||x||^2/2 and ||g|| <= ||x||.
    """
    growth = cell.round_growth()
    squares = [growth ** (2 * (a // cell.local_steps)) for a in range(cell.points)]
    return 0.5 * max(squares), 1.0 + sum(squares)


def _finished(cell: Cell, solution: Solution, dual: Dual, solver: str, seconds: float) -> WorstCase:
    n = cell.points
    return WorstCase(
        cell=cell,
        value=solution.primal,
        certified=dual.certified(),
        mean_gram=solution.blocks[0],
        deviation_gram=np.zeros((n, n)) if cell.one_node else solution.blocks[1],
        losses=solution.scalars[:n],
        dual=dual,
        solver=solver,
        seconds=seconds,
    )
