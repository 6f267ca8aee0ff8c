"""Small problems solved twice: PEPit over all n nodes with CLARABEL, and the reduced problem."""

from __future__ import annotations

import importlib.util
import time
import warnings
from dataclasses import dataclass

from theory.worst_case.cells import Cell
from theory.worst_case.constraints import SolverError
from theory.worst_case.reduction import worst_case
from theory.worst_case.rows import FAILED, HOLDS

#: Full, unreduced problems: n, K, R, eta L, metric, beta.
Problem = tuple[int, int, int, float, str, float]
ROUTES: tuple[Problem, ...] = (
    (2, 3, 1, 1.0, "last", 1.0),
    (3, 3, 1, 1.0, "last", 1.0),
    (4, 3, 1, 1.0, "last", 1.0),
    (2, 3, 2, 1.0, "last", 1.0),
    (3, 3, 2, 1.0, "best", 1.0),
    (3, 2, 2, 0.5, "average_sync", 1.0),
    (2, 2, 2, 1.5, "average_local", 1.0),
    (4, 3, 2, 1.0, "last", 1.0),
    (2, 4, 3, 1.0, "last", 1.0),
    (2, 2, 2, 0.8, "last", 1.5),
    (3, 3, 2, 0.8, "last", 1.4),
)
QUICK_ROUTES = (*ROUTES[:4], ROUTES[-2])
#: The two routes must agree to this.
TOLERANCE = 1e-6
MISSING = "PEPit is not installed: pip install '.[pep]', or pass --no-pepit for the built-in solver"


@dataclass(frozen=True, kw_only=True)
class Route:
    """One problem solved twice: PEPit over all nodes, and the reduced problem.

    Attributes:
        n, local_steps, rounds, step_size, metric, outer_step: n, K, R, eta L, metric, beta.
        pepit, reduced: the two values in L D; None where a solver failed.
        theoretical: what the PEPit example states in closed form beside its value.
        pepit_seconds, reduced_seconds: wall time.
        verdict: HOLDS, or FAILED with ``why``.
    """

    n: int
    local_steps: int
    rounds: int
    step_size: float
    metric: str
    outer_step: float
    pepit: float | None
    reduced: float | None
    theoretical: float | None
    pepit_seconds: float
    reduced_seconds: float
    verdict: str
    why: str = ""

    @property
    def difference(self) -> float | None:
        """|PEPit's value - the reduced problem's|."""
        if self.pepit is None or self.reduced is None:
            return None
        return abs(self.pepit - self.reduced)


def installed() -> bool:
    """Whether PEPit and CLARABEL are."""
    return all(importlib.util.find_spec(name) is not None for name in ("PEPit", "clarabel"))


def compare_routes(problem: Problem) -> Route:
    """Solve by PEPit with CLARABEL and by the reduced problem; they must agree to TOLERANCE."""
    from theory.worst_case.pepit_example import wc_local_sgd

    n, k, rounds, eta, metric, beta = problem
    begin = time.perf_counter()
    pepit, theoretical, why = None, None, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pepit, theoretical = wc_local_sgd(
                1.0, eta, n, k, rounds, metric, beta, solver="CLARABEL", verbose=-1
            )
    except RuntimeError as error:
        why = f"PEPit: {error}"
    middle = time.perf_counter()
    reduced = None
    cell = Cell(
        local_steps=k,
        rounds=rounds,
        step_size=eta,
        outer_step=beta,
        metric=metric,
        one_node=n == 1,
    )
    try:
        reduced = worst_case(cell).value
    except SolverError as error:
        why = f"{why}; reduced: {error}".lstrip("; ")
    if pepit is not None and reduced is not None and abs(pepit - reduced) > TOLERANCE:
        why = "the two routes differ"
    return Route(
        n=n,
        local_steps=k,
        rounds=rounds,
        step_size=eta,
        metric=metric,
        outer_step=beta,
        pepit=pepit,
        reduced=reduced,
        theoretical=theoretical,
        pepit_seconds=middle - begin,
        reduced_seconds=time.perf_counter() - middle,
        verdict=FAILED if why else HOLDS,
        why=why,
    )
