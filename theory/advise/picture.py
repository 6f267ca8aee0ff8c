"""The advice drawn: rounds against K with the bend, and the loss against rounds."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theory.advise.advice import OUTER_STEPS, Advice
from theory.advise.text import NAMES, bend_at
from theory.problems.margin import MarginProblem
from theory.support.files import write_atomically

COLOURS = dict(zip(OUTER_STEPS, ("#000000", "#56B4E9", "#D55E00", "#009E73"), strict=True))
CURVES = ("#000000", "#0072B2", "#D55E00")


def draw(problem: MarginProblem, advice: Advice, path: Path) -> None:
    """Write the picture as a PNG; raises `UserError` when it can't be written."""
    figure = make(problem, advice)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def make(problem: MarginProblem, advice: Advice) -> Figure:
    """The picture."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _rounds(left, problem, advice)
    _losses(right, advice)
    figure.suptitle(f"{problem.name}, {problem.heterogeneity}: n = {problem.n_nodes}", fontsize=10)
    return figure


def _rounds(ax: Axes, problem: MarginProblem, advice: Advice) -> None:
    ks = np.array(advice.local_steps, float)
    for outer in OUTER_STEPS:
        # A log axis has no 0: what arrives at once is drawn at half a round.
        rounds = np.array([max(t.rounds, 0.5) for t in advice.row(outer)])
        ax.plot(ks, rounds, "o-", color=COLOURS[outer], markersize=3, label=NAMES[outer])
    promised = np.array([t.promised for t in advice.row(1.0)])
    if np.isfinite(promised).any():
        ax.plot(ks, promised, "--", color="0.4", label="promised, plain mean")
    bend = bend_at(problem)
    if math.isfinite(bend):
        ax.axvline(bend, color="0.6", ls=":", label="bend, K = 1/c")
    chosen = advice.recommended
    if chosen is not None:
        ax.plot(
            chosen.local_steps,
            max(chosen.rounds, 0.5),
            "*",
            color="#CC79A7",
            ms=13,
            ls="",
            label="advice",
        )
    ax.set(xscale="log", yscale="log", xlabel="local steps K")
    ax.set_ylabel(f"rounds until f <= {advice.eps:.3g}")
    ax.legend(fontsize=7)


def _losses(ax: Axes, advice: Advice) -> None:
    for curve, colour in zip(advice.curves, CURVES, strict=False):
        # From the first round on, as a log axis has no 0.
        r = np.arange(1, len(curve.mean))
        ax.fill_between(r, curve.low[1:], curve.high[1:], color=colour, alpha=0.2, lw=0)
        ax.plot(r, curve.mean[1:], color=colour, label=curve.label)
    ax.axhline(advice.eps, color="0.6", ls=":", label="eps")
    ax.set(xscale="log", yscale="log", xlabel="rounds r", ylabel="f(xbar_r)")
    ax.set_ylim(bottom=max(ax.get_ylim()[0], advice.eps / 100))
    ax.legend(fontsize=7)
