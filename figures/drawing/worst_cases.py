"""How much of each bound is real: bound, exact worst case, explicit instance, ordinary problems."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.analysis import theory_data
from figures.analysis.sources import MissingResult, Sources, array
from figures.analysis.worst_cases import (
    HETEROGENEITY,
    WORST_CASE_COMMAND,
    WORST_CASE_PATH,
    Row,
    against_k,
    against_step_size,
    solved_rows,
    typical_values,
)
from figures.drawing import style

#: Metric -> title; a row of the figure's grid each.
METRICS = {
    "average_local": "T1: average local loss",
    "average_sync": "T2: average $f(\\bar{x}_r)$",
    "last": "last iterate $f(\\bar{x}_R)$",
}


def _seeds(sources: Sources) -> int:
    return 4 if sources.quick else 50


def _draw(ax: Axes, sources: Sources, cells: list[Row], metric: str, over: str) -> None:
    colours = style.OKABE_ITO
    x = np.array([row[over] for row in cells], float)
    bound = array([row["bound"] for row in cells])  # the last iterate has none
    if np.isfinite(bound).any():
        # On top: it often coincides with the worst case.
        ax.plot(x, bound, color=colours["black"], ls="--", label="bound", zorder=3)
    sharper = array([row["sharper"] for row in cells])
    if np.isfinite(sharper).any():
        ax.plot(x, sharper, color=colours["grey"], ls="-.", label="sharper bound")
    ax.plot(
        x,
        array([row["worst_case"] for row in cells]),
        color=colours["vermilion"],
        marker="o",
        label="worst case",
    )
    ax.plot(
        x,
        array([row["instance"] for row in cells]),
        color=colours["blue"],
        marker="x",
        ls="none",
        ms=5,
        mew=1.2,
        label="instance",
    )
    low, middle, high = np.percentile(
        typical_values(sources, cells, metric, _seeds(sources)), [5, 50, 95], axis=1
    )
    ax.fill_between(x, low, high, color=colours["green"], alpha=0.25, lw=0)
    ax.plot(x, middle, color=colours["green"], marker="s", ms=2.5, label="typical")
    ax.set(yscale="log")
    style.decimal_axis(ax)


def worst_case(sources: Sources) -> Figure:
    """Bound, worst case, instance and typical problems against K (above) and eta L (below)."""
    record = sources.read(WORST_CASE_PATH, WORST_CASE_COMMAND)
    figure, axes = style.subplots(2, 3, width=style.TWO_COLUMNS, height=4.4)
    for column, (metric, title) in enumerate(METRICS.items()):
        rows = solved_rows(record, metric)
        upper, lower = axes[:, column]
        by_k, by_step = against_k(rows), against_step_size(rows)
        if not by_k or not by_step:
            raise MissingResult(
                f"{WORST_CASE_PATH} has no cells of {metric} at eta = 1/L; make it with: "
                f"{WORST_CASE_COMMAND}"
            )
        _draw(upper, sources, by_k, metric, "local_steps")
        style.k_axis(upper, [row["local_steps"] for row in by_k])
        upper.set_title(f"{title}\n$R$ = {by_k[0]['rounds']}, $\\eta L$ = 1", fontsize=7.5)
        _draw(lower, sources, by_step, metric, "step_size")
        lower.set(xlabel="$\\eta L$", xlim=(0, 2))
        lower.axvline(1.0, color=style.OKABE_ITO["grey"], lw=0.8, ls=":")
        k, rounds = by_step[0]["local_steps"], by_step[0]["rounds"]
        lower.set_title(f"$K$ = {k}, $R$ = {rounds}", fontsize=7.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("value / $(L\\,D)$")
    c = style.OKABE_ITO
    style.legend_above(
        figure,
        [
            style.line_handle("bound", ls="--", color=c["black"]),
            style.line_handle("sharper bound (proved)", ls="-."),
            style.line_handle("exact worst case", marker="o", color=c["vermilion"]),
            style.line_handle("best known instance", marker="x", ls="none", ms=5, color=c["blue"]),
            style.line_handle(
                "random least squares, median and 5-95%", marker="s", ms=2.5, color=c["green"]
            ),
        ],
        columns=3,
    )
    style.caption(
        figure,
        f"Data: {WORST_CASE_PATH} (deterministic Local SGD, any n >= 2), and {_seeds(sources)} random least "
        f"squares problems, n = 2, {theory_data.SAMPLES} samples a node, d = 64, rank 20, power-law "
        f"spectrum, {HETEROGENEITY} nodes, full gradients. L is a node's smoothness, "
        "D = ||x0 - x*||^2.",
    )
    return figure
