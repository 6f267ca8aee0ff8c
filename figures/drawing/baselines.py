"""Local SGD beside its rivals, at equal communication and at equal computation."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.analysis.baselines import baseline_paths
from figures.analysis.sources import Sources, array
from figures.drawing import style
from theory.problems import generators

#: Method of theory.verification.baselines -> colour, line style.
LOOKS = {
    "Local SGD": ("vermilion", "-"),
    "FedProx": ("orange", "--"),
    "SCAFFOLD II": ("purple", "-"),
    "SCAFFOLD I": ("purple", "--"),
    "one-shot averaging": ("grey", "-"),
    "mini-batch SGD": ("blue", "-"),
    "GD": ("black", "-"),
    "accelerated GD": ("green", "-"),
}
#: What is on an axis -> its label and the budget that a method shares there with Local SGD.
PANELS = {
    "communications": ("vectors that a node sends", "communication"),
    "gradients": ("sample gradients a node", "computation"),
}
LEVELS: dict[generators.Heterogeneity, str] = {"iid": "iid nodes", "sorted": "sorted nodes"}


def shown(methods: list[dict[str, Any]], over: str) -> list[dict[str, Any]]:
    """One entry a method: that which shares with Local SGD the budget of the panel.

    Where several do, such as mini-batch SGD with K b samples a round and with K times the rounds, the one
    that spends the panel's budget alone.
    """
    shared = PANELS[over][1]
    found: dict[str, dict[str, Any]] = {}
    for m in methods:
        if m["budget"] == "reference" or shared in m["budget"]:
            before = found.get(m["method"])
            if before is None or len(m["budget"]) < len(before["budget"]):
                found[m["method"]] = m
    return list(found.values())


def _draw(ax: Axes, methods: list[dict[str, Any]], over: str) -> None:
    for m in shown(methods, over):
        color, dashes = LOOKS[m["method"]]
        x, loss = array(m[over]), array(m["loss"])
        label = m["method"]
        ax.plot(x[1:], loss[1:], color=style.OKABE_ITO[color], ls=dashes, label=label)
        ax.plot(x[-1], loss[-1], color=style.OKABE_ITO[color], marker="o")
    ax.set(xscale="log", yscale="log")


def baselines(sources: Sources) -> Figure:
    """f at the synchronised model against vectors sent (left) and sample gradients (right)."""
    k, rounds, seeds = (5, 8, 2) if sources.quick else (10, 30, 16)
    factors = [1.0, 1.5] if sources.quick else [0.25, 0.5, 1.0, 1.5]
    figure, axes = style.subplots(2, 2, width=style.TWO_COLUMNS, height=4.2, sharey="row")
    for row, (level, title) in zip(axes, LEVELS.items(), strict=True):
        data = sources.compute(
            baseline_paths,
            heterogeneity=level,
            local_steps=k,
            rounds=rounds,
            seeds=seeds,
            step_factors=factors,
        )
        for ax, (over, (label, shared)) in zip(row, PANELS.items(), strict=True):
            _draw(ax, data["methods"], over)
            ax.set_xlabel(label)
            ax.set_title(f"{title}, equal {shared}")
        row[0].set_ylabel("expected $f(\\bar{x})$")
    handles = [
        style.line_handle(name, color=style.OKABE_ITO[color], ls=dashes)
        for name, (color, dashes) in LOOKS.items()
    ]
    style.legend_above(figure, handles, columns=4)
    tried = ", ".join(f"{factor:g}" for factor in factors)
    style.caption(
        figure,
        "Data: synthetic least squares, power-law spectrum, n = 5, 40 samples a node, d = 256, rank 40, "
        f"seed 0. Local SGD: K = {k}, one sample a step, R = {rounds}. Exact expectations; FedProx and "
        f"SCAFFOLD: means of {seeds} paths. Each method at the best of {tried} times its own default "
        "step. Dots: the end of a budget. SCAFFOLD sends two vectors a round.",
    )
    return figure
