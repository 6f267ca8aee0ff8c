"""One look for all figures: K has one ordered scale, and axes have labels enough."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from made_figures import Made, line
from matplotlib.axes import Axes

from figures.drawing import style


def test_k_has_an_ordered_scale_and_the_same_colour_everywhere(made: Made) -> None:
    brightness = [np.dot(style.k_color(k)[:3], (0.3, 0.6, 0.1)) for k in (1, 2, 5, 10, 20)]
    assert brightness == sorted(brightness) and len(set(brightness)) == 5
    for name in ("loss-vs-rounds", "inverse-loss", "consensus-distance", "bound-vs-measured"):
        for ax in made.axes(name):
            assert line(ax, "K=20").get_color() == style.k_color(20)


@pytest.fixture
def axes() -> Iterator[Axes]:
    with style.house_style():
        yield style.subplots(1, 1, width=style.ONE_COLUMN, height=2.0)[1][0, 0]


@pytest.mark.parametrize(("low", "high"), [(550, 950), (0.012, 0.3), (90, 40_000)])
def test_decimal_axis_has_enough_labels_in_range(axes: Axes, low: float, high: float) -> None:
    axes.set(yscale="log", ylim=(low, high))
    style.decimal_axis(axes)
    ticks = axes.get_yticks()
    assert len(ticks) >= 3 and low <= min(ticks) and max(ticks) <= high
    shown = [float(text.get_text().replace(",", "")) for text in axes.get_yticklabels()]
    assert shown == pytest.approx(ticks)


def test_decimal_axis_leaves_many_decades_alone(axes: Axes) -> None:
    axes.set(yscale="log", ylim=(1e-5, 1))
    before = axes.get_yticks().tolist()
    style.decimal_axis(axes)
    assert axes.get_yticks().tolist() == before


def test_k_axis_drops_ticks_that_have_no_room(axes: Axes) -> None:
    style.k_axis(axes, [1, 2, 5, 10, 20])
    assert axes.get_xticks().tolist() == [1, 2, 5, 10, 20]
    style.k_axis(axes, list(range(1, 193)))
    ticks = axes.get_xticks()
    assert ticks[0] == 1 and 5 < len(ticks) <= 11
    assert np.diff(np.log(ticks)).min() >= np.log(192) / 10
