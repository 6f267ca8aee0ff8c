"""When do local steps pay? Rounds to accuracy against K, bent at K = 1/c."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.analysis.bend import bend_curve
from figures.analysis.sources import Sources, array
from figures.drawing import style

SIMILARITIES = (1.0, 0.1, 0.01, 0.0)
_TITLES = {1.0: "equal nodes, $c$ = 1", 0.0: "no likeness, $c$ = 0"}
LOWER, UPPER = "vermilion", "blue"


def _draw(ax: Axes, sources: Sources, similarity: float, ks: list[int], accuracy: float) -> None:
    data = sources.compute(bend_curve, similarity=similarity, local_steps=ks, accuracy=accuracy)
    colours = style.OKABE_ITO
    x, lower = array(data["local_steps"]), array(data["instance"])
    fine = np.geomspace(ks[0], ks[-1], 200)
    t2 = np.full(fine.shape, data["t2"][0])
    # T3's rounds are inversely proportional to K.
    t3 = array(data["t3"])[0] * ks[0] / fine if similarity else np.full(fine.shape, np.inf)
    upper = np.minimum(t2, t3)
    ax.plot(fine, upper, color=colours[UPPER], ls="--", label="suffice")
    ax.plot(x, lower, color=colours[LOWER], marker="o", label="needed")
    between = np.exp(np.interp(np.log(fine), np.log(x), np.log(lower)))
    ax.fill_between(fine, between, upper, color=colours["grey"], alpha=0.12, lw=0)
    ax.set(xscale="log", yscale="log")
    ax.set_title(_TITLES.get(similarity, f"$c$ = {similarity:g}"))
    if similarity and 1 / similarity <= ks[-1]:
        ax.axvline(1 / similarity, color=colours["black"], lw=0.8, ls=":", label="bend")
        if 1 / similarity < ks[-1]:
            _say(ax, 1.25 / similarity, "like $1/K$", "left")
    if similarity < 1:
        _say(ax, 0.8 / similarity if similarity else ks[-1], "level", "right")


def _say(ax: Axes, x: float, text: str, side: str) -> None:
    """A word above the K axis, to one side of x."""
    ax.annotate(
        text,
        (x, 0.04),
        xycoords=("data", "axes fraction"),
        ha=side,
        va="bottom",
        fontsize=6.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )


def bend(sources: Sources) -> Figure:
    """Rounds to accuracy against K, a panel for each c: what I5 needs, what T2 and T3 grant."""
    ks = [1, 10, 100] if sources.quick else [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    accuracy = 1e-2 if sources.quick else 1e-4
    count = len(SIMILARITIES)
    figure, axes = style.subplots(1, count, width=style.TWO_COLUMNS, height=2.5, sharey=True)
    for ax, similarity in zip(axes[0], SIMILARITIES, strict=True):
        _draw(ax, sources, similarity, ks, accuracy)
        style.k_axis(ax, [k for k in ks if np.log10(k) % 1 == 0])
    style.decimal_powers(axes[0, 0])
    axes[0, 0].set_ylabel(f"rounds to $f \\leq 10^{{{np.log10(accuracy):.0f}}} L D$")
    style.legend_above(
        figure,
        [
            style.line_handle(
                "suffice for all problems: T2, T3", ls="--", color=style.OKABE_ITO[UPPER]
            ),
            style.line_handle(
                "needed on instance I5, simulated", marker="o", color=style.OKABE_ITO[LOWER]
            ),
            style.line_handle("$K = 1/c$", ls=":", color="black"),
        ],
    )
    style.caption(
        figure,
        "Data: instance I5 of two c-similar nodes (c = 0: I1), simulated with full gradients at step size "
        "1/L, one instance for every number of rounds; T2: LD/(2 eps), T3: LD/(2 c K eps), the smaller.",
    )
    return figure
