"""Hard labels: the direction that separates them best, and the least loss where none does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

Array = NDArray[np.float64]


def hull_weights(signed: Array) -> Array:
    """Weights of the point of least norm in the convex hull of the rows, up to a factor, (N,).

    It is the direction of the largest margin (the dual of the hard-margin SVM).

    Args:
        signed: y_j a_j in an orthonormal basis of their span, (N, r).
    """
    # With a row of ones appended, non-negative least squares onto (0, 1) returns a multiple.
    target = np.zeros(signed.shape[1] + 1)
    target[-1] = 1.0
    weights, _ = nnls(np.vstack([signed.T, np.ones(len(signed))]), target)
    return np.asarray(weights)


def least_value(value_and_slope: Callable[[Array], tuple[float, Array]], dimension: int) -> float:
    """The infimum of a smooth convex function, from 0, to about ten digits."""
    found = minimize(
        value_and_slope,
        np.zeros(dimension),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-10},
    )
    return float(found.fun)
