"""One look for all figures: widths, fonts, colours, and the line that names the data.

K is an ordered quantity, so it has an ordered colour scale (viridis without its pale end, which reads
the same under the common colour-vision deficiencies), with a marker of its own for grey print.
Regimes and theorems are categories: Okabe and Ito's palette. Text stays text in PDF and SVG.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

# Inches: one and two columns of a two-column paper with 0.25 in between them.
ONE_COLUMN, TWO_COLUMNS = 3.35, 6.95
PNG_DPI = 200

OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#666666",
}
REGIME_STYLE = {
    "iid": (OKABE_ITO["blue"], "o"),
    "mixed": (OKABE_ITO["green"], "s"),
    "two shards": (OKABE_ITO["green"], "s"),
    "one shard": (OKABE_ITO["vermilion"], "^"),
    "pathological": (OKABE_ITO["vermilion"], "^"),
    "sorted": (OKABE_ITO["purple"], "D"),
}
_MARKERS = {1: "o", 2: "s", 5: "^", 10: "D", 20: "v"}
_LARGEST_K = 20

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 8.5,
    "mathtext.fontset": "dejavusans",
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.dpi": 100,
    "savefig.dpi": PNG_DPI,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
    "axes.formatter.use_mathtext": True,
}


@contextmanager
def house_style() -> Iterator[None]:
    """The settings above, for the figures made inside; leaves the caller's own untouched."""
    with matplotlib.rc_context(cast(Any, _SETTINGS)):
        yield


def k_color(local_steps: int) -> tuple[float, float, float, float]:
    """The colour of a K, by its logarithm: the same in every figure. K above 20 shares K = 20's."""
    place = math.log(min(local_steps, _LARGEST_K)) / math.log(_LARGEST_K)
    return matplotlib.colormaps["viridis"](0.86 * place)


def k_marker(local_steps: int) -> str:
    """The marker of a K."""
    return _MARKERS.get(local_steps, "P")


def subplots(
    rows: int, columns: int, *, width: float, height: float, **keywords: Any
) -> tuple[Figure, Any]:
    """A figure off screen (no window system, no global state) and its (rows, columns) axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    return figure, axes


def legend_above(figure: Figure, handles: Sequence[Any], columns: int | None = None) -> None:
    """One legend for all panels, above them; in rows of 3 on a one-column figure unless told."""
    wide = figure.get_size_inches()[0] > ONE_COLUMN
    columns = columns or (len(handles) if wide else min(3, len(handles)))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=columns,
        columnspacing=1.4,
        handletextpad=0.5,
    )


def k_handles(local_steps: Sequence[int], marker: bool = False) -> list[Line2D]:
    """Legend entries of the Ks."""
    return [
        Line2D([], [], color=k_color(k), marker=k_marker(k) if marker else None, label=f"$K={k}$")
        for k in local_steps
    ]


def line_handle(label: str, **keywords: Any) -> Line2D:
    """A legend entry for a kind of line, in grey unless told otherwise."""
    return Line2D([], [], label=label, **{"color": OKABE_ITO["grey"], **keywords})


def k_axis(axes: Axes, local_steps: Sequence[int]) -> None:
    """A logarithmic axis of K with a tick at every K that was run and has room for a label."""
    axes.set_xscale("log")
    room = math.log(max(local_steps) / min(local_steps)) / 10
    shown: list[int] = []
    for k in sorted(local_steps):
        if not shown or math.log(k / shown[-1]) >= room:
            shown.append(k)
    axes.xaxis.set_major_locator(FixedLocator([float(k) for k in shown]))
    axes.xaxis.set_major_formatter(FixedFormatter([str(k) for k in shown]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("local steps a round $K$")


def decimal_axis(axes: Axes) -> None:
    """Label a logarithmic y axis of few decades at 1, 2 and 5 times powers of ten, or closer.

    As 0.02 or 5,000. Powers of ten alone would leave it with one label or none. To be called last.
    """
    low, high = axes.get_ylim()
    if high > 1000 * low:
        return  # enough powers of ten
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks: list[float] = []
    for multiples in ((1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        if len(ticks) < 3:
            ticks = [m * p for p in powers for m in multiples if low <= m * p <= high]
    axes.set_yticks(ticks, [f"{tick:,.6g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def decimal_powers(axes: Axes) -> None:
    """Label the powers of ten of a logarithmic y axis as 1, 10, 100, 1,000."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def caption(figure: Figure, text: str) -> None:
    """The line below the panels that names the data, wrapped to the figure's width."""
    # 5.8 pt DejaVu Sans averages 0.046 in a character.
    letters = int(figure.get_size_inches()[0] / 0.046)
    # "K = 5" stays on one line.
    tied = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    wrapped = "\n".join(textwrap.wrap(tied, letters))
    figure.supxlabel(wrapped, fontsize=5.8, color=OKABE_ITO["grey"], x=0.01, ha="left")
