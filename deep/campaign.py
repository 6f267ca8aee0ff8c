"""A queue of runs from a readable file, worked off one after another, through every interruption.

python -m deep.campaign deep/campaigns/ladder.toml --data DIR --minutes 150
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from deep.campaign_file import Entry, read_campaign
from deep.campaign_status import status_table
from deep.display import Display, outcome
from deep.distributed import check_ranks, say_once
from deep.experiment import Data, Machine, load_data, run_experiment
from deep.reproduce import CACHE_HELP, DATA_HELP, make_machine
from deep.results import files
from deep.run_folder import read_summary, seconds_spent
from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.files import check_folder
from theory.support.locks import lock
from theory.support.numbers import real

app = cli.make_app()


@app.command()
def campaign(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The campaign, a TOML file; see deep/campaigns.")],
    data: Annotated[Path, typer.Option(help=DATA_HELP)] = Path("data"),
    data_name: Annotated[
        str | None, typer.Option(help="Name of the data in the result files; default: the file's.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Stop after so long; the same command goes on. Default: never.")
    ] = math.inf,
    runs_folder: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs"),
    results: Annotated[
        Path | None,
        typer.Option(
            help="Where the result files go; default: deep/results/NAME, NAME the file's."
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show how far the runs are.")] = False,
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads on the CPU; all cores by default.")
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints; the first one after at most one.")
    ] = 2.0,
    quiet: Annotated[bool, typer.Option(help="No progress.")] = False,
    version: cli.Version = False,
) -> int:
    """Work off a queue of runs, each as python -m deep.reproduce would run it.

    Killed at any moment, also by kill -9, the same command goes on; Ctrl-C and SIGTERM write a checkpoint
    first. Every finished run leaves a small result file; the one at work when time is up leaves one too,
    marked "unfinished", and replaces it later. All runs are checked before the first one starts.

    Exit status: 0 done, or out of time; 1 a run diverged; 2 bad input; 130 interrupted.
    """
    if status:
        cli.refuse_unused(context, "--status", {"file", "status", "runs_folder"})
    if minutes != math.inf:
        real("--minutes", minutes, above=0)
    real("--checkpoint-minutes", checkpoint_minutes, least=0)
    content = read_campaign(file)
    if status:
        if runs_folder.exists() and not runs_folder.is_dir():
            raise UserError(f"--runs-folder is {runs_folder}: is not a folder")
        console = cli.console()
        console.print(status_table(content, runs_folder, min(80, console.width)))
        return cli.DONE
    began = time.perf_counter()
    results = results or Path("deep/results") / file.stem
    machine = make_machine(device, threads)
    writer = machine.communicator.rank == 0
    try:
        check_folder("--runs-folder", runs_folder)
        files.check_results(results, [entry.run.label for entry in content.entries])
        for entry in content.entries:
            check_ranks(machine.communicator, entry.run.config.n_nodes)
        held = lock(
            runs_folder / f"{file.stem}.lock",
            f"another process works on the campaign {file} in {runs_folder}",
        )
        with held if writer else nullcontext(), Display(quiet or not writer) as display:
            images = load_data(
                data,
                name=data_name or content.data_name,
                cache=cache,
                progress=display.loading,
                communicator=machine.communicator,
            )
            _check(content.entries, images)
            head = files.provenance(images.training.name)
            statuses = work_off(
                content.entries,
                images,
                machine,
                display,
                head=head,
                runs_folder=runs_folder,
                results=results,
                seconds=60 * minutes - (time.perf_counter() - began),
                checkpoint_minutes=checkpoint_minutes,
            )
    finally:
        machine.communicator.close()
    return cli.FAILED if "diverged" in statuses else cli.DONE


def work_off(
    entries: list[Entry],
    images: Data,
    machine: Machine,
    display: Display,
    *,
    head: dict[str, Any],
    runs_folder: Path,
    results: Path,
    seconds: float = math.inf,
    checkpoint_minutes: float = 2.0,
) -> list[str]:
    """Train the runs of a queue in turn, each until it ends, for ``seconds`` in all; their statuses.

    Runs that have ended are passed over, and so are those that had their own minutes. ``head`` is the
    provenance of runs that begin. Raises what `run_experiment` raises.
    """
    deadline = time.perf_counter() + seconds
    statuses = []
    for number, entry in enumerate(entries, 1):
        label = entry.run.label
        folder = runs_folder / label
        left = deadline - time.perf_counter()
        ended = machine.communicator.share(_ended(folder))
        if entry.minutes is not None and not ended:
            own = 60 * entry.minutes - machine.communicator.share(seconds_spent(folder))
            if own <= 0:
                continue
            left = min(left, own)
        if machine.communicator.share(left) <= 0:
            display.say(f"time is up before {label}; the same command goes on")
            break
        summary = run_experiment(
            entry.run.config,
            images,
            folder,
            machine,
            head=head,
            result=files.result_path(results, label),
            checkpoint_minutes=checkpoint_minutes,
            seconds=left,
            report=display.training(f"{number}/{len(entries)} {label}"),
            warn=display.warn,
            energy=entry.energy,
        )
        statuses.append(summary["status"])
        if not ended:
            display.say(outcome(label, summary))
    return statuses


def _ended(folder: Path) -> bool:
    summary = read_summary(folder)
    return summary is not None and summary["status"] != "unfinished"


def _check(entries: list[Entry], images: Data) -> None:
    """Refuse, before any run starts, a run whose images cannot be dealt out."""
    for entry in entries:
        try:
            images.shards(entry.run.config)
        except UserError as error:
            raise UserError(f"{entry.run.label}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command; every user error is one line on stderr and exit status 2."""
    return cli.run_command(
        app,
        "python -m deep.campaign",
        arguments,
        interrupted="interrupted; the same command continues this campaign",
        out_of_memory="out of memory: use a smaller width, or fewer nodes",
        say=say_once,
    )


if __name__ == "__main__":
    sys.exit(main())
