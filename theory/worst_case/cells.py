"""What is solved: a setting of Local SGD, the class of problems and the metric; and grids of these.

Everything is at L = 1 and D = ||x_0 - x*||^2 = 1: a step size is a multiple of 1 / L, a value is in
units of L D (of D for a distance).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from theory.support.errors import UserError
from theory.theorems.base import Setting

METRICS = ("last", "best", "average_sync", "average_local", "distance")
#: What the command offers; "average_global" is T3 with all f_i equal.
CHOICES = (*METRICS, "average_global")


@dataclass(frozen=True, kw_only=True)
class Cell(Setting):
    """One performance-estimation problem: K local steps, R rounds, step size eta L, and the metric.

    Attributes:
        local_steps, rounds: K, R >= 1.
        step_size: eta L in (0, 2).
        metric: "last" f(xbar_R); "best" min over r <= R of f(xbar_r); "average_sync" the mean of
            f(xbar_r) over r < R (T2); "average_local" the mean of (1/n) sum_i f_i(x_i^t) over
            t < T (T1); "distance" ||xbar_R - x*||^2 (T4).
        one_node: n = 1, or all f_i equal (c = 1): plain gradient descent.
        growth: mu / L in [0, 1); 0 imposes nothing.
        growth_of: "nodes", f_i >= (mu/2) ||x - x*||^2 for all i (A4); or "mean", f only (A4').
        outer_step: beta > 0; a round goes to xbar_r + beta (mean of the nodes' models - xbar_r).

    Raises:
        UserError: a value outside its range.
    """

    gradient: str = "full"
    outer_step: float = 1.0
    metric: str = "last"
    one_node: bool = False
    growth: float = 0.0
    growth_of: str = "nodes"

    def __post_init__(self) -> None:
        for name in ("local_steps", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, allowed: at least 1")
        if not 0 < self.step_size < 2:
            raise UserError(f"step_size is {self.step_size} / L, allowed: above 0 and below 2 / L")
        if self.metric not in METRICS:
            raise UserError(f"metric is {self.metric!r}, allowed: {', '.join(METRICS)}")
        if not 0 <= self.growth < 1:
            raise UserError(f"growth is {self.growth} L, allowed: at least 0 and below L")
        if self.growth_of not in ("nodes", "mean"):
            raise UserError(f"growth_of is {self.growth_of!r}, allowed: nodes, mean")
        if not 0 < self.outer_step < math.inf:
            raise UserError(f"outer_step is {self.outer_step}, allowed: above 0 and finite")

    @property
    def points(self) -> int:
        """Gradient evaluations of one node that matter: all local iterates, and xbar_R."""
        last = self.metric in ("last", "best", "distance")
        return self.iterations + (1 if last else 0)

    @property
    def starts(self) -> list[int]:
        """Indices of xbar_0, xbar_1, ... among the points."""
        return list(range(0, self.points, self.local_steps))

    @property
    def name(self) -> str:
        """The metric as CHOICES has it."""
        return "average_global" if self.one_node else self.metric

    def round_growth(self) -> float:
        """The largest factor, at least 1, by which a round can lengthen ||xbar - x*||.

        A gradient step on a 1-smooth convex function is (eta/2)-averaged (the identity plus eta/2
        times the difference of a nonexpansive map and it); K of them in a row are alpha-averaged with
        alpha = K eta / (2 + (K-1) eta) (P. L. Combettes, I. Yamada 2015), and so is their mean over
        the nodes. So xbar + beta (mean - xbar) is (1 - beta alpha) times the identity plus
        beta alpha times a nonexpansive map with the same fixed point x*: the factor is at most
        max(1, 2 beta alpha - 1), which is 1 up to beta = 1/alpha (1 + 1/K at eta = 1).
        """
        k, eta = self.local_steps, self.step_size
        averaged = k * eta / (2 + (k - 1) * eta)
        return max(1.0, 2 * self.outer_step * averaged - 1)


def make_cells(
    metrics: Iterable[str],
    local_steps: Iterable[int],
    rounds: Iterable[int],
    step_sizes: Iterable[float],
    growth: float,
) -> list[Cell]:
    """The cells of a grid, cheapest first.

    Args:
        metrics: names of CHOICES; "average_global" gives one cell for every T = K R; "distance" gives
            T4 (A4) and T4' (A4') and needs eta L <= 1.
        local_steps, rounds, step_sizes: K, R, eta L.
        growth: mu / L of T4.
    """
    cells = set()
    grid = [(k, r, eta) for k in local_steps for r in rounds for eta in step_sizes]
    for metric in metrics:
        for k, r, eta in grid:
            if metric == "average_global":
                cells.add(
                    Cell(
                        local_steps=k * r,
                        rounds=1,
                        step_size=eta,
                        metric="average_local",
                        one_node=True,
                    )
                )
            elif metric != "distance":
                cells.add(Cell(local_steps=k, rounds=r, step_size=eta, metric=metric))
            elif eta <= 1:
                for of in ("nodes", "mean"):
                    cells.add(
                        Cell(
                            local_steps=k,
                            rounds=r,
                            step_size=eta,
                            metric="distance",
                            growth=growth,
                            growth_of=of,
                        )
                    )
    return cheapest_first(cells)


#: The standard grid of C1 beyond K = 12: (K, R) at eta = 1 / L, last and best iterate.
LONG_ROUNDS = (
    *((k, 1) for k in (16, 24, 32, 48, 64, 96, 128)),
    *((k, 2) for k in (16, 24, 32)),
    *((k, 3) for k in (16, 24)),
    (16, 4),
)


def standard_grid(growth: float) -> list[Cell]:
    """What the command solves when no grid is given, cheapest first.

    K and R up to 4 at seven step sizes; K up to 12 and R up to 6 at three; and LONG_ROUNDS.

    Args:
        growth: mu / L of T4.
    """
    fine = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    cells = make_cells(CHOICES, (1, 2, 3, 4), (1, 2, 3, 4), fine, growth)
    cells += make_cells(CHOICES, (1, 2, 3, 4, 6, 8, 12), range(1, 7), (0.5, 1.0, 1.5), growth)
    cells += [
        Cell(local_steps=k, rounds=r, step_size=1.0, metric=m)
        for k, r in LONG_ROUNDS
        for m in ("last", "best")
    ]
    return cheapest_first(cells)


def cheapest_first(cells: Iterable[Cell]) -> list[Cell]:
    """Each cell once; the order depends on nothing but the cells."""
    return sorted(
        set(cells),
        key=lambda c: (
            c.points,
            c.metric,
            c.one_node,
            c.local_steps,
            c.step_size,
            c.outer_step,
            c.growth_of,
            c.growth,
        ),
    )
