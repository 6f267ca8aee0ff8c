"""The paper's experiment on one GPU, in calls of ten minutes.

    python benchmarks/deep_gpu.py --data data --minutes 9.5

First the ways to train n models at once are timed against the loop engine, each checked against
it, and the fastest is picked; then the paper's runs follow with it, as a campaign (`deep.campaign`).
Everything is kept under --out: the same command continues there, also in another call or on another day.
With --device cpu and a small --width the same code runs where there is no GPU.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from deep.campaign import work_off
from deep.campaign_file import Campaign, Entry
from deep.campaign_status import status_table
from deep.data.cifar10 import Images
from deep.data.partition import draw_batches, partition
from deep.display import Display
from deep.engines.base import Engine
from deep.engines.make import find_device, make_engine
from deep.experiment import Machine, load_data
from deep.plan import PRESETS, plan
from deep.resnet import Architecture, initial_parameters, training_operations
from deep.results import files as report
from theory.support.command import run_command
from theory.support.errors import UserError
from theory.support.files import check_folder, write_json

#: The paper's runs to a loss of 1e-4, in the order in which they are wanted: (regime, shards a node, K).
RUNS = (
    ("iid", 1, 20),
    ("iid", 1, 5),
    ("shards", 1, 20),
    ("shards", 1, 5),
    ("shards", 1, 1),
    ("shards", 2, 20),
    ("shards", 2, 5),
    ("shards", 2, 1),
)
RESULTS = Path("deep/results")
PAPER_WIDTH, STEP_SIZE = PRESETS["paper"]["width"], PRESETS["paper"]["to-loss"]["step_size"]
#: Largest distance from the loop engine in float32, as a share of the round's movement, at which
#: a variant counts as right: tf32 convolutions, or the eight bits of bf16.
TOLERANCE = {"float32": 0.05, "bf16": 0.5}
GOALS = {"times the loop engine": 10.0, "images a second": 40_000.0}


app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Variant:
    """One way to run the nodes; the loop engine too is one."""

    engine: str
    precision: str
    channels_last: bool = False
    cuda_graphs: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        parts = [self.engine, self.precision]
        parts += ["channels last"] * self.channels_last + ["graph"] * self.cuda_graphs
        return ", ".join(parts + ["compiled"] * self.compiled)

    @property
    def options(self) -> dict[str, Any]:
        """Those of `make_engine`."""
        names = ("channels_last", "cuda_graphs")
        return {name: getattr(self, name) for name in names} | {"compile_model": self.compiled}


LOOP = Variant("loop", "float32")


def variants(cuda: bool, compiled: bool) -> list[Variant]:
    """What is timed after the loop, likely winners first in case time runs out."""
    ways = [("im2col", False), ("grouped", True), ("grouped", False), ("vmap", False)]
    found = [Variant("loop", "bf16")]
    if cuda:
        found += [Variant(way, "bf16", last, cuda_graphs=True) for way, last in ways]
    if compiled:
        found += [
            Variant(way, "bf16", last, cuda_graphs=cuda, compiled=True) for way, last in ways[:3]
        ]
    found += [Variant(way, "bf16", last) for way, last in ways]
    return found + [Variant(way, "float32", last) for way, last in ways]


@dataclass(frozen=True)
class Scale:
    """What is trained, on what: the paper's, or smaller."""

    data: Images
    architecture: Architecture
    n_nodes: int
    batch_size: int
    device: str
    seed: int
    #: K of a timed round, and how many of them.
    local_steps: int
    repeats: int

    def engine(self, variant: Variant, step_size: float) -> Engine:
        """The engine of a variant."""
        return make_engine(
            variant.engine,
            self.architecture,
            self.data,
            n_nodes=self.n_nodes,
            step_size=step_size,
            device=self.device,
            precision=variant.precision,
            **variant.options,
        )


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_ceiling(device: torch.device, size: int, repeats: int = 10) -> float:
    """Median operations a second of a bf16 product of two random ``size`` x ``size`` matrices."""
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(repeats + 3):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / float(np.median(seconds[3:]))


