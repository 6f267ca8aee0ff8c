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
from theory.simulation import arguments
from theory.simulation.arguments import log_grid as log_grid
from theory.simulation.engines import ENGINES, METRICS, Engine, Plan, cheapest_engine
from theory.simulation.streams import reshuffled_indices, sample_indices
from theory.support.errors import UserError

Array = NDArray[np.float64]

AVERAGES = ("local_loss", "sync_loss", "global_loss", "sync_gradient", "batch_loss")
ORDERS = ("uniform", "reshuffled")
# Draws held at a time; bounds memory whatever T is.
CHUNK_DRAWS = 2_000_000


@dataclass(frozen=True)
class LocalSGDResult:
    """Outcome of :func:`run_local_sgd`; every history has shape (step sizes, seeds, grid).

    Attributes:
        iterations: the grid of iterations t, first 0 and last T.
        history: by metric: "global_loss" f(xbar^t), "local_loss" (1/n) sum_i f_i(x_i^t), "distance"
            ||xbar^t - x*||^2 and "local_distance" (1/n) sum_i ||x_i^t - x*||^2 (NaN without x*),
            "gradient" ||grad f(xbar^t)||^2, "consensus" (1/n) sum_i ||x_i^t - xbar^t||^2. Where K
            divides t the models are those after averaging, all equal to xbar^t.
        averages: by name, the exact mean over all iterations s < t ("local_loss", "global_loss",
            "batch_loss") or over all rounds begun before t ("sync_loss", "sync_gradient"); NaN at
            t = 0. "batch_loss" is the left side of T0: (1/n) sum_i l_i^s, l_i^s the mean loss, at
            x_i^s, of the very batch that node i's step s uses (0 at iterations at which it waits).
        best_sync_loss: min over the rounds begun before t of f(xbar_r); NaN at t = 0.
        final_model: xbar^T, (step sizes, seeds, d).
        engine: the engine that ran.
        diverged: (step sizes, seeds), whether a metric stopped being finite.
    """

    step_sizes: Array
    seeds: NDArray[np.uint64]
    local_steps: int
    rounds: int
    iterations: NDArray[np.int64]
    history: dict[str, Array]
    averages: dict[str, Array]
    best_sync_loss: Array
    final_model: Array
    engine: str
    diverged: NDArray[np.bool_]


