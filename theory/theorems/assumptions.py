"""The hypotheses A0-A5, what a theorem may ask of a setting, and Lemmas 1 and 2.

Notation: n nodes, f(x) = (1/n) sum_i f_i(x), f_i(x) = E_xi f_i(x; xi). All
nodes start at x_0; x_i^{t+1} = x_i^t - eta g_i^t, g_i^t = grad f_i(x_i^t;
xi_i^t); when K divides t + 1 every x_i^{t+1} is replaced by the mean over
nodes. T = K R. xbar^t is the mean over nodes at t, xbar_r = xbar^{rK} the
model that all nodes hold at the start of round r. D = ||x_0 - x*||^2.

Lemma 1 (one step)
------------------
Under A0-A2 and with 0 < eta < 2/L, phi = min(1, 2 - eta L), for every sample,
    ||x - eta g - x*||^2 <= ||x - x*||^2 - 2 eta phi f_i(x; xi).
Before a term is dropped it says
    ||x - eta g - x*||^2 <= ||x - x*||^2 - 2 eta f_i(x; xi)
                                         - (eta/L - eta^2) ||g||^2.

Proof. f_i(.; xi) is convex and L-smooth, and its gradient vanishes at x*,
where its value is 0. So f_i(y; xi) >= f_i(x; xi) + <g, y - x> +
||g - g_y||^2/(2L) at y = x*, which is
    (a)  <g, x - x*> >= f_i(x; xi) + ||g||^2/(2L),
and f_i(x - g/L; xi) <= f_i(x; xi) - ||g||^2/(2L) with f_i >= 0, which is
    (b)  ||g||^2 <= 2 L f_i(x; xi).
Expand ||x - eta g - x*||^2 = ||x - x*||^2 - 2 eta <g, x - x*> +
eta^2 ||g||^2 and use (a): the second form. For eta <= 1/L drop the last term,
which is not positive. For eta in (1/L, 2/L) its factor eta^2 - eta/L is
positive, and (b) gives (eta^2 - eta/L) 2 L f_i = 2 eta (eta L - 1) f_i, in all
-2 eta (2 - eta L) f_i. QED
It holds for a batch in place of a sample, as a batch's mean loss is convex,
L-smooth and 0 at x*.

Lemma 2 (one round, with clients and an outer step)
---------------------------------------------------
A set M of m nodes starts from xbar_r; node i of M takes its local steps and
reports Delta_i = x_i - xbar_r; xbar_{r+1} = xbar_r + beta Delta, Delta =
(1/m) sum_{i in M} Delta_i, beta > 0. With P = (1/m) sum ||Delta_i||^2, Q =
||Delta||^2 and S = (1/m) sum_{i in M} sum_k l_i^k, the sum of the losses of
the very batches that the steps use, on every path
    ||xbar_{r+1} - x*||^2 <= ||xbar_r - x*||^2 - beta (P - beta Q)
                                               - 2 beta eta phi S.

Proof. Lemma 1 along the steps of node i: ||xbar_r + Delta_i - x*||^2 <=
||xbar_r - x*||^2 - 2 eta phi S_i, that is 2 <Delta_i, xbar_r - x*> <=
-||Delta_i||^2 - 2 eta phi S_i. The mean over M bounds 2 <Delta, xbar_r - x*>
by -P - 2 eta phi S. Put it into the expansion ||xbar_r + beta Delta - x*||^2 =
||xbar_r - x*||^2 + 2 beta <Delta, xbar_r - x*> + beta^2 Q. QED
Q <= P by convexity of the square, so for beta = 1 the second term may be
dropped. For m < n and M drawn uniformly, the mean over M of anything fixed
before M is drawn has as its expectation the mean over all nodes.
"""

from __future__ import annotations

import math

from theory.problems.protocols import KnowsConstants
from theory.theorems.base import Assumption, Hypothesis, Setting

#: Rules for the outer step under which the server never moves beyond P/Q, or minimises Lemma 2.
EXTRAPOLATIONS = ("extrapolated", "half-extrapolated", "polyak")


