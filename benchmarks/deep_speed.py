"""Speed of the default CPU engine against the plain loop, grouped convolution and torch.func.vmap.

    python benchmarks/deep_speed.py --json deep/results/speed.json

"simd, direct" is the simd engine without Winograd's transforms (`deep.engines.simd.winograd`).
All engines take the same batches from the same model in one run, one after another and again, so
that a change of the machine's clock meets all of them. Float32, n = 20 nodes, batch 8 a node.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from deep.data.cifar10 import Images
from deep.engines.base import Engine
from deep.engines.make import available_cores, make_engine
from deep.engines.simd.engine import SimdEngine
from deep.engines.simd.plan import without_winograd
from deep.resnet import Architecture, initial_parameters, training_operations
from deep.results import files as report
from theory.support.command import run_command
from theory.support.files import write_atomically

DIRECT = "simd, direct"
ENGINES = ("simd", DIRECT, "loop", "grouped", "vmap")
#: What this project wants of the default engine: times as fast as the plain loop, by width.
GOALS = {8: 2.0, 16: 2.0, 64: 1.3}
#: Engines agree when their distance from the loop in float64 is below this, or below this many
#: times the float32 loop's own: rectifiers amplify rounding, at some widths much.
TOLERANCE, TIMES_THE_LOOPS = 1e-3, 4.0
STEP_SIZE = 0.05

app = typer.Typer(add_completion=False)


def matmul_ceiling(size: int = 2048, repeats: int = 7) -> float:
    """Median GFLOP/s of a float32 product of two random ``size`` x ``size`` matrices."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, size, generator=generator) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / float(np.median(seconds[1:])) / 1e9


