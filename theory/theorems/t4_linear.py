"""T4, T4': linear rates under quadratic growth.

Statement
---------
Under A0-A2 and eta <= 1/L,
T4, with A4 (every f_i grows):   E||xbar^T - x*||^2 <= (1 - eta mu)^T D,
T4', with A4' (only f grows):    E||xbar_R - x*||^2 <= (1 - eta mu)^R D.
Local steps count in the first, one contraction a round is left in the second.

Proof
-----
Lemma 1 with phi = 1 lowers D_t = (1/n) sum_i E||x_i^t - x*||^2 by at least
2 eta (1/n) sum_i E f_i(x_i^t) at every step, and averaging does not raise it.
T4: f_i(x_i^t) >= (mu/2)||x_i^t - x*||^2, so D_{t+1} <= (1 - eta mu) D_t; and
||xbar^T - x*||^2 is at most the mean over nodes (Jensen).
T4': at the first step of a round all nodes hold xbar_r, where the mean over
nodes of f_i is f(xbar_r) >= (mu/2)||xbar_r - x*||^2; the other steps of the
round do not raise D_t. QED
In over-parameterized problems growth is meant on the span in which the
iterates move, and only where they can be: no node leaves the ball of radius
sqrt(D) about x*.
"""

from __future__ import annotations

import math

import numpy as np

from theory.problems.explicit import quadratic_nodes, scalar_problem
from theory.problems.margin import MarginProblem
from theory.problems.protocols import KnowsConstants
from theory.theorems.assumptions import (
    convex,
    deterministic,
    everyone,
    grows_globally,
    grows_locally,
    interpolation,
    local_steps_from,
    plain_mean,
    smooth,
    step_below,
    step_one_over_l,
)
from theory.theorems.base import (
    Assumption,
    Instance,
    Metric,
    Setting,
    Theorem,
    full_setting,
    one_over_l,
)

DISTANCE = Metric("distance")

# ---- bound ---------------------------------------------------------------------------------------


def bound(*, D: float, mu: float, eta: float, T: int) -> float:
    """(1 - eta mu)^T D for T4; with R for T and the mu of f, T4'."""
    return _power(1.0 - eta * mu, T) * D


def _power(factor: float, count: int) -> float:
    # Underflows to 0 in place of raising, and a factor that rounding took below 0 counts as 0.
    return math.exp(count * math.log(factor)) if factor > 0 else 0.0**count


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound(D=problem.initial_distance, mu=problem.local_growth, eta=setting.step_size, T=t)


