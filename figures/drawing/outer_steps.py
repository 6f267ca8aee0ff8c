"""FedAvg as it is run: what outer steps buy, at equal communication."""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.analysis.outer_steps import SIZES, outer_step_curves
from figures.analysis.sources import Sources, array
from figures.drawing import style

#: Outer step -> label, colour and dashes.
RULES: dict[float | str, tuple[str, str, str]] = {
    1.0: ("plain mean, $\\beta$ = 1", "black", "-"),
    "half-extrapolated": ("half of it, $P/(2Q)$ (FedExP)", "sky", "--"),
    "extrapolated": ("extrapolated, $\\beta = P/Q$", "vermilion", "-"),
    "polyak": ("Polyak's, with the losses", "green", "-."),
}
LEVELS = {"iid": "iid nodes", "sorted": "sorted nodes"}
PROBLEMS = {"least squares": "least squares", "logistic": "realizable logistic"}


def outer_steps(sources: Sources) -> Figure:
    """f(xbar_r) against rounds: four outer steps, two problems, iid and sorted nodes."""
    k, rounds, seeds = (5, 10, 4) if sources.quick else (5, 60, 100)
    figure, axes = style.subplots(1, 4, width=style.TWO_COLUMNS, height=2.7, sharey=True)
    panels = [(problem, level) for problem in PROBLEMS for level in LEVELS]
    for ax, (problem, level) in zip(axes[0], panels, strict=True):
        data = sources.compute(
            outer_step_curves,
            problem=problem,
            heterogeneity=level,
            outer_steps=list(RULES),
            local_steps=k,
            rounds=rounds,
            seeds=seeds,
        )
        for curve, (label, color, dashes) in zip(data["curves"], RULES.values(), strict=True):
            shade = style.OKABE_ITO[color]
            r, low, high = (array(v) for v in (data["rounds"], curve["low"], curve["high"]))
            ax.fill_between(r, low, high, color=shade, alpha=0.2, lw=0)
            ax.plot(r, array(curve["mean"]), color=shade, ls=dashes, label=label)
        ax.set(yscale="log", xlabel="rounds $r$")
        ax.set_title(f"{PROBLEMS[problem]},\n{LEVELS[level]}", fontsize=7.5)
    axes[0, 0].set_ylabel("$f(\\bar{x}_r)$")
    style.legend_above(
        figure,
        [
            style.line_handle(label, color=style.OKABE_ITO[color], ls=dashes)
            for label, color, dashes in RULES.values()
        ],
    )
    style.caption(
        figure,
        f"Data: synthetic, n = {SIZES['n_nodes']} nodes, {SIZES['samples_per_node']} samples a node, "
        f"d = {SIZES['dimension']}, seed 0; K = {k}, one sample a step, step size 1/L; mean of {seeds} paths, "
        "all rules on the same draws, and 5% to 95% of them. P: mean of the nodes' squared movements in a "
        "round, Q: square of their mean movement.",
    )
    return figure
