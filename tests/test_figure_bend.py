"""The bend figure: what it draws is simulated, lies between the bounds, and bends at K = 1/c."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from figures.analysis.bend import bend_curve, many_nodes, participants_curve
from figures.analysis.sources import Sources
from figures.drawing import style
from figures.drawing.bend import SIMILARITIES, bend
from theory.simulation.moments import exact_moments
from theory.theorems import instance_1, instance_5
from theory.theorems.t3_similar import least_similar_loss
from theory.verification.communication import rounds_to
from theory.verification.tightness import simulate_instance

EPS = 0.01


@pytest.mark.parametrize("similarity", [1.0, 0.1])
def test_needed_rounds_are_the_first_whose_instance_ends_below_the_accuracy(
    similarity: float,
) -> None:
    found = bend_curve(similarity, [1, 10], EPS)
    for k, rounds in zip(found["local_steps"], found["instance"], strict=True):
        assert simulate_instance(instance_5(rounds, k, similarity)) <= EPS
        before = instance_5(max(1, rounds - 1), k, similarity)
        assert rounds == 1 or simulate_instance(before) > EPS
        # The bound that the instance proves, without any simulation.
        assert least_similar_loss(L=1, D=1, c=similarity, K=k, R=rounds) <= EPS


def test_without_similarity_the_instance_of_its_rounds_takes_all_of_them() -> None:
    (rounds,) = bend_curve(0.0, [7], EPS)["instance"]
    hard = instance_1(rounds - 1, 7)
    assert rounds_to(hard.problem, EPS, 7, 10 * rounds) >= rounds


@pytest.mark.parametrize("similarity", [1.0, 0.3, 0.1, 0.0])
def test_needed_rounds_lie_below_those_that_suffice_and_within_6e(similarity: float) -> None:
    found = bend_curve(similarity, [1, 3, 10, 30], EPS)
    for k, needed, t2, t3 in zip(
        *(found[n] for n in ("local_steps", "instance", "t2", "t3")), strict=True
    ):
        enough = min(t2, t3 or np.inf)
        assert enough == pytest.approx(0.5 / EPS / max(1, similarity * k))
        # One more for the last, begun, round.
        assert needed <= enough + 1 and enough <= 6 * np.e * needed


@pytest.mark.parametrize(("similarity", "k"), [(0.3, 4), (0.0, 3)])
def test_all_of_many_nodes_are_the_instance(similarity: float, k: int) -> None:
    rounds = 9
    moments = exact_moments(
        many_nodes(similarity, k, rounds, 6),
        step_size=1.0,
        local_steps=k,
        rounds=rounds,
        gradient="full",
        record=[k * rounds],
    )
    found = moments.history["global_loss"][-1]
    assert found == pytest.approx(instance_5(rounds, k, similarity).value, rel=1e-9)


def test_fewer_participants_need_more_rounds_but_no_more_than_the_bounds() -> None:
    found = participants_curve(0.3, [1, 2, 6], [1, 4], EPS, 6)
    (one, two, everyone), (t2, t3) = found["instance"], (found["t2"], found["t3"])
    assert everyone == bend_curve(0.3, [1, 4], EPS)["instance"]
    for i in range(2):
        assert everyone[i] <= two[i] <= one[i] <= min(t2[i], t3[i]) + 1
    # The answer does not depend on where the search began.
    assert participants_curve(0.3, [1], [4], EPS, 6)["instance"] == [[one[1]]]


@pytest.fixture(scope="module")
def axes(tmp_path_factory: pytest.TempPathFactory) -> list[Axes]:
    inputs = Sources(cache=tmp_path_factory.mktemp("cache"), quick=True)
    with style.house_style():
        return list(bend(inputs).axes)


def drawn(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def test_the_upper_line_bends_where_the_mark_is(axes: list[Axes]) -> None:
    for ax, similarity in zip(axes, SIMILARITIES, strict=True):
        k, rounds = drawn(ax, "suffice")
        level = np.isclose(rounds, rounds[0])
        if similarity == 0:
            assert level.all() and not [d for d in ax.lines if d.get_label() == "bend"]
            continue
        mark = drawn(ax, "bend")[0][0]
        assert mark == pytest.approx(1 / similarity)
        assert level[k <= mark].all()
        assert rounds[k > mark] * k[k > mark] == pytest.approx(rounds[0] * mark)


def test_local_steps_save_k_fold_at_c_1_and_nothing_at_c_0(axes: list[Axes]) -> None:
    k, equal = drawn(axes[0], "needed")
    assert equal[0] / equal[1] >= 0.8 * k[1] / k[0]
    assert len(set(drawn(axes[-1], "needed")[1])) == 1
