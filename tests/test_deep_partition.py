"""Partition of the training images over nodes, and the batches drawn from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from deep.data.partition import REGIMES, balanced_subset, draw_batches, partition
from theory.support.errors import UserError

#: CIFAR-10's training labels, in some order: 5,000 images of each of ten classes.
CIFAR_LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))


def label_counts(
    regime: str, similarity: float = 0.5, shards_per_node: int = 1, seed: int = 0
) -> list[int]:
    """Number of labels that each of the paper's 20 nodes holds on CIFAR-10."""
    shards = partition(CIFAR_LABELS, 20, regime, similarity, seed, shards_per_node)
    assert [len(shard) for shard in shards] == [2500] * 20
    return [len(np.unique(CIFAR_LABELS[shard])) for shard in shards]


def test_pathological_has_ten_nodes_of_one_label_and_ten_of_two() -> None:
    assert sorted(label_counts("pathological")) == [1] * 10 + [2] * 10


def test_sorted_gives_every_node_one_label() -> None:
    assert label_counts("sorted") == [1] * 20


@pytest.mark.parametrize("seed", range(5))
def test_one_shard_a_node_is_one_label_a_node(seed: int) -> None:
    """Two nodes a label; so the statement of ten nodes with two labels does not hold."""
    assert label_counts("shards", shards_per_node=1, seed=seed) == [1] * 20
    first, second = (partition(CIFAR_LABELS, 20, "shards", 0.5, s, 1) for s in (seed, seed + 1))
    labels = [[CIFAR_LABELS[shard[0]] for shard in shards] for shards in (first, second)]
    assert np.bincount(labels[0]).tolist() == [2] * 10 and labels[0] != labels[1]


def test_two_shards_a_node_are_at_most_two_labels_a_node() -> None:
    """A node has one label when its second shard is one of the 3 of 39 with the label of its first.

    Over 200 seeds the share of such nodes is 3/39 to five standard deviations (nodes within a
    deal depend on each other weakly, so the deviation of independent nodes is doubled).
    """
    counts = np.array([label_counts("shards", shards_per_node=2, seed=s) for s in range(200)])
    assert set(np.unique(counts)) == {1, 2}
    p = 3 / 39
    assert np.mean(counts == 1) == pytest.approx(p, abs=5 * 2 * np.sqrt(p * (1 - p) / counts.size))


def test_shards_take_equal_labels_in_random_order() -> None:
    """Within a label the cut is random: two seeds give one label's images differently."""
    labels = np.zeros(40, int)
    first, second = (partition(labels, 4, "shards", 0.5, seed, 2) for seed in (0, 1))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    assert any(np.ptp(np.diff(shard)) > 0 for shard in first)


def test_iid_gives_every_node_every_label_about_equally_often() -> None:
    shards = partition(CIFAR_LABELS, 20, "iid", 0.0, 0)
    counts = np.array([np.bincount(CIFAR_LABELS[shard], minlength=10) for shard in shards])
    # Hypergeometric with mean 250 and deviation 14.6: five deviations.
    assert np.abs(counts - 250).max() < 75


@pytest.mark.parametrize("similarity", [0.0, 0.25, 0.5, 1.0])
def test_mixed_takes_the_stated_share_iid(similarity: float) -> None:
    mixed = partition(CIFAR_LABELS, 20, "mixed", similarity, 0)
    apart = partition(CIFAR_LABELS, 20, "pathological", similarity, 0)
    kept = np.mean([len(np.intersect1d(a, b)) / 2500 for a, b in zip(mixed, apart, strict=True)])
    # A node gets a twentieth of its own pooled images back by chance.
    assert kept == pytest.approx(1 - similarity + similarity / 20, abs=0.01)


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    nodes=st.integers(1, 60),
    regime=st.sampled_from(REGIMES),
    similarity=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    each=st.integers(1, 3),
)
def test_every_image_has_one_node_and_sizes_are_equal(
    labels: list[int], nodes: int, regime: str, similarity: float, seed: int, each: int
) -> None:
    nodes = min(nodes, len(labels))
    if regime == "shards":
        labels = labels * (nodes * each)
    shards = partition(np.array(labels), nodes, regime, similarity, seed, each)
    assert sorted(np.concatenate(shards).tolist()) == list(range(len(labels)))
    sizes = [len(shard) for shard in shards]
    assert len(sizes) == nodes and max(sizes) - min(sizes) <= 1
    again = partition(np.array(labels), nodes, regime, similarity, seed, each)
    assert all((a == b).all() for a, b in zip(shards, again, strict=True))


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60), data=st.data())
def test_subset_is_balanced_and_ascending(labels: list[int], data: st.DataObject) -> None:
    array = np.array(labels)
    size = data.draw(st.integers(1, len(labels)))
    chosen = balanced_subset(array, size, 3)
    assert len(chosen) == size and (np.diff(chosen) > 0).all()
    counts, available = np.bincount(array[chosen], minlength=6), np.bincount(array, minlength=6)
    # A class may be behind by more than one image only when it has no more.
    behind = counts < counts.max() - 1
    assert (counts[behind] == available[behind]).all()