def _bound_global(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound(
        D=problem.initial_distance,
        mu=problem.global_growth,
        eta=setting.step_size,
        T=t // setting.local_steps,
    )


# ---- communication complexity --------------------------------------------------------------------


def rounds_to(*, L: float, D: float, mu: float, eps: float, K: int = 1) -> float:
    """(L/mu) log(D/eps)/K rounds to ||xbar_R - x*||^2 <= eps at eta = 1/L; T4' has K = 1 in it."""
    return L / mu * math.log(D / eps) / K


def _rounds_to(problem: KnowsConstants, eps: float, local_steps: int) -> float:
    return rounds_to(
        L=problem.smoothness,
        D=problem.initial_distance,
        mu=problem.local_growth,
        eps=eps,
        K=local_steps,
    )


def _rounds_to_global(problem: KnowsConstants, eps: float, _: int) -> float:
    return rounds_to(
        L=problem.smoothness, D=problem.initial_distance, mu=problem.global_growth, eps=eps
    )


# ---- tight instances -----------------------------------------------------------------------------


def instance_3(
    rounds: int, dimension: int = 4, local_steps: int = 1, smoothness: float = 1.0
) -> Instance:
    """I3 (T4 with equality): n = 1, the d unit vectors as samples, one drawn uniformly a step.

    f_1(x; j) = (L/2) x_j^2, eta = 1/L, so mu = L/d, and
        E||x^T||^2 = (1 - 1/d)^T D exactly.

    Proof. f_1(x) = (L/2d)||x||^2. A step sets the drawn coordinate to 0 and
    keeps the others, so E||x^{t+1}||^2 = (1 - 1/d) E||x^t||^2. QED
    """
    return Instance(
        problem=MarginProblem(
            [np.sqrt(smoothness) * np.eye(dimension)],
            [np.zeros(dimension)],
            start=np.full(dimension, dimension**-0.5),
            name="I3",
            heterogeneity="instance",
        ),
        setting=Setting(step_size=1.0 / smoothness, local_steps=local_steps, rounds=rounds),
        theorem="T4",
        metric=DISTANCE,
        value=float(np.exp(local_steps * rounds * np.log1p(-1.0 / dimension))),
        limit=1.0,
    )


def instance_simplex(
    rounds: int,
    local_steps: int = 2,
    n_nodes: int = 3,
    growth: float = 0.3,
    smoothness: float = 1.0,
) -> Instance:
    """IS (T4'/S4 with equality): projections on lines that lean towards a simplex.

    f_i(x) = (L/2)(||x||^2 - <v_i, x>^2), v_i = sqrt(1 - m) e_0 + sqrt(m) u_i,
    m = mu/L, u_1..u_n the vertices of a regular simplex (unit vectors that sum
    to 0) in the n - 1 dimensions across e_0; x_0 = e_0, eta = 1/L, full
    gradients, any K >= 1. For n >= 2 and m <= (n - 1)/n the growth of f is mu,
        ||xbar_R||^2 = (1 - m)^{2R} D.

    Proof. v_i is a unit vector, so H_i = L(I - v_i v_i') is L times a
    projection: the first step of a round at eta = 1/L lands on the line of
    v_i, where f_i = 0, and the others stay. From e_0 node i lands on
    sqrt(1 - m) v_i, and the mean over nodes is (1 - m) e_0. H is L(I -
    (1 - m) e_0 e_0' - (m/(n - 1)) on the span of the u_i), with the
    eigenvalues L m and L(1 - m/(n - 1)), of which L m is the least iff m <=
    (n - 1)/n. QED
    """
    m = growth / smoothness
    centred = np.eye(n_nodes) - 1.0 / n_nodes
    values, vectors = np.linalg.eigh(centred)
    vertices = centred @ vectors[:, values > 0.5]
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    lines = np.hstack([np.full((n_nodes, 1), np.sqrt(1 - m)), np.sqrt(m) * vertices])
    hessians = smoothness * (np.eye(n_nodes) - lines[:, :, None] * lines[:, None, :])
    return Instance(
        problem=quadratic_nodes(hessians, np.eye(n_nodes)[0], smoothness, "IS"),
        setting=full_setting(1.0 / smoothness, local_steps, rounds),
        theorem="T4'/S4",
        metric=DISTANCE,
        value=float(np.exp(2 * rounds * np.log1p(-m))),
        limit=1.0,
    )


def instance_bend(
    growth: float = 0.3, smoothness: float = 1.0, step_factor: float = 1.0
) -> Instance:
    """IB (T4/S5 with equality at T = 1): one function that is first round, then straight, then round.

    n = 1, d = 1, x_0 = 1, m = mu/L, s = m/(2 - m), k = 2s. With z = 1 - s,
    for |x| <= s: f = L x^2/2; up to 1: f = L s(|x| - s/2); up to z + k: f =
    L (z s + (|x| - z)^2/2); beyond: f = mu x^2/2. eta = step_factor/L <= 1/L:
    x^1 = 1 - eta L s, so ||x^1||^2 = (1 - eta mu/(2 - m))^2 D.

    Proof. In units with L = 1 f is the envelope of the convex phi(y) =
    max(s |y|, c y^2/2), c = m/(1 - m), whose two branches meet at y = 2 s/c =
    2 (1 - m)/(2 - m) = 1 - s = z: the proximal point is 0 up to x = s, x - s
    from there to z + s = 1, z up to z + c z = 2s + z, and (1 - m) x beyond. So
    f is convex and 1-smooth, and as phi >= c y^2/2, whose envelope is m x^2/2,
    it grows with mu. At x_0 = 1 the slope is s = m/(2 - m). QED
    """
    m = growth / smoothness
    s = m / (2 - m)
    z = 1 - s

    def value(x: np.ndarray) -> np.ndarray:
        size = np.abs(x)
        pieces = [size <= s, size <= 1, size <= z + 2 * s]
        values = [0.5 * size**2, s * (size - 0.5 * s), z * s + 0.5 * (size - z) ** 2]
        return smoothness * np.select(pieces, values, 0.5 * m * size**2)

    def derivative(x: np.ndarray) -> np.ndarray:
        size = np.abs(x)
        pieces = [size <= s, size <= 1, size <= z + 2 * s]
        slopes = np.select(pieces, [size, np.full_like(size, s), size - z], m * size)
        return smoothness * np.sign(x) * slopes

    return Instance(
        problem=scalar_problem(value, derivative, smoothness=smoothness, growth=growth, name="IB"),
        setting=full_setting(step_factor / smoothness, 1, 1),
        theorem="T4/S5",
        metric=DISTANCE,
        value=float((1 - step_factor * s) ** 2),
        limit=1.0,
    )


# ---- sharper -------------------------------------------------------------------------------------


def sharp_bound(*, L: float, D: float, mu: float, eta: float, T: int) -> float:
    """S5: (1 - eta mu/(2 - mu/L))^{2T} D with A4, full gradients, eta <= 1/L; exact at T = 1.

    Growth has to hold within sqrt(D)/(1 - mu/(2L)) of x*, a little beyond the
    iterates; for quadratics it holds everywhere. Within sqrt(D) alone it is not
    enough: a Huber function with its corner at 1 - sqrt(1 - mu) (L = D = 1)
    grows with mu there, and its first step leaves (1 - mu) D.

    Proof (L = 1, x* = 0). f_i is the envelope of a convex phi >= 0, phi(0) = 0,
    and z = x - grad f_i(x) its proximal point (proof of T2/S2), so g = x - z
    is a subgradient of phi at z, and phi(0) = 0 gives <x - z, z> >= phi(z).
    f_i(y) <= phi(z) + ||y - z||^2/2 for every y; with f_i(y) >= mu ||y||^2/2
    at y = z/(1 - mu) this is phi(z) >= (mu/(2(1 - mu))) ||z||^2. So <x, z> >=
    ||z||^2 (1 + mu/(2(1 - mu))), and ||z|| <= ||x|| (1 - mu)/(1 - mu/2). Then
    ||x - eta g|| <= (1 - eta)||x|| + eta ||z|| <= (1 - eta mu/(2 - mu))||x||
    for every node; averaging does not raise the mean square. QED
    Where ||z/(1 - mu)|| is beyond r = ||x||/(1 - mu/2), take y of norm r along
    z instead: ||x|| ||z|| >= ||z||^2 + mu r^2/2 - (r - ||z||)^2/2 fails for
    ||z|| > (1 - mu) r, so this can't happen, and growth within r is enough.
    """
    return _power(1.0 - eta * mu / (2 - mu / L), 2 * T) * D


def _sharp_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return sharp_bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        mu=problem.local_growth,
        eta=setting.step_size,
        T=t,
    )


