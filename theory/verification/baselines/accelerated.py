"""Accelerated gradient descent: with full gradients min-max optimal for shared optima up to a constant.

f(x_R) <= 2 L_f D/(R+1)^2 (Nesterov 1983; Beck and Teboulle 2009, Theorem 4.4); optimal: Patel et al.
2024, Theorem 11. The only rival here that is no schedule and no variant of the simulator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem

Array = NDArray[np.float64]


def accelerated_descent(problem: MarginProblem, step_size: float, grid: NDArray[np.int64]) -> Array:
    """f(x_r) of Nesterov's accelerated gradient descent on f, (grid,).

    x_{r+1} = y_r - eta grad f(y_r), y_{r+1} = x_{r+1} + ((t_r - 1)/t_{r+1}) (x_{r+1} - x_r), t_0 = 1,
    t_{r+1} = (1 + sqrt(1 + 4 t_r^2))/2, in the coordinates of the row space.

    Args:
        step_size: eta, at most 1/L_f for the bound to hold.
        grid: the rounds r to report, rising from 0.
    """
    c, weights = problem.coordinates, problem.sample_weights
    offset = problem.features @ problem.start
    x = y = np.zeros(problem.rank)
    t, values = 1.0, {}
    with np.errstate(over="ignore", invalid="ignore"):
        for r in range(int(grid[-1]) + 1):
            values[r] = float(problem.loss_of_margins(offset + c @ x))
            slopes = problem.loss.derivative(offset + c @ y, problem.targets) * weights
            following = y - step_size * (slopes @ c)
            t, before = 0.5 * (1 + np.sqrt(1 + 4 * t * t)), t
            y = following + (before - 1) / t * (following - x)
            x = following
    return np.array([values[int(r)] for r in grid])


def accelerated_bound(step_size: float, distance: float, rounds: Array) -> Array:
    """2 D/(eta (R+1)^2) after R >= 1 rounds, for eta <= 1/L_f: a smaller step is 1/L for a larger L."""
    return 2 * distance / (step_size * (rounds + 1.0) ** 2)
