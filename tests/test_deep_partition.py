"""Partition of the training images over nodes, and the batches drawn from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep.data.partition import REGIMES, balanced_subset, draw_batches, partition
from theory.support.errors import UserError

#: CIFAR-10's training labels, in some order: 5,000 images of each of ten classes.
CIFAR_LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))


def label_counts(regime: str, similarity: float = 0.5) -> list[int]:
    """Number of labels that each of the paper's 20 nodes holds on CIFAR-10."""
    shards = partition(CIFAR_LABELS, 20, regime, similarity, 0)
    assert [len(shard) for shard in shards] == [2500] * 20
    return [len(np.unique(CIFAR_LABELS[shard])) for shard in shards]


def test_pathological_has_ten_nodes_of_one_label_and_ten_of_two() -> None:
    assert sorted(label_counts("pathological")) == [1] * 10 + [2] * 10


def test_sorted_gives_every_node_one_label() -> None:
    assert label_counts("sorted") == [1] * 20


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
)
def test_every_image_has_one_node_and_sizes_are_equal(
    labels: list[int], nodes: int, regime: str, similarity: float, seed: int
) -> None:
    nodes = min(nodes, len(labels))
    shards = partition(np.array(labels), nodes, regime, similarity, seed)
    assert sorted(np.concatenate(shards).tolist()) == list(range(len(labels)))
    sizes = [len(shard) for shard in shards]
    assert len(sizes) == nodes and max(sizes) - min(sizes) <= 1
    again = partition(np.array(labels), nodes, regime, similarity, seed)
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
        (2, "even", 0.5, "unknown regime 'even': choose one of iid, mixed"),
        (2, "mixed", 1.5, "similarity"),
        (2, "mixed", float("nan"), "similarity"),
    ],
)
def test_bad_partitions_are_refused(
    nodes: int, regime: str, similarity: float, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        partition(np.zeros(5, int), nodes, regime, similarity, 0)


def test_batches_are_the_documented_streams() -> None:
    """One Philox stream a (seed, node), its counter the step: checked against plain NumPy."""
    shards = [np.arange(0, 7), np.arange(7, 50), np.arange(50, 2550)]
    drawn = draw_batches(shards, [2, 0], first_step=11, n_steps=4, batch_size=9, seed=5)
    assert drawn.shape == (2, 4, 9)
    for i, node in enumerate([2, 0]):
        for k in range(4):
            stream = np.random.Philox(key=[5, node], counter=[0, 0, 0, 11 + k])
            choice = np.random.Generator(stream).integers(0, len(shards[node]), 9)
            assert (drawn[i, k] == shards[node][choice]).all()


@given(first=st.integers(0, 10**6), steps=st.integers(1, 6), cut=st.integers(0, 6))
def test_batches_do_not_depend_on_how_steps_are_grouped(first: int, steps: int, cut: int) -> None:
    shards = [np.arange(20), np.arange(20, 31)]
    cut = min(cut, steps)
    whole = draw_batches(shards, [0, 1], first, steps, 3, 7)
    parts = [
        draw_batches(shards, [0, 1], first, cut, 3, 7),
        draw_batches(shards, [0, 1], first + cut, steps - cut, 3, 7),
    ]
    assert (np.concatenate(parts, axis=1) == whole).all()
