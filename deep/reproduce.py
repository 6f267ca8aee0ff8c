"""Reproduce the paper's deep experiment: Local SGD on CIFAR-10 with ResNet18.

python -m deep.reproduce --preset laptop --data DIR --regime iid --local-steps 1,5
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from deep.config import BATCHES, OUTER_STEPS
from deep.data.cifar10 import PIXELS
from deep.data.partition import REGIMES
from deep.display import Display, outcome
from deep.distributed import (
    Communicator,
    Torchrun,
    check_ranks,
    local_processes,
    say_once,
    under_torchrun,
)
from deep.engines.make import ENGINES, available_cores, find_device
from deep.experiment import Machine, load_data, run_experiment
from deep.plan import plan
from deep.results import files
from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.numbers import MOST_SEED, real, whole, whole_numbers, words

#: Help of the options that `deep.campaign` has too.
DATA_HELP = (
    "The binary archive, a folder that holds it, or a folder of class folders of images (or with train "
    "and test, which hold these)."
)
CACHE_HELP = (
    "Where decoded images are kept; default: $LOCAL_SGD_RATES_CACHE, or local-sgd-rates in the user's "
    "cache folder (~/.cache on Linux)."
)

app = cli.make_app()
#: More than any processor has; PyTorch dies of a million.
MOST_THREADS = 1024


def outer_step(text: str | None) -> float | str | None:
    """A number or a word; `deep.config.Config` refuses what it does not know."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


