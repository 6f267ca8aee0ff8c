"""How tight the bounds are and how they depend on K, the nodes' likeness and the step size."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from figures.analysis import theory_data
from figures.analysis.sources import Sources, array
from figures.analysis.verification import load_verification
from figures.drawing import style

_COLORS = ("black", "blue", "sky", "green", "vermilion")


def tightness(sources: Sources) -> Figure:
    """Bound over value of I0-I4 against R, and the limits 1, 2e, 2e, 1, 4e."""
    k, largest = 5, 100 if sources.quick else 10_000
    figure, axes = style.subplots(1, 1, width=style.ONE_COLUMN, height=2.8)
    ax = axes[0, 0]
    limits: dict[float, None] = {}
    for (name, marker), color in zip(
        {"I0": "s", "I1": "o", "I2": "^", "I3": "D", "I4": "v"}.items(), _COLORS, strict=True
    ):
        # (3/4)^T of I3 leaves the range of floating point beyond R = 400 at K = 5.
        top = min(largest, 400) if name == "I3" else largest
        # I4 needs R >= 5; the others show their way to the limit from R = 1 on.
        first = 5 if name == "I4" else 1
        rounds = np.unique(np.round(np.geomspace(first, top, 9)).astype(int)).tolist()
        data = sources.compute(
            theory_data.tightness_curve, instance=name, local_steps=k, rounds=rounds
        )
        shade = style.OKABE_ITO[color]
        ax.plot(data["rounds"], data["closed_form"], color=shade, lw=0.9)
        ax.plot(
            data["rounds"],
            data["ratio"],
            color=shade,
            marker=marker,
            ls="none",
            label=f"{name} ({data['theorem']})",
        )
        limits[data["limit"]] = None
    for limit, label in zip(sorted(limits), ("1", "$2e$", "$4e$"), strict=True):
        ax.axhline(limit, color=style.OKABE_ITO["grey"], ls="--", lw=0.8, zorder=0)
        ax.annotate(label, (1.01, limit), xycoords=("axes fraction", "data"), va="center")
    ax.set(xscale="log", yscale="log", xlabel="rounds $R$", ylabel="bound / measured")
    ax.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    ax.minorticks_off()
    ax.set_ylim(0.8, 16)
    figure.legend(loc="outside upper center", ncols=3, columnspacing=1.2, handletextpad=0.2)
    style.caption(
        figure,
        f"Data: instances I0-I4, simulated (markers) and in closed form (lines), "
        f"K = {k}; dashed: the limits.",
    )
    return figure


def rounds_to_eps(sources: Sources) -> Figure:
    """Rounds to accuracy against K: worst case, equal nodes, and ordinary problems."""
    record = load_verification(sources)
    families = record["communication"]
    figure, axes = style.subplots(1, 2, width=style.TWO_COLUMNS, height=3.0)
    extremes = [f for f in families if f["fit"]["predicted"] is not None]
    typical = [f for f in families if f["fit"]["predicted"] is None]
    looks = iter(
        [("vermilion", "^"), ("black", "o"), ("blue", "s"), ("green", "D"), ("purple", "v")]
    )
    handles = []
    for ax, group, title in (
        (axes[0, 0], extremes, "extremes (full gradients)"),
        (axes[0, 1], typical, "random least squares (one sample a step)"),
    ):
        accuracies = sorted({float(f"{f['accuracy']:.1e}") for f in group})
        for family in group:
            color, marker = next(looks)
            ks, shade = array(family["local_steps"]), style.OKABE_ITO[color]
            label = family["family"].removeprefix("least squares, ")
            slope = family["fit"]["slope"]
            if len(accuracies) > 1:
                label += f", $\\varepsilon$ = {family['accuracy']:.1e}"
            handles += ax.plot(
                ks,
                array(family["rounds"]),
                color=shade,
                marker=marker,
                label=f"{label}: slope {slope:.2f}",
            )
            ax.plot(
                ks,
                array(family["bound"]),
                color=shade,
                ls="--",
                lw=0.9,
                label=f"_needed by {family['theorem']}",
            )
            ax.annotate(
                family["theorem"],
                (ks[0], array(family["bound"])[0]),
                color=shade,
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
            )
        if group:
            style.k_axis(ax, group[0]["local_steps"])
            ax.set_xlim(0.7 * min(group[0]["local_steps"]), None)
            eps = f", $\\varepsilon$ = {accuracies[0]:g}" if len(accuracies) == 1 else ""
            ax.set_title(title + eps, fontsize=7.5)
            ax.set(yscale="log", ylabel="rounds to $f(\\bar{x}_R) \\leq \\varepsilon$")
        else:
            ax.set_title(title)
            ax.annotate(
                "not in the record: made without --quick",
                (0.5, 0.5),
                ha="center",
                xycoords="axes fraction",
            )
    style.legend_above(figure, handles, columns=2)
    style.caption(
        figure,
        "Data: theory/results/verify_rates.json; step size 1/L. Solid: measured; dashed: the rounds "
        "that the bound of the theorem named needs, T2: LD/(2 eps), T3: LD/(2 c K eps).",
    )
    return figure


def ratio_heatmap(sources: Sources) -> Figure:
    """Bound over measured for T2 and T3 over K and the nodes' likeness."""
    import seaborn  # only here: it takes a second to load

    ks = [1, 5] if sources.quick else [1, 2, 5, 10, 20]
    shares = [0.0, 1.0] if sources.quick else [0.0, 0.25, 0.5, 0.75, 1.0]
    rounds = 10 if sources.quick else 100
    figure, axes = style.subplots(1, 2, width=style.TWO_COLUMNS, height=2.6)
    grids = {
        theorem: sources.compute(
            theory_data.ratio_grid, theorem=theorem, local_steps=ks, shares=shares, rounds=rounds
        )
        for theorem in ("T2", "T3")
    }
    ratios = {t: np.array([array(row) for row in data["ratio"]]) for t, data in grids.items()}
    # One scale for both panels, up to a whole power of ten.
    decades = int(np.ceil(np.log10(max(np.nanmax(ratio) for ratio in ratios.values()))))
    for ax, (theorem, ratio) in zip(axes.flat, ratios.items(), strict=True):
        labels = [[f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in row] for row in ratio]
        # Light to dark, as a ratio of 1 (tight) is the least.
        seaborn.heatmap(
            np.log10(ratio),
            ax=ax,
            cmap="cividis_r",
            vmin=0,
            vmax=decades,
            annot=np.array(labels),
            fmt="",
            annot_kws={"fontsize": 7},
            linewidths=0.5,
            linecolor="white",
            cbar=theorem == "T3",
            cbar_kws={"label": "bound / measured", "ticks": range(decades + 1)},
        )
        for i, j in zip(*np.nonzero(np.isnan(ratio)), strict=True):
            ax.annotate(
                "A3 fails",
                (j + 0.5, i + 0.5),
                ha="center",
                va="center",
                fontsize=6,
                color=style.OKABE_ITO["grey"],
            )
        constants = array(grids[theorem]["similarity"])
        ax.set_xticklabels(
            [f"{s:.0%}\n$c$ = {c:.2g}" for s, c in zip(shares, constants, strict=True)], rotation=0
        )
        ax.set_yticklabels([str(k) for k in ks], rotation=0)
        ax.set(xlabel="share of a node's samples that is iid", ylabel="local steps a round $K$")
        ax.grid(False)
        ax.set_title(
            {
                "T2": "T2: average $f(\\bar{x}_r)$, any nodes",
                "T3": "T3: average $f(\\bar{x}^t)$, similar nodes",
            }[theorem]
        )
    bar = figure.axes[-1]
    bar.set_yticks(range(decades + 1), [f"{10**d}" for d in range(decades + 1)])
    style.caption(
        figure,
        f"Data: synthetic least squares, n = 5, 40 samples a node, d = 256, rank 10, seed 0; exact "
        f"expectations after R = {rounds} rounds of one sample a step, step size 1/L.",
    )
    return figure


