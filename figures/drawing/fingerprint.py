"""A fingerprint of what a figure shows: equal on every machine, unlike its pixels.

Pixels depend on fonts and on the libraries that draw, and the last digits of computed data on the
machine. What is drawn is points in their axes, to a ten-thousandth of the axes, with colours and texts.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from figures.analysis.sources import imported_modules

_DRAWING = Path(__file__).parent


def fingerprint(figure: Figure, draw: Callable[..., Figure]) -> str:
    """SHA-256 of what the figure shows and of the code that draws it.

    Args:
        figure: drawn by ``draw``.
        draw: its module, and those of this folder that it imports, count; what computes data does not.
    """
    home = Path(inspect.getfile(draw))
    code = [home, *(p for p in imported_modules(home, _DRAWING.parent) if p.parent == _DRAWING)]
    shown = json.dumps(_figure(figure), sort_keys=True)
    return hashlib.sha256("\0".join([shown, *(p.read_text() for p in code)]).encode()).hexdigest()


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "size": _rounded(figure.get_size_inches()),
        "captions": [figure.get_suptitle(), figure.get_supxlabel(), figure.get_supylabel()],
        "texts": [_text(text) for text in figure.texts],
        "legends": [[t.get_text() for t in legend.get_texts()] for legend in figure.legends],
        "axes": [_axes(ax) for ax in figure.axes],
    }


def _axes(ax: Axes) -> dict[str, Any]:
    legend = ax.get_legend()
    return {
        "title": ax.get_title(),
        "labels": [ax.get_xlabel(), ax.get_ylabel(), str(ax.get_label())],
        "scales": [ax.get_xscale(), ax.get_yscale()],
        "limits": _significant([*ax.get_xlim(), *ax.get_ylim()]),
        "legend": [text.get_text() for text in legend.get_texts()] if legend else [],
        "lines": [_line(ax, line) for line in ax.lines],
        "collections": [_collection(ax, c) for c in ax.collections],
        "texts": [_text(text) for text in ax.texts],
        "others": sorted(type(a).__name__ for a in [*ax.patches, *ax.images, *ax.tables]),
    }


def _line(ax: Axes, line: Line2D) -> list[Any]:
    colour: Any = line.get_color()
    return [
        str(line.get_label()),
        _points(ax, line, line.get_xydata()),
        str(to_rgba(colour)),
        line.get_linestyle(),
        line.get_linewidth(),
        str(line.get_marker()),
        line.get_alpha(),
    ]


def _collection(ax: Axes, found: Collection) -> list[Any]:
    shades = found.get_array()
    return [
        type(found).__name__,
        str(found.get_label()),
        [_points(ax, found, path.vertices) for path in found.get_paths()],
        _points(ax, found, found.get_offsets()),
        [] if shades is None else _significant(np.ma.filled(shades.astype(float), np.nan).ravel()),
        _significant(found.get_clim()) if isinstance(found, QuadMesh) else [],
        [str(face) for face in np.round(np.asarray(found.get_facecolor(), float), 4).tolist()]
        if shades is None
        else [],
    ]


def _text(text: Text) -> list[Any]:
    return [text.get_text(), _significant(text.get_position())]


def _points(ax: Axes, artist: Artist, points: Any) -> list[Any]:
    """Points in axes coordinates where the artist lives in the data's, else as they are."""
    values: np.ndarray = np.ma.filled(np.ma.asarray(points, dtype=float), np.nan).reshape(-1, 2)
    if artist.get_transform().contains_branch(ax.transData):
        with np.errstate(all="ignore"):
            values = (ax.transScale + ax.transLimits).transform(values)
    # Far outside the axes nothing is seen, and logarithms of zero lie there.
    return _rounded(np.clip(values, -10, 10))


def _rounded(values: Any) -> list[Any]:
    array = np.round(np.asarray(values, dtype=float), 4) + 0.0
    return [str(v) for v in array.ravel().tolist()]


def _significant(values: Iterable[float]) -> list[str]:
    return [f"{v + 0.0:.5g}" for v in values]
