"""When do local steps pay? Rounds to accuracy against K, bent at K = 1/c."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.analysis.bend import bend_curve, participants_curve
from figures.analysis.sources import Sources, array
from figures.drawing import style

SIMILARITIES = (1.0, 0.1, 0.01, 0.0)
_TITLES = {1.0: "equal nodes, $c$ = 1", 0.0: "no likeness, $c$ = 0"}
#: Of the figure with client sampling: c of its panels, its nodes, and participants -> marker.
PANELS = (0.3, 0.05, 0.0)
NODES = 8
PARTICIPANTS = {1: "o", 2: "s", 4: "^", 8: "D"}
LOWER, UPPER = "vermilion", "blue"


def _draw(ax: Axes, sources: Sources, similarity: float, ks: list[int], accuracy: float) -> None:
    data = sources.compute(bend_curve, similarity=similarity, local_steps=ks, accuracy=accuracy)
    x, lower = array(data["local_steps"]), array(data["instance"])
    fine, upper = _draw_granted(ax, data, similarity)
    ax.plot(x, lower, color=style.OKABE_ITO[LOWER], marker="o", label="needed")
    between = np.exp(np.interp(np.log(fine), np.log(x), np.log(lower)))
    ax.fill_between(fine, between, upper, color=style.OKABE_ITO["grey"], alpha=0.12, lw=0)


def _draw_granted(
    ax: Axes, data: dict[str, Any], similarity: float
) -> tuple[np.ndarray, np.ndarray]:
    """The rounds that T2 and T3 grant, the bend and the axes; returns the line's K and rounds."""
    ks = data["local_steps"]
    fine = np.geomspace(ks[0], ks[-1], 200)
    t2 = np.full(fine.shape, data["t2"][0])
    # T3's rounds are inversely proportional to K.
    t3 = array(data["t3"])[0] * ks[0] / fine if similarity else np.full(fine.shape, np.inf)
    upper = np.minimum(t2, t3)
    ax.plot(fine, upper, color=style.OKABE_ITO[UPPER], ls="--", label="suffice")
    ax.set(xscale="log", yscale="log")
    ax.set_title(_TITLES.get(similarity, f"$c$ = {similarity:g}"))
    if similarity and 1 / similarity <= ks[-1]:
        ax.axvline(1 / similarity, color="black", lw=0.8, ls=":", label="bend")
        if 1 / similarity < ks[-1]:
            _say(ax, 1.25 / similarity, "like $1/K$", "left")
    if similarity < 1:
        _say(ax, 0.8 / similarity if similarity else ks[-1], "level", "right")
    style.k_axis(ax, [k for k in ks if np.log10(k) % 1 == 0])
    ax.set_xlabel("local steps a round $K$")
    return fine, upper


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


def bend_participants(sources: Sources) -> Figure:
    """The same with m of 8 nodes drawn a round, in exact expectation."""
    ks = [1, 10] if sources.quick else [1, 2, 5, 10, 20, 50, 100]
    accuracy = 2e-2 if sources.quick else 4e-3
    figure, axes = style.subplots(1, 3, width=style.TWO_COLUMNS, height=2.6, sharey=True)
    for ax, similarity in zip(axes[0], PANELS, strict=True):
        data = sources.compute(
            participants_curve,
            similarity=similarity,
            participants=list(PARTICIPANTS),
            local_steps=ks,
            accuracy=accuracy,
            n_nodes=NODES,
        )
        _draw_granted(ax, data, similarity)
        for (m, marker), rounds in zip(PARTICIPANTS.items(), data["instance"], strict=True):
            ax.plot(ks, array(rounds), color=_shade(m), marker=marker, label=f"m={m}")
    style.decimal_powers(axes[0, 0])
    axes[0, 0].set_ylabel(f"rounds to $E f \\leq {accuracy:g}\\, L D$")
    style.legend_above(
        figure,
        [
            style.line_handle("suffice for every $m$", ls="--", color=style.OKABE_ITO[UPPER]),
            *(
                style.line_handle(f"$m$ = {m} of {NODES}", color=_shade(m), marker=marker)
                for m, marker in PARTICIPANTS.items()
            ),
            style.line_handle("$K = 1/c$", ls=":", color="black"),
        ],
    )
    style.caption(
        figure,
        f"Data: instance I5 on {NODES} nodes that hold its two functions by turns, m of them drawn afresh "
        "every round; exact expectations, full gradients, step size 1/L, one instance for every number of "
        "rounds. Dashed: the smaller of T2 and T3, which by T7 hold for every m.",
    )
    return figure


def _shade(participants: int) -> tuple[float, float, float, float]:
    return style.k_color(round(20 ** (np.log(participants) / np.log(NODES))))