@pytest.mark.parametrize(
    ("nodes", "regime", "similarity", "message"),
    [
        (0, "iid", 0.5, "number of nodes"),
        (6, "iid", 0.5, "1..5"),
        (2, "even", 0.5, "unknown regime 'even': choose one of iid, shards, mixed"),
        (2, "mixed", 1.5, "similarity"),
        (2, "mixed", float("nan"), "similarity"),
    ],
)
def test_bad_partitions_are_refused(
    nodes: int, regime: str, similarity: float, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        partition(np.zeros(5, int), nodes, regime, similarity, 0)


@pytest.mark.parametrize(
    ("nodes", "each", "message"),
    [
        (2, 0, "--shards-per-node is 0, allowed: at least 1"),
        (5, 3, "--shards-per-node is 3, allowed: .* 5 nodes .* divides the number of images, 40"),
    ],
)
def test_shards_that_do_not_divide_are_refused(nodes: int, each: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        partition(np.zeros(40, int), nodes, "shards", 0.5, 0, each)


def test_batches_with_replacement_are_the_documented_streams() -> None:
    """One Philox stream a (seed, node), its counter the step: checked against plain NumPy."""
    shards = [np.arange(0, 7), np.arange(7, 50), np.arange(50, 2550)]
    drawn = draw_batches(
        shards, [2, 0], first_step=11, n_steps=4, batch_size=9, seed=5, replacement=True
    )
    assert drawn.shape == (2, 4, 9)
    for i, node in enumerate([2, 0]):
        for k in range(4):
            stream = np.random.Philox(key=[5, node], counter=[0, 0, 0, 11 + k])
            choice = np.random.Generator(stream).integers(0, len(shards[node]), 9)
            assert (drawn[i, k] == shards[node][choice]).all()


def test_batches_are_uniform_subsets_and_fresh_each_step() -> None:
    """All 10 pairs out of 5 images equally often, in 20,000 steps: a chi-square test at 1e-6."""
    drawn = draw_batches([np.arange(10, 15)], [0], 0, 20_000, 2, 3)[0]
    assert (drawn[:, 0] != drawn[:, 1]).all()
    pairs = np.sort(drawn - 10, axis=1) @ [5, 1]
    counts = np.unique(pairs, return_counts=True)[1]
    assert len(counts) == 10
    assert ((counts - 2000) ** 2 / 2000).sum() < chi2(9).isf(1e-6)
    # Fresh: consecutive steps agree as often as independent pairs do, one time in ten.
    assert np.mean(pairs[1:] == pairs[:-1]) == pytest.approx(0.1, abs=5 * 0.3 / np.sqrt(20_000))


@given(shares=st.lists(st.integers(1, 40), min_size=1, max_size=4), data=st.data())
def test_a_batch_never_repeats_an_image(shares: list[int], data: st.DataObject) -> None:
    stops = np.cumsum(shares)
    shards = [np.arange(stop - share, stop) for share, stop in zip(shares, stops, strict=True)]
    size = data.draw(st.integers(1, min(shares)))
    drawn = draw_batches(shards, list(range(len(shards))), 5, 3, size, 11)
    for shard, steps in zip(shards, drawn, strict=True):
        for batch in steps:
            assert len(np.unique(batch)) == size and np.isin(batch, shard).all()


def test_a_batch_larger_than_a_share_is_refused() -> None:
    shards = [np.arange(9), np.arange(9, 13)]
    with pytest.raises(
        UserError, match=r"--batch-size is 5, allowed: 1\.\.4, the images of node 1"
    ):
        draw_batches(shards, [0, 1], 0, 1, 5, 0)
    assert draw_batches(shards, [0, 1], 0, 1, 5, 0, replacement=True).shape == (2, 1, 5)


@pytest.mark.parametrize("replacement", [False, True])
@given(first=st.integers(0, 10**6), steps=st.integers(1, 6), cut=st.integers(0, 6))
def test_batches_do_not_depend_on_how_steps_are_grouped(
    replacement: bool, first: int, steps: int, cut: int
) -> None:
    shards = [np.arange(20), np.arange(20, 31)]
    cut = min(cut, steps)
    whole = draw_batches(shards, [0, 1], first, steps, 3, 7, replacement)
    parts = [
        draw_batches(shards, [0, 1], first, cut, 3, 7, replacement),
        draw_batches(shards, [0, 1], first + cut, steps - cut, 3, 7, replacement),
    ]
    assert (np.concatenate(parts, axis=1) == whole).all()