def run_local_sgd(
    problem: Any,
    *,
    step_size: float | Sequence[float] | Array,
    local_steps: int = 1,
    rounds: int = 100,
    seeds: int | Sequence[int] = 1,
    batch_size: int = 1,
    gradient: str = "stochastic",
    order: str = "uniform",
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
            ``sample_gradients`` and ``node_sizes``, and for "batch_loss" ``sample_losses``.
        step_size: eta > 0, one or several; all are run on the same draws.
        local_steps: K >= 1; ``local_steps=T, rounds=1`` is one-shot averaging.
        rounds: R >= 1; T = K R.
        seeds: a count (0, 1, ...) or the seeds themselves, each in [0, 2**64); the mean over seeds
            estimates E.
        batch_size: samples a node a step, 1 to 10^6.
        gradient: "stochastic", or "full" for the node's whole gradient (deterministic).
        order: "uniform", samples drawn with replacement; or "reshuffled", each node goes through its
            samples in a fresh random order a pass, batch by batch.
        engine: "auto" (least work), "numpy", "numba" or "margin"; the same trajectory to rounding.
        record: iterations at which the metrics are recorded; log-spaced by default.
        averages: which exact running means to keep, of AVERAGES. "local_loss" and "global_loss" cost
            the losses of all samples at every iteration, the sync ones once a round, "batch_loss" only
            those of the samples that a step uses anyway.
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
    etas = arguments.step_sizes(step_size)
    local_steps, rounds, batch = arguments.schedule(local_steps, rounds, batch_size, gradient)
    seed_list = arguments.seed_list(seeds)
    limits = np.full(problem.n_nodes, local_steps) if node_steps is None else np.asarray(node_steps)
    _check_run(problem, engine, averages, order, limits, local_steps, batch)
    last = local_steps * rounds
    grid = arguments.grid(record, last)
    # With full gradients every seed is the same run; one is simulated.
    simulated = seed_list[:1] if batch == 0 else seed_list
    plan = Plan(
        step_sizes=np.repeat(etas, len(simulated)),
        local_steps=local_steps,
        node_steps=limits.astype(np.int64),
        averaging=averaging,
        track=np.array([name in averages for name in AVERAGES]),
    )
    chosen = cheapest_engine(problem, plan, batch) if engine == "auto" else engine
    state = ENGINES[chosen](problem, plan)
    draws = _Draws(problem, plan, simulated, batch, order, biased_sampling)
    records = _march(problem, state, plan, draws, grid, progress)
    shape = (len(etas), len(simulated))
    copies = len(seed_list) // len(simulated)
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


class _Draws:
    """The sample numbers of all runs, a window of iterations at a time."""

    def __init__(
        self,
        problem: Any,
        plan: Plan,
        seeds: NDArray[np.uint64],
        batch_size: int,
        order: str,
        biased: bool,
    ) -> None:
        self.seeds, self.batch, self.order, self.plan = seeds, batch_size, order, plan
        self.n_nodes = problem.n_nodes
        if batch_size:
            sizes = np.asarray(problem.node_sizes)
            self.sizes = np.maximum(1, sizes // 2) if biased else sizes
        self.longest = max(1, CHUNK_DRAWS // max(1, len(seeds) * problem.n_nodes * batch_size))

    def window(self, first: int, steps: int) -> NDArray[np.int32]:
        """Iterations [first, first + steps): (seeds, n, steps, batch)."""
        if self.batch == 0:
            return np.empty((len(self.seeds), self.n_nodes, steps, 0), dtype=np.int32)
        if self.order == "uniform":
            return sample_indices(self.seeds, self.sizes, first, steps, self.batch)
        # A node's pass goes on where its last step left it, however long it waits.
        rounds, k = np.divmod(np.arange(first, first + steps), self.plan.local_steps)
        limits = self.plan.node_steps[:, None]
        taken = rounds * limits + np.minimum(k, limits - 1)
        every = np.broadcast_to(taken, (len(self.seeds), *taken.shape))
        return reshuffled_indices(self.seeds, self.sizes, every, self.batch)


def _march(
    problem: Any,
    state: Engine,
    plan: Plan,
    draws: _Draws,
    grid: NDArray[np.int64],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Array]:
    """Advance to every grid point in turn; returns (P, grid) arrays by name."""
    runs, last = len(plan.step_sizes), int(grid[-1])
    names = [*METRICS, *("average " + name for name in AVERAGES), "best"]
    records = {name: np.full((runs, len(grid)), np.nan) for name in names}
    drawn, drawn_first = draws.window(0, 0), 0
    t = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for g, target in enumerate(grid):
            while t < target:
                if t >= drawn_first + drawn.shape[2]:
                    drawn_first = t
                    drawn = draws.window(t, min(draws.longest, last - t))
                steps = min(int(target), drawn_first + drawn.shape[2]) - t
                window = drawn[:, :, t - drawn_first : t - drawn_first + steps]
                state.advance(np.ascontiguousarray(window), t, steps)
                t += steps
                if progress is not None:
                    progress(t, last)
            for name, value in state.snapshot().items():
                records[name][:, g] = value
            if t:
                started = -(-t // plan.local_steps)
                for q, name in enumerate(AVERAGES):
                    count = started if name.startswith("sync") else t
                    records["average " + name][:, g] = state.sums[:, q] / count
                records["best"][:, g] = state.best
    return records


def _check_run(
    problem: Any,
    engine: str,
    averages: Sequence[str],
    order: str,
    limits: NDArray[np.int64],
    local_steps: int,
    batch: int,
) -> None:
    if engine != "auto" and engine not in ENGINES:
        raise UserError(f"engine is {engine!r}, allowed: auto, {', '.join(ENGINES)}")
    compiled = isinstance(problem, MarginProblem) and problem.loss.code >= 0
    if engine in ("numba", "margin") and not compiled:
        raise UserError(f"engine {engine!r} needs a built-in loss; allowed here: auto, numpy")
    if order not in ORDERS:
        raise UserError(f"order is {order!r}, allowed: {', '.join(ORDERS)}")
    unknown = [name for name in averages if name not in AVERAGES]
    if unknown:
        raise UserError(f"averages has {unknown[0]!r}, allowed: {', '.join(AVERAGES)}")
    if "batch_loss" in averages and batch and not hasattr(problem, "sample_losses"):
        raise UserError(
            "averages has 'batch_loss', which needs a problem with sample_losses; allowed here: "
            f"{', '.join(AVERAGES[:-1])}"
        )
    allowed = f"{problem.n_nodes} whole numbers from 1 to local_steps = {local_steps}"
    if (
        limits.shape != (problem.n_nodes,)
        or not (np.equal(limits, np.round(limits)) & (limits >= 1) & (limits <= local_steps)).all()
    ):
        raise UserError(f"node_steps is {limits.tolist()}, allowed: {allowed}")