def time_variant(
    scale: Scale, variant: Variant, reference: np.ndarray | None
) -> tuple[dict[str, Any], np.ndarray]:
    """Images a second (median round of ``repeats``), and the averaged model after one round.

    The first round is compared with ``reference``, the loop engine's model after it.
    """
    device = find_device(scale.device)
    start_model = initial_parameters(scale.architecture, scale.seed)
    shards = partition(scale.data.labels, scale.n_nodes, "iid", 0.0, scale.seed)
    engine = scale.engine(variant, STEP_SIZE)
    seconds: list[float] = []
    first: np.ndarray | None = None
    try:
        # Different batches every time, the same ones for every variant; two rounds warm up.
        steps, nodes = scale.local_steps, list(range(scale.n_nodes))
        for index in range(scale.repeats + 2):
            first_step = index * steps
            batches = draw_batches(shards, nodes, first_step, steps, scale.batch_size, scale.seed)
            engine.set_model(start_model)
            synchronize(device)
            start = time.perf_counter()
            engine.round(batches)
            synchronize(device)
            seconds.append(time.perf_counter() - start)
            if first is None:
                first = engine.model().astype(np.float64)
    finally:
        engine.close()
    assert first is not None
    timed = np.array(seconds[2:])
    against = first if reference is None else reference
    moved = float(np.linalg.norm(against - start_model))
    distance = float(np.linalg.norm(first - against)) / moved
    images = scale.n_nodes * scale.local_steps * scale.batch_size
    row = {
        "images_per_second": images / float(np.median(timed)),
        "slowest": images / float(timed.max()),
        "fastest": images / float(timed.min()),
        "first_round_seconds": seconds[0],
        "distance": distance,
        "right": bool(distance < TOLERANCE[variant.precision]),
    }
    return row, first


def time_variants(
    scale: Scale,
    wanted: list[Variant],
    path: Path,
    head: dict[str, Any],
    deadline: float,
    console: Console,
) -> dict[str, Any]:
    """Time what ``path`` does not hold yet, until ``deadline``; what it holds then.

    Every call times the loop engine itself: a ratio is between neighbours on one machine.
    """
    device, say = find_device(scale.device), partial(console.print, highlight=False)
    identity = {
        "hardware": head["hardware"],
        "torch": head["versions"]["torch"],
        "device": device.type,
        "width": scale.architecture.width,
        "image_size": scale.architecture.image_size,
        "n_nodes": scale.n_nodes,
        "batch_size": scale.batch_size,
        "local_steps": scale.local_steps,
    }
    stored = _stored(path)
    if stored is None or stored["identity"] != identity:
        stored = {**head, "identity": identity, "rows": []}
    timed = {row["variant"] for row in stored["rows"]}
    missing = [variant for variant in wanted if variant.name not in timed]
    if missing:
        ceiling = matmul_ceiling(device, 8192 if device.type == "cuda" else 512)
        operations = training_operations(scale.architecture)
        loop, reference = time_variant(scale, LOOP, None)
        for variant in [LOOP, *missing]:
            if variant != LOOP and time.perf_counter() >= deadline:
                say("out of time: the next call times the rest")
                break
            row: dict[str, Any] = {"variant": variant.name, **asdict(variant)}
            try:
                result = loop
                if variant != LOOP:
                    result, _ = time_variant(scale, variant, reference)
                rate = result["images_per_second"]
                row |= result | {
                    "times_the_loop": rate / loop["images_per_second"],
                    "ceiling_tflops": ceiling / 1e12,
                    "of_ceiling": rate * operations / ceiling,
                }
                say(
                    f"{variant.name}: {rate:,.0f} images/s, "
                    f"{row['times_the_loop']:.2f} times the loop engine"
                )
            except Exception as error:
                # One variant that cannot run here, for memory or a missing compiler, is a finding.
                row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                say(f"{variant.name}: {row['error']}")
            stored["rows"] = [r for r in stored["rows"] if r["variant"] != variant.name] + [row]
            write_json(path, stored)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return stored


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return found if {"identity", "rows"} <= found.keys() else None
    except (OSError, ValueError):
        return None


def fastest(rows: list[dict[str, Any]], kept: Variant | None = None) -> Variant:
    """The fastest variant that is right, among those with the engine and precision of ``kept``."""
    usable = [row for row in rows if row.get("right") and row["engine"] != "loop"]
    if kept is not None:
        usable = [
            row
            for row in usable
            if (row["engine"], row["precision"]) == (kept.engine, kept.precision)
        ]
        if not usable:
            return kept
    if not usable:
        raise UserError("no engine runs right on this device; see engines.json for the errors")
    best = max(usable, key=lambda row: row["images_per_second"])
    return Variant(**{name: best[name] for name in Variant.__dataclass_fields__})


def begun(out: Path) -> Variant | None:
    """Engine and precision of the runs that are begun under ``out``: they decide their numbers."""
    for path in sorted(out.glob("*/config.json")):
        config = json.loads(path.read_text())["config"]
        return Variant(config["engine"], config["precision"])
    return None