def phi(eta_L: float) -> float:
    """phi = min(1, 2 - eta L), the share of a step's decrease that Lemma 1 certifies."""
    return min(1.0, 2.0 - eta_L)


# ---- of the problem ------------------------------------------------------------------------------


def smooth(problem: KnowsConstants, _: Setting) -> Assumption:
    """A0: every f_i(.; xi) is L-smooth; L is of a sample, not of the average."""
    ok = math.isfinite(problem.smoothness) and problem.smoothness > 0
    return Assumption("A0 smooth", ok, f"L = {problem.smoothness:.3g}")


def convex(problem: KnowsConstants, _: Setting) -> Assumption:
    """A1: every f_i(.; xi) is convex."""
    ok = problem.convex
    return Assumption("A1 convex", ok, "convex" if ok else f"{problem.name} is not convex")


def interpolation(problem: KnowsConstants, _: Setting) -> Assumption:
    """A2: one x* minimises every f_i(.; xi), with value 0; take the x* nearest to x_0."""
    ok = problem.solution is not None
    return Assumption("A2 interpolation", ok, "x* exists" if ok else "the minimum is not attained")


def similar(problem: KnowsConstants, _: Setting) -> Assumption:
    """A3: f_i(x) >= c f(x) for all i and x, c in (0, 1]; c = 1 iff all f_i are equal.

    For quadratics the best c is the least generalised eigenvalue of (H_i, H) on range(H), over i.
    """
    c = problem.similarity
    reason = f"c = {c:.3g}" if c > 0 else "c = 0, some node does not see a direction that others do"
    return _decided("A3 c-similar", c > 0, reason, problem, "similarity")


def grows_locally(problem: KnowsConstants, _: Setting) -> Assumption:
    """A4: f_i(x) >= (mu/2) ||x - x*||^2 for every i, on the span in which the iterates move."""
    mu = problem.local_growth
    reason = f"mu = {mu:.3g}" if mu > 0 else "mu = 0, some node's loss is flat in a direction"
    return _decided("A4 local growth", mu > 0, reason, problem, "local_growth")


def grows_globally(problem: KnowsConstants, _: Setting) -> Assumption:
    """A4': f(x) >= (mu/2) ||x - x*||^2, for f only, on the span in which the iterates move."""
    mu = problem.global_growth
    return _decided("A4' global growth", mu > 0, f"mu = {mu:.3g}", problem, "global_growth")


def separable(problem: KnowsConstants, _: Setting) -> Assumption:
    """margin: a unit w and gamma > 0 with y_j <w, a_j> >= gamma for all samples j of all nodes."""
    gamma = problem.margin
    reason = f"gamma = {gamma:.3g}" if gamma > 0 else "no separating direction (hard labels only)"
    return Assumption("margin", gamma > 0, reason + ("" if gamma > 0 else _least(problem)))


def strong_growth(problem: KnowsConstants, _: Setting) -> Assumption:
    """A5: (1/n) sum_i E||grad f_i(x; xi)||^2 <= rho ||grad f(x)||^2 for all x, rho finite."""
    rho = problem.strong_growth
    ok = math.isfinite(rho)
    reason = f"rho = {rho:.3g}" if ok else "rho unknown, the samples are dependent"
    return _decided("A5 strong growth", ok, reason, problem, "strong_growth")


def attained_or_zero_infimum(problem: KnowsConstants, _: Setting) -> Assumption:
    """inf f = 0: f >= 0 = inf f, attained or not."""
    ok = problem.solution is not None or problem.margin > 0
    return Assumption("inf f = 0", ok, "inf f = 0" if ok else "inf f is above 0" + _least(problem))


def _least(problem: KnowsConstants) -> str:
    """How far inf f is above 0, where the problem knows."""
    least = getattr(problem, "least_loss", 0.0)
    return f": the best attainable loss is {least:.3g}" if least > 0 else ""


