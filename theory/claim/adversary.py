"""An adversary: the data of a small problem, moved until measured / claimed is as large as it gets.

n nodes with m samples each in d dimensions, f_i(x) = (1/m) sum_j loss(a_ij' x), x* = 0, scaled so that
L = 1 and D = 1. The simulator here is its own (arrays over many candidates at once), so that what it
finds is measured a second time by the engines. Gradients are central differences whose perturbed
candidates run as one batch; L-BFGS from many random starts does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from theory.claim.expression import Expression
from theory.problems.losses import MarginLoss

Array = NDArray[np.float64]
#: Central differences; the objective is smooth to about 1e-13, so that the slope is good to 1e-7.
STEP = 1e-5
#: A candidate whose measure or claim is not positive, or not a number.
HOPELESS = -50.0


@dataclass(frozen=True)
class Loss:
    """A loss of margins with minimum 0 at 0 and curvature at most 1.

    Attributes:
        name: of the library's loss, or "huber".
        value, slope: of an array of margins.
        quadratic: whether expectations are exact by second moments.
    """

    name: str
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    quadratic: bool = False


def library_loss(loss: Loss) -> MarginLoss:
    """The loss as a problem takes it, with its minimum at the target."""
    return MarginLoss(
        loss.name,
        lambda z, t: loss.value(z - t),
        lambda z, t: loss.slope(z - t),
        curvature=1.0,
        convex=True,
        attained=True,
    )


def _huber_value(z: Array) -> Array:
    return np.where(np.abs(z) <= HUBER, 0.5 * z**2, HUBER * (np.abs(z) - 0.5 * HUBER))


#: Where Huber's loss turns from square to linear; data are scaled around it.
HUBER = 0.1
SQUARED = Loss("squared", lambda z: 0.5 * z**2, lambda z: z, quadratic=True)
HUBER_LOSS = Loss("huber", _huber_value, lambda z: np.clip(z, -HUBER, HUBER))


@dataclass(frozen=True, kw_only=True)
class Game:
    """What is attacked.

    Attributes:
        claim: the formula, with the metric it is about.
        metric: "last", "best", "average_sync", "average_local", "average_global" or "distance".
        gradient: "full", or "stochastic" (one sample a step; exact expectations, squared loss only).
        local_steps, rounds, step_factor: K, R and eta L.
        n_nodes, samples, dimension: n, m, d.
        loss: of the margins.
    """

    claim: Expression
    metric: str
    gradient: str
    local_steps: int
    rounds: int
    step_factor: float
    n_nodes: int = 2
    samples: int = 1
    dimension: int = 2
    loss: Loss = SQUARED


@dataclass(frozen=True)
class Candidate:
    """A problem found: rows (n, m, d), start (d,), x* = 0; ratio = measured / claimed."""

    rows: Array
    start: Array
    ratio: float


def unpack(game: Game, flat: Array) -> tuple[Array, Array]:
    """Candidates from numbers (B, n m d + d): rows (B, n, m, d) with L = 1, starts (B, d) with D = 1."""
    size = game.n_nodes * game.samples * game.dimension
    shape = (len(flat), game.n_nodes, game.samples, game.dimension)
    rows, start = flat[:, :size].reshape(shape), flat[:, size:]
    longest = np.sqrt((rows**2).sum(-1).max((1, 2)))
    rows = rows / np.maximum(longest, 1e-12)[:, None, None, None]
    start = start / np.maximum(np.linalg.norm(start, axis=-1), 1e-12)[:, None]
    return rows, start


def measure(game: Game, rows: Array, start: Array) -> Array:
    """The metric of every candidate, (B,); exact."""
    if game.gradient == "stochastic" and not game.loss.quadratic:
        raise ValueError("stochastic gradients have exact expectations for the squared loss alone")
    outer = np.einsum("bnmi,bnmj->bnmij", rows, rows)
    if game.gradient == "stochastic":
        return _moments(game, outer, start)
    return _path(game, rows, start)


def _path(game: Game, rows: Array, start: Array) -> Array:
    """Full gradients: one deterministic path a candidate."""
    read = _Reader(game)
    common = start
    for _ in range(game.rounds):
        models = np.repeat(common[:, None, :], game.n_nodes, axis=1)
        for k in range(game.local_steps):
            margins = np.einsum("bnmd,bnd->bnm", rows, models)
            mean = models.mean(1)
            spread = np.einsum("bnmd,bd->bnm", rows, mean)
            read.add(
                game.loss.value(margins).mean((1, 2)), game.loss.value(spread).mean((1, 2)), k == 0
            )
            slopes = game.loss.slope(margins)
            models = (
                models - game.step_factor * np.einsum("bnm,bnmd->bnd", slopes, rows) / game.samples
            )
        common = models.mean(1)
    last = game.loss.value(np.einsum("bnmd,bd->bnm", rows, common)).mean((1, 2))
    return read.metric(last, (common**2).sum(-1))


def _moments(game: Game, outer: Array, start: Array) -> Array:
    """One sample a step, squared loss: second moments of z = x - x*, exactly."""
    read, eta, n = _Reader(game), game.step_factor, game.n_nodes
    hessians = outer.mean(2)
    overall = hessians.mean(1)
    eye = np.eye(game.dimension)
    single = eye - eta * outer
    average = eye - eta * hessians
    common = np.einsum("bi,bj->bij", start, start)
    for _ in range(game.rounds):
        own = np.repeat(common[:, None], n, axis=1)
        powers = np.broadcast_to(eye, hessians.shape)
        for k in range(game.local_steps):
            local = 0.5 * np.einsum("bnij,bnij->bn", hessians, own).mean(1)
            mean = _mean_moment(own, powers, common)
            read.add(local, 0.5 * np.einsum("bij,bij->b", overall, mean), k == 0)
            own = np.einsum("bnmij,bnjk,bnmlk->bnil", single, own, single) / game.samples
            powers = average @ powers
        common = _mean_moment(own, powers, common)
    last = 0.5 * np.einsum("bij,bij->b", overall, common)
    return read.metric(last, np.einsum("bii->b", common))


def _mean_moment(own: Array, powers: Array, common: Array) -> Array:
    """E zbar zbar': nodes are independent given the start of the round."""
    n = own.shape[1]
    total = powers.sum(1)
    crossed = total @ common @ np.swapaxes(total, 1, 2)
    crossed = crossed - np.einsum("bnij,bjk,bnlk->bil", powers, common, powers)
    result: Array = (crossed + own.sum(1)) / n**2
    return result


