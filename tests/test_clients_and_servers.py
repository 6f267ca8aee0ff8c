"""Rounds to accuracy against clients and outer steps, beside what the bounds need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from theory.problems.generators import least_squares
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.outer_steps import RULES
from theory.support.errors import UserError
from theory.support.verdicts import FAILED, HOLDS, OBSERVED, UNDECIDED
from theory.theorems import instance_1
from theory.verification.clients_and_servers import (
    against_clients,
    against_outer_step,
    rounds_to,
)


@pytest.mark.parametrize("heterogeneity", ["iid", "sorted"])
def test_the_bound_does_not_depend_on_the_clients_and_holds_for_each(heterogeneity: str) -> None:
    problem = least_squares(n_nodes=6, heterogeneity=heterogeneity, rank=12)  # type: ignore[arg-type]
    rows = against_clients(problem, clients=(1, 3, 6, 7), local_steps=3)
    assert [r.clients for r in rows] == [1, 3, 6]
    assert len({r.bound for r in rows}) == 1
    assert all(r.rounds <= r.bound and r.verdict == HOLDS for r in rows)
    # More clients never take more rounds here, but they cost more messages.
    assert [r.rounds for r in rows] == sorted((r.rounds for r in rows), reverse=True)
    assert [r.downloads for r in rows] == [r.rounds * r.clients for r in rows]


def test_rules_take_fewer_rounds_than_any_fixed_outer_step_on_sorted_nodes() -> None:
    problem = least_squares(n_nodes=6, heterogeneity="sorted", rank=12)
    rows = {r.outer_step: r for r in against_outer_step(problem)}
    assert rows[0.5].bound == pytest.approx(2 * rows[1.0].bound)
    assert math.isnan(rows[1.5].bound) and math.isnan(rows[2.0].bound)
    assert all(r.rounds <= r.bound for r in rows.values() if not math.isnan(r.bound))
    assert rows[0.5].rounds > rows[1.0].rounds > rows[1.5].rounds
    assert rows["extrapolated"].rounds < 0.5 * rows[1.0].rounds


def test_on_i1_the_rules_need_one_round_and_the_mean_as_many_as_it_says() -> None:
    instance = instance_1(100)
    problem = instance.problem
    assert rounds_to(problem, instance.value * (1 + 1e-9), local_steps=1).rounds == 100  # type: ignore[arg-type]
    for rule in ("extrapolated", "polyak"):
        assert rounds_to(problem, 1e-12, local_steps=4, outer_step=rule).rounds == 1  # type: ignore[arg-type]


def test_an_exact_count_is_that_of_the_mean_of_paths() -> None:
    problem = least_squares(n_nodes=4, samples_per_node=8, dimension=40, rank=8)
    row = rounds_to(problem, 2e-3, local_steps=2, clients=2)
    paths = run_local_sgd(
        problem,
        step_size=1.0,
        local_steps=2,
        rounds=int(row.rounds) + 1,
        participants=2,
        seeds=3000,
        record=np.arange(0, 2 * int(row.rounds) + 3, 2),
    )
    mean = paths.history["global_loss"][0].mean(axis=0)
    assert mean[int(row.rounds) + 1] < 2e-3 < mean[int(row.rounds) - 1]


def test_what_is_not_reached_is_said_and_bad_input_refused() -> None:
    problem = least_squares(n_nodes=2, samples_per_node=6, dimension=20)
    assert math.isnan(rounds_to(problem, 1e-30, most=3).rounds)
    with pytest.raises(UserError, match="eps is 0"):
        rounds_to(problem, 0.0)
    with pytest.raises(UserError, match="outer_step is 'fast'"):
        against_outer_step(problem, outer_steps=("fast",))
    assert set(RULES) == {"extrapolated", "half-extrapolated", "polyak"}


def test_a_count_above_its_bound_fails_and_one_not_reached_fails_if_the_bound_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hard = instance_1(40)
    eps = hard.value * (1 + 1e-9)
    need = 1 / (2 * eps)  # T7 at L = D = 1, about 218 rounds where 40 are enough

    def verdict(**options: Any) -> str:
        return rounds_to(hard.problem, eps, local_steps=1, **options).verdict  # type: ignore[arg-type]

    assert verdict() == HOLDS
    assert verdict(outer_step=2.0) == verdict(outer_step="polyak") == OBSERVED
    assert verdict(most=39) == UNDECIDED
    for share, expected in ((0.9 * 40 / need, FAILED), (1.1 * 40 / need, HOLDS)):
        monkeypatch.setattr(
            "theory.verification.clients_and_servers.rounds_to_t8",
            lambda share=share, **_: share * need,
        )
        assert verdict() == expected
    monkeypatch.setattr(
        "theory.verification.clients_and_servers.rounds_to_t8", lambda **_: 0.5 * 40
    )
    assert verdict(most=39) == FAILED
