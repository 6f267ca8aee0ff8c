"""An adversary: the data of a small problem, moved until measured / claimed is as large as it gets.

n nodes with m samples each in d dimensions, f_i(x) = (1/m) sum_j loss(a_ij' x), x* = 0, scaled so that
L = 1 and D = 1. The simulator here is its own (:mod:`theory.claim.adjoints`, which gives exact gradients),
so that what it finds is measured a second time by the engines. L-BFGS from many random starts does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize

from theory.claim import adjoints
from theory.claim.adjoints import Array, Loss, Slope, loss_at
from theory.claim.claim import unit_constants
from theory.claim.expression import Expression
from theory.problems.losses import MarginLoss, sigmoid

#: A candidate whose measure or claim is not positive, or not a number.
HOPELESS = -50.0
#: Where Huber's loss turns from square to linear, and where the sigmoid one turns concave, or about there;
#: data are scaled around it.
HUBER = 0.1
#: Sequences of drawn samples that a mean is taken over.
PATHS = 256
#: L-BFGS stops at kinks, as where two eigenvalues cross; it is launched again from there while that gains.
LAUNCHES, LEAST_GAIN = 5, 1e-6
#: This share of the trace is added to Hessians that are inverted.
SHIFT = 1e-12


def library_loss(loss: Loss) -> MarginLoss:
    """The loss as a problem takes it, with its minimum at the target."""
    return MarginLoss(
        loss.name,
        lambda z, t: loss.value(z - t),
        lambda z, t: loss.slope(z - t),
        curvature=1.0,
        convex=loss.convex,
        attained=True,
    )


def _huber_value(z: Array) -> Array:
    return np.where(np.abs(z) <= HUBER, 0.5 * z**2, HUBER * (np.abs(z) - 0.5 * HUBER))


def _sigmoid_value(z: Array) -> Array:
    return np.asarray(8 * (HUBER * (sigmoid(z / HUBER) - 0.5)) ** 2)


def _sigmoid_slope(z: Array) -> Array:
    s = sigmoid(z / HUBER)
    return np.asarray(16 * HUBER * (s - 0.5) * s * (1 - s))


def _sigmoid_bend(z: Array) -> Array:
    # 16 (s'^2 + (s - 1/2) s''), which is 1 at 0 and -1/3 at least.
    q = sigmoid(z / HUBER) * sigmoid(-z / HUBER)
    return np.asarray(48 * q**2 - 8 * q)


SQUARED = Loss(
    "squared", lambda z: 0.5 * z**2, lambda z: z, lambda z: np.ones_like(z), quadratic=True
)
HUBER_LOSS = Loss(
    "huber",
    _huber_value,
    lambda z: np.clip(z, -HUBER, HUBER),
    lambda z: np.where(np.abs(z) <= HUBER, 1.0, 0.0),
)
SIGMOID_LOSS = Loss("sigmoid", _sigmoid_value, _sigmoid_slope, _sigmoid_bend, convex=False)
LOSSES = {loss.name: loss for loss in (SQUARED, HUBER_LOSS, SIGMOID_LOSS)}


@dataclass(frozen=True, kw_only=True)
class Game:
    """What is attacked.

    Attributes:
        claim: the formula, with the metric it is about.
        metric: of ``theory.claim.claim.METRICS``.
        gradient: "full", or "stochastic" (one sample a step).
        local_steps, rounds: K and R.
        step_factor: eta L, or a formula for it in the problem's constants.
        n_nodes, samples, dimension: n, m, d.
        loss: of the margins.
    """

    claim: Expression
    metric: str
    gradient: str
    local_steps: int
    rounds: int
    step_factor: float | Expression
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
    """A candidate from numbers (n m d + d,): rows (n, m, d) with L = 1, start (d,) with D = 1."""
    rows, start = _split(game, flat)
    return rows / max(_longest(rows)[1], 1e-12), start / max(float(np.linalg.norm(start)), 1e-12)


def _split(game: Game, flat: Array) -> tuple[Array, Array]:
    shape = (game.n_nodes, game.samples, game.dimension)
    size = math.prod(shape)
    return flat[:size].reshape(shape), flat[size:]


def _longest(rows: Array) -> tuple[tuple[int, ...], float]:
    norms = np.linalg.norm(rows, axis=-1)
    at = np.unravel_index(int(norms.argmax()), norms.shape)
    return tuple(int(i) for i in at), float(norms[at])


def _pulled_back(game: Game, flat: Array, by_rows: Array, by_start: Array) -> Array:
    """The gradient in the free numbers, from that in the scaled rows and start."""
    raw, start = _split(game, flat)
    rows, direction = unpack(game, flat)
    at, length = _longest(raw)
    back = by_rows / length
    back[at] -= (by_rows * rows).sum() / length * rows[at]
    turned = by_start - (by_start @ direction) * direction
    return np.concatenate([back.ravel(), turned / np.linalg.norm(start)])


def measure(game: Game, rows: Array, start: Array, step: float | None = None) -> Slope:
    """The metric of a candidate with its gradient.

    Exact with full gradients, for the squared loss, and where there are at most PATHS sequences of draws;
    else a mean over PATHS sequences, the same ones for every candidate.

    Args:
        step: eta; by default the game's.
    """
    if step is None:
        step = step_of(game, rows, start).value
    schedule = {"local_steps": game.local_steps, "rounds": game.rounds}
    if game.gradient == "stochastic" and game.loss.quadratic:
        return adjoints.moments(game.metric, rows, start, step=step, **schedule)
    draws = None
    if game.gradient == "stochastic":
        draws = _draws(game.n_nodes, game.samples, game.local_steps * game.rounds)
    return adjoints.paths(game.loss, game.metric, rows, start, step=step, draws=draws, **schedule)


@lru_cache(maxsize=8)
def _draws(n_nodes: int, samples: int, steps: int) -> Array:
    """Sequences of drawn samples as weights, (B, steps, n, m): all there are, or PATHS common random ones."""
    places = n_nodes * steps
    if samples**places <= PATHS:
        chosen = np.indices((samples,) * places).reshape(places, -1).T
    else:
        generator = np.random.Generator(np.random.Philox(key=[samples, places]))
        chosen = generator.integers(samples, size=(PATHS, places))
    return np.asarray(np.eye(samples)[chosen.reshape(-1, steps, n_nodes)])


# ---- what a claim speaks of ----------------------------------------------------------------------


def step_of(game: Game, rows: Array, start: Array) -> Slope:
    """eta of a candidate, L = 1; ``step`` of the result is not used."""
    if not isinstance(game.step_factor, Expression):
        return Slope(float(game.step_factor), np.zeros_like(rows), np.zeros_like(start))
    return _evaluated(game, game.step_factor, rows, start, None)


def claimed(game: Game, rows: Array, start: Array, step: float) -> Slope:
    """The claim's value on a candidate, with its gradient; NaN where it is not defined."""
    return _evaluated(game, game.claim, rows, start, step)


