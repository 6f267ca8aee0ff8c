"""Speed of the Local SGD engines against each other, a plain Python loop and JAX, in one run.

    python benchmarks/theory_speed.py --json theory/results/speed.json

Needs the extra ``bench`` (JAX, for this comparison only). All methods take the same draws and must end
at the same models; times are medians of alternating repeats after a warm-up that compiles. A method too
slow for all T iterations runs fewer and is scaled: its cost an iteration does not depend on T, which the
first table checks on the fastest one.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numba
import numpy as np
import typer
from numba import njit, prange
from rich.console import Console
from rich.table import Table

from theory.problems.generators import least_squares
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.streams import sample_indices
from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.files import write_json
from theory.support.provenance import provenance

app = typer.Typer(add_completion=False, rich_markup_mode=None)
Runner = Callable[[int], np.ndarray]
STEP = 0.9


@dataclass(frozen=True)
class Size:
    """n nodes, m samples a node, d, K, seeds, T iterations."""

    n_nodes: int = 20
    samples: int = 10
    dimension: int = 200
    local_steps: int = 5
    seeds: int = 8
    iterations: int = 10_000

    def problem(self) -> MarginProblem:
        """Least squares of that size."""
        return least_squares(
            n_nodes=self.n_nodes,
            samples_per_node=self.samples,
            dimension=self.dimension,
            rank=min(self.dimension, self.n_nodes * self.samples),
        )


@dataclass(frozen=True)
class Timing:
    """A method's cost.

    Attributes:
        method: its name.
        iterations: how many were timed.
        seconds: median for ``iterations``.
        scaled: seconds for all T of the size.
        low, high: least and largest, scaled likewise.
        floor_share: the machine's floor for this method's arithmetic over the time taken; None where no
            floor was computed.
    """

    method: str
    size: Size
    iterations: int
    seconds: float
    scaled: float
    low: float
    high: float
    floor_share: float | None = None


# ---- the alternatives ----------------------------------------------------------------------------


def engine(problem: MarginProblem, size: Size, name: str) -> Runner:
    """One of ours, through the public function; records nothing but the end."""

    def run(iterations: int) -> np.ndarray:
        return run_local_sgd(
            problem,
            step_size=STEP,
            local_steps=size.local_steps,
            rounds=iterations // size.local_steps,
            seeds=size.seeds,
            engine=name,
            averages=[],
            record=[iterations],
        ).final_model[0]

    return run


def python_loop(problem: MarginProblem, size: Size) -> Runner:
    """What one writes first: a loop over seeds, steps and nodes, NumPy on one node's model."""
    rows = problem.features.reshape(size.n_nodes, size.samples, -1)
    targets = problem.targets.reshape(size.n_nodes, size.samples)

    def run(iterations: int) -> np.ndarray:
        draws = _draws(problem, size, iterations)
        out = []
        for seed in range(size.seeds):
            mean = problem.start
            for first in range(0, iterations, size.local_steps):
                models = []
                for i in range(size.n_nodes):
                    x = mean.copy()
                    for t in range(first, first + size.local_steps):
                        j = draws[seed, i, t]
                        a = rows[i, j]
                        x -= STEP * (a @ x - targets[i, j]) * a
                    models.append(x)
                mean = np.mean(models, axis=0)
            out.append(mean)
        return np.array(out)

    return run