class _Reader:
    """Collects what a metric needs along a run."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.local: list[Array] = []
        self.overall: list[Array] = []
        self.sync: list[Array] = []

    def add(self, local: Array, overall: Array, at_round: bool) -> None:
        """Losses before an iteration: (1/n) sum_i f_i(x_i^t), f(xbar^t)."""
        self.local.append(local)
        self.overall.append(overall)
        if at_round:
            self.sync.append(overall)

    def metric(self, last: Array, distance: Array) -> Array:
        """The game's metric from all that was added, and the end of the run."""
        found: dict[str, Callable[[], Array]] = {
            "last": lambda: last,
            "best": lambda: np.minimum(np.min(self.sync, axis=0), last),
            "average_sync": lambda: np.asarray(np.mean(self.sync, axis=0)),
            "average_local": lambda: np.asarray(np.mean(self.local, axis=0)),
            "average_global": lambda: np.asarray(np.mean(self.overall, axis=0)),
            "distance": lambda: distance,
        }
        return found[self.game.metric]()


def claimed(game: Game, rows: Array, start: Array) -> Array:
    """The claim's value for every candidate, (B,); NaN where it is not defined."""
    hessians = np.einsum("bnmi,bnmj->bnij", rows, rows) / game.samples
    names = set(game.claim.names)
    count = len(rows)
    values: dict[str, Array] = {
        "L": np.ones(count),
        "D": (start**2).sum(-1),
        "n": np.full(count, float(game.n_nodes)),
        "m": np.full(count, float(game.n_nodes)),
        "K": np.full(count, float(game.local_steps)),
        "R": np.full(count, float(game.rounds)),
        "T": np.full(count, float(game.local_steps * game.rounds)),
        "eta": np.full(count, game.step_factor),
        "beta": np.ones(count),
    }
    if "f0" in names:
        values["f0"] = game.loss.value(np.einsum("bnmd,bd->bnm", rows, start)).mean((1, 2))
    if "mu" in names:
        values["mu"] = np.linalg.eigvalsh(hessians)[..., 0].min(1)
    if "c" in names:
        values["c"] = _similarity(hessians)
    return np.broadcast_to(game.claim(values), (count,))