def grows_beyond(problem: KnowsConstants, _: Setting) -> Assumption:
    """growth radius: A4 holds within sqrt(D)/(1 - mu/(2L)) of x*."""
    needed = math.sqrt(problem.initial_distance) / (
        1 - 0.5 * problem.local_growth / problem.smoothness
    )
    ok = problem.growth_radius >= needed
    reason = f"known within {problem.growth_radius:.3g} of x*, needed: {needed:.3g}"
    return Assumption("growth radius", ok, reason)


def sharp_bound_global(*, L: float, D: float, mu: float, R: int) -> float:
    """S4: (1 - mu/L)^{2R} D with A4', full gradients, eta = 1/L and K >= 2; exact (IS).

    Proof (L = 1, x* = 0; the notation of T2/S2's proof, where y_i ends the
    round that began at xbar_{r-1}). The envelope gives f_i(y) <= phi_i(y_i) +
    ||y - y_i||^2/2 for every y, so mu ||y||^2 <= 2 f(y) <= 2 Phi + m -
    2 <y, xbar_r> + ||y||^2. Let ||y|| = sqrt(D_{r-1}), y along xbar_r:
    2 sqrt(D_{r-1} D_r) <= 2 Phi + m + (1 - mu) D_{r-1}. (d) with
    2 f(xbar_{r-1}) >= mu D_{r-1} is m <= (1 - mu) D_{r-1} - 2 (K-1) Phi.
    Together sqrt(D_{r-1} D_r) <= (1 - mu) D_{r-1} - (K-2) Phi, and the last
    term is not positive for K >= 2. QED
    Growth is used within sqrt(D) of x* only.
    """
    return _power(1 - mu / L, 2 * R) * D