def _evaluated(
    game: Game, formula: Expression, rows: Array, start: Array, step: float | None
) -> Slope:
    values = unit_constants(game.local_steps, game.rounds, game.n_nodes)
    if step is not None:
        values["eta"] = step
    moving = {
        name: make(game, rows, start) for name, make in MOVING.items() if name in formula.names
    }
    values |= {name: found.value for name, found in moving.items()}
    partial = formula.partials(values)
    by_rows, by_start = np.zeros_like(rows), np.zeros_like(start)
    for name, found in moving.items():
        by_rows = by_rows + partial[name] * found.rows
        by_start = by_start + partial[name] * found.start
    return Slope(float(formula(values)), by_rows, by_start, partial.get("eta", 0.0))


def _initial_loss(game: Game, rows: Array, start: Array) -> Slope:
    found = loss_at(game.loss, rows, start[None])
    return Slope(found.value, found.rows, found.start[0])


def _hessians(rows: Array) -> Array:
    """Of the squared loss, (n, d, d)."""
    return np.asarray(np.einsum("nmi,nmj->nij", rows, rows) / rows.shape[1])


def _from_hessians(value: float, by_hessians: Array, rows: Array) -> Slope:
    """A function of the H_i, whose gradient in them is given, (n, d, d), symmetric."""
    by_rows = 2 / rows.shape[1] * np.einsum("nij,nmj->nmi", by_hessians, rows)
    return Slope(value, np.asarray(by_rows), np.zeros(rows.shape[-1]))


def _growth(_: Game, rows: Array, start: Array) -> Slope:
    """mu: the least eigenvalue of any H_i."""
    values, vectors = np.linalg.eigh(_hessians(rows))
    node = int(values[:, 0].argmin())
    by_hessians = np.zeros((len(rows), len(start), len(start)))
    by_hessians[node] = np.outer(vectors[node][:, 0], vectors[node][:, 0])
    return _from_hessians(max(float(values[node, 0]), 0.0), by_hessians, rows)


def _whitened(matrices: Array, inverted: Array) -> tuple[Array, Array]:
    """Eigenvalues and vectors of (A, B), B positive definite: A v = value B v, v'Bv = 1."""
    root = np.linalg.inv(np.linalg.cholesky(inverted))
    values, vectors = np.linalg.eigh(root @ matrices @ root.T)
    return values, root.T @ vectors


def _similarity(_: Game, rows: Array, start: Array) -> Slope:
    """c: the least eigenvalue of any (H_i, H), both shifted so that what no sample sees counts as 1."""
    hessians = _hessians(rows)
    overall = hessians.mean(0)
    shift = SHIFT * np.trace(overall) * np.eye(len(start))
    values, vectors = _whitened(hessians + shift, overall + shift)
    node = int(values[:, 0].argmin())
    c, v = float(values[node, 0]), vectors[node][:, 0]
    by_hessians = np.repeat(-c / len(rows) * np.outer(v, v)[None], len(rows), axis=0)
    by_hessians[node] += np.outer(v, v)
    return _from_hessians(c, by_hessians, rows)