def _similarity(hessians: Array) -> Array:
    """min over nodes of the least generalised eigenvalue of (H_i, H)."""
    overall = hessians.mean(1)
    size = overall.shape[-1]
    scale = 1e-12 * np.trace(overall, axis1=1, axis2=2)
    root = np.linalg.inv(np.linalg.cholesky(overall + scale[:, None, None] * np.eye(size)))
    inner = root[:, None] @ hessians @ np.swapaxes(root, 1, 2)[:, None]
    least: Array = np.linalg.eigvalsh(inner)[..., 0].min(1)
    return np.maximum(least, 0.0)


def unknown_constants(claim: Expression) -> list[str]:
    """Names that the adversary can't compute; a claim with one of them is not attacked."""
    return [name for name in claim.names if name in ("rho", "gamma")]


def log_ratio(game: Game, flat: Array) -> Array:
    """log(measured / claimed) of candidates, (B,); HOPELESS where there is none."""
    rows, start = unpack(game, flat)
    with np.errstate(all="ignore"):
        ratio = measure(game, rows, start) / claimed(game, rows, start)
        good = np.isfinite(ratio) & (ratio > 0)
        return np.where(good, np.log(np.where(good, ratio, 1.0)), HOPELESS)


def attack(
    game: Game,
    *,
    starts: int = 12,
    seed: int = 0,
    iterations: int = 120,
    stop: Callable[[], bool] = lambda: False,
) -> Candidate:
    """The best candidate of L-BFGS from random starts.

    Args:
        game: what is attacked.
        starts: how many.
        seed: of the starts (Philox).
        iterations: of L-BFGS, a start.
        stop: asked before each start but the first; True ends the search (a time limit, say).
    """
    size = game.n_nodes * game.samples * game.dimension + game.dimension
    best: tuple[float, Array] | None = None
    for number in range(starts):
        if best is not None and stop():
            break
        generator = np.random.Generator(np.random.Philox(key=[seed, number]))
        begin = generator.standard_normal(size)
        found = minimize(_negative, begin, args=(game,), jac=True, method="L-BFGS-B",
                         options={"maxiter": iterations})  # fmt: skip
        if best is None or -found.fun > best[0]:
            best = -float(found.fun), np.asarray(found.x)
    assert best is not None
    rows, start = unpack(game, best[1][None])
    return Candidate(rows[0], start[0], float(np.exp(best[0])))


def _negative(flat: Array, game: Game) -> tuple[float, Array]:
    shifts = STEP * np.eye(len(flat))
    batch = np.concatenate([flat[None], flat + shifts, flat - shifts])
    values = log_ratio(game, batch)
    plus, minus = values[1 : len(flat) + 1], values[len(flat) + 1 :]
    return -float(values[0]), -(plus - minus) / (2 * STEP)


def shapes(
    n_nodes: Sequence[int] = (2, 3), dimensions: Sequence[int] = (2, 3)
) -> list[tuple[int, int, int]]:
    """(n, m, d) from small to large."""
    return [(n, m, d) for d in dimensions for n in n_nodes for m in (1, 2)]