def jax_scan(problem: MarginProblem, size: Size) -> Runner:
    """JAX: vmap over seeds and nodes, lax.scan over local steps and rounds, jit around it all."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rows = jnp.asarray(problem.features.reshape(size.n_nodes, size.samples, -1))
    targets = jnp.asarray(problem.targets.reshape(size.n_nodes, size.samples))
    start = jnp.asarray(problem.start)

    def step(x: Any, j: Any, node_rows: Any, node_targets: Any) -> Any:
        a = node_rows[j]
        return x - STEP * (a @ x - node_targets[j]) * a

    def node(mean: Any, draws: Any, node_rows: Any, node_targets: Any) -> Any:
        return lax.scan(lambda x, j: (step(x, j, node_rows, node_targets), None), mean, draws)[0]

    def one_round(mean: Any, draws: Any) -> Any:
        return jax.vmap(node, (None, 0, 0, 0))(mean, draws, rows, targets).mean(axis=0), None

    @jax.jit
    def all_rounds(draws: Any) -> Any:
        # draws: (seeds, rounds, n, K)
        return jax.vmap(lambda d: lax.scan(one_round, start, d)[0])(draws)

    def run(iterations: int) -> np.ndarray:
        draws = _draws(problem, size, iterations).reshape(
            size.seeds, size.n_nodes, -1, size.local_steps
        )
        return np.asarray(all_rounds(jnp.asarray(draws.transpose(0, 2, 1, 3))))

    return run


def _draws(problem: MarginProblem, size: Size, iterations: int) -> np.ndarray:
    return sample_indices(
        np.arange(size.seeds, dtype=np.uint64), problem.node_sizes, 0, iterations, 1
    )[..., 0]


# ---- the machine's floor -------------------------------------------------------------------------


@njit(parallel=True, fastmath=True)
def _triads(a, b, c, repeats):  # type: ignore[no-untyped-def]
    for thread in prange(a.shape[0]):
        for _ in range(repeats):
            for k in range(a.shape[1]):
                a[thread, k] = b[thread, k] + 0.5 * c[thread, k]


def bandwidth(working_set: float) -> float:
    """Bytes a second of a triad over all threads, each on a working set of that many bytes."""
    threads = numba.get_num_threads()
    length = max(64, int(working_set / 24))
    a, b, c = np.ones((3, threads, length))
    repeats = max(1, int(4e7 / (length * threads)))
    best = np.inf
    for attempt in range(6):
        begin = time.perf_counter()
        _triads(a, b, c, repeats)
        if attempt:
            best = min(best, time.perf_counter() - begin)
    return 24.0 * length * threads * repeats / best


def peak_flops() -> float:
    """Floating-point operations a second of a BLAS matrix product."""
    a = np.random.default_rng(0).standard_normal((1500, 1500))
    best = np.inf
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2.0 * 1500**3 / best


def floor_seconds(method: str, size: Size, flops: float) -> float | None:
    """The least time for the method's arithmetic: its bytes or its flops, whichever takes longer.

    In R^d a step reads the model, its sample and the next and writes the model (32 d bytes) with 4 d
    flops. In margin space a step moves the node's m margins along a row of its Gram block (24 m bytes,
    2 m flops), and a round adds one Gram row for each of the samples that its n K draws touch (16 N
    bytes and 2 N flops, in passes of four rows).
    """
    runs, total = size.seeds, size.n_nodes * size.samples
    steps = runs * size.n_nodes * size.iterations
    rounds = runs * size.iterations / size.local_steps
    if method == "numba":
        moved, done = 32.0 * size.dimension * steps, 4.0 * size.dimension * steps
        # As if model and sample were always in the cache that holds the two: no run can be faster.
        working = 8.0 * size.dimension * 2
    elif method == "margin":
        # Draws with replacement: a node touches m (1 - (1 - 1/m)^K) samples a round.
        seen = size.n_nodes * size.samples * (1 - (1 - 1 / size.samples) ** size.local_steps)
        moved = 24.0 * size.samples * steps + rounds * seen * total * (8.0 + 16.0 / 4)
        done = 2.0 * size.samples * steps + rounds * seen * total * 2.0
        working = 8.0 * total**2
    else:
        return None
    return max(moved / bandwidth(working), done / flops)


# ---- measuring -----------------------------------------------------------------------------------


def _affordable(run: Runner, size: Size, budget: float) -> int:
    """Iterations that take about ``budget`` seconds, at most T; leaves that length compiled."""
    count = 4 * size.local_steps
    while True:
        run(count)  # compiles; JAX compiles once for every length
        begin = time.perf_counter()
        run(count)
        taken = time.perf_counter() - begin
        if taken > budget / 4 or count >= size.iterations:
            return count
        count = min(size.iterations, 4 * count)


def measure(runners: dict[str, Runner], size: Size, repeats: int, budget: float) -> list[Timing]:
    """Alternate the methods ``repeats`` times; each runs as many iterations as ``budget`` allows."""
    counts = {name: _affordable(run, size, budget) for name, run in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, run in runners.items():
            begin = time.perf_counter()
            run(counts[name])
            samples[name].append(time.perf_counter() - begin)
    flops = peak_flops()
    out = []
    for name in runners:
        scale = size.iterations / counts[name]
        median = float(np.median(samples[name]))
        floor = floor_seconds(name, size, flops)
        out.append(
            Timing(
                name,
                size,
                counts[name],
                median,
                median * scale,
                min(samples[name]) * scale,
                max(samples[name]) * scale,
                None if floor is None else floor / (median * scale),
            )
        )
    return out


def agreement(runners: dict[str, Runner], size: Size) -> float:
    """Largest difference between the methods' final models, relative to the largest entry."""
    models = [run(20 * size.local_steps) for run in runners.values()]
    return max(float(np.abs(m - models[0]).max() / np.abs(models[0]).max()) for m in models)


