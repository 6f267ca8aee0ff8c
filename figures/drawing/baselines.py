"""Local SGD beside mini-batch SGD and centralised GD, at equal communication and computation."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.analysis.baselines import baseline_paths
from figures.analysis.sources import Sources, array
from figures.drawing import style
from theory.problems import generators

#: (method, budget) of theory.verification.baselines -> label, colour, line style.
LOOKS = {
    ("Local SGD", "reference"): ("Local SGD", "vermilion", "-"),
    ("mini-batch SGD", "equal communication and computation"): (
        "mini-batch SGD, equal both",
        "blue",
        "-",
    ),
    ("mini-batch SGD", "equal computation"): ("mini-batch SGD, equal computation", "sky", "--"),
    ("GD", "equal communication"): ("GD, equal communication", "black", "-"),
    ("GD", "equal computation"): ("GD, equal computation", "grey", "--"),
    ("accelerated GD", "equal communication"): (
        "accelerated GD, equal communication",
        "green",
        "-",
    ),
    ("accelerated GD", "equal computation"): ("accelerated GD, equal computation", "orange", "--"),
}
LEVELS: dict[generators.Heterogeneity, str] = {"iid": "iid nodes", "sorted": "sorted nodes"}


def _draw(ax: Axes, methods: list[dict[str, Any]], over: str) -> None:
    for m in methods:
        label, color, dashes = LOOKS[m["method"], m["budget"]]
        x, loss = array(m[over]), array(m["loss"])
        ax.plot(x[1:], loss[1:], color=style.OKABE_ITO[color], ls=dashes, label=label)
        ax.plot(x[-1], loss[-1], color=style.OKABE_ITO[color], marker="o")
    ax.set(xscale="log", yscale="log")


def baselines(sources: Sources) -> Figure:
    """f at the synchronised model against communications (left) and sample gradients (right)."""
    k, rounds = (5, 8) if sources.quick else (10, 30)
    figure, axes = style.subplots(2, 2, width=style.TWO_COLUMNS, height=4.2, sharey="row")
    for row, (level, title) in zip(axes, LEVELS.items(), strict=True):
        data = sources.compute(baseline_paths, heterogeneity=level, local_steps=k, rounds=rounds)
        for ax, over, label in (
            (row[0], "communications", "communications (rounds)"),
            (row[1], "gradients", "sample gradients a node"),
        ):
            _draw(ax, data["methods"], over)
            ax.set_xlabel(label)
            ax.set_title(title)
        row[0].set_ylabel("expected $f(\\bar{x})$")
    handles = [
        style.line_handle(label, color=style.OKABE_ITO[color], ls=dashes)
        for label, color, dashes in LOOKS.values()
    ]
    style.legend_above(figure, handles, columns=3)
    style.caption(
        figure,
        "Data: synthetic least squares, power-law spectrum, n = 5, 40 samples a node, d = 256, rank 40, "
        f"seed 0; exact expectations. Local SGD: K = {k}, one sample a step, R = {rounds}; each method "
        "at the best of 0.25, 0.5, 1 and 1.5 times its own default step size. Dots: the end of a budget.",
    )
    return figure
