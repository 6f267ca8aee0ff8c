"""Speed of the Local SGD engines against each other, a plain Python loop and JAX, in one run.

    python benchmarks/theory_speed.py --json theory/results/speed.json

Needs the extra ``bench`` (JAX, for this comparison only). All methods take the same draws and must end
at the same models; times are medians of alternating repeats after a warm-up that compiles. A method too
slow for all T iterations runs fewer and is scaled: its cost an iteration does not depend on T, which the
first table checks on the fastest one. The floor of an engine is in ``machine_floor.py``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numba
import numpy as np
import typer
from machine_floor import floor_parts
from rich.console import Console
from rich.table import Table
from theory_methods import Runner, Size, engine, jax_scan, python_loop

from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.files import write_json
from theory.support.provenance import provenance

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Timing:
    """A method's cost.

    Attributes:
        method: its name.
        iterations: how many were timed.
        seconds: median for ``iterations``.
        scaled: seconds for all T of the size.
        low, high: least and largest, scaled likewise.
        floor_parts: seconds of the parts of the machine's floor for this method; empty where none was
            measured.
        floor_share: their sum over ``low``, as each part is a least time too; None where there is no
            floor.
    """

    method: str
    size: Size
    iterations: int
    seconds: float
    scaled: float
    low: float
    high: float
    floor_parts: dict[str, float] = field(default_factory=dict)
    floor_share: float | None = None


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


def with_floor(timing: Timing) -> Timing:
    """The timing beside the floor of its method, if it has one."""
    parts = floor_parts(timing.method, timing.size)
    share = sum(parts.values()) / timing.low if parts else None
    return replace(timing, floor_parts=parts, floor_share=share)


def measure(runners: dict[str, Runner], size: Size, repeats: int, budget: float) -> list[Timing]:
    """Alternate the methods ``repeats`` times; each runs as many iterations as ``budget`` allows."""
    counts = {name: _affordable(run, size, budget) for name, run in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, run in runners.items():
            begin = time.perf_counter()
            run(counts[name])
            samples[name].append(time.perf_counter() - begin)
    out = []
    for name in runners:
        scale = size.iterations / counts[name]
        median = float(np.median(samples[name]))
        out.append(
            Timing(
                name,
                size,
                counts[name],
                median,
                median * scale,
                min(samples[name]) * scale,
                max(samples[name]) * scale,
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
        timings = [with_floor(t) for t in measure(runners, size, repeats, budget)]
        comparison: dict[str, Any] = {"agreement": agreed}
        if jax:
            best, medians = fastest_process(timings.pop(), processes, repeats)
            timings.append(best)
            comparison["jax_seconds_by_process"] = medians
        comparison["timings"] = [asdict(t) for t in timings]
        comparisons.append(comparison)
        console.print(comparison_table(timings, agreed))
        for t in timings:
            parts = ", ".join(f"{name} {1e3 * part:.3g} ms" for name, part in t.floor_parts.items())
            if parts:
                console.print(f"Floor of {t.method}: {parts}")
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
    for varied, (label, values, names) in series.items():
        timings = scaling(base, varied, values, names, budget=1.0)
        record["scaling"][varied] = [asdict(t) for t in timings]
        console.print(scaling_table(timings, varied, label))
    if json is not None:
        write_json(json, record)
        console.print(f"Wrote {json}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only-jax"]:
        only_jax(*map(int, sys.argv[2:]))
        sys.exit()
    cli.run(app, "python benchmarks/theory_speed.py")
