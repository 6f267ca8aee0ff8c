"""The instances I0-I4 that show the bounds tight, with their closed forms.

Each maker returns an :class:`Instance`: an explicit problem with the step size and schedule for which
``shared/theory.md`` states the value, and that value in closed form. The limits of bound over value
are 1 (I0, I3), 2e (I1, I2) and 4e (I4).
"""

from __future__ import annotations

import numpy as np

from theory.problems.margin import MarginProblem
from theory.support.errors import UserError
from theory.theorems.base import Instance, Metric, Setting


def _quadratic(
    rows: list[list[float]], start: list[float], smoothness: float, name: str
) -> MarginProblem:
    """f_i(x) = (a_i'x)^2 / 2, one sample a node."""
    features = [np.array([row]) for row in rows]
    targets = [np.zeros(1) for _ in rows]
    return MarginProblem(
        features,
        targets,
        start=np.array(start),
        smoothness=smoothness,
        name=name,
        heterogeneity="instance",
    )


def _full(step_size: float, local_steps: int, rounds: int) -> Setting:
    return Setting(step_size=step_size, local_steps=local_steps, rounds=rounds, gradient="full")


def instance_0(
    theorem: str, rounds: int, local_steps: int = 1, smoothness: float = 1.0
) -> Instance:
    """I0: f_i(x) = (L/2) x^2, eta = 1/L. The first step lands on x*: T1, T2 (and T3) with equality."""
    name, count = {
        "T1": ("local_loss", local_steps * rounds),
        "T2": ("sync_loss", rounds),
        "T3": ("global_loss", local_steps * rounds),
    }[theorem]
    problem = _quadratic([[np.sqrt(smoothness)]], [1.0], smoothness, "I0")
    return Instance(
        problem=problem,
        setting=_full(1.0 / smoothness, local_steps, rounds),
        theorem=theorem,
        metric=Metric(name, averaged=True),
        value=smoothness / (2 * count),
        limit=1.0,
    )


def instance_1(
    rounds: int,
    local_steps: int = 1,
    smoothness: float = 1.0,
    step_factor: float = 1.0,
    spread: float | None = None,
) -> Instance:
    """I1 (T2, any K): two nodes whose directions nearly coincide; averaging undoes most of the work.

    A round multiplies the second coordinate by 1 - q s, q = 1 - (1 - eta L)^K; s = ``spread``,
    1/(2R + 1) unless given. eta = ``step_factor`` / L, factor in (0, 1].
    """
    s = 1.0 / (2 * rounds + 1) if spread is None else spread
    scale = np.sqrt(smoothness)
    rows = [
        [scale * np.sqrt(1 - s), scale * np.sqrt(s)],
        [scale * np.sqrt(1 - s), -scale * np.sqrt(s)],
    ]
    problem = _quadratic(rows, [0.0, 1.0], smoothness * (1 + 1e-12), "I1")
    q = 1.0 - (1.0 - step_factor) ** local_steps
    value = 0.5 * smoothness * s * np.exp(2 * rounds * np.log1p(-q * s))
    return Instance(
        problem=problem,
        setting=_full(step_factor / smoothness, local_steps, rounds),
        theorem="T2",
        metric=Metric("global_loss"),
        value=value,
        limit=2 * np.e,
    )


def instance_2(rounds: int, local_steps: int = 1, smoothness: float = 1.0) -> Instance:
    """I2 (T3, c = 1): f(x) = (lambda/2) x^2 with lambda = L/(2T + 1), eta = 1/L."""
    total = local_steps * rounds
    flat = smoothness / (2 * total + 1)
    problem = _quadratic([[np.sqrt(flat)]], [1.0], smoothness, "I2")
    value = 0.5 * flat * np.exp(2 * total * np.log1p(-flat / smoothness))
    return Instance(
        problem=problem,
        setting=_full(1.0 / smoothness, local_steps, rounds),
        theorem="T3",
        metric=Metric("global_loss"),
        value=value,
        limit=2 * np.e,
    )


def instance_3(
    rounds: int, dimension: int = 4, local_steps: int = 1, smoothness: float = 1.0
) -> Instance:
    """I3 (T4): n = 1, the unit vectors as samples, one drawn a step: contraction 1 - 1/d exactly."""
    features = [np.sqrt(smoothness) * np.eye(dimension)]
    problem = MarginProblem(
        features,
        [np.zeros(dimension)],
        start=np.full(dimension, dimension**-0.5),
        name="I3",
        heterogeneity="instance",
    )
    value = float(np.exp(local_steps * rounds * np.log1p(-1.0 / dimension)))
    return Instance(
        problem=problem,
        setting=Setting(step_size=1.0 / smoothness, local_steps=local_steps, rounds=rounds),
        theorem="T4",
        metric=Metric("distance"),
        value=value,
        limit=1.0,
    )


def instance_4(rounds: int, local_steps: int = 1, smoothness: float = 1.0) -> Instance:
    """I4 (T6; n = 1, rho = 1): f(x) = (lambda/2) x^2, lambda = 1/(eta (2T + 1)), eta = 1/(10 K L)."""
    total = local_steps * rounds
    eta = 1.0 / (10 * local_steps * smoothness)
    flat = 1.0 / (eta * (2 * total + 1))
    if flat > smoothness:
        raise UserError(f"rounds is {rounds}, allowed: 2 K R + 1 >= 10 K")
    # Scaled so that f(x_0) = 1 whatever lambda is: the bound is in f(x_0), not in D.
    problem = _quadratic([[np.sqrt(flat)]], [np.sqrt(2.0 / flat)], smoothness, "I4")
    # ||grad f(x^T)||^2 = 2 lambda f(x_0) (1 - eta lambda)^{2T}.
    value = 2 * flat * np.exp(2 * total * np.log1p(-eta * flat))
    return Instance(
        problem=problem,
        setting=_full(eta, local_steps, rounds),
        theorem="T6",
        metric=Metric("gradient"),
        value=value,
        limit=4 * np.e,
    )