def _sharp_bound_global(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return sharp_bound_global(
        L=problem.smoothness,
        D=problem.initial_distance,
        mu=problem.global_growth,
        R=t // setting.local_steps,
    )


# ---- the theorems --------------------------------------------------------------------------------

_CLASS = (smooth, convex, interpolation)

T4_S5 = Theorem(
    name="T4/S5",
    title="linear rate an iteration, full gradients",
    statement="||xbar^T - x*||^2 <= (1 - eta mu/(2 - mu/L))^{2T} D, mu of every f_i",
    metric=DISTANCE,
    order=None,
    assumptions=(
        *_CLASS,
        grows_locally,
        grows_beyond,
        step_below(1.0, strict=False),
        deterministic,
        everyone,
        plain_mean,
    ),
    formula=sharp_bound,
    bound=_sharp_bound,
    default_step=one_over_l,
    instances=(instance_bend,),
    tightest="1 (T = 1: IB)",
    module=__name__,
)
T4_GLOBAL_S4 = Theorem(
    name="T4'/S4",
    title="linear rate a round, full gradients, K >= 2",
    statement="||xbar_R - x*||^2 <= (1 - mu/L)^{2R} D, mu of f",
    metric=DISTANCE,
    order=None,
    assumptions=(
        *_CLASS,
        grows_globally,
        step_one_over_l,
        deterministic,
        local_steps_from(2),
        everyone,
        plain_mean,
    ),
    formula=sharp_bound_global,
    bound=_sharp_bound_global,
    default_step=one_over_l,
    instances=(instance_simplex,),
    tightest="1 (IS)",
    module=__name__,
)
T4 = Theorem(
    name="T4",
    title="linear rate an iteration",
    statement="E||xbar^T - x*||^2 <= (1 - eta mu)^T D, mu of every f_i",
    metric=DISTANCE,
    order=None,
    assumptions=(*_CLASS, grows_locally, step_below(1.0, strict=False), plain_mean),
    formula=bound,
    bound=_bound,
    default_step=one_over_l,
    rounds_to=_rounds_to,
    sharper=(T4_S5,),
    instances=(instance_3,),
    tightest="1 (I3)",
    module=__name__,
)
T4_GLOBAL = Theorem(
    name="T4'",
    title="linear rate a round",
    statement="E||xbar_R - x*||^2 <= (1 - eta mu)^R D, mu of f",
    metric=DISTANCE,
    order=None,
    assumptions=(*_CLASS, grows_globally, step_below(1.0, strict=False), plain_mean),
    formula=bound,
    bound=_bound_global,
    default_step=one_over_l,
    rounds_to=_rounds_to_global,
    sharper=(T4_GLOBAL_S4,),
    instances=(instance_3, instance_simplex),
    tightest="1 (I3, K = 1)",
    module=__name__,
)

REFERENCES = """
Linear rates of SGD under interpolation: S. Vaswani, F. Bach, M. Schmidt,
"Fast and faster convergence of SGD for over-parameterized models" (AISTATS
2019). Quadratic growth in place of strong convexity: I. Necoara, Y. Nesterov,
F. Glineur, "Linear convergence of first order methods for non-strongly convex
optimization" (Math. Program. 2019). Constants and proofs here are this
project's.
"""