def fastest_process(timing: Timing, processes: int, repeats: int) -> tuple[Timing, list[float]]:
    """JAX again in fresh processes: its speed differs from one to the next, and the best one counts."""
    medians = [timing.scaled]
    best = timing
    for _ in range(processes):
        arguments = [str(timing.size.dimension), str(timing.iterations), str(repeats)]
        answer = subprocess.run(
            [sys.executable, __file__, "--only-jax", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        samples = np.array([float(word) for word in answer.stdout.split()])
        scale = timing.size.iterations / timing.iterations
        median = float(np.median(samples))
        medians.append(median * scale)
        if median < best.seconds:
            best = Timing(
                "JAX",
                timing.size,
                timing.iterations,
                median,
                median * scale,
                samples.min() * scale,
                samples.max() * scale,
            )
    return best, medians


def only_jax(dimension: int, iterations: int, repeats: int) -> None:
    """What a fresh process does: print the seconds of each repeat."""
    size = Size(dimension=dimension)
    run = jax_scan(size.problem(), size)
    run(iterations)
    for _ in range(repeats):
        begin = time.perf_counter()
        run(iterations)
        print(time.perf_counter() - begin)


def comparison_table(timings: list[Timing], agreed: float) -> Table:
    """Methods at one size; ratios against the fastest of ours."""
    size = timings[0].size
    ours = min((t for t in timings if t.method in ("numba", "margin")), key=lambda t: t.scaled)
    table = Table(
        title=f"n = {size.n_nodes}, {size.samples} samples a node, K = {size.local_steps}, "
        f"d = {size.dimension:,}, {size.seeds} seeds, T = {size.iterations:,}, float64; "
        f"models agree to {agreed:.0e}",
        title_justify="left",
    )
    table.add_column("method")
    for name in (
        "timed T",
        "seconds for T",
        "least",
        "most",
        f"times {ours.method}",
        "floor share",
    ):
        table.add_column(name, justify="right")
    for t in timings:
        share = "-" if t.floor_share is None else f"{t.floor_share:.0%}"
        table.add_row(
            t.method,
            f"{t.iterations:,}",
            f"{t.scaled:.3g}",
            f"{t.low:.3g}",
            f"{t.high:.3g}",
            f"{t.scaled / ours.scaled:.3g}",
            share,
        )
    return table


def scaling(
    base: Size, field: str, values: list[int], names: list[str], budget: float
) -> list[Timing]:
    """Times of our engines while one number varies."""
    out = []
    for value in values:
        size = Size(**{**asdict(base), field: value})
        problem = size.problem()
        out += measure({name: engine(problem, size, name) for name in names}, size, 3, budget)
    return out


def scaling_table(timings: list[Timing], field: str, label: str) -> Table:
    """One column a value, one row an engine; microseconds an iteration of all runs and nodes."""
    values = sorted({getattr(t.size, field) for t in timings})
    table = Table(title=f"Microseconds an iteration against {label}", title_justify="left")
    table.add_column("engine")
    for value in values:
        table.add_column(f"{value:,}", justify="right")
    for name in dict.fromkeys(t.method for t in timings):
        cells = {getattr(t.size, field): t for t in timings if t.method == name}
        table.add_row(
            name,
            *(
                f"{1e6 * cells[v].seconds / cells[v].iterations:.3g}" if v in cells else "-"
                for v in values
            ),
        )
    return table


@app.command()
def main(
    repeats: Annotated[int, typer.Option(help="Alternating repeats of the comparison.")] = 5,
    budget: Annotated[float, typer.Option(help="Seconds a timed run of a slow method.")] = 4.0,
    json: Annotated[Path | None, typer.Option(help="Write all timings as JSON.")] = None,
    jax: Annotated[bool, typer.Option(help="Compare with JAX.")] = True,
    processes: Annotated[int, typer.Option(help="Fresh processes that JAX is timed in, too.")] = 5,
    large: Annotated[bool, typer.Option(help="Go up to d = 10^6 (2 GB of memory).")] = True,
) -> None:
    """Time the engines; every ratio comes from this one run."""
    if repeats < 1 or not budget > 0:
        raise UserError(f"repeats is {repeats}, budget {budget:g}, allowed: at least 1, above 0")
    if jax and importlib.util.find_spec("jax") is None:
        raise UserError("JAX is not installed: pip install -e '.[bench]', or pass --no-jax")
    console = Console(width=None if sys.stdout.isatty() else 130)
    record: dict[str, Any] = {**provenance(), "threads": numba.get_num_threads()}
    record["openblas_coretype"] = os.environ.get("OPENBLAS_CORETYPE")
    comparisons = []
    for dimension in (200, 20_000):
        size = Size(dimension=dimension)
        problem = size.problem()
        runners = {name: engine(problem, size, name) for name in ("numba", "margin", "numpy")}
        runners["Python loop"] = python_loop(problem, size)
        if jax:
            runners["JAX"] = jax_scan(problem, size)
        agreed = agreement(runners, size)
        timings = measure(runners, size, repeats, budget)
        comparison: dict[str, Any] = {"agreement": agreed}
        if jax:
            best, medians = fastest_process(timings.pop(), processes, repeats)
            timings.append(best)
            comparison["jax_seconds_by_process"] = medians
        comparison["timings"] = [asdict(t) for t in timings]
        comparisons.append(comparison)
        console.print(comparison_table(timings, agreed))
        if jax:
            text = ", ".join(f"{m:.3g}" for m in sorted(comparison["jax_seconds_by_process"]))
            console.print(f"JAX, medians by process: {text} s; the best is in the table")
    record["comparisons"] = comparisons
    base = Size(iterations=2_000)
    top = 1_000_000 if large else 100_000
    series = {
        "iterations": ("T", [2_500, 10_000, 40_000], ["numba", "margin"]),
        "dimension": (
            "d",
            [d for d in (100, 1_000, 10_000, 100_000, top) if d <= top],
            ["numba", "margin"],
        ),
        "n_nodes": ("n", [5, 10, 20, 40, 80], ["numba", "margin"]),
        "local_steps": ("K", [1, 5, 20, 100], ["numba", "margin"]),
        "seeds": ("seeds", [2, 8, 32], ["numba", "margin"]),
    }
    record["scaling"] = {}
    for field, (label, values, names) in series.items():
        timings = scaling(base, field, values, names, budget=1.0)
        record["scaling"][field] = [asdict(t) for t in timings]
        console.print(scaling_table(timings, field, label))
    if json is not None:
        write_json(json, record)
        console.print(f"Wrote {json}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only-jax"]:
        only_jax(*map(int, sys.argv[2:]))
        sys.exit()
    cli.run(app, "python benchmarks/theory_speed.py")
