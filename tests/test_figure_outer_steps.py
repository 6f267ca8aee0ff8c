"""The figure of the outer steps draws means and bands of paths on the same draws."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from figures.analysis.outer_steps import make_problem, outer_step_curves
from figures.analysis.sources import Sources
from figures.drawing import style
from figures.drawing.outer_steps import LEVELS, PROBLEMS, RULES, outer_steps
from theory.simulation.local_sgd import run_local_sgd

K, ROUNDS, SEEDS = 5, 12, 6


@pytest.mark.parametrize("rule", [1.0, "extrapolated", "polyak"])
def test_curves_are_the_paths_of_the_simulator(rule: float | str) -> None:
    data = outer_step_curves("least squares", "sorted", [rule], K, ROUNDS, SEEDS)
    problem = make_problem("least squares", "sorted")
    finals = [
        run_local_sgd(
            problem,
            step_size=1 / problem.smoothness,
            local_steps=K,
            rounds=ROUNDS,
            seeds=[seed],
            outer_step=rule,
            engine="numpy",
        ).history["global_loss"][0, 0, -1]
        for seed in range(SEEDS)
    ]
    (curve,) = data["curves"]
    assert curve["mean"][-1] == pytest.approx(np.mean(finals), rel=1e-8)
    assert [curve["low"][-1], curve["high"][-1]] == pytest.approx(
        np.percentile(finals, [5, 95]), rel=1e-8
    )
    assert len(curve["mean"]) == ROUNDS + 1 and curve["mean"][0] == curve["low"][0]


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    with style.house_style():
        return outer_steps(Sources(cache=tmp_path_factory.mktemp("cache"), quick=True))


def test_every_panel_has_every_rule_from_the_same_start(figure: Figure) -> None:
    assert len(figure.axes) == len(PROBLEMS) * len(LEVELS)
    for ax in figure.axes:
        lines = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in ax.lines}
        assert list(lines) == [label for label, *_ in RULES.values()]
        assert len({losses[0] for losses in lines.values()}) == 1
        assert ax.get_yscale() == "log"
        # T8b: with beta >= 1 no bound is lost, and on these problems the loss falls faster.
        plain, half, full, _ = (losses[-1] for losses in lines.values())
        assert full < half < plain
