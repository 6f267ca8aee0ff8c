"""Local SGD under interpolation: problems, simulators, theorems and their checks.

The few names a notebook needs; everything else is one module deeper.
"""

from theory.checking import Check, verify
from theory.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.local_sgd import LocalSGDResult, run_local_sgd
from theory.losses import MarginLoss
from theory.moments import exact_moments
from theory.problems import MarginProblem
from theory.theorems import THEOREMS, Setting, Theorem
from theory.user_data import load_problem

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
]
