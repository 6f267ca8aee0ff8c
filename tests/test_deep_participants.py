"""Participants of a round: uniform subsets, from streams that depend on (seed, round) alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deep.participants import draw_participants


@given(
    n_nodes=st.integers(1, 30),
    data=st.data(),
    round_=st.integers(0, 10**6),
    seed=st.integers(0, 99),
)
def test_they_are_so_many_different_nodes(
    n_nodes: int, data: st.DataObject, round_: int, seed: int
) -> None:
    count = data.draw(st.integers(1, n_nodes))
    chosen = draw_participants(n_nodes, count, round_, seed)
    if count == n_nodes:
        assert chosen is None
        return
    assert chosen is not None and len(chosen) == count
    assert (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < n_nodes
    again = draw_participants(n_nodes, count, round_, seed)
    assert again is not None and (again == chosen).all()


def test_every_subset_is_equally_likely() -> None:
    """Chi-square of 10 subsets in 5,000 rounds: below 33.7 with probability 0.9999."""
    seen: Counter[tuple[int, ...]] = Counter()
    for round_ in range(5000):
        chosen = draw_participants(5, 2, round_, 0)
        assert chosen is not None
        seen[tuple(chosen)] += 1
    assert len(seen) == 10
    assert sum((count - 500) ** 2 / 500 for count in seen.values()) < 33.7


def test_seeds_and_rounds_have_draws_of_their_own() -> None:
    def rounds(seed: int, fixed: bool) -> list[tuple[int, ...]]:
        found = [draw_participants(20, 10, round_, seed, fixed) for round_ in range(20)]
        return [tuple(chosen) for chosen in found if chosen is not None]

    assert len(set(rounds(0, False))) == 20 and set(rounds(0, False)).isdisjoint(rounds(1, False))
    assert rounds(0, True) == [rounds(0, False)[0]] * 20
    assert draw_participants(20, None, 3, 0) is None