def random_images(count: int, size: int) -> Images:
    """Random images: the arithmetic, and so the time, does not depend on what they show."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return Images(pixels, rng.integers(0, 10, count), "random images")


def measure(
    width: int,
    *,
    n_nodes: int,
    batch_size: int,
    local_steps: int,
    repeats: int,
    threads: int,
    image_size: int = 32,
) -> list[dict[str, Any]]:
    """One row an engine: seconds a round (median, least, most) and distance from float64.

    ``distance``: of the averaged model after one round from the loop's in float64, relative to
    the round's movement.
    """
    architecture = Architecture(width, image_size)
    data = random_images(1000, image_size)
    start_model = initial_parameters(architecture, 0)
    rng = np.random.default_rng(1)
    rounds = [
        rng.integers(0, len(data), (n_nodes, local_steps, batch_size)) for _ in range(repeats + 1)
    ]
    engines: dict[str, Engine] = {}
    for name in ENGINES:
        engine = make_engine(
            name.split(",")[0],
            architecture,
            data,
            n_nodes=n_nodes,
            step_size=STEP_SIZE,
            threads=threads,
        )
        if name == DIRECT:
            assert isinstance(engine, SimdEngine)
            engine.layout = without_winograd(engine.layout)
        engines[name] = engine
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    models: dict[str, np.ndarray] = {}
    for index, batches in enumerate(rounds):
        for name, engine in engines.items():
            engine.set_model(start_model)
            start = time.perf_counter()
            engine.round(batches)
            seconds[name].append(time.perf_counter() - start)
            if index == 0:
                models[name] = engine.model().astype(np.float64)
    exact_engine = make_engine(
        "loop", architecture, data, n_nodes=n_nodes, step_size=STEP_SIZE, precision="float64"
    )
    exact_engine.set_model(start_model)
    exact_engine.round(rounds[0])
    exact = exact_engine.model()
    moved = float(np.linalg.norm(exact - start_model))
    images = n_nodes * local_steps * batch_size
    rows: list[dict[str, Any]] = []
    for name in ENGINES:
        # The first round warmed caches and libraries up.
        timed = np.array(seconds[name][1:])
        median = float(np.median(timed))
        rows.append(
            {
                "width": width,
                "engine": name,
                "local_steps": local_steps,
                "seconds": median,
                "seconds_least": float(timed.min()),
                "seconds_most": float(timed.max()),
                "images_per_second": images / median,
                "gflops": images * training_operations(architecture) / median / 1e9,
                "distance": float(np.linalg.norm(models[name] - exact)) / moved,
            }
        )
        engines[name].close()
    loop_row = rows[ENGINES.index("loop")]
    allowed = max(TOLERANCE, TIMES_THE_LOOPS * loop_row["distance"])
    for row in rows:
        row["agrees"] = bool(row["distance"] < allowed)
    simd = np.array(seconds["simd"][1:])
    for row in rows:
        row["simd_speedup"] = row["seconds"] / rows[0]["seconds"]
        # Round by round: both engines' neighbours in time.
        ratios = np.array(seconds[row["engine"]][1:]) / simd
        row["simd_speedup_least"] = float(ratios.min())
        row["simd_speedup_most"] = float(ratios.max())
    return rows


def show(rows: list[dict[str, Any]], ceiling: float, console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title=f"A round of Local SGD; torch.matmul in float32: {ceiling:,.0f} GFLOP/s")
    for heading in (
        "width",
        "engine",
        "ms a round",
        "images/s",
        "GFLOP/s",
        "of torch.matmul",
        "simd is faster by",
        "from float64",
    ):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for row in rows:
        table.add_row(
            str(row["width"]),
            row["engine"],
            f"{1e3 * row['seconds']:,.0f}",
            f"{row['images_per_second']:,.0f}",
            f"{row['gflops']:,.0f}",
            f"{row['gflops'] / ceiling:.0%}",
            f"{row['simd_speedup']:.2f}",
            f"{row['distance']:.0e}",
            end_section=row["engine"] == ENGINES[-1],
        )
    console.print(table)


@app.command()
def compare(
    width: Annotated[list[int] | None, typer.Option(help="Widths; default 8, 16 and 64.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="n, number of nodes.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a node and step.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds an engine.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="All cores by default.")] = None,
    image_size: Annotated[int, typer.Option(help="Side of the images.")] = 32,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the numbers here.")
    ] = None,
) -> None:
    """Print medians and ratios of the CPU engines; exit 1 when trajectories disagree."""
    console = Console(width=110)
    count = threads or available_cores()
    torch.set_num_threads(count)
    # What else the machine was doing when this began.
    load = round(os.getloadavg()[0], 2)
    ceiling = matmul_ceiling()
    rows: list[dict[str, Any]] = []
    for each in width or sorted(GOALS):
        rows += measure(
            each,
            n_nodes=nodes,
            batch_size=batch_size,
            local_steps=1 if each >= 32 else 4,
            repeats=repeats,
            threads=count,
            image_size=image_size,
        )
    show(rows, ceiling, console)
    goals = [
        {
            "width": row["width"],
            "goal": GOALS[row["width"]],
            "speedup": row["simd_speedup"],
            "met": row["simd_speedup"] >= GOALS[row["width"]],
        }
        for row in rows
        if row["engine"] == "loop" and row["width"] in GOALS
    ]
    for goal in goals:
        console.print(
            f"width {goal['width']}: {goal['speedup']:.2f} times the plain loop, goal "
            f"{goal['goal']}: {'met' if goal['met'] else 'missed'}"
        )
    if json_file:
        head = report.provenance("random images")
        content = {
            **head,
            "n_nodes": nodes,
            "batch_size": batch_size,
            "threads": count,
            "repeats": repeats,
            "load_average": load,
            "matmul_gflops": ceiling,
            "goals": goals,
            "rows": rows,
        }
        report.make_folder(json_file.parent)
        write_atomically(json_file, json.dumps(content, indent=1).encode() + b"\n")
    apart = [row for row in rows if not row["agrees"]]
    for row in apart:
        console.print(
            f"width {row['width']}: {row['engine']} is {row['distance']:.1e} from the exact round"
        )
    if apart:
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(run_command(app, "python benchmarks/deep_speed.py"))
