"""The deep experiment: training loss, its inverse, rounds to the target, consensus distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from figures.analysis.deep_runs import (
    Runs,
    column,
    config_of,
    fitted_line,
    late_line,
    load_runs,
    local_steps_of,
)
from figures.analysis.sources import Sources
from figures.drawing import style


def data_line(runs: Runs) -> str:
    """What the data and the network are, for the caption."""
    configs = [run["config"] for by_k in runs.values() for run in by_k.values()]
    c = configs[0]
    images = f"{c['subset']:,} training images" if c["subset"] else "all training images"
    return (
        f"Data: {c['data_name']}, ResNet18 width {c['width']} (LayerNorm), {images}, "
        f"n = {c['n_nodes']}, batch {c['batch_size']} a node, step size {c['step_size']:g}, "
        f"seed {c['seed']}."
    )


def _panels(runs: Runs, height: float, sharey: bool = True) -> tuple[Figure, Any]:
    width = style.TWO_COLUMNS if len(runs) > 1 else style.ONE_COLUMN
    figure, axes = style.subplots(1, len(runs), width=width, height=height, sharey=sharey)
    for ax, regime in zip(axes[0], runs, strict=True):
        ax.set_title(regime)
    return figure, axes[0]


def loss_vs_rounds(sources: Sources, experiment: str = "to-loss") -> Figure:
    """Training loss against rounds, log-log, a panel a regime."""
    runs = load_runs(sources, experiment)
    figure, axes = _panels(runs, 2.6)
    for ax, by_k in zip(axes, runs.values(), strict=True):
        for k, run in by_k.items():
            rounds, loss = column(run, "round"), column(run, "train_loss")
            drawn = rounds > 0
            ax.plot(rounds[drawn], loss[drawn], color=style.k_color(k), lw=1.0, label=f"K={k}")
            # The last point, so that the end shows where curves lie over one another.
            ax.plot(rounds[-1], loss[-1], color=style.k_color(k), marker=style.k_marker(k))
        target = next(iter(by_k.values()))["config"]["target_loss"]
        if target:
            ax.axhline(target, color=style.OKABE_ITO["grey"], ls=":", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="rounds $r$")
    axes[0].set_ylabel("training loss $f(\\bar{x}_r)$ (nats)")
    handles = style.k_handles(local_steps_of(runs), marker=True)
    if target:
        handles.append(style.line_handle("target", ls=":"))
    style.legend_above(figure, handles)
    style.caption(figure, data_line(runs))
    return figure


def loss_at_fixed_rounds(sources: Sources) -> Figure:
    """Training loss against rounds where every K runs for the same number of rounds."""
    return loss_vs_rounds(sources, "fixed-rounds")


def inverse_loss_vs_iterations(sources: Sources) -> Figure:
    """1/loss against T with the fitted line: straight means O(1/T)."""
    runs = load_runs(sources)
    figure, axes = _panels(runs, 2.6, sharey=False)
    for ax, by_k in zip(axes, runs.values(), strict=True):
        for k, run in by_k.items():
            t, loss, color = column(run, "iteration"), column(run, "train_loss"), style.k_color(k)
            with np.errstate(divide="ignore"):
                ax.plot(t, 1.0 / loss, color=color, lw=1.0, label=f"K={k}")
            fit = fitted_line(run)
            if fit is not None:
                ends = np.array([0.0, t[-1]])
                ax.plot(
                    ends, fit[0] + fit[1] * ends, color=color, ls="--", lw=0.8, label=f"fit K={k}"
                )
            late = late_line(run)
            if late is not None:
                ends = np.array([-late[0] / late[1], t[-1]])
                ax.plot(
                    ends,
                    late[0] + late[1] * ends,
                    color=color,
                    ls=":",
                    lw=0.9,
                    label=f"late fit K={k}",
                )
        ax.set_xlim(0, None)
        ax.set_ylim(0, None)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}"))
        ax.set_xlabel("iterations $T$ (thousands)")
    axes[0].set_ylabel("1 / training loss (1,000/nats)")
    style.legend_above(
        figure,
        [
            *style.k_handles(local_steps_of(runs)),
            style.line_handle("fit $a + bT$, whole run", ls="--"),
            style.line_handle("second half", ls=":"),
        ],
    )
    style.caption(figure, data_line(runs) + " A straight line is O(1/T), after a delay.")
    return figure


def rounds_to_loss(sources: Sources) -> Figure:
    """Rounds until the training loss is below the target, against K."""
    runs = load_runs(sources)
    figure, axes = style.subplots(1, 1, width=style.ONE_COLUMN, height=2.7)
    ax, all_ks = axes[0, 0], local_steps_of(runs)
    tops = []
    for regime, by_k in runs.items():
        color, marker = style.REGIME_STYLE[regime]
        ks = np.array(list(by_k), float)
        reached = np.array(
            [r["summary"]["rounds_to_target"] or np.nan for r in by_k.values()], float
        )
        ax.plot(ks, reached, color=color, marker=marker, label=regime)
        missed = np.isnan(reached)
        limits = np.array([r["summary"]["rounds"] for r in by_k.values()], float)
        tops += [*reached[~missed], *limits[missed]]
        if missed.any():
            ax.plot(
                ks[missed],
                limits[missed],
                color=color,
                marker=marker,
                mfc="none",
                ls="none",
                label=f"{regime}: not reached by then",
            )
    ends = np.array([all_ks[0], all_ks[-1]], float)
    top = 1.4 * max(tops)
    ax.plot(
        ends, top * ends[0] / ends, color=style.OKABE_ITO["grey"], ls=":", label="$\\propto 1/K$"
    )
    style.k_axis(ax, all_ks)
    target = config_of(runs)["target_loss"]
    ax.set(yscale="log", ylabel=f"rounds to training loss < {target:g}")
    style.decimal_axis(ax)
    figure.legend(loc="outside upper center", ncols=2 if len(runs) > 2 else 3, columnspacing=1.2)
    style.caption(figure, data_line(runs))
    return figure


def consensus_distance(sources: Sources) -> Figure:
    """How far the nodes drift apart in a round, over the rounds."""
    runs = load_runs(sources)
    figure, axes = _panels(runs, 2.6)
    for ax, by_k in zip(axes, runs.values(), strict=True):
        for k, run in by_k.items():
            rounds, spread = column(run, "round"), column(run, "consensus_distance")
            drawn = (rounds > 0) & (spread > 0)
            ax.plot(rounds[drawn], spread[drawn], color=style.k_color(k), lw=1.0, label=f"K={k}")
        ax.set(xscale="log", yscale="log", xlabel="rounds $r$")
    axes[0].set_ylabel("$n^{-1}\\sum_i \\|x_i - \\bar{x}\\|^2$ before averaging")
    style.legend_above(figure, style.k_handles(local_steps_of(runs)))
    style.caption(figure, data_line(runs))
    return figure
