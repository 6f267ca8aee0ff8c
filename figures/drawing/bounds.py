"""Measured left sides against their bounds: T1-T6 over T, and separable logistic by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.analysis import theory_data
from figures.analysis.sources import Sources, array
from figures.drawing import style

# Theorem, problem, heterogeneity, what the axis shows. Each has the assumptions its theorem needs
# and, for T2 and T5', as little beyond them as possible (sorted nodes, c = 0).
PANELS = (
    ("T1", "power-law", "sorted", "average local loss"),
    ("T2", "power-law", "sorted", "average $f(\\bar{x}_r)$"),
    ("T3", "least-squares", "iid", "average $f(\\bar{x}^t)$"),
    ("T4", "least-squares", "iid", "$\\|\\bar{x}^t - x^*\\|^2$"),
    ("T5", "separable", "sorted", "average local loss"),
    ("T6", "sigmoid", "sorted", "average $\\|\\nabla f(\\bar{x}_r)\\|^2$"),
)
SHORT = {
    "power-law": "power-law least squares",
    "least-squares": "least squares",
    "separable": "separable logistic",
    "sigmoid": "sigmoid regression",
}


def _curve(sources: Sources, theorem: str, problem: str, level: str, k: int) -> dict[str, Any]:
    iterations = 2_000 if problem in ("power-law", "least-squares") else 10_000
    if theorem == "T4":
        iterations = 80  # later a mean of few paths of a product says little
    if theorem == "T6":
        iterations = 100_000  # its step size is small
    return sources.compute(
        theory_data.bound_curve,
        theorem=theorem,
        problem=problem,
        heterogeneity=level,
        local_steps=k,
        iterations=100 if sources.quick else iterations,
        seeds=_seeds(sources),
        points=8 if sources.quick else 40,
    )


def _seeds(sources: Sources) -> int:
    return 4 if sources.quick else 32


def draw_curve(axes: Axes, data: dict[str, Any], local_steps: int, bound: bool = True) -> None:
    """One K: the 95% band of the seeds, the exact line (or the mean) and the bound, dashed."""
    t, color = array(data["t"]), style.k_color(local_steps)
    low, high = array(data["low"]), array(data["high"])
    # A logarithmic axis has no place for a lower end at or below 0.
    mean = array(data["mean"])
    axes.fill_between(t, np.maximum(low, 1e-3 * mean), high, color=color, alpha=0.25, lw=0)
    line = array(data["exact"]) if "exact" in data else mean
    axes.plot(t, line, color=color, label=f"K={local_steps}")
    if bound:
        axes.plot(t, array(data["bound"]), color=color, ls="--", label=f"bound K={local_steps}")


def bound_vs_measured(sources: Sources) -> Figure:
    """T1-T6 over T for K = 1, 5, 20."""
    ks = (1, 5, 20)
    figure, axes = style.subplots(2, 3, width=style.TWO_COLUMNS, height=4.2)
    for ax, (theorem, problem, level, label) in zip(axes.flat, PANELS, strict=True):
        for k in ks:
            draw_curve(ax, _curve(sources, theorem, problem, level, k), k)
        ax.set(xscale="log", yscale="log", xlabel="iterations $t$", ylabel=label)
        if theorem == "T4":
            # A linear rate is a straight line on a linear axis of t.
            ax.set(xscale="linear")
        ax.set_title(f"{theorem}: {SHORT[problem]}, {level}", fontsize=7.5)
    style.legend_above(
        figure,
        [
            *style.k_handles(ks),
            style.line_handle("left side, exact (T5, T6: mean)"),
            style.line_handle(f"95% of {_seeds(sources)} seeds", lw=5, alpha=0.3),
            style.line_handle("bound", ls="--"),
        ],
    )
    style.caption(
        figure,
        "Data: synthetic, n = 5 nodes, 40 samples a node (T6: 2), d = 256, seed 0; one sample a step, "
        "each theorem's own step size. The left sides of T1-T4 are exact. Bounds that do not depend on K "
        "lie over one another.",
    )
    return figure


def separable_logistic(sources: Sources) -> Figure:
    """T5 and T5' beside the comparator bound and its closed form."""
    ks = (1, 5, 20)
    figure, axes = style.subplots(1, 2, width=style.TWO_COLUMNS, height=2.6)
    for ax, theorem, label in (
        (axes[0, 0], "T5", "average local loss"),
        (axes[0, 1], "T5'", "average $f(\\bar{x}_r)$"),
    ):
        for k in ks:
            data = _curve(sources, theorem, "separable", "sorted", k)
            # The bound of T5 is one curve for all K; T5' has one for each.
            draw_curve(ax, data, k, bound=theorem == "T5'")
        if theorem == "T5":
            reference = _curve(sources, "T5", "separable", "sorted", 1)
            t, black = array(reference["t"]), style.OKABE_ITO["black"]
            ax.plot(t, array(reference["bound"]), color=black, ls="--", label="bound")
            # The closed form assumes ln(T) large enough to mean something.
            late = t >= 10
            ax.plot(
                t[late],
                array(reference["closed_form"])[late],
                color=black,
                ls=":",
                label="closed form",
            )
            ax.annotate(
                f"margin $\\gamma$ = {reference['margin']:.3f}",
                (0.03, 0.05),
                xycoords="axes fraction",
            )
        ax.set(xscale="log", yscale="log", xlabel="iterations $t$", ylabel=label)
        ax.set_title(f"{theorem}: " + ("local losses" if theorem == "T5" else "at synchronisation"))
    style.legend_above(
        figure,
        [
            *style.k_handles(ks),
            style.line_handle("bound, best comparator $u = s\\,w$", ls="--"),
            style.line_handle("$2L\\ln^2 T/(\\gamma^2 T) + 2/T$", ls=":", color="black"),
        ],
    )
    style.caption(
        figure,
        "Data: synthetic separable logistic, sorted nodes, n = 5, 40 samples a node, d = 256, seed 0; "
        f"step size 1/(2L); mean and 95% interval of {_seeds(sources)} seeds. The minimum 0 is "
        "not attained.",
    )
    return figure
