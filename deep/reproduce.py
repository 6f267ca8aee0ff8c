"""Reproduce the paper's deep experiment: Local SGD on CIFAR-10 with ResNet18.

python -m deep.reproduce --preset laptop --data DIR --regime iid --local-steps 1 --local-steps 5
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deep.data.cifar10 import Images, load_images
from deep.data.partition import REGIMES, balanced_subset, partition
from deep.distributed import (
    Communicator,
    Torchrun,
    check_ranks,
    local_processes,
    under_torchrun,
)
from deep.engines.base import PRECISIONS
from deep.engines.make import ENGINES, available_cores, find_device, make_engine
from deep.local_sgd import Config, Snapshot, run
from deep.resnet import Architecture, initial_parameters
from deep.results import files as report
from deep.tensorboard import open_log
from theory.support.command import run_command
from theory.support.errors import UserError


@dataclass(frozen=True)
class Preset:
    """The scale of a sweep: rounds and step sizes of fixed-rounds and of to-loss (a limit)."""

    width: int
    subset: int | None
    rounds: tuple[int, int]
    step_sizes: tuple[float, float]
    local_steps: tuple[int, ...]


EXPERIMENTS = ("fixed-rounds", "to-loss")
PRESETS = {
    "paper": Preset(64, None, (20_000, 1_000_000), (0.1, 0.075), (1, 2, 5, 10, 20)),
    # Sixteen times narrower than the paper's network, which bears a larger step: at the paper's
    # step sizes the same losses take about three times the rounds.
    "laptop": Preset(4, 200, (300, 20_000), (0.3, 0.3), (1, 5, 20)),
    "smoke": Preset(2, 40, (5, 5), (0.1, 0.075), (1, 2)),
}
TARGET_LOSS = 1e-4


#: Exit status after Ctrl-C.

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def _choice(option: str, value: str, allowed: Any) -> str:
    if value not in allowed:
        raise UserError(f"unknown {option} {value!r}: choose one of {', '.join(allowed)}")
    return value


class _Display:
    """Progress bars on a terminal; on a pipe one line now and then."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.quiet = quiet

    def loading(self, label: str) -> Any:
        task = self.progress.add_task(label, state="")

        def advance(done: int, total: int) -> None:
            self.progress.update(
                task,
                completed=done,
                total=total or None,
                state=f"{done:,} of {total:,}",
                visible=done < (total or done + 1),
            )

        return advance

    def training(self, label: str) -> Any:
        task = self.progress.add_task(label, state="", total=1.0)

        def advance(now: Snapshot) -> None:
            whole = now.round + max(now.rounds_left, 0.0)
            self.progress.update(
                task,
                completed=now.round / max(whole, 1.0),
                state=f"round {now.round:,}  loss {now.loss:.2e}  "
                f"{now.images_per_second:,.0f} images/s  {_duration(now.seconds_left)} left",
            )

        return advance

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(min(seconds, 99 * 3600.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _load(
    data: Path,
    name: str | None,
    download: bool,
    subset: int | None,
    seed: int,
    display: _Display,
    communicator: Communicator,
) -> Images:
    """The images of the run; one process a machine downloads or decodes, the others wait."""
    images: Images | None = None
    for turn in (True, False):
        if turn == (os.environ.get("LOCAL_RANK", "0") == "0"):
            images = load_images(
                data, name=name, download=download, progress=display.loading("training images")
            )
        communicator.share(None)
    assert images is not None
    chosen = images.take(balanced_subset(images.labels, subset, seed))
    if communicator.share(chosen.fingerprint) != chosen.fingerprint:
        raise UserError(f"process {communicator.rank} finds other images at {data} than process 0")
    return chosen


@app.command()
def reproduce(
    regime: Annotated[
        str, typer.Option(help=f"How alike the nodes' data are: {', '.join(REGIMES)}.")
    ] = "iid",
    local_steps: Annotated[
        list[int] | None,
        typer.Option(help="K, local steps a round; give it several times for a sweep."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="paper (full width, all images), laptop (two cores, minutes) or smoke (seconds).",
        ),
    ] = "paper",
    experiment: Annotated[
        str, typer.Option(help="to-loss (stop below --target-loss) or fixed-rounds.")
    ] = "to-loss",
    data: Annotated[
        Path,
        typer.Option(
            help="The binary archive, a folder that holds it, or a folder of class folders of images.",
        ),
    ] = Path("data"),
    data_name: Annotated[
        str | None,
        typer.Option(help="Name of the data in the result files."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(help="Fetch the official archive (163 MB) into --data when it is missing."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs"),
    results: Annotated[
        Path | None,
        typer.Option(help="Also write one small JSON file a run into this folder."),
    ] = None,
    engine: Annotated[str, typer.Option(help=f"One of {', '.join(ENGINES)}.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, float64, or bf16 (arithmetic; weights stay float32).")
    ] = "float32",
    threads: Annotated[
        int | None,
        typer.Option(help="Threads on the CPU; all cores by default."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(help="Rounds, or their limit with to-loss."),
    ] = None,
    target_loss: Annotated[float, typer.Option(help="Stop below this loss.")] = TARGET_LOSS,
    step_size: Annotated[
        float | None,
        typer.Option(
            help="Default: the paper's, 0.1 for fixed-rounds and 0.075 for to-loss; laptop 0.3."
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(help="n, number of nodes.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images a node and step.")] = 8,
    similarity: Annotated[
        float, typer.Option(help="Share of every node's data that is iid in the mixed regime.")
    ] = 0.5,
    width: Annotated[
        int | None,
        typer.Option(help="Channels of the first stage; 64 is ResNet18."),
    ] = None,
    subset: Annotated[
        int | None,
        typer.Option(help="Train on so many images, equally many a class; 0 for all."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="torch.compile in the stacked engines.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option(help="Replay each local step as a CUDA graph in the stacked engines.")
    ] = False,
    checkpoint_minutes: Annotated[float, typer.Option(help="Minutes between checkpoints.")] = 5.0,
    tensorboard: Annotated[
        bool, typer.Option(help="Also log for TensorBoard, when it is installed.")
    ] = False,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
) -> None:
    """Local SGD on CIFAR-10 with ResNet18 (LayerNorm for BatchNorm), n = 20 nodes, batch 8 a node.

    Every K gets its own run folder with config.json, metrics.jsonl and summary.json. A killed run
    continues where its last checkpoint was when the same command is given again.

    Examples: the whole experiment on a laptop,
    [bold]python -m deep.reproduce --preset laptop --regime iid --data data --download[/bold];
    the paper's on a GPU,
    [bold]python -m deep.reproduce --preset paper --regime iid --local-steps 20 --precision
    bf16[/bold]; on four GPUs,
    [bold]torchrun --nproc-per-node=4 -m deep.reproduce --local-steps 20[/bold].
    """
    _choice("regime", regime, REGIMES)
    _choice("experiment", experiment, EXPERIMENTS)
    _choice("engine", engine, ENGINES)
    _choice("precision", precision, PRECISIONS)
    scale = PRESETS[_choice("preset", preset, PRESETS)]
    if threads is not None and threads < 1:
        raise UserError(f"--threads must be at least 1, got {threads}")
    if checkpoint_minutes < 0:
        raise UserError(f"--checkpoint-minutes must be at least 0, got {checkpoint_minutes}")
    fixed = experiment == "fixed-rounds"
    which = EXPERIMENTS.index(experiment)
    chosen_subset = (subset or None) if subset is not None else scale.subset
    base = Config(
        regime=regime,
        local_steps=1,
        rounds=rounds if rounds is not None else scale.rounds[which],
        target_loss=0.0 if fixed else target_loss,
        step_size=step_size if step_size is not None else scale.step_sizes[which],
        n_nodes=nodes,
        batch_size=batch_size,
        similarity=similarity,
        width=width if width is not None else scale.width,
        subset=chosen_subset,
        seed=seed,
        engine=engine,
        precision=precision,
        data_name="",
        data_fingerprint="",
    )
    configs = [replace(base, local_steps=k) for k in local_steps or scale.local_steps]
    place = find_device(device)
    communicator: Communicator = Torchrun(place) if under_torchrun() else Communicator()
    try:
        if place.type == "cpu" and (threads is not None or local_processes() > 1):
            threads = threads or max(1, available_cores() // local_processes())
            torch.set_num_threads(threads)
        if results:
            report.make_folder(results)
        check_ranks(communicator, nodes)
        display = _Display(quiet or communicator.rank != 0)
        with display.progress:
            images = _load(data, data_name, download, chosen_subset, seed, display, communicator)
            # Once: the commit of the code that was loaded, whatever is committed meanwhile.
            head = report.provenance(report.command_line(), images.name)
            for config in configs:
                label = f"{preset}_{experiment}_{regime}_K{config.local_steps:02d}"
                _run_one(
                    replace(config, data_name=images.name, data_fingerprint=images.fingerprint),
                    images,
                    out / label,
                    communicator,
                    display,
                    label,
                    device=device,
                    threads=threads,
                    compile_model=compile_model,
                    cuda_graphs=cuda_graphs,
                    checkpoint_minutes=checkpoint_minutes,
                    tensorboard=tensorboard,
                    result=results / f"{label}.json" if results else None,
                    head=head,
                )
    finally:
        communicator.close()


def _run_one(
    config: Config,
    images: Images,
    folder: Path,
    communicator: Communicator,
    display: _Display,
    label: str,
    *,
    device: str,
    threads: int | None,
    compile_model: bool,
    cuda_graphs: bool,
    checkpoint_minutes: float,
    tensorboard: bool,
    result: Path | None,
    head: dict[str, Any],
) -> None:
    """One run of the sweep: engine, round loop, result file."""
    shards = partition(images.labels, config.n_nodes, config.regime, config.similarity, config.seed)
    architecture = Architecture(
        config.width, images.images.shape[2], max(10, int(images.labels.max()) + 1)
    )
    engine = make_engine(
        config.engine,
        architecture,
        images,
        n_nodes=config.n_nodes,
        n_local=len(communicator.nodes(config.n_nodes)),
        step_size=config.step_size,
        device=device,
        precision=config.precision,
        threads=threads,
        communicator=communicator,
        compile_model=compile_model,
        cuda_graphs=cuda_graphs,
    )
    if engine.name == "simd":
        # It has threads of its own. PyTorch only adds up models here, and on a busy machine the
        # barrier of a second thread costs ten times the sum.
        torch.set_num_threads(1)
    config = replace(config, engine=engine.name)
    log = open_log(folder, config.local_steps) if tensorboard and communicator.rank == 0 else None
    try:
        summary = run(
            config,
            engine,
            shards,
            initial_parameters(architecture, config.seed),
            folder,
            checkpoint_minutes=checkpoint_minutes,
            provenance=head,
            report=display.training(label),
            observe=log,
        )
    finally:
        engine.close()
    if communicator.rank == 0:
        if result:
            report.write_result(result, head, folder)
        display.say(
            f"{label}: {summary['status']} after {summary['rounds']:,} rounds = "
            f"{summary['iterations']:,} iterations, loss {summary['final_train_loss']:.3e}, "
            f"{summary['images_per_second']:,.0f} images/s, "
            f"{_duration(summary['wall_seconds'])}, evaluation {summary['evaluation_share']:.0%}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; every user error is one line on stderr and exit status 2."""
    return run_command(
        app,
        "python -m deep.reproduce",
        arguments,
        interrupted="interrupted; the same command continues this run",
        out_of_memory="out of memory: use a smaller --width, --nodes or --batch-size",
    )


if __name__ == "__main__":
    sys.exit(main())
