"""The set-up of the deep experiment three times: the paper's text, its author's repository, ours.

What stands under "paper" and "repository" are facts read off by hand, no result. The repository is
``constanted-q/Overparameterized-Local-SGD`` on GitHub, one commit (2b1aa48 of 25 March 2023). It has no
licence, so nothing but facts comes from it. What stands under "ours" are the defaults of
``python -m deep.reproduce``, where they have values read from its code.
"""

from __future__ import annotations

from deep.plan import PRESETS, SET_UP
from figures.analysis.sources import Sources
from figures.record.table import Table

UNKNOWN = "not known to us"


def set_up(sources: Sources) -> Table:
    """Paper, repository, and our defaults; needs no result."""
    paper = PRESETS["paper"]
    steps = ", ".join(map(str, paper["local_steps"]))
    fixed, to_loss = paper["fixed-rounds"], paper["to-loss"]
    everyone = SET_UP["participants"] is None
    rows = [
        (
            "network",
            "ResNet18",
            "CIFAR variant: 3x3 stem, 64 to 512 channels, average pool, one linear layer with bias, "
            "convolutions without bias; every block owns a 1x1 shortcut convolution that only blocks of "
            "changing shape use",
            f"the same at width {paper['width']}, without the shortcuts that nothing uses",
        ),
        (
            "norms",
            "LayerNorm for BatchNorm",
            "LayerNorm over (C, H, W) without scale and shift: after the stem, both convolutions of a "
            "block and the shortcut's convolution",
            "the same places, as GroupNorm of one group, "
            + ("with" if SET_UP["norm_affine"] else "without")
            + " scale and shift; --norm-affine adds one of each a channel",
        ),
        (
            "initial weights",
            UNKNOWN,
            "PyTorch's default",
            "the same distribution, from a stream of the seed",
        ),
        (
            "pixels",
            UNKNOWN,
            "scaled to [0, 1], then (x - 0.5)/0.5; no augmentation",
            f"{SET_UP['pixels']}: the same; no augmentation",
        ),
        (
            "heterogeneous regime",
            "20 shards of the order sorted by label, one a node; ten nodes with one label and ten with two",
            "n s equal shards of the order sorted by label, s a node, dealt at random",
            "one shard: that with s = 1, one label a node; see below",
        ),
        (
            "regimes",
            "three, the one in between not described to us",
            "the plots of an earlier experiment on MNIST are titled 1/2, 2/3 and 10 digits per node",
            "iid, two shards a node, one shard a node; that two shards is the paper's one in between is "
            "our inference",
        ),
        (
            "nodes n, batch a node",
            "20, 8",
            "batch 16 in the released main file",
            f"{SET_UP['nodes']}, {SET_UP['batch_size']}",
        ),
        (
            "how a batch is drawn",
            UNKNOWN,
            "the first batch of a freshly shuffled pass, at every step anew",
            f"{SET_UP['batches'].replace('-', ' ')} within the batch, fresh at every step: the same law",
        ),
        (
            "optimiser",
            UNKNOWN,
            "plain SGD: no momentum, no decay, constant step",
            "the same",
        ),
        (
            "local steps K",
            "1, 2, 5, 10, 20",
            "K = 10 in the main file; a comment lists 10, 2, 5, 10, 20, 50, 100",
            steps,
        ),
        (
            "Experiment 1: rounds, step size",
            "20,000, 0.1",
            "20,000 rounds, step 0.1; the comment beside the K lists 0.01, 0.2, 0.2, 0.15, 0.1, 0.1, 0.075",
            f"{fixed['rounds']:,}, {fixed['step_size']:g}",
        ),
        (
            "Experiment 2: target, limit, step size",
            "1e-4, 1,000,000 rounds, 0.075",
            "not in it",
            f"{SET_UP['target_loss']:g}, {to_loss['rounds']:,} rounds, {to_loss['step_size']:g}",
        ),
        (
            "participation",
            "all nodes",
            "p = 0.5 in the released main file: half of the nodes, drawn once, train, and the others report "
            "the old model into the average; an outer step of 1/2 on ten nodes",
            ("all nodes" if everyone else "some")
            + "; --participants, --fixed-participants, --outer-step",
        ),
        (
            "training loss",
            UNKNOWN,
            "of 500 random training images, every 20 rounds; test accuracy every 100 rounds",
            "of all training images of the run, on a schedule that takes at most 10% of the arithmetic; "
            "test accuracy on a schedule",
        ),
    ]
    return Table(
        "Set-up: the paper's text, the repository, ours",
        ("what", "paper", "repository", "ours by default"),
        rows,
        "Where paper and repository differ, both are facts; it is not certain that the repository's files "
        "are the paper's run.",
    )