def step_size(sources: Sources) -> Figure:
    """The average loss against eta L, and the bound with phi, up to and beyond 2/L."""
    ks = (1, 5, 20)
    rounds = 5 if sources.quick else 50
    factors = (
        [0.5, 1.0, 2.1]
        if sources.quick
        else [
            *np.round(np.arange(0.1, 1.81, 0.1), 10).tolist(),
            1.85,
            1.9,
            1.95,
            1.98,
            2.0,
            2.02,
            2.05,
            2.1,
            2.15,
            2.2,
        ]
    )
    figure, axes = style.subplots(1, 2, width=style.TWO_COLUMNS, height=2.7)
    for ax, theorem, label in (
        (axes[0, 0], "T1", "average local loss"),
        (axes[0, 1], "T2", "average $f(\\bar{x}_r)$"),
    ):
        for k in ks:
            data = sources.compute(
                theory_data.step_size_curve,
                theorem=theorem,
                heterogeneity="sorted",
                local_steps=k,
                rounds=rounds,
                factors=factors,
            )
            color = style.k_color(k)
            ax.plot(
                factors,
                array(data["measured"]),
                color=color,
                marker=style.k_marker(k),
                ms=2.2,
                label=f"K={k}",
            )
            # T2's bound after R rounds is one curve for all K.
            if theorem == "T1" or k == ks[0]:
                shade = color if theorem == "T1" else style.OKABE_ITO["black"]
                ax.plot(factors, array(data["bound"]), color=shade, ls="--", label="bound")
        ax.axvspan(2.0, max(factors), color=style.OKABE_ITO["vermilion"], alpha=0.12, lw=0)
        ax.axvline(1.0, color=style.OKABE_ITO["grey"], lw=0.8, ls=":")
        ax.set(yscale="log", xlabel="$\\eta L$", ylabel=label, xlim=(0, max(factors)))
        bottom = 0.5 * min(line.get_ydata().min() for line in ax.lines if len(line.get_ydata()) > 2)
        ax.set_ylim(bottom, None if sources.quick else 3e2)
        ax.set_title(f"{theorem}, R = {rounds}")
        ax.annotate(
            "beyond $2/L$ $\\rightarrow$",
            (2.0, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="top",
        )
    style.legend_above(
        figure,
        [
            *style.k_handles(ks, marker=True),
            style.line_handle("bound (T2: one for all K)", ls="--"),
        ],
    )
    style.caption(
        figure,
        "Data: synthetic least squares, sorted nodes, n = 5, 40 samples a node of unit norm, d = 256, "
        "rank 10, seed 0; exact expectations, one sample a step. Bound with phi = min(1, 2 - eta L).",
    )
    return figure
