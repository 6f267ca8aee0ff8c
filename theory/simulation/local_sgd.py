"""Local SGD (FedAvg) over many step sizes, seeds and nodes at once: :func:`run_local_sgd`.

x_i <- x_i - eta grad f_i(x_i; xi_i) at every node, K times a round; then every x_i becomes the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.problems.consistency import check_problem
from theory.problems.margin import MarginProblem
from theory.problems.protocols import Simulated, has_samples
from theory.simulation import arguments
from theory.simulation.arguments import log_grid as log_grid
from theory.simulation.compiled_engines import ENGINES, make_engine
from theory.simulation.draws import Draws
from theory.simulation.engines import METRICS, Engine, Plan, cheapest_engine, is_compiled
from theory.simulation.outer_steps import OuterRule
from theory.simulation.variants import FedAvg, Variant, check_variant, selects_everyone
from theory.support import memory
from theory.support.errors import UserError

Array = NDArray[np.float64]

AVERAGES = ("local_loss", "sync_loss", "global_loss", "sync_gradient", "batch_loss")


@dataclass(frozen=True)
class RoundRecord:
    """What Lemma 2 speaks of, for every round r of every run, (step sizes, seeds, R).

    Means are over the participants of the round, by their weights; Delta_i = x_i - xbar_r.

    Attributes:
        mean_square: P, the mean of ||Delta_i||^2.
        square_mean: Q = ||mean Delta_i||^2.
        loss: S, the mean of the sums, along a node's steps, of the loss of the batch used (NaN for a
            problem without ``sample_losses``).
        outer_step: beta_r; for a variant with a ``combine`` of its own <xbar_{r+1} - xbar_r, Delta>/Q.
        distance: ||xbar_r - x*||^2 at the start of the round; NaN without x*. Its value after the last
            round is the last "distance" of the history.
        decrease: beta (P - beta Q) + 2 beta eta phi S, by which Lemma 2 says that the distance falls at
            least; NaN where L is unknown. phi counts as 0 for eta > 2/L.
    """

    mean_square: Array
    square_mean: Array
    loss: Array
    outer_step: Array
    distance: Array
    decrease: Array


@dataclass(frozen=True)
class LocalSGDResult:
    """Outcome of :func:`run_local_sgd`; every history has shape (step sizes, seeds, grid).

    Attributes:
        iterations: the grid of iterations t, first 0 and last T.
        history: by metric: "global_loss" f(xbar^t), "local_loss" (1/n) sum_i f_i(x_i^t), "distance"
            ||xbar^t - x*||^2 and "local_distance" (1/n) sum_i ||x_i^t - x*||^2 (NaN without x*),
            "gradient" ||grad f(xbar^t)||^2, "consensus" (1/n) sum_i ||x_i^t - xbar^t||^2. Where K
            divides t the models are those after averaging, all equal to xbar^t. With client sampling
            or node weights all means over nodes, xbar^t included, are over the participants of the
            round by their weights (over all nodes where K divides t); f is the problem's own.
        averages: by name, the exact mean over all iterations s < t ("local_loss", "global_loss",
            "batch_loss") or over all rounds begun before t ("sync_loss", "sync_gradient"); NaN at
            t = 0. "batch_loss" is the left side of T0: (1/n) sum_i l_i^s, l_i^s the mean loss, at
            x_i^s, of the very batch that node i's step s uses (0 at iterations at which it waits).
        best_sync_loss: min over the rounds begun before t of f(xbar_r); NaN at t = 0.
        final_model: xbar^T, (step sizes, seeds, d).
        engine: the engine that ran.
        variant: the name of what ran.
        round_record: P, Q, S, beta and the distance of every round, if asked for.
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
    variant: str = "Local SGD"
    round_record: RoundRecord | None = None