@app.command()
def reproduce(
    regime: Annotated[
        list[str] | None,
        typer.Option(
            help=f"How alike the nodes' data are: {', '.join(REGIMES)}; repeat or list for several. "
            "Default: iid,shards, with two shards and with one; laptop: with one."
        ),
    ] = None,
    shards_per_node: Annotated[
        list[str] | None,
        typer.Option(
            help="In the regime shards: shards of the sorted images a node, dealt at random. Default 2,1; "
            "laptop 1."
        ),
    ] = None,
    local_steps: Annotated[
        list[str] | None,
        typer.Option(
            "--local-steps", "-K", help="K, local steps a round; repeat or list: -K 1 -K 5, -K 1,5."
        ),
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
    data: Annotated[Path, typer.Option(help=DATA_HELP)] = Path("data"),
    data_name: Annotated[
        str | None,
        typer.Option(help="Name of the data in the result files."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(help="Fetch the official archive (163 MB) into --data when it is missing."),
    ] = False,
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
    out: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs"),
    results: Annotated[
        Path | None,
        typer.Option(help="Also write one small JSON file a run into this folder."),
    ] = None,
    engine: Annotated[str | None, typer.Option(help=f"One of {', '.join(ENGINES)}.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(help="float32, float64, or bf16 (arithmetic; weights stay float32)."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads on the CPU; all cores by default."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            "-R",
            help="Rounds, or their limit with to-loss; more extend a finished run.",
        ),
    ] = None,
    target_loss: Annotated[
        float | None,
        typer.Option(help="Stop below this loss (1e-4); a smaller one extends a finished run."),
    ] = None,
    step_size: Annotated[
        float | None,
        typer.Option(
            help="eta. Default: the paper's, 0.1 for fixed-rounds and 0.075 for to-loss; laptop 0.3."
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", "-n", help="n, number of nodes: 20.")] = (
        None
    ),
    batch_size: Annotated[int | None, typer.Option(help="Images a node and step: 8.")] = None,
    similarity: Annotated[
        float | None,
        typer.Option(help="Share of every node's data that is iid in the mixed regime: 0.5."),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Channels of the first stage; 64 is ResNet18."),
    ] = None,
    subset: Annotated[
        int | None,
        typer.Option(help="Train on so many images, equally many a class; 0 for all."),
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(help="Seed of every random choice; repeat or list for several. Default 0."),
    ] = None,
    norm_affine: Annotated[
        bool | None,
        typer.Option(
            "--norm-affine/--no-norm-affine", help="Scale and shift in the norms; default: without."
        ),
    ] = None,
    pixels: Annotated[
        str | None,
        typer.Option(
            help=f"{PIXELS[0]} ((x/255 - 0.5)/0.5, the default) or {PIXELS[1]} (mean 0, deviation 1)."
        ),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(
            help=f"{BATCHES[0]} (within a batch; the default) or {BATCHES[1]}; fresh each step."
        ),
    ] = None,
    participants: Annotated[
        int | None,
        typer.Option(help="m of the n nodes take part in a round, drawn afresh; default: all."),
    ] = None,
    fixed_participants: Annotated[
        bool, typer.Option("--fixed-participants", help="Draw them once for all rounds.")
    ] = False,
    outer_step_: Annotated[
        str | None,
        typer.Option(
            "--outer-step",
            help=f"beta: a number (1 is the plain average), or {' or '.join(OUTER_STEPS)}.",
        ),
    ] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="torch.compile in the stacked engines.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option(help="Replay each local step as a CUDA graph in the stacked engines.")
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints; the first one after at most one.")
    ] = 5.0,
    tensorboard: Annotated[
        bool, typer.Option(help="Also log for TensorBoard, when it is installed.")
    ] = False,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy", help="Record the energy balance (T9) of runs that begin; see deep.energy."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
    version: cli.Version = False,
) -> int:
    """Local SGD on CIFAR-10 with ResNet18 (LayerNorm for BatchNorm), n = 20 nodes, batch 8 a node.

    The defaults are the set-up of the first author's repository. Every run gets its own folder, named
    after what differs from the preset, with config.json, metrics.jsonl and summary.json. A killed run
    continues where its last checkpoint was when the same command is given again; Ctrl-C and SIGTERM
    write one first.

    Exit status: 0 done, 1 a run diverged, 2 bad input, 130 interrupted.

    Examples:

    \b
      the whole experiment on a laptop
        python -m deep.reproduce --preset laptop --data data --download
      the paper's on a GPU, and on four
        python -m deep.reproduce --regime iid -K 20 --precision bf16
        torchrun --nproc-per-node=4 -m deep.reproduce -K 20
    """
    planned = plan(
        preset,
        experiment,
        {
            "seed": whole_numbers("--seed", seed, 0, MOST_SEED) if seed else None,
            "regime": words("--regime", regime, REGIMES) if regime else None,
            "shards_per_node": whole_numbers("--shards-per-node", shards_per_node, 1)
            if shards_per_node
            else None,
            "local_steps": whole_numbers("--local-steps", local_steps, 1) if local_steps else None,
            "rounds": rounds,
            "target_loss": target_loss,
            "step_size": step_size,
            "nodes": nodes,
            "batch_size": batch_size,
            "similarity": similarity,
            "width": width,
            "subset": subset,
            "norm_affine": norm_affine,
            "pixels": pixels,
            "batches": batches,
            "participants": participants,
            "fixed_participants": fixed_participants or None,
            "outer_step": outer_step(outer_step_),
            "engine": engine,
            "precision": precision,
        },
    )
    regimes = {run.config.regime for run in planned}
    for name, value, used, by in (
        ("--shards-per-node", shards_per_node, "shards" in regimes, "--regime shards"),
        ("--similarity", similarity, "mixed" in regimes, "--regime mixed"),
        ("--target-loss", target_loss, experiment == "to-loss", "--experiment to-loss"),
    ):
        if value not in (None, []) and not used:
            raise UserError(f"{name} is given, allowed: only with {by}")
    real("--checkpoint-minutes", checkpoint_minutes, least=0)
    machine = make_machine(device, threads, compile_model, cuda_graphs)
    communicator = machine.communicator
    statuses = []
    try:
        if results:
            files.check_results(results, [run.label for run in planned])
        check_ranks(communicator, min(run.config.n_nodes for run in planned))
        with Display(quiet or communicator.rank != 0) as display:
            images = load_data(
                data,
                name=data_name,
                download=download,
                cache=cache,
                progress=display.loading,
                communicator=communicator,
            )
            for run in planned:
                images.shards(run.config)
            # Once: the commit of the code that was loaded, whatever is committed meanwhile.
            head = files.provenance(images.training.name)
            for run in planned:
                summary = run_experiment(
                    run.config,
                    images,
                    out / run.label,
                    machine,
                    head=head,
                    result=files.result_path(results, run.label) if results else None,
                    checkpoint_minutes=checkpoint_minutes,
                    report=display.training(run.label),
                    warn=display.warn,
                    tensorboard=tensorboard,
                    energy=energy,
                )
                statuses.append(summary["status"])
                if communicator.rank == 0:
                    display.say(outcome(run.label, summary))
    finally:
        communicator.close()
    return cli.FAILED if "diverged" in statuses else cli.DONE


def find_place(device: str, threads: int | None) -> torch.device:
    """The device of this call; `UserError` when it is not there, or for a bad number of threads."""
    if threads is not None:
        whole("--threads", threads, 1, MOST_THREADS)
    return find_device(device)


def make_machine(
    device: str, threads: int | None, compile_model: bool = False, cuda_graphs: bool = False
) -> Machine:
    """The device and processes of this call, with PyTorch's threads set; `UserError` when not there."""
    place = find_place(device, threads)
    if place.type == "cpu" and (threads is not None or local_processes() > 1):
        threads = threads or max(1, available_cores() // local_processes())
        torch.set_num_threads(threads)
    communicator = Torchrun(place) if under_torchrun() else Communicator()
    return Machine(device, threads, compile_model, cuda_graphs, communicator=communicator)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; every user error is one line on stderr and exit status 2."""
    return cli.run_command(
        app,
        "python -m deep.reproduce",
        arguments,
        interrupted="interrupted; the same command continues this run",
        out_of_memory="out of memory: use a smaller --width, --nodes or --batch-size",
        say=say_once,
    )


if __name__ == "__main__":
    sys.exit(main())
