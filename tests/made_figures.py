"""Every figure, made once at small scale for all tests that look at them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from figure_data import (
    write_deep,
    write_energy,
    write_ladder,
    write_outer_steps,
    write_speed,
    write_theory,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.analysis.sources import Sources
from figures.drawing import rendering
from figures.drawing.catalogue import FIGURES, Entry


@dataclass
class Made:
    """Every figure, made once for all tests below."""

    root: Path
    cache: Path
    out: Path
    figures: dict[str, Figure]
    outcomes: list[rendering.Outcome]

    def axes(self, name: str) -> list[Axes]:
        return self.figures[name].axes


def make_all(root: Path) -> Made:
    """Every figure at small scale, from toy results below ``root``."""
    write_deep(root)
    write_ladder(root)
    write_theory(root)
    write_speed(root)
    write_outer_steps(root)
    write_energy(root)
    found = Made(root, root / "cache", root / "out", {}, [])

    def keep(entry: Entry) -> Entry:
        def draw(inputs: Sources) -> Figure:
            found.figures[entry.name] = entry.draw(inputs)
            return found.figures[entry.name]

        return replace(entry, draw=draw)

    found.outcomes = rendering.make_figures(
        [keep(e) for e in FIGURES], found.out, root=root, cache=found.cache, quick=True
    )
    return found


def line(axes: Axes, label: str) -> Line2D:
    """The one line of that label."""
    (found,) = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return found


def xy(drawn: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(drawn.get_xdata(), float), np.asarray(drawn.get_ydata(), float)
