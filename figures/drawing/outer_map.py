"""The worst last iterate over local step size and outer step: no fixed pair escapes I6."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from figures.analysis.outer_map import OUTER_COMMAND, OUTER_PATH, load_outer_steps, outer_maps
from figures.analysis.sources import MissingResult, Sources
from figures.drawing import style

#: Values above this multiple of the least share the darkest colour.
SPAN = 30.0
#: Contours, in the same multiples.
LINES = (1.05, 1.5, 3.0, 10.0)


def outer_map(sources: Sources) -> Figure:
    """Exact worst cases over (eta, beta), a panel for each K and R, in multiples of the least."""
    maps = outer_maps(load_outer_steps(sources))
    if not maps:
        raise MissingResult(f"{OUTER_PATH} has no map; make it with: {OUTER_COMMAND}")
    figure, axes = style.subplots(1, len(maps), width=style.TWO_COLUMNS, height=2.7, sharey=True)
    for ax, found in zip(axes[0], maps, strict=True):
        ratio = found.values / np.nanmin(found.values)
        ax.pcolormesh(
            found.step_sizes,
            found.outer_steps,
            ratio,
            cmap="cividis_r",
            norm=LogNorm(1, SPAN),
            shading="nearest",
            rasterized=True,
        )
        ax.contour(
            found.step_sizes,
            found.outer_steps,
            ratio,
            levels=LINES,
            colors="black",
            linewidths=0.5,
        )
        ax.plot(*found.best, marker="*", ms=7, color=style.OKABE_ITO["vermilion"], label="least")
        ax.axhline(1.0, color=style.OKABE_ITO["grey"], lw=0.8, ls=":")
        times = np.nanmin(found.values) / found.lower_bound
        ax.set_title(f"$K$ = {found.local_steps}, $R$ = {found.rounds}: least {times:.2f} times I6")
        ax.title.set_fontsize(7)
        ax.set_xlabel("$\\eta L$")
        ax.grid(False)
    axes[0, 0].set_ylabel("outer step $\\beta$")
    bar = figure.colorbar(axes[0, -1].collections[0], ax=axes[0].tolist(), extend="max", pad=0.01)
    bar.set_label("worst case / least worst case")
    bar.set_ticks([*LINES, SPAN])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    lines = ", ".join(f"{line:g}" for line in LINES)
    style.caption(
        figure,
        f"Data: {OUTER_PATH}: exact worst f(xbar_R) of deterministic Local SGD with a fixed outer step over "
        f"all problems of the class, any n >= 2. Lines at {lines} times the least; "
        "star: the least; dotted: beta = 1. I6: L D/(4e(2R + 1)), below which no pair of fixed steps gets.",
    )
    return figure