def run_local_sgd(
    problem: Simulated,
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
    participants: int | None = None,
    outer_step: float | str | OuterRule = 1.0,
    weights: Sequence[float] | None = None,
    variant: Variant | None = None,
    record_rounds: bool = False,
    averaging: bool = True,
    biased_sampling: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> LocalSGDResult:
    """Run Local SGD from x_0.

    Args:
        problem: a :class:`theory.problems.margin.MarginProblem`; or, for ``engine="numpy"``, any object with
            the members of :class:`theory.problems.protocols.Simulated`, for stochastic gradients also
            ``sample_gradients`` and ``node_sizes`` of ``Sampled``, and for "batch_loss"
            ``sample_losses``.
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
        participants: m of the n nodes, drawn uniformly without replacement, afresh every round.
        outer_step: beta in xbar_{r+1} = xbar_r + beta (mean of the participants' changes): a number,
            "extrapolated" max(1, P/Q), "half-extrapolated" max(1, P/(2Q)), "polyak"
            (P + 2 eta phi S)/(2Q), or a function of the changes, (m, d), and S (NumPy engine).
        weights: of the nodes in every mean, each above 0, with sum 1; equal ones if not given.
        variant: in place of ``order``, ``participants``, ``outer_step`` and ``weights``; see
            :mod:`theory.simulation.variants`. One of your own runs on the NumPy engine.
        record_rounds: whether to keep a :class:`RoundRecord`.
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
    chosen = _variant(variant, order, participants, outer_step, weights)
    _check_run(
        problem, engine, averages, limits, local_steps, batch, chosen, averaging, record_rounds
    )
    last = local_steps * rounds
    grid = arguments.grid(record, last)
    everyone = isinstance(chosen, FedAvg) and selects_everyone(chosen, problem.n_nodes)
    # With full gradients at all nodes every seed is the same run; one is simulated.
    simulated = seed_list[:1] if batch == 0 and everyone else seed_list
    runs = np.repeat(etas, len(simulated))
    smoothness = getattr(problem, "smoothness", np.nan)
    plan = Plan(
        step_sizes=runs,
        phis=np.clip(2.0 - runs * smoothness, 0.0, 1.0),
        seeds=simulated,
        local_steps=local_steps,
        rounds=rounds,
        node_steps=limits.astype(np.int64),
        variant=chosen,
        averaging=averaging,
        track=np.array([name in averages for name in AVERAGES]),
        record_rounds=record_rounds,
    )
    name = cheapest_engine(problem, plan, batch) if engine == "auto" else engine
    _require_memory(name, problem, plan, len(grid), max(1, batch))
    state = make_engine(name, problem, plan)
    sizes = np.ones(problem.n_nodes, np.int64)
    if batch and has_samples(problem):
        sizes = np.asarray(problem.node_sizes)
    if biased_sampling:
        sizes = np.maximum(1, sizes // 2)
    draws = Draws(problem.n_nodes, sizes, simulated, chosen, local_steps, plan.node_steps, batch)
    records = _march(state, plan, draws, grid, progress)
    shape = (len(etas), len(simulated))
    copies = len(seed_list) // len(simulated)
    columns = {
        name: np.repeat(values.reshape(*shape, -1), copies, axis=1)
        for name, values in records.items()
    }
    history = {name: columns[name] for name in METRICS}
    rows = np.repeat(state.record.reshape(*shape, -1, 5), copies, axis=1)
    phis = plan.phis.reshape(len(etas), -1, 1)[:, :1]
    round_record = _round_record(rows, etas[:, None, None] * phis) if record_rounds else None
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
        engine=name,
        diverged=~finite,
        variant=chosen.name,
        round_record=round_record,
    )


def _require_memory(engine: str, problem: Simulated, plan: Plan, points: int, batch: int) -> None:
    """Refuse runs whose models, draws and records would not fit."""
    n, d = problem.n_nodes, problem.start.size
    # Margins, their change in the round and since x_0 for every sample, or every node's model and its
    # step; the mean model; the columns of the records.
    own = (2 + (engine == "numpy") * batch) * n * d
    if engine == "margin" and isinstance(problem, MarginProblem):
        own = 4 * problem.n_samples
    per_run = 8 * (own + 3 * d + 25 * points) + 4 * n * batch
    memory.require(
        float(per_run) * plan.runs,
        f"{plan.runs:,} runs of {n:,} nodes with {d:,} parameters",
        "the seeds, step sizes, nodes or dimension (--seeds, --nodes, --dimension)",
    )


def _march(
    state: Engine,
    plan: Plan,
    draws: Draws,
    grid: NDArray[np.int64],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Array]:
    """Advance to every grid point in turn; returns (P, grid) arrays by name."""
    last = int(grid[-1])
    names = [*METRICS, *("average " + name for name in AVERAGES), "best"]
    records = {name: np.full((plan.runs, len(grid)), np.nan) for name in names}
    t = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for g, target in enumerate(grid.tolist()):
            while t < target:
                window = draws.take(t, target - t, last - t)
                state.advance(window, t)
                t += window.indices.shape[2]
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


def _round_record(rows: Array, certified: Array) -> RoundRecord:
    mean_square, square_mean, loss, beta, distance = np.moveaxis(rows, -1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        decrease = beta * (mean_square - beta * square_mean) + 2 * beta * certified * loss
    return RoundRecord(mean_square, square_mean, loss, beta, distance, decrease)


def _variant(
    variant: Variant | None,
    order: str,
    participants: int | None,
    outer_step: float | str | OuterRule,
    weights: Sequence[float] | None,
) -> Variant:
    listed = None if weights is None else tuple(weights)
    built_in = FedAvg(participants, outer_step, listed, order)
    if variant is None:
        return built_in
    if built_in != FedAvg():
        raise UserError(
            "variant is given beside order, participants, outer_step or weights; allowed: one of the two"
        )
    return variant


def _check_run(
    problem: Simulated,
    engine: str,
    averages: Sequence[str],
    limits: NDArray[np.int64],
    local_steps: int,
    batch: int,
    variant: Variant,
    averaging: bool,
    record_rounds: bool,
) -> None:
    check_problem(problem)
    check_variant(variant, problem.n_nodes)
    if batch and not has_samples(problem):
        raise UserError(
            "gradient is 'stochastic', which needs a problem with sample_gradients and node_sizes; "
            "allowed here: full"
        )
    if engine != "auto" and engine not in ENGINES:
        raise UserError(f"engine is {engine!r}, allowed: auto, {', '.join(ENGINES)}")
    if engine in ("numba", "margin") and not is_compiled(problem, variant):
        raise UserError(
            f"engine {engine!r} needs a compiled loss and a built-in variant; allowed here: auto, numpy"
        )
    if not averaging and (record_rounds or variant.name != FedAvg(order=variant.order).name):
        raise UserError(
            "averaging is False, allowed: only for plain Local SGD without record_rounds"
        )
    polyak = isinstance(variant, FedAvg) and variant.outer_step_size == "polyak"
    if polyak and not hasattr(problem, "smoothness"):
        raise UserError("outer_step is 'polyak', which needs a problem that knows its smoothness")
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