def queue(variant: Variant, options: dict[str, Any]) -> list[Entry]:
    """The paper's runs with a variant, at a scale that options may reduce."""
    entries = []
    for regime, shards, local_steps in RUNS:
        one = {"regime": regime, "shards_per_node": shards, "local_steps": local_steps}
        chosen = {"engine": variant.engine, "precision": variant.precision}
        entries += [Entry(r, None) for r in plan("paper", "to-loss", {**one, **options, **chosen})]
    return entries


def speed_table(stored: dict[str, Any]) -> Table:
    """What was measured, the fastest first."""
    rows = [row for row in stored["rows"] if "images_per_second" in row]
    table = Table(title=f"Training n = {stored['identity']['n_nodes']} models at once")
    for heading in ("variant", "images/s", "times the loop", "of bf16 ceiling", "distance", ""):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in sorted(rows, key=lambda row: -row["images_per_second"]):
        table.add_row(
            row["variant"],
            f"{row['images_per_second']:,.0f}",
            f"{row['times_the_loop']:.2f}",
            f"{row['of_ceiling']:.1%}",
            f"{row['distance']:.0e}",
            "" if row["right"] else "wrong",
        )
    return table


@app.command()
def reproduce(
    data: Annotated[Path, typer.Option(help="As for python -m deep.reproduce.")] = Path("data"),
    data_name: Annotated[str | None, typer.Option(help="Name of the data in the results.")] = None,
    cache: Annotated[Path | None, typer.Option(help="As for python -m deep.reproduce.")] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda",
    minutes: Annotated[float, typer.Option(min=0, help="Time for this call.")] = 9.5,
    out: Annotated[Path, typer.Option(help="Run folders; kept between calls.")] = Path("runs/gpu"),
    results: Annotated[Path, typer.Option(help="Where the small result files go.")] = RESULTS,
    width: Annotated[int, typer.Option(min=1, help="64 is ResNet18.")] = PAPER_WIDTH,
    subset: Annotated[int, typer.Option(min=0, help="Images to train on; 0 for all.")] = 0,
    nodes: Annotated[int, typer.Option(min=1, help="n, number of nodes.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a node and step.")] = 8,
    rounds: Annotated[int | None, typer.Option(min=1, help="Limit of rounds of a run.")] = None,
    timed_steps: Annotated[int, typer.Option(min=1, help="K of the timed rounds.")] = 10,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds a variant.")] = 10,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also time torch.compile.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
) -> None:
    """Time the engines, pick the fastest, and run the paper's experiment as far as time allows."""
    deadline = time.perf_counter() + 60 * minutes
    console, cuda = Console(width=110), find_device(device).type == "cuda"
    check_folder("--out", out)
    check_folder("--results", results)
    options = {
        "width": width,
        "subset": subset,
        "nodes": nodes,
        "batch_size": batch_size,
        "rounds": rounds,
        "seed": seed,
    }
    loaded = load_data(data, name=data_name, cache=cache)
    for entry in queue(LOOP, options):
        loaded.shards(entry.run.config)
    images, _ = loaded.chosen(entry.run.config)
    architecture = Architecture(
        width, images.images.shape[2], max(10, int(images.labels.max()) + 1)
    )
    scale = Scale(images, architecture, nodes, batch_size, device, seed, timed_steps, repeats)
    head = report.provenance(images.name)
    wanted = variants(cuda, compiled)
    stored = time_variants(scale, wanted, out / "engines.json", head, deadline, console)
    if {v.name for v in wanted} - {row["variant"] for row in stored["rows"]}:
        # The runs wait for the choice of their engine: it decides their numbers.
        console.print(speed_table(stored))
        return
    chosen = fastest(stored["rows"], begun(out))
    console.print(f"fastest: {chosen.name}", highlight=False)
    paper = (width, subset, nodes, batch_size) == (PAPER_WIDTH, 0, 20, 8)
    write_json(
        results / f"{'paper' if paper else 'trial'}_engines.json",
        {**stored, "fastest": chosen.name, "goals": GOALS},
    )
    entries = queue(chosen, options)
    with Display(quiet=False) as display:
        work_off(
            entries,
            loaded,
            Machine(device, **chosen.options),
            display,
            head=head,
            runs_folder=out,
            results=results,
            seconds=deadline - time.perf_counter(),
        )
    console.print(speed_table(stored), status_table(Campaign(None, entries), out))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; a user's error is one line on stderr and exit status 2."""
    return run_command(app, "python benchmarks/deep_gpu.py", arguments)


if __name__ == "__main__":
    sys.exit(main())