def _decided(
    name: str, holds: bool, reason: str, problem: KnowsConstants, constant: str
) -> Assumption:
    """The assumption, or the problem's own reason why double precision can't decide its constant."""
    doubt = getattr(problem, "doubts", {}).get(constant, "")
    return Assumption(name, holds, reason if holds or not doubt else f"{constant} {doubt}")


# ---- of the setting ------------------------------------------------------------------------------


def step_below(factor: float, strict: bool = True) -> Hypothesis:
    """eta < factor / L, or <= when not strict."""

    def check(problem: KnowsConstants, setting: Setting) -> Assumption:
        limit = factor / problem.smoothness
        slack = setting.step_size - limit
        ok = slack < 0 if strict else slack <= 1e-12 * limit
        reason = f"eta = {setting.step_size:.3g}, allowed: {sign} {limit:.3g} = {factor:g}/L"
        return Assumption("step size", ok, reason)

    sign = "<" if strict else "<="
    check.__doc__ = f"step size: 0 < eta {sign} {factor:g}/L."
    return check


def step_one_over_l(problem: KnowsConstants, setting: Setting) -> Assumption:
    """step size: eta = 1/L."""
    ok = abs(setting.step_size * problem.smoothness - 1) <= 1e-12
    reason = f"eta = {setting.step_size:.3g}, allowed: {1 / problem.smoothness:.3g} = 1/L"
    return Assumption("step size", ok, reason)


def local_steps_from(least: int) -> Hypothesis:
    """K >= least."""

    def check(_: KnowsConstants, setting: Setting) -> Assumption:
        ok = setting.local_steps >= least
        return Assumption(
            "local steps", ok, f"K = {setting.local_steps}, allowed: at least {least}"
        )

    check.__doc__ = f"local steps: K >= {least}."
    return check


def one_local_step(_: KnowsConstants, setting: Setting) -> Assumption:
    """local steps: K = 1."""
    ok = setting.local_steps == 1
    return Assumption("local steps", ok, f"K = {setting.local_steps}, allowed: 1")


def deterministic(problem: KnowsConstants, setting: Setting) -> Assumption:
    """gradients: full gradients (or one sample a node, which is the same)."""
    sizes = getattr(problem, "node_sizes", None)
    ok = setting.gradient == "full" or (sizes is not None and int(max(sizes)) == 1)
    return Assumption("gradients", ok, "full" if ok else "stochastic, allowed: full")


def everyone(problem: KnowsConstants, setting: Setting) -> Assumption:
    """clients: all n nodes take part in every round."""
    ok = setting.participants in (None, problem.n_nodes)
    return Assumption("clients", ok, f"m = {setting.participants}, allowed: all {problem.n_nodes}")


def plain_mean(_: KnowsConstants, setting: Setting) -> Assumption:
    """outer step: beta = 1, the plain mean."""
    ok = setting.outer_step == 1.0
    return Assumption("outer step", ok, f"beta = {setting.outer_step}, allowed: 1")


def cautious_server(_: KnowsConstants, setting: Setting) -> Assumption:
    """outer step: a fixed beta in (0, 1], or one of the rules of extrapolation."""
    beta = setting.outer_step
    ok = beta in EXTRAPOLATIONS if isinstance(beta, str) else 0 < beta <= 1
    allowed = f"0 < beta <= 1, {', '.join(EXTRAPOLATIONS)}"
    return Assumption("outer step", ok, f"beta = {beta}, allowed: {allowed}")


def outer_factor(setting: Setting) -> float:
    """beta in (0, 1]: what a bound on the sum of the losses is divided by; 1 under extrapolation.

    By Lemma 2 a round lowers ||xbar - x*||^2 by 2 beta eta phi S at least when beta <= P/Q, which every
    fixed beta <= 1 and the rules max(1, P/Q) and max(1, P/(2Q)) satisfy; these rules have beta >= 1.
    Polyak's beta = (P + 2 eta phi S)/(2Q) minimises the right side, which falls by
    (P + 2 eta phi S)^2/(4Q) >= 2 eta phi S P/Q >= 2 eta phi S.
    """
    return 1.0 if isinstance(setting.outer_step, str) else float(setting.outer_step)
