"""The public names of :mod:`theory`, which takes them from here when one is first asked for."""

from theory.problems.files import load_problem
from theory.problems.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.problems.losses import MarginLoss
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import LocalSGDResult, run_local_sgd
from theory.simulation.moments import exact_moments
from theory.theorems import THEOREMS, Setting, Theorem
from theory.verification.check import Check, verify
from theory.verification.grid import verify_grid

__all__ = [
    "THEOREMS",
    "Check",
    "LocalSGDResult",
    "MarginLoss",
    "MarginProblem",
    "Setting",
    "Theorem",
    "exact_moments",
    "least_squares",
    "load_problem",
    "realizable_logistic",
    "run_local_sgd",
    "separable_logistic",
    "sigmoid_regression",
    "verify",
    "verify_grid",
]
