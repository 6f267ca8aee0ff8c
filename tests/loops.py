"""Local SGD in plain loops over convex L = 1 nodes with x* = 0: a second route for theorems.

A node is a list of samples; a sample is (weights, directions, corners): the sum of Huber functions of
the margins, h(z) = z^2/2 up to the corner and straight beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Vector = np.ndarray
Sample = tuple[Vector, Vector, Vector]


def random_sample(random: np.random.Generator, dimension: int) -> Sample:
    """A convex function of L = 1: quadratic (infinite corners) half of the time."""
    terms = int(random.integers(1, dimension + 2))
    directions = random.standard_normal((terms, dimension))
    weights = random.exponential(size=terms)
    corners = 10.0 ** random.uniform(-2.5, 0.3, terms)
    if random.random() < 0.5:
        corners = np.full(terms, np.inf)
    hessian = (directions * weights[:, None]).T @ directions
    return weights / np.linalg.eigvalsh(hessian)[-1], directions, corners


def random_nodes(
    random: np.random.Generator, n: int, dimension: int, most: int = 1
) -> list[list[Sample]]:
    """n nodes of at most so many samples each."""
    return [
        [random_sample(random, dimension) for _ in range(int(random.integers(1, most + 1)))]
        for _ in range(n)
    ]


def loss(sample: Sample, x: Vector) -> float:
    weights, directions, corners = sample
    z = np.abs(directions @ x)
    near = np.minimum(z, corners)
    return float(weights @ (near * (z - 0.5 * near)))


def gradient(sample: Sample, x: Vector) -> Vector:
    weights, directions, corners = sample
    return (weights * np.clip(directions @ x, -corners, corners)) @ directions


@dataclass
class Path:
    """What one path saw: batch losses and local losses by iteration, models by round."""

    batch_losses: list[float] = field(default_factory=list)
    local_losses: list[float] = field(default_factory=list)
    synchronised: list[Vector] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    nodes: Sequence[Sequence[Sample]] = ()

    def global_losses(self) -> Vector:
        """f(xbar_r), r = 0..R."""
        return np.array([mean_loss(self.nodes, x) for x in self.synchronised])


def mean_loss(nodes: Sequence[Sequence[Sample]], x: Vector) -> float:
    return float(np.mean([np.mean([loss(s, x) for s in node]) for node in nodes]))


def run(
    nodes: Sequence[Sequence[Sample]],
    start: Vector,
    *,
    step: float,
    local_steps: int,
    rounds: int,
    choose: Callable[[int, int], Sequence[int]] | None = None,
    outer: float = 1.0,
) -> Path:
    """Local SGD; ``choose(node, t)`` says which samples make the batch, all of them if not given."""
    path = Path(nodes=nodes)
    mean = start.copy()
    for r in range(rounds):
        path.synchronised.append(mean)
        models = [mean.copy() for _ in nodes]
        for k in range(local_steps):
            t = r * local_steps + k
            batch_loss, local = 0.0, 0.0
            for i, node in enumerate(nodes):
                drawn = range(len(node)) if choose is None else choose(i, t)
                batch = [node[j] for j in drawn]
                batch_loss += float(np.mean([loss(s, models[i]) for s in batch]))
                local += float(np.mean([loss(s, models[i]) for s in node]))
                models[i] = models[i] - step * np.mean(
                    [gradient(s, models[i]) for s in batch], axis=0
                )
            path.batch_losses.append(batch_loss / len(nodes))
            path.local_losses.append(local / len(nodes))
            path.squares.append(float(np.mean([m @ m for m in models])))
        mean = mean + outer * (np.mean(models, axis=0) - mean)
    path.synchronised.append(mean)
    return path