def _strong_growth(game: Game, rows: Array, start: Array) -> Slope:
    """rho: exact for the squared loss, else the bound for independent samples; at least 1."""
    n, m, d = rows.shape
    flat = rows.reshape(-1, d)
    norms = (flat**2).sum(1)
    if game.loss.quadratic:
        # sum_j w ||a_j||^2 (a_j'x)^2 over ||Hx||^2, w = 1/(nm).
        overall = flat.T @ flat / len(flat)
        weighted = (flat * norms[:, None]).T @ flat / len(flat)
        shift = SHIFT * np.trace(overall) ** 2 * np.eye(d)
        values, vectors = _whitened(weighted, overall @ overall + shift)
        rho, v = float(values[-1]), vectors[:, -1]
        margins, image = flat @ v, flat @ (overall @ v)
        by_flat = (
            2
            / len(flat)
            * (
                (margins**2)[:, None] * flat
                + (norms * margins)[:, None] * v
                - rho * (image[:, None] * v + margins[:, None] * (overall @ v))
            )
        )
    elif len(flat) > d:
        return Slope(math.inf, np.zeros_like(rows), np.zeros_like(start))
    else:
        units = flat / np.sqrt(norms)[:, None]
        values, vectors = np.linalg.eigh(units @ units.T)
        rho, v = len(flat) / max(float(values[0]), 1e-300), vectors[:, 0]
        image = units.T @ v
        by_units = -2 * rho**2 / len(flat) * v[:, None] * image
        by_flat = by_units - (by_units * units).sum(1)[:, None] * units
        by_flat = by_flat / np.sqrt(norms)[:, None]
    if rho <= 1:
        rho, by_flat = 1.0, np.zeros_like(flat)
    return Slope(rho, by_flat.reshape(n, m, d), np.zeros(d))


#: Constants that depend on the data, where L = D = 1.
MOVING: dict[str, Callable[[Game, Array, Array], Slope]] = {
    "f0": _initial_loss,
    "mu": _growth,
    "c": _similarity,
    "rho": _strong_growth,
}


def unknown_constants(game: Game) -> list[str]:
    """Names that the adversary can't compute; a claim with one of them is not attacked."""
    names = set(game.claim.names)
    if isinstance(game.step_factor, Expression):
        names |= set(game.step_factor.names)
    known = {"f0", "rho"} if not game.loss.quadratic else set(MOVING)
    return sorted(names & ({"gamma", *MOVING} - known))


# ---- the search ----------------------------------------------------------------------------------


def log_ratio(game: Game, flat: Array) -> tuple[float, Array]:
    """log(measured / claimed) of a candidate and its gradient, (n m d + d,); HOPELESS where there is none."""
    rows, start = unpack(game, flat)
    nothing = HOPELESS, np.zeros_like(flat)
    with np.errstate(all="ignore"):
        step = step_of(game, rows, start)
        if not (math.isfinite(step.value) and step.value > 0):
            return nothing
        found = measure(game, rows, start, step.value)
        bound = claimed(game, rows, start, step.value)
        if not (0 < found.value < math.inf and 0 < bound.value < math.inf):
            return nothing
        by_step = found.step / found.value - bound.step / bound.value
        by_rows = found.rows / found.value - bound.rows / bound.value + by_step * step.rows
        by_start = found.start / found.value - bound.start / bound.value + by_step * step.start
        gradient = _pulled_back(game, flat, by_rows, by_start)
    if not np.isfinite(gradient).all():
        return nothing
    return math.log(found.value / bound.value), gradient


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
        stop: asked after each iteration; True ends the search (a time limit, say).
    """
    size = game.n_nodes * game.samples * game.dimension + game.dimension
    best: tuple[float, Array] | None = None

    def negative(flat: Array) -> tuple[float, Array]:
        value, gradient = log_ratio(game, flat)
        return -value, -gradient

    def halt(_: Array) -> None:
        if stop():
            raise StopIteration

    for number in range(starts):
        generator = np.random.Generator(np.random.Philox(key=[seed, number]))
        point, reached = generator.standard_normal(size), -math.inf
        for _ in range(LAUNCHES):
            if best is not None and stop():
                break
            found = minimize(
                negative,
                point,
                jac=True,
                method="L-BFGS-B",
                callback=halt,
                options={"maxiter": iterations},
            )
            gain, reached, point = -found.fun - reached, -float(found.fun), np.asarray(found.x)
            if best is None or reached > best[0]:
                best = reached, point
            if gain < LEAST_GAIN:
                break
    assert best is not None
    rows, start = unpack(game, best[1])
    return Candidate(rows, start, float(np.exp(best[0])))


def shapes(
    n_nodes: Sequence[int] = (2, 3), dimensions: Sequence[int] = (2, 3), *, spanning: bool = False
) -> list[tuple[int, int, int]]:
    """(n, m, d) from small to large; ``spanning``: with fewer samples a node than d, c and mu are 0."""
    return [(n, m, d) for d in dimensions for n in n_nodes for m in ((d,) if spanning else (1, 2))]
