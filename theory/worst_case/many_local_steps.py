r"""K to infinity: what exact local minimisation can do at worst.

Local gradient descent on a convex f_i that has a minimiser converges to a minimiser, so as K grows a
round tends to: every node goes from xbar_r to a minimiser z_i of f_i, and the z_i are averaged.

Upper values. As in :mod:`theory.worst_case.reduction` the worst case may be taken invariant under permutations
of the nodes, so everything depends on two Gram matrices: of the parts that the nodes share and of their
own parts. With L = 1 and eta <= 1, for a node and all its minimisers c, among them x* and its z of
every round, :func:`exact_local_worst_case` imposes

* the interpolation conditions of smooth convex functions at the xbar_r and the c;
* ||z_(r+1) - c||^2 <= ||xbar_r - c||^2 - 2 f_i(xbar_r): the proof of T2 in
  :func:`theory.theorems.t2_synchronised.sharp_bound`, with c for x* and K to infinity.

Both are necessary, so the value bounds, for every problem of the class and every R, what the metric
tends to as K grows. Whether some problem attains it is open for R >= 2.

At eta = 1/L the last iterate is at most L D / 8 for every R and every K >= 2, so in the limit too: S2 of
:func:`theory.theorems.t2_synchronised.last_bound`.

For one round L D / 8 is reached in the limit: :func:`spiral_problem`. Let u_0 = x_0, and u_j the
projection of u_(j-1) on the ray at angle j delta, delta = pi/(2m), in the plane spanned by x_0 and a
direction at 45 degrees to the space of what is shared. On the convex hull of 0 and u_1..u_m take the
convex piecewise linear function with heights h_1 > .. > h_m = 0 at the u_j and 0 at 0. Gradient descent
at eta = 1/L on its Moreau envelope is the proximal point method, which goes from ray to ray if the
heights fall fast and stops near u_m, of norm cos(delta)^m. So f(xbar_1) tends to cos(delta)^(2m) / 8 as
the heights and their ratios go to 0, and to 1/8 with m: the worst case over problems and K of the last
iterate after one round, for K large, is exactly L D / 8. It takes of the order of 1/h_(m-1) steps, and
the heights fall geometrically: the gap of this problem to 1/8 closes as 1 / log K.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from theory.simulation.local_sgd import run_local_sgd
from theory.support.errors import UserError
from theory.worst_case.closed_forms import crossing_limit
from theory.worst_case.constraints import Array, Constraints, Factor, Solution, certified_bound
from theory.worst_case.extremal import ExtremalProblem, SmoothConvexInterpolant, simplex_vertices
from theory.worst_case.sdp import maximise

METRICS = ("last", "best")
#: Integer coefficients, highest power first, of a polynomial with the root kink()[0]: found as an
#: integer relation of its powers at 240 digits.
KINK_POLYNOMIAL = (196608, -481280, 427696, -34912, -36208, 3152, -27)
_STAR = "x*"
_Name = str | tuple[str, int]


@dataclass(frozen=True)
class LimitRow:
    """One R of the limit table, in units of L D.

    Attributes:
        rounds: R.
        last, best: upper values of f(xbar_R) and of the min over r <= R of f(xbar_r).
        last_certified, best_certified: the same from the dual multipliers alone.
        one_step: L D / (4R + 2), the worst last iterate of K = 1 at eta = 1/L.
        crossing: I1 at its best s, for exact local minimisation.
        seconds: for both.
    """

    rounds: int
    last: float
    best: float
    last_certified: float
    best_certified: float
    one_step: float
    crossing: float
    seconds: float


@dataclass(frozen=True)
class SpiralRow:
    """The explicit problem behind L D / 8, simulated.

    Attributes:
        hops: m.
        decay: each height over the one before.
        local_steps: K that was run, R = 1, eta = 1/L.
        value: f(xbar_1) that the simulator measured.
        limit: cos(pi/(2m))^(2m) / 8, for heights to 0 and K to infinity.
    """

    hops: int
    decay: float
    local_steps: int
    value: float
    limit: float


class _Builder:
    """Collects the inequalities of one problem over named vectors."""

    def __init__(self, rounds: int, scalars: int) -> None:
        self.mean_size, self.own_size = 2 * rounds + 2, 2 * rounds + 1
        self.mean: list[Array] = []
        self.own: list[Array] = []
        self.index: dict[_Name, int] = {}
        self.scalars = scalars
        self.factors: list[tuple[tuple[int, int, float], ...]] = []
        self.weights: list[Array] = []
        self.limits: list[float] = []

    def vector(self, name: _Name, mean: dict[int, float], own: dict[int, float]) -> None:
        self.index[name] = len(self.mean)
        for rows, size, entries in (
            (self.mean, self.mean_size, mean),
            (self.own, self.own_size, own),
        ):
            row = np.zeros(size)
            for position, value in entries.items():
                row[position] = value
            rows.append(row)

    def at_most(
        self,
        limit: float,
        losses: dict[int, float],
        product: tuple[_Name, _Name, _Name, _Name, float] | None = None,
        square: tuple[_Name, _Name, float] | None = None,
    ) -> None:
        """losses . F + scale <a - b, c - d> + (weight/2) ||e - f||^2 <= limit."""
        left = right = quadratic = (0, 0, 0.0)
        if product is not None:
            a, b, c, d, scale = product
            left = self.index[a], self.index[b], 1.0
            right = self.index[c], self.index[d], scale
        if square is not None:
            e, f, weight = square
            quadratic = self.index[e], self.index[f], math.sqrt(weight)
        self.factors.append((left, right, quadratic))
        row = np.zeros(self.scalars)
        for position, value in losses.items():
            row[position] = value
        self.weights.append(row)
        self.limits.append(limit)

    def constraints(self) -> Constraints:
        left, right, square = (
            Factor(
                np.array([f[kind][0] for f in self.factors]),
                np.array([f[kind][1] for f in self.factors]),
                np.array([f[kind][2] for f in self.factors]),
            )
            for kind in range(3)
        )
        return Constraints(
            (np.array(self.mean), np.array(self.own)),
            left,
            right,
            square,
            np.array(self.weights),
            np.array(self.limits),
        )


def exact_local_worst_case(rounds: int, metric: str = "last") -> tuple[float, float]:
    """The upper value of a metric under exact local minimisation, L = 1 and ||x_0 - x*|| = 1.

    Args:
        rounds: R >= 1.
        metric: "last", f(xbar_R); or "best", min over r <= R of f(xbar_r).

    Returns:
        The solver's value, and a bound on it certified by the multipliers.

    Raises:
        UserError: an argument outside its range.
        SolverError: not converged.
    """
    if rounds < 1:
        raise UserError(f"rounds is {rounds}, allowed: at least 1")
    if metric not in METRICS:
        raise UserError(f"metric is {metric!r}, allowed: {', '.join(METRICS)}")
    builder = _describe(rounds, metric)
    goal = np.zeros(builder.scalars)
    goal[-1] = 1.0
    blocks = [np.zeros((builder.mean_size,) * 2), np.zeros((builder.own_size,) * 2)]
    constraints = builder.constraints()
    solution: Solution = maximise(constraints, goal, blocks, tolerance=1e-9)
    # ||x||, ||z|| <= 1 and ||g|| <= ||x||: R + 1 gradients, x_0 and R minimisers.
    trace = 2.0 * rounds + 2
    bound = certified_bound(constraints, goal, blocks, solution.multipliers, 0.5, trace)
    return solution.primal, bound


def _describe(rounds: int, metric: str) -> _Builder:
    """The conditions named in the head of this module."""
    # shared part: xbar_0..xbar_R, gradients' means; own part: of z_1..z_R, of the gradients
    builder = _Builder(rounds, rounds + 1 + (metric == "best"))
    builder.vector(_STAR, {}, {})
    for r in range(rounds + 1):
        builder.vector(("x", r), {r: 1.0}, {})
        builder.vector(("g", r), {rounds + 1 + r: 1.0}, {rounds + r: 1.0})
    for r in range(1, rounds + 1):
        builder.vector(("z", r), {r: 1.0}, {r - 1: 1.0})
        builder.vector(("middle", r), {r: 0.5, r - 1: 0.5}, {r - 1: 0.5})
    minimisers: list[_Name] = [_STAR, *(("z", r) for r in range(1, rounds + 1))]
    builder.at_most(1.0, {}, square=(("x", 0), _STAR, 2.0))
    for r in range(rounds + 1):
        x, g = ("x", r), ("g", r)
        builder.at_most(0.0, {r: -1.0}, square=(g, _STAR, 1.0))
        for c in minimisers:
            builder.at_most(0.0, {r: 1.0}, (g, _STAR, c, x, 1.0), (g, _STAR, 1.0))
        for s in range(rounds + 1):
            if s != r:
                builder.at_most(
                    0.0, {r: 1.0, s: -1.0}, (g, _STAR, ("x", s), x, 1.0), (g, ("g", s), 1.0)
                )
    for r in range(1, rounds + 1):
        for c in minimisers:
            # ||z - c||^2 - ||x - c||^2 = 2 <z - x, (z + x)/2 - c>
            builder.at_most(0.0, {r - 1: 2.0}, (("z", r), ("x", r - 1), ("middle", r), c, 2.0))
    if metric == "best":
        for r in range(rounds + 1):
            builder.at_most(0.0, {rounds + 1: 1.0, r: -1.0})
    return builder


def limit_rows(rounds: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)) -> list[LimitRow]:
    """The table of upper values.

    Raises:
        SolverError: not converged.
    """
    rows = []
    for count in rounds:
        begin = time.perf_counter()
        last, last_bound = exact_local_worst_case(count, "last")
        best, best_bound = exact_local_worst_case(count, "best")
        # At eta = 1/L one step minimises the two quadratics of I1 exactly.
        crossing = crossing_limit(count)
        seconds = time.perf_counter() - begin
        one_step = 1 / (4 * count + 2)
        rows.append(
            LimitRow(count, last, best, last_bound, best_bound, one_step, crossing, seconds)
        )
    return rows


def kink() -> tuple[float, float, float]:
    """The worst last iterate of K = 3, R = 1, eta = 1/L in closed form, and its two parameters.

    As a problem it is of the class for every K >= 2, so no K from 3 on is better after one round. Read
    off the solver's Gram matrices: in the plane of x_0 = (1, 0) and a node's own direction the minimisers
    are the segment from 0 to z = p (c, s), s^2 = 1 - c^2, and the nonsmooth function whose Moreau
    envelope f_i is has one more corner, u = z + q (s, -c) = x_1, with height h = <x_0 - u, u>. The second
    step is exact. With y = xbar_1 = (p c, 0) at distance d = p c s from the segment and the slope
    m = h / q <= d, f_i(y) = m d - m^2/2. The best q is sqrt(p (p - c)), so m = s - 2 q, and

    value = max over c and p of m p c s - m^2/2,  m = sqrt(1 - c^2) - 2 sqrt(p (p - c)).

    Returns:
        The value in L D, p and c.
    """

    def negative(point: Array) -> float:
        p, c = point
        if not 0 < c < 1 or p < c:
            return 0.0
        s = math.sqrt(1 - c * c)
        slope = s - 2 * math.sqrt(p * (p - c))
        return -(slope * p * c * s - 0.5 * slope * slope)

    options = {"xatol": 1e-12, "fatol": 1e-16, "maxiter": 2000}
    found = minimize(negative, [0.82, 0.8], method="Nelder-Mead", options=options)
    return -float(found.fun), float(found.x[0]), float(found.x[1])


def kink_problem(n_nodes: int = 2) -> ExtremalProblem:
    """The problem behind :func:`kink`, for any n >= 2; its dimension is n."""
    _, p, c = kink()
    s, q = math.sqrt(1 - c * c), math.sqrt(p * (p - c))
    z = p * np.array([c, s])
    u = z + q * np.array([s, -c])
    height = float((np.array([1.0, 0.0]) - u) @ u)
    function = SmoothConvexInterpolant(np.array([[0.0, 0.0], z, u]), np.array([0.0, 0.0, height]))
    start = np.zeros(n_nodes)
    start[0] = 1.0
    return ExtremalProblem(function, 1, simplex_vertices(n_nodes), start, np.zeros(n_nodes))


def spiral_limit(hops: int) -> float:
    """cos(pi/(2m))^(2m) / 8: f(xbar_1) of the spiral for heights to 0 and K to infinity."""
    return math.cos(math.pi / (2 * hops)) ** (2 * hops) / 8


def spiral_problem(
    hops: int, decay: float = 0.1, height: float = 1e-3, n_nodes: int = 2
) -> ExtremalProblem:
    """The problem on which exact local minimisation tends to L D / 8 after one round.

    Args:
        hops: m >= 2 feet of the spiral.
        decay: each height over the one before, in (0, 1).
        height: the first foot's, above 0.
        n_nodes: at least 2.

    Returns:
        A problem with L = 1, ||x_0|| = 1, x* = 0, dimension 2 + (n - 1).

    Raises:
        UserError: an argument outside its range.
    """
    if hops < 2 or n_nodes < 2:
        raise UserError("hops and n_nodes must be at least 2")
    if not (0 < decay < 1 and height > 0):
        raise UserError("decay must be in (0, 1) and height above 0")
    angles = np.arange(hops + 1) * math.pi / (2 * hops)
    radii = math.cos(angles[1]) ** np.arange(hops + 1)
    slanted = radii * np.sin(angles) / math.sqrt(2)
    feet = np.column_stack([radii * np.cos(angles), slanted, slanted])[1:]
    heights = height * decay ** np.arange(hops)
    heights[-1] = 0.0
    function = SmoothConvexInterpolant(np.vstack([np.zeros(3), feet]), np.append(0.0, heights))
    dimension = 2 + n_nodes - 1
    start = np.zeros(dimension)
    start[0] = 1.0
    return ExtremalProblem(function, 2, simplex_vertices(n_nodes), start, np.zeros(dimension))


def spiral_row(hops: int, decay: float, height: float, local_steps: int) -> SpiralRow:
    """Run the spiral for one round."""
    problem = spiral_problem(hops, decay, height)
    result = run_local_sgd(
        problem,
        step_size=1.0,
        local_steps=local_steps,
        rounds=1,
        gradient="full",
        engine="numpy",
        record=(0, local_steps),
    )
    value = float(result.history["global_loss"][0, 0, -1])
    return SpiralRow(hops, decay, local_steps, value, spiral_limit(hops))
