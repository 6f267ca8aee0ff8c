"""Local SGD once more, on lists of Python floats: shares no code with the package but the data.

Nothing here is vectorised, compiled or in margin space, losses are written anew with ``math``, and all
draws are handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Vector = list[float]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else 1 - 1 / (1 + math.exp(z))


def squared(z: float, t: float) -> tuple[float, float]:
    return (z - t) * (z - t) / 2, z - t


def soft_logistic(z: float, t: float) -> tuple[float, float]:
    # The loss less its minimum, to thirty digits: near the minimum floats would keep none.
    one, exact, target = Decimal(1), Decimal(z), Decimal(t)
    y = one / (one + (-target).exp())
    least = (one + target.exp()).ln() - y * target
    slope = one / (one + (-exact).exp()) - y
    return float((one + exact.exp()).ln() - y * exact - least), float(slope)


def hard_logistic(z: float, t: float) -> tuple[float, float]:
    return math.log(1 + math.exp(-t * z)), -t / (1 + math.exp(t * z))


def sigmoid_regression(z: float, t: float) -> tuple[float, float]:
    s, y = sigmoid(z), sigmoid(t)
    return (s - y) ** 2 / 2, (s - y) * s * (1 - s)


LOSSES = {
    "squared": squared,
    "soft logistic": soft_logistic,
    "hard logistic": hard_logistic,
    "sigmoid regression": sigmoid_regression,
}


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def mean_vector(vectors: list[Vector], weights: Vector) -> Vector:
    return [dot(weights, list(column)) for column in zip(*vectors, strict=True)]


def square_distance(a: Vector, b: Vector) -> float:
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


@dataclass
class Path:
    """What a run leaves: metrics at every iteration 0 to T, rounds, and the last model."""

    history: list[dict[str, float]] = field(default_factory=list)
    batch_losses: Vector = field(default_factory=list)
    local_losses: Vector = field(default_factory=list)
    rounds: list[dict[str, float]] = field(default_factory=list)
    model: Vector = field(default_factory=list)


class Simulator:
    """One run on rows (a list a node of (a, t) pairs).

    Args:
        rows: the nodes' samples.
        loss: a name of LOSSES.
        start, solution: x_0 and x* (None where there is none).
        smoothness: L, for Polyak's step.
    """

    def __init__(
        self,
        rows: list[list[tuple[Vector, float]]],
        loss: str,
        start: Vector,
        solution: Vector | None,
        smoothness: float,
    ) -> None:
        self.rows, self.loss, self.start, self.solution = rows, LOSSES[loss], start, solution
        self.smoothness = smoothness

    def batch(self, i: int, samples: list[int], x: Vector) -> tuple[float, Vector]:
        """Mean loss and gradient of some of node i's samples."""
        total, gradient = 0.0, [0.0] * len(x)
        for j in samples:
            a, t = self.rows[i][j]
            value, slope = self.loss(dot(a, x), t)
            total += value / len(samples)
            gradient = [g + slope * c / len(samples) for g, c in zip(gradient, a, strict=True)]
        return total, gradient

    def whole(self, i: int, x: Vector) -> tuple[float, Vector]:
        """f_i and its gradient."""
        return self.batch(i, list(range(len(self.rows[i]))), x)

    def run(
        self,
        step_size: float,
        rounds: int,
        steps: list[int],
        local_steps: int,
        samples: Any,
        clients: Any = None,
        weights: Vector | None = None,
        outer: Any = 1.0,
    ) -> Path:
        """Local SGD.

        Args:
            steps: K_i.
            samples: (node, t) -> sample numbers, or None for full gradients.
            clients: round -> nodes; None for all.
            weights: of the nodes.
            outer: beta, or "extrapolated", "half-extrapolated", "polyak".
        """
        n = len(self.rows)
        weights = weights or [1 / n] * n
        path, server = Path(), list(self.start)
        models = {i: list(server) for i in range(n)}
        shares = dict(enumerate(weights))
        self._note(path, models, shares)
        for r in range(rounds):
            chosen = list(range(n)) if clients is None else list(clients(r))
            whole = math.fsum(weights[i] for i in chosen)
            shares = {i: weights[i] / whole for i in chosen}
            models = {i: list(server) for i in chosen}
            sums = dict.fromkeys(chosen, 0.0)
            for k in range(local_steps):
                t = r * local_steps + k
                path.local_losses.append(
                    math.fsum(shares[i] * self.whole(i, models[i])[0] for i in chosen)
                )
                used = 0.0
                for i in chosen:
                    if k >= steps[i]:
                        continue
                    drawn = list(range(len(self.rows[i]))) if samples is None else samples(i, t)
                    value, gradient = self.batch(i, drawn, models[i])
                    used += shares[i] * value
                    sums[i] += value
                    models[i] = [
                        x - step_size * g for x, g in zip(models[i], gradient, strict=True)
                    ]
                path.batch_losses.append(used)
                if k < local_steps - 1:
                    self._note(path, models, shares)
            server = self._serve(path, server, models, shares, sums, step_size, outer)
            models = {i: list(server) for i in range(n)}
            shares = dict(enumerate(weights))
            self._note(path, models, shares)
        path.model = server
        return path

    def _serve(
        self,
        path: Path,
        server: Vector,
        models: dict[int, Vector],
        shares: dict[int, float],
        sums: dict[int, float],
        step_size: float,
        outer: Any,
    ) -> Vector:
        nodes = list(models)
        share = [shares[i] for i in nodes]
        changes = [[a - b for a, b in zip(models[i], server, strict=True)] for i in nodes]
        change = mean_vector(changes, share)
        p = math.fsum(w * dot(c, c) for w, c in zip(share, changes, strict=True))
        q = dot(change, change)
        s = math.fsum(w * sums[i] for w, i in zip(share, nodes, strict=True))
        phi = max(0.0, min(1.0, 2 - step_size * self.smoothness))
        beta = outer
        if isinstance(outer, str):
            beta = 1.0
            if q > 0:
                beta = {
                    "extrapolated": max(1.0, p / q),
                    "half-extrapolated": max(1.0, p / (2 * q)),
                    "polyak": (p + 2 * step_size * phi * s) / (2 * q),
                }[outer]
        far = math.nan if self.solution is None else square_distance(server, self.solution)
        path.rounds.append(
            {"mean_square": p, "square_mean": q, "loss": s, "outer_step": beta, "distance": far}
        )
        return [x + beta * c for x, c in zip(server, change, strict=True)]

    def _note(self, path: Path, models: dict[int, Vector], shares: dict[int, float]) -> None:
        nodes = list(models)
        share = [shares[i] for i in nodes]
        mean = mean_vector([models[i] for i in nodes], share)
        n = len(self.rows)
        everyone = [self.whole(i, mean) for i in range(n)]
        gradient = mean_vector([g for _, g in everyone], [1 / n] * n)
        row = {
            "global_loss": math.fsum(value for value, _ in everyone) / n,
            "local_loss": math.fsum(shares[i] * self.whole(i, models[i])[0] for i in nodes),
            "gradient": dot(gradient, gradient),
            "consensus": math.fsum(shares[i] * square_distance(models[i], mean) for i in nodes),
        }
        if self.solution is not None:
            row["distance"] = square_distance(mean, self.solution)
            row["local_distance"] = math.fsum(
                shares[i] * square_distance(models[i], self.solution) for i in nodes
            )
        path.history.append(row)
