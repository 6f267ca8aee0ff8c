"""The ladder of deep runs: rounds against K with seeds, heterogeneity, exponents; variants; assumptions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.analysis.deep_runs import column, late_slopes
from figures.analysis.ladder import (
    LADDER,
    LADDER_COMMAND,
    Run,
    Rung,
    complete_rung,
    ladder_runs,
)
from figures.analysis.ladder_readings import ALIKE, exponents, heterogeneity
from figures.analysis.sources import MissingResult, Sources
from figures.drawing import style

#: K at which outer steps and client sampling are compared.
VARIANTS_K = 20
_SEED = 0


def _to_loss(sources: Sources) -> list[Run]:
    runs = [run for run in ladder_runs(sources) if run.rung.experiment == "to-loss"]
    if not runs:
        raise MissingResult(f"{LADDER} has no run to a loss; make it with: {LADDER_COMMAND}")
    return runs


def _main_rung(runs: Sequence[Run]) -> Rung:
    """The rung of the tables, the largest that is complete; until there is one, that with the most runs."""
    plain = [run.rung for run in runs if run.is_plain]
    return complete_rung(runs, "to-loss") or max(sorted(set(plain)), key=plain.count)


def _caption(figure: Figure, runs: Sequence[Run], more: str) -> None:
    c = runs[0].config
    style.caption(
        figure,
        f"Data: {c['data_name']}, ResNet18 (LayerNorm), n = {c['n_nodes']}, batch {c['batch_size']} a node; "
        f"{LADDER}. {more}",
    )


def ladder(sources: Sources) -> Figure:
    """Rounds against K with the spread over seeds; one shard over iid; exponents rung by rung."""
    runs = _to_loss(sources)
    figure, axes = style.subplots(1, 3, width=style.TWO_COLUMNS, height=2.7)
    rung = _main_rung(runs)
    _draw_rounds(axes[0, 0], [run for run in runs if run.rung == rung and run.is_plain])
    axes[0, 0].set_title(rung.label, fontsize=7)
    _draw_heterogeneity(axes[0, 1], runs)
    _draw_exponents(axes[0, 2], runs)
    regimes = dict.fromkeys(run.regime for run in runs if run.is_plain)
    handles = [
        style.line_handle(r, color=style.REGIME_STYLE[r][0], marker=style.REGIME_STYLE[r][1])
        for r in regimes
    ]
    handles.append(style.line_handle("not reached by then", marker="o", mfc="none", ls="none"))
    style.legend_above(figure, handles)
    _caption(
        figure,
        runs,
        "Bars: least and most of the seeds (left), 95% (middle, right). Shaded: within 25%. A run that has "
        "not reached the target enters no ratio and no fit. Bars end at the frame.",
    )
    return figure


def _draw_rounds(ax: Axes, runs: Sequence[Run]) -> None:
    ks = sorted({run.local_steps for run in runs})
    for regime in dict.fromkeys(run.regime for run in runs):
        color, marker = style.REGIME_STYLE[regime]
        mine = [run for run in runs if run.regime == regime]
        reached = {
            k: [run.rounds for run in mine if run.local_steps == k and run.rounds] for k in ks
        }
        shown = [k for k in ks if reached[k]]
        means = [float(np.exp(np.mean(np.log(reached[k])))) for k in shown]
        spread = [
            [mean - min(reached[k]) for k, mean in zip(shown, means, strict=True)],
            [max(reached[k]) - mean for k, mean in zip(shown, means, strict=True)],
        ]
        ax.errorbar(
            shown, means, yerr=np.maximum(spread, 0), color=color, marker=marker, label=regime
        )
        waiting = [run for run in mine if not run.rounds]
        ax.plot(
            [run.local_steps for run in waiting],
            [run.summary["rounds"] for run in waiting],
            color=color,
            marker=marker,
            mfc="none",
            ls="none",
            label=f"{regime}: not reached by then",
        )
    ax.set(yscale="log", ylabel=f"rounds to loss < {runs[0].config['target_loss']:g}")
    style.k_axis(ax, ks)
    style.decimal_axis(ax)


def _draw_heterogeneity(ax: Axes, runs: Sequence[Run]) -> None:
    found = [ratio for ratio in heterogeneity(runs) if ratio.mean]
    ax.axhspan(1 / ALIKE, ALIKE, color=style.OKABE_ITO["grey"], alpha=0.12, lw=0)
    ax.axhline(1.0, color=style.OKABE_ITO["grey"], lw=0.8)
    rungs = dict.fromkeys(r.rung for r in found)
    for rung, (marker, dashes) in zip(rungs, itertools.cycle(_LOOKS), strict=False):
        mine = [ratio for ratio in found if ratio.rung == rung]
        means = np.array([ratio.mean for ratio in mine], float)
        ends = np.array([ratio.interval or (ratio.mean, ratio.mean) for ratio in mine], float)
        ax.errorbar(
            [ratio.local_steps for ratio in mine],
            means,
            yerr=np.abs(ends.T - means),
            color=style.OKABE_ITO["black"],
            marker=marker,
            ls=dashes,
            label=rung.label,
        )
    ax.set(yscale="log", ylabel="rounds, one shard / iid")
    style.k_axis(ax, sorted({run.local_steps for run in runs}))
    # Below the ratios there is room for a line of the legend a rung.
    room = 0.8 ** len(rungs)
    ax.set_ylim(room * min(0.5, ax.get_ylim()[0]), max(2.0, ax.get_ylim()[1]))
    style.decimal_axis(ax)
    if found:
        ax.legend(fontsize=5.5, loc="lower left")
    else:
        _say_nothing(ax)


#: Marker and dashes of the rungs in the middle panel.
_LOOKS = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))


def _draw_exponents(ax: Axes, runs: Sequence[Run]) -> None:
    found = exponents(runs)
    rungs = sorted({e.rung for e in found})
    for e in found:
        color, marker = style.REGIME_STYLE[e.regime]
        place = rungs.index(e.rung) + 0.12 * list(style.REGIME_STYLE).index(e.regime) - 0.2
        ax.errorbar(
            [place],
            [e.slope],
            yerr=[[e.slope - e.interval[0]], [e.interval[1] - e.slope]],
            color=color,
            marker=marker,
            mfc=color if e.over_seeds else "none",
            label=f"{e.regime}, {e.rung.label}",
        )
    for level in (-1.0, 0.0):
        ax.axhline(level, color=style.OKABE_ITO["grey"], lw=0.8, ls=":")
    ax.set_yticks((-1.0, -0.5, 0.0), ("-1: $K$-fold", "-0.5", "0: none"))
    ax.set_xticks(range(len(rungs)), [r.label.replace(", ", "\n") for r in rungs])
    ax.set(xlim=(-0.5, max(0.5, len(rungs) - 0.5)), ylim=(-1.4, 0.3))
    ax.set(ylabel="exponent of rounds in $K$", xlabel="rung (open: one line, not seeds)")
    if not found:
        _say_nothing(ax)


def _say_nothing(ax: Axes) -> None:
    ax.annotate("no runs for it yet", (0.5, 0.5), xycoords="axes fraction", ha="center")


def _panels(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """By regime."""
    regimes = dict.fromkeys(run.regime for run in runs)
    return {regime: [run for run in runs if run.regime == regime] for regime in regimes}


def ladder_variants(sources: Sources) -> Figure:
    """Loss against rounds at one K: plain averaging, outer steps, half of the nodes."""
    runs = [r for r in _to_loss(sources) if r.local_steps == VARIANTS_K and r.seed == _SEED]
    varied = [run.rung for run in runs if not run.is_plain]
    if not varied:
        raise MissingResult(f"{LADDER} has no variant; make it with: {LADDER_COMMAND}")
    rung = max(varied)
    found = _panels([run for run in runs if run.rung == rung])
    panels = {r: mine for r, mine in found.items() if any(not x.is_plain for x in mine)}
    figure, axes = style.subplots(1, len(panels), width=style.TWO_COLUMNS, height=2.6, sharey=True)
    names = dict.fromkeys(run.variant for mine in panels.values() for run in mine)
    colours = dict(zip(names, ("black", "vermilion", "blue", "green", "purple"), strict=False))
    for ax, (regime, mine) in zip(axes[0], panels.items(), strict=True):
        for run in mine:
            _draw_curve(ax, run, "train_loss", style.OKABE_ITO[colours[run.variant]])
        ax.axhline(mine[0].config["target_loss"], color=style.OKABE_ITO["grey"], ls=":", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="rounds $r$", title=regime)
    axes[0, 0].set_ylabel("training loss $f(\\bar{x}_r)$ (nats)")
    style.legend_above(
        figure,
        [style.line_handle(v or "plain mean", color=style.OKABE_ITO[colours[v]]) for v in names],
    )
    _caption(figure, runs, f"K = {VARIANTS_K}, seed {_SEED}, {rung.label}.")
    return figure


def _draw_curve(ax: Axes, run: Run, name: str, color: object, label: str = "") -> None:
    rounds, values = column(run.result, "round"), column(run.result, name)
    drawn = (rounds > 0) & np.isfinite(values)
    ax.plot(
        rounds[drawn], values[drawn], color=color, lw=1.0, label=label or run.variant or "plain"
    )


def ladder_assumptions(sources: Sources) -> Figure:
    """c = min_i f_i/f (A3) and P/Q along the runs, a column a regime."""
    runs = [run for run in _to_loss(sources) if run.is_plain and run.seed == _SEED]
    rung = _main_rung(runs)
    panels = _panels([run for run in runs if run.rung == rung])
    figure, axes = style.subplots(
        2, len(panels), width=style.TWO_COLUMNS, height=3.6, sharex=True, sharey="row"
    )
    for columns, (regime, mine) in zip(axes.T, panels.items(), strict=True):
        for run in mine:
            shade = style.k_color(run.local_steps)
            _draw_curve(columns[0], run, "least_loss_ratio", shade, f"K={run.local_steps}")
            _draw_curve(columns[1], run, "movement_ratio", shade, f"K={run.local_steps}")
        columns[0].set(xscale="log", xlabel="rounds $r$", title=regime, ylim=(0, 1))
        columns[1].set(yscale="log", xlabel="rounds $r$")
        columns[1].axhline(1.0, color=style.OKABE_ITO["grey"], lw=0.8, ls=":")
    axes[0, 0].set_ylabel("$c = \\min_i f_i/f$ at $\\bar{x}_r$")
    axes[1, 0].set_ylabel("$P/Q$ of the round")
    ks = sorted({run.local_steps for mine in panels.values() for run in mine})
    style.legend_above(figure, style.k_handles(ks))
    _caption(
        figure,
        runs,
        f"Seed {_SEED}, {rung.label}. P: mean of the nodes' squared movements in a round, Q: "
        "square of their mean movement; P/Q = n where movements are uncorrelated, 1 where they are equal.",
    )
    return figure


def ladder_ends(sources: Sources) -> Figure:
    """How the loss falls in the late phase, and what the last averaged model is worth on the test set."""
    runs = [run for run in _to_loss(sources) if run.is_plain]
    rung = _main_rung(runs)
    panels = _panels([run for run in runs if run.rung == rung])
    figure, axes = style.subplots(1, 2, width=style.TWO_COLUMNS, height=2.6)
    for place, (regime, mine) in enumerate(panels.items()):
        # Side by side, as many slopes are nearly alike.
        shift = 1.06 ** (place - 0.5 * (len(panels) - 1))
        color, marker = style.REGIME_STYLE[regime]
        _draw_late_slopes(axes[0, 0], mine, shift, color, marker)
        _draw_accuracy(axes[0, 1], mine, shift, color, marker)
    axes[0, 0].axhline(-1.0, color=style.OKABE_ITO["grey"], lw=0.8, ls=":")
    axes[0, 0].annotate("$1/T$", (1.0, -1.0), xycoords=("axes fraction", "data"), fontsize=6)
    axes[0, 0].set_ylabel("late slope of $\\log f$ in $\\log T$")
    axes[0, 1].set_ylabel("test accuracy of $\\bar{x}_R$ (%)")
    axes[0, 1].set_ylim(bottom=0)
    ks = sorted({run.local_steps for mine in panels.values() for run in mine})
    for ax in axes[0]:
        style.k_axis(ax, ks)
    looks = {regime: style.REGIME_STYLE[regime] for regime in panels}
    handles = [style.line_handle(r, color=c, marker=m, ls="none") for r, (c, m) in looks.items()]
    style.legend_above(figure, handles)
    _caption(
        figure,
        runs,
        f"Runs to the target of {rung.label}, all seeds. Bars: 95% of the fit to one run. A guess has an "
        "accuracy of 10%.",
    )
    return figure


def _draw_late_slopes(
    ax: Axes, runs: Sequence[Run], shift: float, color: object, marker: str
) -> None:
    for run in runs:
        for fit in late_slopes([run.result]) if run.rounds else ():
            low, high = fit["interval"]
            ax.errorbar(
                [shift * run.local_steps],
                [fit["slope"]],
                yerr=[[fit["slope"] - low], [high - fit["slope"]]],
                color=color,
                marker=marker,
            )


def _draw_accuracy(ax: Axes, runs: Sequence[Run], shift: float, color: object, marker: str) -> None:
    found = [(run.local_steps, run.summary["final_test_accuracy"]) for run in runs if run.rounds]
    ks = [shift * k for k, accuracy in found if accuracy is not None]
    values = [100 * accuracy for _, accuracy in found if accuracy is not None]
    ax.plot(ks, values, color=color, marker=marker, ls="none")
