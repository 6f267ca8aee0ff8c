"""The energy balance: loss, phi_hat and phi_total, aim and noise, and where D_0 went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from figures.analysis.deep_runs import column as line_of
from figures.analysis.energy import (
    CONTROL_PATH,
    PLACES,
    Balance,
    balances,
    control,
    runs_with_results,
    shown,
)
from figures.analysis.sources import Sources
from figures.drawing import style
from theory.support.energy import Windows

#: Of the control: the convex problem that is no quadratic.
CONTROLS = ("logistic, iid", "logistic, sorted")
#: Windows drawn of a run, at most, and columns of deep runs.
MOST_WINDOWS, MOST_REGIMES = 60, 3
_LEVELS = (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50)
#: Share of D_0 -> its colour; what averaging and progress took stands above zero, noise below.
SHARES = {"averaging": "blue", "progress": "green", "noise": "vermilion"}


@dataclass(frozen=True)
class _Column:
    title: str
    windows: dict[int, Windows]
    runs: tuple[Balance, ...] = ()


def energy(sources: Sources) -> Figure:
    """A column a regime and, beside them, the theory's control; in each a colour a K."""
    runs = shown(balances(runs_with_results(sources)))
    columns = _controls(sources) + _regimes(runs)
    figure, axes = style.subplots(
        4,
        len(columns),
        width=style.TWO_COLUMNS,
        height=6.6,
        gridspec_kw={"height_ratios": (1.0, 1.2, 1.2, 0.9)},
    )
    for column, chosen in zip(axes.T, columns, strict=True):
        _draw(column, chosen)
    for ax, label in zip(
        axes[:, 0],
        (
            "loss: $l$, $f$",
            r"$\hat\varphi$, $\varphi_{\rm total}$",
            "aim, noise",
            "shares of $D_0$",
        ),
        strict=True,
    ):
        ax.set_ylabel(label)
    ks = sorted({k for chosen in columns for k in chosen.windows})
    style.legend_above(
        figure,
        [
            *style.k_handles(ks),
            style.line_handle(r"$l$; $\hat\varphi$; aim"),
            style.line_handle(r"$f(\bar{x})$", ls=":"),
            style.line_handle(r"$\varphi_{\rm total}$; noise", ls="--"),
            *(Patch(color=style.OKABE_ITO[c], label=name) for name, c in SHARES.items()),
        ],
    )
    style.caption(
        figure, f"Data: one path of Local SGD, eta = 1/L, z = x*; {CONTROL_PATH}. {_of(runs)}"
    )
    return figure


def _of(runs: Sequence[Balance]) -> str:
    if not runs:
        return "No deep run with a balance has ended yet."
    c = runs[0].run.config
    return (
        f"Deep: {c['data_name']}, ResNet18 (LayerNorm), n = {c['n_nodes']}, batch {c['batch_size']} a node, "
        f"{runs[0].run.rung.label}, seed 0, z the last model; {PLACES[0]}."
    )


def _controls(sources: Sources) -> list[_Column]:
    cells = control(sources)
    return [
        _Column(f"theory:\n{label}", {c.local_steps: c.windows for c in cells if c.label == label})
        for label in CONTROLS
    ]


def _regimes(runs: Sequence[Balance]) -> list[_Column]:
    regimes = list(dict.fromkeys(b.run.regime for b in runs))[:MOST_REGIMES]
    found = []
    for regime in regimes:
        mine = tuple(b for b in runs if b.run.regime == regime)
        found.append(
            _Column(f"ResNet18:\n{regime}", {b.local_steps: b.windows for b in mine}, mine)
        )
    return found


def _draw(axes: Sequence[Axes], column: _Column) -> None:
    loss, phi, parts, shares = axes
    loss.set_title(column.title, fontsize=7)
    for k, windows in sorted(column.windows.items()):
        w, color = windows.at_most(MOST_WINDOWS), style.k_color(k)
        loss.plot(w.middle, w.loss / np.diff(w.iteration), color=color, label=f"K={k}")
        phi.plot(w.middle, w.phi_hat, color=color, label=f"K={k}")
        phi.plot(w.middle, w.phi_total, color=color, ls="--", label=f"total K={k}")
        parts.plot(w.middle, w.aim, color=color, label=f"K={k}")
        parts.plot(w.middle, w.noise, color=color, ls="--", label=f"noise K={k}")
    for balance in column.runs:
        t, f = (line_of(balance.run.result, name) for name in ("iteration", "train_loss"))
        loss.plot(
            t[1:],
            f[1:],
            color=style.k_color(balance.local_steps),
            ls=":",
            label=f"f K={balance.local_steps}",
        )
    loss.set(xscale="log", yscale="log")
    for ax in (phi, parts):
        ax.set(xscale="log")
        # Linear where the theory lives, logarithmic beyond.
        ax.set_yscale("symlog", linthresh=2.0, linscale=1.0)
        ax.yaxis.set_major_locator(FixedLocator(_LEVELS))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        for level in (0.0, 1.0):
            ax.axhline(level, color=style.OKABE_ITO["grey"], lw=0.8, ls=":")
        ax.set_xlim(loss.get_xlim())
    for ax in (loss, phi, parts):
        ax.set_xlabel("iterations $t$")
    _draw_shares(shares, column)


def _draw_shares(ax: Axes, column: _Column) -> None:
    ks = sorted(column.windows)
    for place, k in enumerate(ks):
        found = column.windows[k].whole().shares
        top = 0.0
        for name, color in SHARES.items():
            value = float(found[name][0])
            bottom = top if value > 0 else 0.0
            ax.bar(place, value, bottom=bottom, width=0.7, color=style.OKABE_ITO[color], label=name)
            top += max(value, 0.0)
    ax.axhline(0.0, color=style.OKABE_ITO["black"], lw=0.6)
    ax.set_xticks(range(len(ks)), [str(k) for k in ks])
    ax.set_xlabel("$K$")
