"""Local SGD (FedAvg) over many step sizes, seeds and nodes at once: :func:`run_local_sgd`.

x_i <- x_i - eta grad f_i(x_i; xi_i) at every node, K times a round; then every x_i becomes the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem
from theory.simulation.engines import ENGINES, METRICS, Engine, Plan, cheapest_engine
from theory.simulation.streams import sample_indices
from theory.support.errors import UserError

Array = NDArray[np.float64]

AVERAGES = ("local_loss", "sync_loss", "global_loss", "sync_gradient")
# Draws held at a time; bounds memory whatever T is.
CHUNK_DRAWS = 2_000_000


@dataclass(frozen=True)
class LocalSGDResult:
    """Outcome of :func:`run_local_sgd`; every history has shape (step sizes, seeds, grid).

    Attributes:
        iterations: the grid of iterations t, first 0 and last T.
        history: by metric: "global_loss" f(xbar^t), "local_loss" (1/n) sum_i f_i(x_i^t), "distance"
            ||xbar^t - x*||^2 (NaN without x*), "gradient" ||grad f(xbar^t)||^2, "consensus"
            (1/n) sum_i ||x_i^t - xbar^t||^2.
        averages: by name, the exact mean over all iterations s < t ("local_loss", "global_loss") or
            over all rounds begun before t ("sync_loss", "sync_gradient"); NaN at t = 0.
        best_sync_loss: min over the rounds begun before t of f(xbar_r); NaN at t = 0.
        final_model: xbar^T, (step sizes, seeds, d).
        engine: the engine that ran.
        diverged: (step sizes, seeds), whether a metric stopped being finite.
    """

    step_sizes: Array
    seeds: NDArray[np.int64]
    local_steps: int
    rounds: int
    iterations: NDArray[np.int64]
    history: dict[str, Array]
    averages: dict[str, Array]
    best_sync_loss: Array
    final_model: Array
    engine: str
    diverged: NDArray[np.bool_]


def log_grid(last: int, points: int = 60) -> NDArray[np.int64]:
    """0, then at most ``points`` log-spaced iterations up to and with ``last``."""
    if last < 1:
        return np.array([0], dtype=np.int64)
    spaced = np.unique(np.round(np.geomspace(1, last, points)).astype(np.int64))
    return np.concatenate([[0], spaced])


def run_local_sgd(
    problem: Any,
    *,
    step_size: float | Sequence[float] | Array,
    local_steps: int = 1,
    rounds: int = 100,
    seeds: int | Sequence[int] = 1,
    batch_size: int = 1,
    gradient: str = "stochastic",
    engine: str = "auto",
    record: Sequence[int] | NDArray[np.int64] | None = None,
    averages: Sequence[str] = ("sync_loss",),
    node_steps: Sequence[int] | None = None,
    averaging: bool = True,
    biased_sampling: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> LocalSGDResult:
    """Run Local SGD from x_0.

    Args:
        problem: a :class:`theory.problems.margin.MarginProblem`; or, for ``engine="numpy"``, any object with
            ``n_nodes``, ``start`` (d,), ``solution`` (d,) or None, ``node_losses`` and
            ``node_gradients`` ((..., n, d) to (..., n) and (..., n, d)), and for stochastic gradients
            ``sample_gradients`` and ``node_sizes``.
        step_size: eta > 0, one or several; all are run on the same draws.
        local_steps: K >= 1; ``local_steps=T, rounds=1`` is one-shot averaging.
        rounds: R >= 1; T = K R.
        seeds: a count (0, 1, ...) or the seeds themselves; the mean over seeds estimates E.
        batch_size: samples a node a step, drawn with replacement.
        gradient: "stochastic", or "full" for the node's whole gradient (deterministic).
        engine: "auto" (least work), "numpy", "numba" or "margin"; the same trajectory to rounding.
        record: iterations at which the metrics are recorded; log-spaced by default.
        averages: which exact running means to keep, of AVERAGES. "local_loss" and "global_loss" cost
            the losses of all samples at every iteration, the sync ones once a round.
        node_steps: K_i <= K of each node; it then waits for the others.
        averaging: False leaves averaging out. For showing that a check can fail.
        biased_sampling: True draws only the first half of each node's samples. As above.
        progress: called with (iterations done, T).

    Returns:
        A :class:`LocalSGDResult`.

    Raises:
        UserError: an argument outside its range, naming the range.

    References:
        H. B. McMahan et al., "Communication-efficient learning of deep networks from decentralized
        data" (AISTATS 2017); T. Qin, S. R. Etesami, C. A. Uribe, "Faster convergence of Local SGD for
        over-parameterized models" (TMLR 2024).
    """
    etas = np.atleast_1d(np.asarray(step_size, dtype=np.float64))
    seed_list = np.arange(seeds) if isinstance(seeds, int) else np.asarray(seeds, dtype=np.int64)
    limits = np.full(problem.n_nodes, local_steps) if node_steps is None else np.asarray(node_steps)
    check_schedule(etas, local_steps, rounds, batch_size, gradient)
    _check_run(problem, seed_list, engine, averages, limits, local_steps)
    last = local_steps * rounds
    grid = log_grid(last) if record is None else np.unique(np.concatenate([[0, last], record]))
    if grid[0] < 0 or grid[-1] > last:
        raise UserError(f"record has iterations outside 0 to {last}")

    full = gradient == "full"
    # With full gradients every seed is the same run; one is simulated.
    simulated = seed_list[:1] if full else seed_list
    plan = Plan(
        step_sizes=np.repeat(etas, len(simulated)),
        local_steps=local_steps,
        node_steps=limits.astype(np.int64),
        averaging=averaging,
        track=np.array([name in averages for name in AVERAGES]),
    )
    chosen = (
        cheapest_engine(problem, plan, 0 if full else batch_size) if engine == "auto" else engine
    )
    state = ENGINES[chosen](problem, plan)
    records = _march(
        problem, state, plan, simulated, grid, 0 if full else batch_size, biased_sampling, progress
    )
    shape = (len(etas), len(simulated))
    copies = len(seed_list) if full else 1
    columns = {
        name: np.repeat(values.reshape(*shape, -1), copies, axis=1)
        for name, values in records.items()
    }
    history = {name: columns[name] for name in METRICS}
    finite = np.asarray(np.isfinite(history["global_loss"]).all(axis=-1))
    return LocalSGDResult(
        step_sizes=etas,
        seeds=seed_list,
        local_steps=local_steps,
        rounds=rounds,
        iterations=grid,
        history=history,
        averages={name: columns["average " + name] for name in averages},
        best_sync_loss=columns["best"],
        final_model=np.repeat(state.mean_models().reshape(*shape, -1), copies, axis=1),
        engine=chosen,
        diverged=~finite,
    )


def _march(
    problem: Any,
    state: Engine,
    plan: Plan,
    seeds: NDArray[np.int64],
    grid: NDArray[np.int64],
    batch_size: int,
    biased: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Array]:
    """Advance to every grid point in turn; returns (P, grid) arrays by name."""
    runs, last = len(plan.step_sizes), int(grid[-1])
    names = [*METRICS, *("average " + name for name in AVERAGES), "best"]
    records = {name: np.full((runs, len(grid)), np.nan) for name in names}
    longest = max(1, CHUNK_DRAWS // max(1, len(seeds) * problem.n_nodes * batch_size))
    draws, draws_first = _draw(problem, seeds, 0, 0, batch_size, biased), 0
    t = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for g, target in enumerate(grid):
            while t < target:
                if t >= draws_first + draws.shape[2]:
                    draws_first = t
                    draws = _draw(problem, seeds, t, min(longest, last - t), batch_size, biased)
                steps = min(int(target), draws_first + draws.shape[2]) - t
                window = draws[:, :, t - draws_first : t - draws_first + steps]
                state.advance(np.ascontiguousarray(window), t, steps)
                t += steps
                if progress is not None:
                    progress(t, last)
            for name, value in state.snapshot().items():
                records[name][:, g] = value
            if t:
                started = -(-t // plan.local_steps)
                for q, name in enumerate(AVERAGES):
                    count = t if name in ("local_loss", "global_loss") else started
                    records["average " + name][:, g] = state.sums[:, q] / count
                records["best"][:, g] = state.best
    return records


def _draw(
    problem: Any, seeds: NDArray[np.int64], first: int, steps: int, batch_size: int, biased: bool
) -> NDArray[np.int32]:
    if batch_size == 0:
        return np.empty((len(seeds), problem.n_nodes, steps, 0), dtype=np.int32)
    sizes = np.asarray(problem.node_sizes)
    if biased:
        sizes = np.maximum(1, sizes // 2)
    return sample_indices(seeds, sizes, first, steps, batch_size)


def check_schedule(
    etas: Array, local_steps: int, rounds: int, batch_size: int, gradient: str
) -> None:
    """Refuse a schedule outside its range.

    Raises:
        UserError: names the argument, its value and what is allowed.
    """
    if etas.ndim != 1 or not (np.isfinite(etas).all() and (etas > 0).all()):
        raise UserError(f"step_size is {etas.tolist()}, allowed: finite numbers above 0")
    numbers = {"local_steps": local_steps, "rounds": rounds, "batch_size": batch_size}
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"{name} is {value}, allowed: at least 1")
    if gradient not in ("stochastic", "full"):
        raise UserError(f"gradient is {gradient!r}, allowed: stochastic, full")


def _check_run(
    problem: Any,
    seeds: NDArray[np.int64],
    engine: str,
    averages: Sequence[str],
    limits: NDArray[np.int64],
    local_steps: int,
) -> None:
    if seeds.ndim != 1 or len(seeds) < 1 or (seeds < 0).any():
        raise UserError("seeds must be a count of at least 1, or seeds of at least 0")
    if engine != "auto" and engine not in ENGINES:
        raise UserError(f"engine is {engine!r}, allowed: auto, {', '.join(ENGINES)}")
    compiled = isinstance(problem, MarginProblem) and problem.loss.code >= 0
    if engine in ("numba", "margin") and not compiled:
        raise UserError(f"engine {engine!r} needs a built-in loss; allowed here: auto, numpy")
    unknown = [name for name in averages if name not in AVERAGES]
    if unknown:
        raise UserError(f"averages has {unknown[0]!r}, allowed: {', '.join(AVERAGES)}")
    if limits.shape != (problem.n_nodes,) or (limits < 1).any() or (limits > local_steps).any():
        raise UserError(
            f"node_steps is {limits.tolist()}, allowed: {problem.n_nodes} numbers from 1 to "
            f"local_steps = {local_steps}"
        )
